"""A shift that was on its way when its operation was overtaken may land after the other's: then it is taken away."""

from __future__ import annotations

from typing import Final

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.lease import writing
from lockstep.operations.switch import move_all
from lockstep.rules.lease import Lease
from lockstep.rules.state import Version

PATIENCE: Final = 60.0  # seconds that the other operation may last


def follow(fleet: Fleet, canary: Version, target: Version) -> None:
    """All traffic to `target` on the clouds that give the canary some, and where the target's slot is ready."""
    if target.digest == canary.digest:
        return
    observed = fleet.observe()
    late = set()
    for cloud in observed.clouds:
        ours, theirs = cloud.slot(canary.slot), cloud.slot(target.slot)
        if ours is not None and ours.weight > 0 and theirs is not None and theirs.ready:
            late.add(cloud.cloud)
    move_all(fleet, target, observed, late, f"another operation decided for {target.label}")


def follow_when_ended(fleet: Fleet, canary: Version, other: Lease) -> None:
    """The same for what the rollback that overtook a rollout decided, as soon as that one has ended.

    Under a lease of its own; where anybody else has written since, it is theirs to say what should serve.
    """
    if not other.urgent or not other.digest:
        return
    try:
        with writing(fleet, "follow", canary, patience=PATIENCE) as writer:
            if writer.fence == other.fence + 1:
                follow(fleet, canary, Version(fleet.model, other.version, other.digest))
    except LockstepError as error:
        fleet.say(f"whether a shift of {canary} landed late was not looked at: {error.problem}")
