"""A look at what matters most, on a schedule: what serves, the way back, and the newest versions.

Each day reads another share of the bytes, so that every byte is read once in a stated number of days.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record
from lockstep.operations.verify import DAY, verify
from lockstep.rules.findings import SHOWN, Verification
from lockstep.rules.state import DesiredState, Version

DAYS: Final = 7
NEWEST: Final = 3


@dataclass(frozen=True)
class Scrub:
    """One look: digests of the versions, days in which every byte is read once, and what was found."""

    digests: tuple[str, ...]
    days: int
    found: Verification


def scrub(fleet: Fleet, *, days: int = DAYS, newest: int = NEWEST, day: int | None = None) -> Scrub:
    """Verify what serves on any cloud, champion, challenger and fallback, and the `newest` versions.

    Leaves `scrub.outcome` in the ledger with every difference, and raises nothing for one: see `found.error`. `day`
    (days since 1970, today by default) decides which share of the bytes is read. Raises RefusedError for `days` or
    `newest` below 1.
    """
    if days < 1 or newest < 1:
        raise RefusedError(f"days and newest are whole numbers from 1 on, not {days} and {newest}")
    today = int(time.time() // DAY) if day is None else day
    with record(fleet, "scrub", None, days=days, day=today) as outcome:
        digests = _digests(fleet, newest)
        found = verify(fleet, sample=1 / days, only=digests, day=today)
        outcome.update(
            versions=list(digests),
            intact=found.intact,
            altered=list(found.altered[:SHOWN]),
            altered_count=len(found.altered),
            unknown=list(found.unknown[:SHOWN]),
            unknown_count=len(found.unknown),
        )
    return Scrub(digests, days, found)


def _digests(fleet: Fleet, newest: int) -> tuple[str, ...]:
    """What serves comes from the clouds themselves: MLflow may be the one that was changed."""
    state = fleet.observe()
    serving = [slot.digest for cloud in state.clouds for slot in cloud.slots if slot.weight and slot.digest]
    versions: tuple[Version, ...] = ()
    desired = DesiredState(fleet.model, None)
    try:
        versions = fleet.registry.versions(fleet.model)
        desired = fleet.registry.desired(fleet.model)
    except LockstepError as error:  # verify names it
        fleet.say(f"MLflow does not say which versions matter: {error.problem}")
    named = [one.digest for one in (desired.champion, desired.challenger, desired.fallback) if one is not None]
    return tuple(dict.fromkeys([*serving, *named, *(one.digest for one in versions[-newest:])]))
