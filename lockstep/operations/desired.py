"""What should serve, as MLflow says it: read for a rollback, and written at its commit and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.fleet import Fleet
from lockstep.rules.known_good import fallback_after_rollback
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, ModelRecord, Version
from lockstep.rules.target import Way

ROLLED_BACK: Final = "rolled back from: "


@dataclass(frozen=True)
class Known:
    """What is known of a model; `silent` says why MLflow could not be asked, "" where it answered."""

    record: ModelRecord
    silent: str = ""


def read_known(fleet: Fleet) -> Known:
    """What a rollback decides by."""
    return Known(fleet.registry.record(fleet.model))


def commit(fleet: Fleet, known: Known, target: Version) -> None:
    """From here on MLflow says that the target should serve everywhere."""
    set_alias(fleet, target, CHAMPION)
    delete_alias(fleet, CHALLENGER)


def condemn_left(fleet: Fleet, known: Known, left: Sequence[Version], reason: str) -> None:
    """After the traffic: a note that cannot be written must not keep a bad version serving."""
    for version in left:
        fleet.registry.tag(version, CONDEMNED_TAG, f"{ROLLED_BACK}{reason or 'no reason given'}")


def next_fallback(fleet: Fleet, known: Known, way: Way) -> None:
    """Point the fallback at the next known-good version. Only once the target serves everywhere.

    What serves is no way back from itself; but until it does, the alias says where to go.
    """
    fallback = fallback_after_rollback(known.record, way.target, way.left)
    if fallback is None:
        delete_alias(fleet, FALLBACK)
    elif known.record.desired.fallback != fallback:
        set_alias(fleet, fallback, FALLBACK)
