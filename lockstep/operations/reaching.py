"""How callers reach the right version on a cloud that cannot be given its traffic at the moment."""

from __future__ import annotations

from lockstep.operations.fleet import Fleet
from lockstep.rules.state import CloudState, Version


def ways(fleet: Fleet, cloud: CloudState, version: Version) -> str:
    """What to tell callers where the version is ready on a busy cloud and does not serve; "" where nothing helps."""
    slot = cloud.slot(version.slot)
    if not cloud.busy or slot is None or not slot.ready or slot.weight == 100:
        return ""
    return fleet.cloud(cloud.cloud).meanwhile(fleet.model, version.slot)
