"""Carry a plan out: slots first, then traffic on all clouds at once with a read-back and a probe, then removals."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from lockstep.clouds.base import Cloud
from lockstep.operations.fleet import Fleet
from lockstep.operations.probe import wait_until_serving
from lockstep.operations.running import Job, Outcome
from lockstep.rules.plan import Plan, PrepareSlot, RetireSlot, ShiftTraffic
from lockstep.rules.state import FleetState, Version
from lockstep.rules.switch import SwitchResult
from lockstep.rules.traffic import TrafficSplit


def prepare_slots(fleet: Fleet, changes: Sequence[PrepareSlot]) -> tuple[Outcome[None], ...]:
    """Make slots ready on their clouds, at the same time."""
    return fleet.runner.run(
        [Job(change.cloud, str(change), _call(fleet.cloud(change.cloud).prepare, change.version)) for change in changes]
    )


def shift_traffic(fleet: Fleet, changes: Sequence[ShiftTraffic], versions: Sequence[Version]) -> SwitchResult:
    """Move the traffic on every named cloud at once; a cloud counts only when it was verified.

    `versions` are those whose slots the splits may name; the one with all the traffic is probed for real answers.
    """
    by_slot = {version.slot: version for version in versions}

    def shift(cloud: Cloud, change: ShiftTraffic) -> float:
        began = time.monotonic()
        cloud.set_traffic(fleet.model, change.after)
        whole = next((slot for slot, weight in change.after.weights if weight == 100), None)
        version = by_slot.get(whole) if whole else None
        wait_until_serving(cloud, fleet.model, change.after, version, fleet.probe, cloud.traffic_timeout)
        fleet.say(f"traffic {change.after}", change.cloud)
        return time.monotonic() - began

    def bound(change: ShiftTraffic) -> Callable[[], float]:
        return lambda: shift(fleet.cloud(change.cloud), change)

    outcomes = fleet.runner.run([Job(change.cloud, str(change), bound(change)) for change in changes])
    return SwitchResult(
        {outcome.cloud: outcome.value for outcome in outcomes if outcome.value is not None},
        {outcome.cloud: _reason(outcome) for outcome in outcomes if not outcome.done},
    )


def move_all(fleet: Fleet, version: Version, observed: FleetState, clouds: Collection[str]) -> SwitchResult:
    """All traffic to one version on `clouds`, also where `observed` shows it so already: shows may be stale."""
    known = {cloud.cloud: cloud.split for cloud in observed.clouds}
    wanted = TrafficSplit.all_to(version.slot)
    changes = [
        ShiftTraffic(cloud.name, known.get(cloud.name), wanted) for cloud in fleet.clouds if cloud.name in clouds
    ]
    return shift_traffic(fleet, changes, [version])


def retire_slots(fleet: Fleet, changes: Sequence[RetireSlot]) -> tuple[Outcome[None], ...]:
    """Remove slots without traffic. What fails stays, harmless, and is removed by the next plan."""

    def bound(change: RetireSlot) -> Callable[[], None]:
        return lambda: fleet.cloud(change.cloud).retire(fleet.model, change.slot)

    return fleet.runner.run([Job(change.cloud, str(change), bound(change)) for change in changes])


def show(fleet: Fleet, plan: Plan) -> None:
    """Tell the observer what will be done."""
    for line in plan.explain():
        fleet.say(line)


def failures(outcomes: Sequence[Outcome[None]]) -> dict[str, str]:
    """Why each cloud that failed did."""
    return {outcome.cloud: _reason(outcome) for outcome in outcomes if not outcome.done}


def _reason(outcome: Outcome[float] | Outcome[None]) -> str:
    return "" if outcome.error is None else outcome.error.reason


def _call(prepare: Callable[[Version], None], version: Version) -> Callable[[], None]:
    return lambda: prepare(version)
