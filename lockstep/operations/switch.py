"""Carry a plan out: slots first, then traffic on all clouds at once with a read-back and a probe, then removals."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, OvertakenError
from lockstep.operations.fencing import guard
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record, slots, weights
from lockstep.operations.probe import wait_until_serving
from lockstep.operations.remembering import images_of
from lockstep.operations.running import Job, Outcome, untold
from lockstep.rules.plan import Plan, PrepareSlot, RetireSlot, ShiftTraffic
from lockstep.rules.state import FleetState, Version
from lockstep.rules.switch import SwitchResult
from lockstep.rules.traffic import TrafficSplit

LEAST: Final = 2.0  # seconds for a read-back, however long the flip itself took
UNHEARD: Final = "it was not waited for until it was verified"
MANY: Final = 1_000  # attempts at what is urgent: its time ends it


@dataclass(frozen=True)
class Verified:
    """Seconds that a shift took on one cloud, and when it was read back."""

    seconds: float
    at: str


Done = Callable[[Outcome[Verified]], None]


def prepare_slots(
    fleet: Fleet, changes: Sequence[PrepareSlot], done: Callable[[Outcome[None]], None] = untold
) -> tuple[Outcome[None], ...]:
    """Make slots ready on their clouds, at the same time; `done` is told of each as soon as it is."""
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
        outcomes = fleet.runner.run([_job(fleet, change, bound(change)) for change in changes], done)
        seconds = {one.cloud: round(one.seconds, 3) for one in outcomes if one.done}
        outcome.update(clouds=_by_cloud(changes), failed=failures(outcomes), seconds=seconds)
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
    fleet: Fleet,
    changes: Sequence[ShiftTraffic],
    versions: Sequence[Version],
    why: str = "",
    done: Done = untold,
    *,
    urgent: bool = False,
) -> SwitchResult:
    """Move the traffic on every named cloud at once; a cloud counts only when it was verified.

    `versions` are those whose slots the splits may name; the one with all the traffic is probed for real answers. The
    ledger gets the split of every cloud before, and after with the time at which it was read back there. `done` is told
    of each cloud as soon as it is verified or given up; what is `urgent` is tried for as long as the cloud's time for a
    shift lasts.
    """
    if not changes:
        return SwitchResult({}, {})
    before = {change.cloud: weights(change.before) for change in changes}
    after = {change.cloud: weights(change.after) for change in changes}
    ended: dict[str, Outcome[Verified]] = {}

    def told(one: Outcome[Verified]) -> None:
        ended[one.cloud] = one
        done(one)

    with record(fleet, "shift", None, before=before, after=after, slots=slots(*versions), why=why) as outcome:
        try:
            outcomes = _shift(fleet, changes, {version.slot: version for version in versions}, told, urgent=urgent)
        finally:  # an interrupt takes nothing back that was read back
            seen = dict(ended)
            moved = {cloud: one.value for cloud, one in seen.items() if one.value is not None}
            reasons = {cloud: reason_of(one) for cloud, one in seen.items() if not one.done}
            failed = {**{cloud: UNHEARD for cloud in after if cloud not in seen}, **reasons}
            outcome.update(
                before=before,
                wanted=after,
                after={cloud: after[cloud] for cloud in after if cloud in moved},
                verified={cloud: value.at for cloud, value in moved.items()},
                seconds={cloud: round(value.seconds, 3) for cloud, value in moved.items()},
                slots=slots(*versions),
                split=failed,
            )
        stop_if_overtaken(outcomes)
    return SwitchResult({cloud: value.seconds for cloud, value in moved.items()}, failed)


def _shift(
    fleet: Fleet, changes: Sequence[ShiftTraffic], by_slot: Mapping[str, Version], done: Done, *, urgent: bool
) -> tuple[Outcome[Verified], ...]:
    check = guard(fleet.model)

    def shift(cloud: Cloud, change: ShiftTraffic) -> Verified:
        check()
        began = time.monotonic()
        cloud.set_traffic(fleet.model, change.after)
        whole = next((slot for slot, weight in change.after.weights if weight == 100), None)
        version = by_slot.get(whole) if whole else None
        left = cloud.traffic_timeout - (time.monotonic() - began)
        patience = min(cloud.traffic_timeout, max(left, LEAST)) if urgent else cloud.traffic_timeout
        wait_until_serving(cloud, fleet.model, change.after, version, fleet.probe, patience)
        seconds = time.monotonic() - began
        fleet.say(f"traffic {change.after}, verified after {seconds:.1f} s", change.cloud)
        return Verified(seconds, datetime.now(UTC).isoformat())

    def job(change: ShiftTraffic) -> Job[Verified]:
        cloud = fleet.cloud(change.cloud)
        call, say = partial(shift, cloud, change), partial(fleet.warn, cloud=cloud.name)
        if urgent:
            return Job(cloud.name, str(change), call, MANY, cloud.traffic_timeout, say)
        return Job(cloud.name, str(change), call, say=say)

    return fleet.runner.run([job(change) for change in changes], done)


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
        outcomes = fleet.runner.run([_job(fleet, change, bound(change)) for change in changes])
        outcome.update(clouds=_by_cloud(changes), failed=failures(outcomes))
        stop_if_overtaken(outcomes)
        return outcomes


def _job(fleet: Fleet, change: PrepareSlot | RetireSlot, call: Callable[[], None]) -> Job[None]:
    return Job(change.cloud, str(change), call, say=partial(fleet.warn, cloud=change.cloud))


def show(fleet: Fleet, plan: Plan) -> None:
    """Tell the observer what will be done."""
    for line in plan.explain():
        fleet.say(line)


def failures(outcomes: Sequence[Outcome[None]]) -> dict[str, str]:
    """Why each cloud that failed did."""
    return {outcome.cloud: reason_of(outcome) for outcome in outcomes if not outcome.done}


def stop_if_overtaken(outcomes: Sequence[Outcome[Verified]] | Sequence[Outcome[None]]) -> None:
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


def reason_of(outcome: Outcome[Verified] | Outcome[None]) -> str:
    """Why it failed; empty for one that did not."""
    return "" if outcome.error is None else outcome.error.reason
