"""Take every cloud back to a known-good version at once. A rollback only goes forward: no cloud holds the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from lockstep.errors import DeploymentFailedError, DigestMismatchError, LockstepError, SplitError
from lockstep.operations.desired import commit, condemn_left, next_fallback, without_mlflow
from lockstep.operations.draining import drain
from lockstep.operations.fleet import Fleet
from lockstep.operations.interrupting import RollbackCourse, told_if_interrupted
from lockstep.operations.joining import First, joined, verify_all
from lockstep.operations.journal import note, record, refusals, slots, traffic
from lockstep.operations.lease import Writer, writing
from lockstep.operations.probe import with_probe
from lockstep.operations.reaching import ways
from lockstep.operations.reasons import checked_reason
from lockstep.operations.rollback_plan import RollbackPlan, further_back, plan_rollback
from lockstep.operations.running import Outcome
from lockstep.operations.switch import Verified, prepare_slots, reason_of, shift_traffic, show
from lockstep.operations.trying import forward_only
from lockstep.operations.unfinished import Begun, go_on, unfinished
from lockstep.operations.walk import Hands, Tell, walk
from lockstep.rules.brought import changed_clouds, other_slots
from lockstep.rules.meanwhile import Meanwhile
from lockstep.rules.plan import Plan, ShiftTraffic
from lockstep.rules.state import FleetState, Version
from lockstep.rules.switch import Announced, Ended, Ending, Kind, Place, Switch, SwitchResult, after
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class Rollback:
    """What a rollback did. `seconds` runs from the call to the last cloud verified; `left` are condemned now.

    `first` is the rollback that was running already and that did all of it; this one waited and verified.
    `owed` is what MLflow could not be told, and will be when it answers. `needless` says why nothing was done: what
    was to be left serves no more. `further` is the command that goes further back, where a rollback had just led to the
    target and so this one stayed there.

    `changed` are the clouds whose traffic this one moved. `brought` are versions that some of them served still though
    they had been left before: a cloud that could not follow then.
    """

    target: Version
    left: tuple[Version, ...]
    plan: Plan
    before: FleetState
    after: FleetState
    result: SwitchResult
    seconds: float
    first: First | None = None
    owed: tuple[str, ...] = ()
    needless: str = ""
    further: str = ""
    changed: tuple[str, ...] = ()
    brought: tuple[Version, ...] = ()

    @property
    def served(self) -> tuple[Version, ...]:
        """All versions that it led away from."""
        return (*self.left, *self.brought)


def rollback(
    fleet: Fleet,
    *,
    to: Version | str | None = None,
    reason: str = "",
    accept_broken_seal: str = "",
    meanwhile: Meanwhile = Meanwhile.KEEP,
    leaving: str = "",
    asked: float = 0.0,
) -> Rollback:
    """Put every cloud on the target, read back and probed; condemns the versions that are left behind.

    `to` is a version, or a text that names one. Already there: verifies, and says so. One that was begun and killed is
    finished. `meanwhile` says what serves where the target must be deployed first.

    `leaving` names the version to get away from, and `asked` is when that was asked for (Unix seconds). Where it serves
    no more, or without a name another version has become the champion since, nothing is rolled back: what is asked
    twice goes back once.

    Raises SplitError when a cloud could not follow, after the others did, and DeploymentFailedError, with nothing
    changed, when no cloud could make the target ready.
    """
    began = time.monotonic()
    reason = checked_reason(reason)
    accept_broken_seal = checked_reason(accept_broken_seal, "the reason to accept a broken seal")
    named = None if isinstance(to, str) else to
    told = {"reason": reason, "to": to} if isinstance(to, str) else {"reason": reason}

    def plan() -> tuple[RollbackPlan, Begun | None]:
        begun = unfinished(fleet)
        with refusals(fleet, "rollback", named, **told):
            # What it leaves was decided when it began.
            if begun is not None and leaving not in (begun.target.label, begun.target.digest):
                return plan_rollback(fleet, to or begun.target, accept_broken_seal), begun
            return plan_rollback(fleet, to, accept_broken_seal, leaving=leaving, asked=asked), begun

    course = RollbackCourse(fleet.model, tuple(cloud.name for cloud in fleet.clouds))
    with told_if_interrupted(course.interruption), writing(fleet, "rollback", named, urgent=True) as writer:
        planned, begun = plan()
        if planned.needless:
            return _needless(fleet, planned, began)
        if writer.take(planned.way.target):  # a rollout wrote until now
            course.overtook = True
            planned, begun = plan()
            if planned.needless:
                return _needless(fleet, planned, began)
        if begun is not None and not go_on(fleet, begun, planned.way.target):
            begun = None
        first = _join(fleet, writer, planned, reason, began) if begun is None else None
        return first or _carry_out(fleet, planned, begun, reason, began, meanwhile, course)


def _needless(fleet: Fleet, planned: RollbackPlan, began: float) -> Rollback:
    fleet.say(f"nothing is rolled back: {planned.needless}")
    result = SwitchResult({}, {})
    seconds = time.monotonic() - began
    return Rollback(
        planned.way.target, (), planned.plan, planned.before, planned.before, result, seconds, needless=planned.needless
    )


def _join(fleet: Fleet, writer: Writer, planned: RollbackPlan, reason: str, began: float) -> Rollback | None:
    """What the rollback that was waited for has done, verified; None when there is something left to do."""
    target, before = planned.way.target, planned.before
    first = joined(fleet, writer, target)
    if first is None or planned.plan.changes or before.unreachable:
        return None
    seconds = verify_all(_probing(without_mlflow(fleet, planned.known), target, broken=bool(planned.accepted)), target)
    if set(seconds) != {cloud.name for cloud in fleet.clouds}:
        return None
    fleet.say(f"{target} serves on every cloud: {first} was quicker")
    note(fleet, "join.outcome", {**slots(target)[target.slot], "joined": first.event, "reason": reason})
    result = SwitchResult(seconds, {})
    return Rollback(target, (), planned.plan, before, before, result, time.monotonic() - began, first)


def _carry_out(
    fleet: Fleet,
    planned: RollbackPlan,
    begun: Begun | None,
    reason: str,
    began: float,
    meanwhile: Meanwhile,
    course: RollbackCourse,
) -> Rollback:
    target, before, plan = planned.way.target, planned.before, planned.plan
    left = planned.way.left if begun is None else begun.leaving(planned.way.left)
    reason = reason or (begun.reason if begun else "")
    known = planned.known
    fleet = _probing(without_mlflow(fleet, known), target, broken=bool(planned.accepted))
    switch = Switch.of(
        Kind.ROLLBACK, [cloud.name for cloud in fleet.clouds], cold=[change.cloud for change in plan.prepares]
    )
    intent = {
        **planned.accepted,
        "reason": reason,
        "chosen": planned.way.why.value,
        "leaves": [{"version": version.label, "digest": version.digest} for version in left],
        "before": traffic(before),
        "slots": slots(target, *left, state=before),
        "plan": list(plan.explain()),
        **({"meanwhile": meanwhile.value} if plan.prepares else {}),
    }
    drained = left if meanwhile is Meanwhile.DRAIN else None
    course.begin(target, left)
    with forward_only(), record(fleet, "rollback", target, begun.event if begun else "", **intent) as outcome:
        fleet.say(f"rolling {fleet.model} back to {target}: {planned.way.why}")
        show(fleet, plan)
        for cloud, why in before.unreachable.items():
            fleet.warn(f"did not answer the first look, and is tried all the same: {why}", cloud)
        switch = walk(after(switch, Announced()), _hands(fleet, planned, reason, drained, course))
        result = switch.result
        if not switch.committed:
            raise DeploymentFailedError(
                f"{target} could not be made ready on any cloud: {result.explain()}",
                hint=f"nothing was changed; see `lockstep versions {fleet.model}` for another version, or mend what is "
                f"named: lockstep replicate {fleet.model} {target.label}",
            )
        seconds = time.monotonic() - began
        now = fleet.observe(urgent=True)
        outcome.update(
            left=[version.label for version in left],
            ending=result.ending.value,
            seconds={cloud: round(value, 3) for cloud, value in result.seconds.items()},
            split=dict(result.reasons),
            after=traffic(now),
            **({"next_try": fleet.settings.reconcile.every} if result.reasons else {}),
        )
        condemn_left(fleet, known, left, reason)
        outcome.update(known.outcome)
        if result.ending is not Ending.DONE:
            raise _split(fleet, target, left, result, now)
        next_fallback(fleet, known, replace(planned.way, left=left))
        outcome.update(known.outcome)
    # One that was killed may have moved a cloud already: then it counts what that served when it began.
    was = {**traffic(before), **(begun.before if begun else {})}
    changed = changed_clouds(target, was, result.seconds)
    slots_before = other_slots(target, was, changed)
    others = [one.version for one in known.record.versions if one.version.slot in slots_before]
    return Rollback(
        target,
        left,
        plan,
        before,
        now,
        result,
        seconds,
        owed=tuple(map(str, known.owed)),
        further=further_back(planned),
        changed=changed,
        brought=tuple(version for version in others if version.digest not in {one.digest for one in left}),
    )


def _split(
    fleet: Fleet, target: Version, left: tuple[Version, ...], result: SwitchResult, now: FleetState
) -> SplitError:
    """What serves where, why, and all that can be done about it."""
    meanwhile = {
        cloud.cloud: told
        for cloud in now.clouds
        if cloud.cloud in result.reasons and (told := ways(fleet, cloud, target))
    }
    following, every = f"lockstep reconcile {fleet.model} --wait 300", fleet.settings.reconcile.every
    return SplitError(
        f"{fleet.model} is split: {target} serves on {', '.join(result.seconds) or 'no cloud'}, not on "
        f"{result.explain()}" + "".join(f"; meanwhile {told}" for told in meanwhile.values()),
        hint=f"{following} brings over what could not follow; where reconcile is scheduled it is tried again within "
        f"{every:.0f} s, elsewhere nobody does",
        facts={
            "target": target.label,
            "digest": target.digest,
            "left": [version.label for version in left],
            "condemned": [version.label for version in left],
            "clouds": {cloud: round(seconds, 3) for cloud, seconds in result.seconds.items()},
            "split": dict(result.reasons),
            "meanwhile": meanwhile,
            "next": following,
        },
    )


def _hands(
    fleet: Fleet,
    planned: RollbackPlan,
    reason: str,
    drained: tuple[Version, ...] | None,
    course: RollbackCourse,
) -> Hands:
    """What carries the steps of this rollback out; `drained` versions are taken the traffic of while it is prepared."""
    splits = {cloud.cloud: cloud.split for cloud in planned.before.clouds}
    wanted = TrafficSplit.all_to(planned.way.target.slot)

    def prepare(clouds: tuple[str, ...], tell: Tell) -> None:
        def prepared(one: Outcome[None]) -> None:
            if not one.done:
                course.ended(one.cloud, one.seconds, reason_of(one))
            tell(Ended(one.cloud, Place.PREPARING, one.seconds, reason_of(one)))

        if drained is not None:
            splits.update(drain(fleet, planned, drained, clouds))
        prepare_slots(
            fleet,
            [change for change in planned.plan.prepares if change.cloud in clouds],
            prepared,
        )

    def flip(clouds: tuple[str, ...], tell: Tell) -> None:
        def done(one: Outcome[Verified]) -> None:
            seconds = one.seconds if one.value is None else one.value.seconds
            course.ended(one.cloud, seconds, reason_of(one))
            tell(Ended(one.cloud, Place.FLIPPING, seconds, reason_of(one)))

        why = f"rollback: {reason or 'no reason given'}"
        # Also where a look has shown it so already: shows may be stale.
        shifts = [ShiftTraffic(cloud, splits.get(cloud), wanted) for cloud in clouds]
        shift_traffic(fleet, shifts, [planned.way.target], why, done, urgent=True)

    def take_back(clouds: tuple[str, ...], tell: Tell) -> None:
        raise AssertionError(f"a rollback takes nothing back on {clouds}")

    return Hands(lambda: commit(fleet, planned.known, planned.way.target), prepare, flip, take_back)


def _probing(fleet: Fleet, target: Version, *, broken: bool) -> Fleet:
    """Without an intact manifest no row can be made up; a target that was accepted so is moved to without probing."""
    try:
        return with_probe(fleet, target)
    except DigestMismatchError as error:
        if not broken:
            raise
        fleet.say(f"{target} will not be asked for real answers: {error.problem}")
        return fleet
    except LockstepError as error:  # MLflow is down, and nothing was kept of this version
        fleet.say(f"{target} will not be asked for real answers, going by each cloud's own record: {error.problem}")
        return fleet
