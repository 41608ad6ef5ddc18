"""Carry a plan out: slots first, then traffic on all clouds at once with a read-back and a probe, then removals."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, OvertakenError
from lockstep.operations.fencing import guard
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record, slots, weights
from lockstep.operations.probe import wait_until_serving
from lockstep.operations.remembering import images_of
from lockstep.operations.running import Job, Outcome
from lockstep.rules.plan import Plan, PrepareSlot, RetireSlot, ShiftTraffic
from lockstep.rules.state import FleetState, Version
from lockstep.rules.switch import SwitchResult
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class _Verified:
    """Seconds that a shift took on one cloud, and when it was read back."""

    seconds: float
    at: str


def prepare_slots(fleet: Fleet, changes: Sequence[PrepareSlot]) -> tuple[Outcome[None], ...]:
    """Make slots ready on their clouds, at the same time."""
    if not changes:
        return ()
    named = slots(*(change.version for change in changes))
    images = {version: sealed_images(fleet, version) for version in {change.version for change in changes}}

    check = guard(fleet.model)

    def prepare(change: PrepareSlot) -> None:
        check()
        fleet.cloud(change.cloud).prepare(change.version, images[change.version].get(change.cloud, ""))

    def bound(change: PrepareSlot) -> Callable[[], None]:
        return lambda: prepare(change)

    with record(fleet, "prepare", None, clouds=_by_cloud(changes), slots=named) as outcome:
        outcomes = fleet.runner.run([Job(change.cloud, str(change), bound(change)) for change in changes])
        outcome.update(clouds=_by_cloud(changes), failed=failures(outcomes))
        stop_if_overtaken(outcomes)
        return outcomes


def sealed_images(fleet: Fleet, version: Version) -> Mapping[str, str]:
    """The serving image by cloud that the version was sealed with; empty, and told so, when it cannot be read.

    A way back must not depend on it: the configured images serve then.
    """
    try:
        return images_of(fleet, version)
    except LockstepError as error:
        fleet.say(f"the images of {version} are not known, taking the configured ones: {error}")
        return {}


def shift_traffic(
    fleet: Fleet, changes: Sequence[ShiftTraffic], versions: Sequence[Version], why: str = ""
) -> SwitchResult:
    """Move the traffic on every named cloud at once; a cloud counts only when it was verified.

    `versions` are those whose slots the splits may name; the one with all the traffic is probed for real answers. The
    ledger gets the split of every cloud before, and after with the time at which it was read back there.
    """
    if not changes:
        return SwitchResult({}, {})
    before = {change.cloud: weights(change.before) for change in changes}
    after = {change.cloud: weights(change.after) for change in changes}
    with record(fleet, "shift", None, before=before, after=after, slots=slots(*versions), why=why) as outcome:
        outcomes = _shift(fleet, changes, {version.slot: version for version in versions})
        done = {one.cloud: one.value for one in outcomes if one.value is not None}
        failed = {one.cloud: _reason(one) for one in outcomes if not one.done}
        outcome.update(
            before=before,
            wanted=after,
            after={cloud: after[cloud] for cloud in done},
            verified={cloud: value.at for cloud, value in done.items()},
            seconds={cloud: round(value.seconds, 3) for cloud, value in done.items()},
            slots=slots(*versions),
            split=failed,
        )
        stop_if_overtaken(outcomes)
    return SwitchResult({cloud: value.seconds for cloud, value in done.items()}, failed)


def _shift(
    fleet: Fleet, changes: Sequence[ShiftTraffic], by_slot: Mapping[str, Version]
) -> tuple[Outcome[_Verified], ...]:
    check = guard(fleet.model)

    def shift(cloud: Cloud, change: ShiftTraffic) -> _Verified:
        check()
        began = time.monotonic()
        cloud.set_traffic(fleet.model, change.after)
        whole = next((slot for slot, weight in change.after.weights if weight == 100), None)
        version = by_slot.get(whole) if whole else None
        wait_until_serving(cloud, fleet.model, change.after, version, fleet.probe, cloud.traffic_timeout)
        fleet.say(f"traffic {change.after}", change.cloud)
        return _Verified(time.monotonic() - began, datetime.now(UTC).isoformat())

    def bound(change: ShiftTraffic) -> Callable[[], _Verified]:
        return lambda: shift(fleet.cloud(change.cloud), change)

    return fleet.runner.run([Job(change.cloud, str(change), bound(change)) for change in changes])


def move_all(
    fleet: Fleet, version: Version, observed: FleetState, clouds: Collection[str], why: str = ""
) -> SwitchResult:
    """All traffic to one version on `clouds`, also where `observed` shows it so already: shows may be stale."""
    known = {cloud.cloud: cloud.split for cloud in observed.clouds}
    wanted = TrafficSplit.all_to(version.slot)
    changes = [
        ShiftTraffic(cloud.name, known.get(cloud.name), wanted) for cloud in fleet.clouds if cloud.name in clouds
    ]
    return shift_traffic(fleet, changes, [version], why)


def retire_slots(fleet: Fleet, changes: Sequence[RetireSlot]) -> tuple[Outcome[None], ...]:
    """Remove slots without traffic. What fails stays, harmless, and is removed by the next plan."""
    check = guard(fleet.model)

    def retire(change: RetireSlot) -> None:
        check()
        fleet.cloud(change.cloud).retire(fleet.model, change.slot)

    def bound(change: RetireSlot) -> Callable[[], None]:
        return lambda: retire(change)

    if not changes:
        return ()
    with record(fleet, "retire", None, clouds=_by_cloud(changes)) as outcome:
        outcomes = fleet.runner.run([Job(change.cloud, str(change), bound(change)) for change in changes])
        outcome.update(clouds=_by_cloud(changes), failed=failures(outcomes))
        stop_if_overtaken(outcomes)
        return outcomes


def show(fleet: Fleet, plan: Plan) -> None:
    """Tell the observer what will be done."""
    for line in plan.explain():
        fleet.say(line)


def failures(outcomes: Sequence[Outcome[None]]) -> dict[str, str]:
    """Why each cloud that failed did."""
    return {outcome.cloud: _reason(outcome) for outcome in outcomes if not outcome.done}


def stop_if_overtaken(outcomes: Sequence[Outcome[_Verified]] | Sequence[Outcome[None]]) -> None:
    """An operation that lost its lease in the middle of a step ends there; it has not failed on a cloud."""
    for outcome in outcomes:
        if isinstance(outcome.error, OvertakenError):
            raise outcome.error


def _by_cloud(changes: Sequence[PrepareSlot] | Sequence[RetireSlot]) -> Mapping[str, list[str]]:
    """Names of the slots that are made or removed, by cloud."""
    found: dict[str, list[str]] = {}
    for change in changes:
        found.setdefault(change.cloud, []).append(
            change.version.slot if isinstance(change, PrepareSlot) else change.slot
        )
    return found


def _reason(outcome: Outcome[_Verified] | Outcome[None]) -> str:
    return "" if outcome.error is None else outcome.error.reason
