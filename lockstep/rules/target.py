"""Where a rollback goes, and which versions it leaves behind.

- A version that somebody names is the target.
- While a canary takes traffic, the way back is the champion: the newest change is taken back first.
- Otherwise it is the fallback, the version that was known to be good before the champion.
- Several alerts tell of one incident: right after a rollback the champion is where it led, and stays the target.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.errors import RefusedError
from lockstep.rules.state import FALLBACK, DesiredState, FleetState, Version


@dataclass(frozen=True)
class Way:
    """The version to go to, and those that served and are left behind, the most trusted first."""

    target: Version
    left: tuple[Version, ...]


def choose_way(desired: DesiredState, named: Version | None, observed: FleetState, arrived: str = "") -> Way:
    """The way of a rollback; `arrived` is the digest that a rollback a moment ago led to, if there was one.

    Raises RefusedError when there is no known-good version to go to.
    """
    champion, challenger = desired.champion, desired.challenger
    # A promotion that was killed before its last call leaves both aliases on one version: that is no canary.
    promoted = champion is not None and challenger is not None and champion.digest == challenger.digest
    trying = challenger is not None and not promoted and _may_have_traffic(challenger, observed)
    stays = trying or (champion is not None and champion.digest == arrived)
    target = named or (champion if stays else None) or desired.fallback
    if target is None:
        raise RefusedError(
            f"{desired.model} has no known-good version to go back to (no alias {FALLBACK!r})",
            hint=f"name one: lockstep rollback {desired.model} --to VERSION",
        )
    served = (champion, challenger if trying else None)
    return Way(target, tuple(version for version in served if version and version.digest != target.digest))


def _may_have_traffic(version: Version, observed: FleetState) -> bool:
    """Whether a cloud shows it with traffic, or cannot be asked."""
    slots = (cloud.slot(version.slot) for cloud in observed.clouds)
    return bool(observed.unreachable) or any(slot is not None and slot.weight > 0 for slot in slots)
