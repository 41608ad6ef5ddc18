"""How many instances slots must have, and whether the way back is warm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.rules.state import FleetState, Version


@dataclass(frozen=True)
class Least:
    """Instances that a cloud's slots must have at least."""

    champion: int = 1
    fallback: int = 1


def cold_fallback(
    state: FleetState, fallback: Version | None, least: Mapping[str, Least], good: Version | None = None
) -> list[str]:
    """Why a rollback would not be a matter of seconds, one sentence a cloud; empty when all is warm.

    `least` is by cloud; `good` is the known-good version that a rollback goes to where no alias names a fallback.
    """
    if fallback is None and good is not None:
        mend = f"lockstep reconcile {state.model}"
        return [f"there is no fallback that is kept warm: a rollback would go to {good}, known to be good ({mend})"]
    if fallback is None:
        return ["there is no fallback: a rollback needs a version named by hand"]
    mend = f"to mend it: lockstep reconcile {state.model}"
    cold = []
    for cloud in state.clouds:
        slot = cloud.slot(fallback.slot)
        wanted = least.get(cloud.cloud, Least()).fallback
        if slot is None:
            cold.append(f"{cloud.cloud}: the fallback {fallback} has no slot; a rollback would take minutes ({mend})")
        elif not slot.ready:
            cold.append(f"{cloud.cloud}: the fallback {fallback} is {slot.status}; a rollback would wait for it")
        elif slot.capacity < wanted:
            count = f"{slot.capacity} of {wanted} instances"
            cold.append(f"{cloud.cloud}: the fallback {fallback} has {count}; it may not bear the traffic ({mend})")
    return cold
