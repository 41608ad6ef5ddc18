"""How many instances slots must have, and whether the way back is warm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.rules.known_good import good_beside
from lockstep.rules.state import FleetState, ModelRecord, Version


@dataclass(frozen=True)
class Least:
    """Instances that a cloud's slots must have at least."""

    champion: int = 1
    fallback: int = 1


def way_back(state: FleetState, record: ModelRecord, least: Mapping[str, Least]) -> list[str]:
    """What a rollback from the champion lacks to be a matter of seconds, in sentences; empty when all is warm.

    `least` is by cloud.
    """
    champion, fallback = record.desired.champion, record.desired.fallback
    if fallback is not None:
        return cold_fallback(state, fallback, least)
    good = good_beside(record, champion)
    if good is not None:
        mend = f"lockstep reconcile {state.model}"
        return [f"there is no fallback that is kept warm: a rollback would go to {good}, known to be good ({mend})"]
    others = [one for one in record.versions if champion is None or one.version.digest != champion.digest]
    if any(not one.condemned for one in others):
        by_hand = f"lockstep rollback {state.model} --to VERSION"
        return [f"no way back is known: no other version is known to be good; one must be named by hand ({by_hand})"]
    condemned = ", ".join(one.version.label for one in others)
    told = f"every other version is condemned ({condemned})" if others else "there is no other version"
    return [f"there is no way back: {told}"]


def cold_fallback(state: FleetState, fallback: Version, least: Mapping[str, Least]) -> list[str]:
    """Why a rollback to the fallback would not be a matter of seconds, one sentence a cloud."""
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
