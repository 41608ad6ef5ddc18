"""Take a bad version's traffic away while the target of a rollback is being deployed, where another one can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockstep.operations.fleet import Fleet
from lockstep.operations.rollback_plan import RollbackPlan
from lockstep.operations.switch import shift_traffic
from lockstep.rules.meanwhile import stand_in
from lockstep.rules.plan import ShiftTraffic
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit


def drain(
    fleet: Fleet, planned: RollbackPlan, left: Sequence[Version], clouds: Sequence[str]
) -> Mapping[str, TrafficSplit]:
    """Move the traffic of cold clouds to a version that stands in; the splits that were verified, by cloud.

    A cloud without such a version keeps what it has, and so does one where the move fails: both are told.
    """
    shifts: list[ShiftTraffic] = []
    versions: dict[str, Version] = {}
    for cloud in planned.before.clouds:
        if cloud.cloud not in clouds:
            continue
        version = stand_in(cloud, planned.known.record.versions, planned.way.target, left)
        if version is None:
            fleet.say("no other good version is ready, so what serves is kept until the target is", cloud.cloud)
            continue
        fleet.say(f"{version} stands in until {planned.way.target} is ready", cloud.cloud)
        versions[version.slot] = version
        shifts.append(ShiftTraffic(cloud.cloud, cloud.split, TrafficSplit.all_to(version.slot)))
    result = shift_traffic(fleet, shifts, list(versions.values()), "stands in while the target is deployed")
    for name, reason in result.reasons.items():
        fleet.say(f"what serves is kept: {reason}", name)
    return {shift.cloud: shift.after for shift in shifts if shift.cloud in result.seconds}
