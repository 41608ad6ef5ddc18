"""Try a version beside the one that serves, in steps, on all clouds together; promote it everywhere or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.errors import (
    BusyError,
    LockstepError,
    OvertakenError,
    RefusedError,
    SplitError,
    UnreachableError,
)
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.approving import Approver, ask, refuse_unasked, unless_decided
from lockstep.operations.fencing import check
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import refuse_held
from lockstep.operations.intact import accept_or_refuse, record_problems, seal_problems
from lockstep.operations.interrupting import RolloutCourse, told_if_interrupted
from lockstep.operations.journal import record, refusals, slots, traffic
from lockstep.operations.late import follow, follow_when_ended
from lockstep.operations.lease import writing
from lockstep.operations.owed import settle
from lockstep.operations.probe import with_probe
from lockstep.operations.promotion import Promotion, all_or_raise
from lockstep.operations.remembering import read_record, remember_details, still_condemned
from lockstep.operations.replicate import missing_replicas
from lockstep.operations.switch import failures, prepare_slots, retire_slots, shift_traffic, show
from lockstep.operations.watch import StageReport, describe
from lockstep.rules.approval import Gate
from lockstep.rules.capacity import cold_fallback
from lockstep.rules.plan import RetireSlot, Target, plan_changes
from lockstep.rules.rollout import Stage, plan_stages
from lockstep.rules.state import CHALLENGER, CHAMPION, FALLBACK, FleetState, Version
from lockstep.rules.target import condemned_error
from lockstep.rules.traces import ways_from_canary
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class Rollout:
    """How a canary ended well: the stages that it passed, and the fleet before and after."""

    version: Version
    stages: tuple[StageReport, ...]
    before: FleetState
    after: FleetState


def canary_deploy(
    fleet: Fleet,
    version: Version,
    *,
    steps: tuple[int, ...] | None = None,
    accept_broken_seal: str = "",
    approver: Approver | None = None,
) -> Rollout:
    """Deploy `version` as a canary and promote it when every step passes.

    The first version of a model is deployed straight away: there is nothing to compare it with. Raises RefusedError
    for a version that is not replicated or is condemned, or whose seal or native records are not as they were written
    (`accept_broken_seal`: the reason to go on when no other version that was known to be good is intact), VerdictError
    when the canary was taken back, and the cause when a cloud could not follow: then the canary was taken back as well.
    Where the fleet wants an approval `approver` asks for it: RejectedError when nobody gave it. The first version of a
    model is asked about before it starts, if at all. A hold, or a rollback, ends the wait.
    BusyError when another operation is changing the model; OvertakenError when a rollback came in between.
    """
    stages = plan_stages([cloud.name for cloud in fleet.clouds], steps or fleet.settings.rollout.steps)
    course = RolloutCourse(version)
    with told_if_interrupted(course.interruption):
        _ask_first(fleet, version, accept_broken_seal, approver)
    try:
        with told_if_interrupted(course.interruption), writing(fleet, "canary_deploy", version) as writer:
            return _deploy(fleet, version, stages, accept_broken_seal, approver, course)
    except OvertakenError:
        if writer.lost is not None:
            follow_when_ended(fleet, version, writer.lost)
        raise


def _ask_first(fleet: Fleet, version: Version, accept_broken_seal: str, approver: Approver | None) -> None:
    """The question before anything begins, asked without the lease: others may work while a person thinks."""
    if fleet.settings.rollout.approval is Gate.NONE:
        return
    with refusals(fleet, "canary_deploy", version):
        refuse_unasked(fleet, approver)
        refuse_held(fleet)
        check = unless_decided(fleet)
        check_deployable(fleet, version, accept_broken_seal)
        champion = read_record(fleet).desired.champion
    gate = fleet.settings.rollout.approval if champion is None else Gate.BEFORE_START  # the first has no stages
    ask(fleet, gate, version, [f"{champion or 'nothing'} serves now"], approver, check)


def _deploy(
    fleet: Fleet,
    version: Version,
    stages: tuple[Stage, ...],
    accept_broken_seal: str,
    approver: Approver | None,
    course: RolloutCourse,
) -> Rollout:
    with refusals(fleet, "canary_deploy", version):
        refuse_held(fleet)
        settle(fleet)
        accepted = check_deployable(fleet, version, accept_broken_seal)
        fleet = with_probe(fleet, version)
        desired = read_record(fleet).desired
        before = fleet.observe()
        _refuse_unreachable(version, before)
        _refuse_busy(fleet, version, before)
        _refuse_second(fleet, version, desired.champion, desired.challenger, before)
    stable = desired.champion
    intent = {"before": traffic(before), "slots": slots(version, state=before), **accepted}
    course.begun = True
    with record(fleet, "canary_deploy", version, **intent) as outcome:
        if stable is None or stable.digest == version.digest:
            reports: tuple[StageReport, ...] = ()
            _deploy_everywhere(fleet, version, before)
            with record(fleet, "promote", version, champion=stable.digest if stable else None) as promoted:
                set_alias(fleet, version, CHAMPION)
                promoted.update(champion=version.digest)
            delete_alias(fleet, CHALLENGER)  # of a rollout that was killed: it has no traffic now
        else:
            for cold in cold_fallback(before, desired.fallback, fleet.least) if desired.fallback else ():
                fleet.say(cold)
            promotion = Promotion(fleet, stable, version, stages, approver)
            reports, fallback = _roll_out(fleet, promotion, desired.fallback, before, outcome, course)
            _retire_others(fleet, keep={version.slot, *([fallback.slot] if fallback else [])})
        after = fleet.observe()
        outcome.update(stages=[describe(report) for report in reports], after=traffic(after))
        _remember(fleet)
    return Rollout(version, reports, before, after)


def _remember(fleet: Fleet) -> None:
    """The promotion is done: what a rollback from it needs is kept for a day on which MLflow is down."""
    try:
        desired = read_record(fleet).desired
    except LockstepError as error:
        fleet.say(f"what MLflow says now was not kept for a day on which it is down: {error.problem}")
        return
    remember_details(fleet, desired.champion, desired.fallback)


def _refuse_unreachable(version: Version, before: FleetState) -> None:
    if before.unreachable:
        raise UnreachableError(
            f"{version} was not deployed, since not every cloud can be reached: "
            + "; ".join(f"{cloud}: {why}" for cloud, why in before.unreachable.items()),
            hint="nothing was changed; a rollout needs all clouds of the fleet: mend what is named and deploy again",
        )


def _refuse_busy(fleet: Fleet, version: Version, before: FleetState) -> None:
    busy = [f"{cloud.cloud}: {cloud.endpoint} is {cloud.status or 'changing'}" for cloud in before.clouds if cloud.busy]
    if busy:
        raise BusyError(
            f"{version} was not deployed, since an endpoint is in the middle of another change: {'; '.join(busy)}",
            hint=f"nothing was changed; `lockstep status {fleet.model}` shows when it has ended, then deploy again",
        )


def _refuse_second(
    fleet: Fleet, version: Version, champion: Version | None, challenger: Version | None, before: FleetState
) -> None:
    """Under the lease: whoever began that canary does not work on it any more."""
    if challenger is None or challenger.digest == version.digest:
        return
    slots = {cloud.cloud: cloud.slot(challenger.slot) for cloud in before.clouds}
    served = [name for name, slot in slots.items() if slot is not None and slot.weight > 0]
    if served:
        ways = ways_from_canary(fleet.model, champion.label if champion else "", challenger.label)
        raise RefusedError(
            f"{version} was not deployed, since {challenger} is a canary with traffic on {', '.join(served)}, whose "
            "rollout did not end",
            hint=f"nothing was changed; {ways}",
        )


def check_deployable(fleet: Fleet, version: Version, accept_broken_seal: str = "") -> Mapping[str, object]:
    """Raise RefusedError unless the version may and can be deployed on every cloud of the fleet.

    Returns what the ledger must know of a broken seal that was accepted.
    """
    condemned = still_condemned(fleet, read_record(fleet)).of(version).condemned
    if condemned:
        raise condemned_error(version, condemned)
    missing = missing_replicas(fleet, version)
    if missing:
        where = "; ".join(f"{cloud}: {what}" for cloud, what in missing.items())
        raise RefusedError(
            f"{version} is not replicated to every cloud: {where}",
            hint=f"lockstep replicate {version.model} {version.label}",
        )
    problems = dict(seal_problems(fleet, version))
    for cloud, told in record_problems(fleet, version).items():
        problems[cloud] = (*problems.get(cloud, ()), *told)
    return accept_or_refuse(fleet, "deploy", version, problems, accept_broken_seal)


def _deploy_everywhere(fleet: Fleet, version: Version, before: FleetState) -> None:
    splits = {cloud.name: TrafficSplit.all_to(version.slot) for cloud in fleet.clouds}
    plan = plan_changes(Target((version,), splits), before)
    show(fleet, plan)
    all_or_raise(fleet, version, failures(prepare_slots(fleet, plan.prepares)))
    result = shift_traffic(fleet, plan.shifts, [version], "the first version: 100 % at once")
    all_or_raise(fleet, version, result.reasons)


def _roll_out(
    fleet: Fleet,
    promotion: Promotion,
    old_fallback: Version | None,
    before: FleetState,
    outcome: dict[str, object],
    course: RolloutCourse,
) -> tuple[tuple[StageReport, ...], Version | None]:
    """Promote the canary in stages; take it back on any trouble before the promotion.

    Returns how the stages ended, and the fallback from now on.
    """
    stable, canary = promotion.stable, promotion.canary
    plan = plan_changes(Target((stable, canary), {}), before)
    show(fleet, plan)
    set_alias(fleet, canary, CHALLENGER)
    try:
        switch = promotion.walk(plan.prepares)
        if not switch.committed:
            promotion.remove(switch)
    except OvertakenError as overtaken:
        check(fleet.model)  # what another writer decided is left alone, see `canary_deploy`
        _follow_champion(fleet, canary)
        raise promotion.cause or overtaken from None
    except SplitError:
        # The challenger's alias stays: it tells a rollback that there is a canary to take back first.
        outcome["challenger"] = canary.digest
        promotion.note_verdict()
        raise
    finally:
        outcome["stages"] = [describe(report) for report in promotion.reports]
    if promotion.cause is not None:
        course.back = stable
        # MLflow comes after the traffic: it may be the very thing that is down.
        _note_end(fleet, stable, old_fallback)
        promotion.note_verdict()
        raise promotion.cause
    course.promoted = True
    delete_alias(fleet, CHALLENGER)
    return tuple(promotion.reports), promotion.fallback


def _follow_champion(fleet: Fleet, canary: Version) -> None:
    """Somebody moved MLflow's aliases by hand: the clouds follow."""
    champion = fleet.registry.desired(fleet.model).champion
    if champion is not None:
        follow(fleet, canary, champion)


def _note_end(fleet: Fleet, stable: Version, old_fallback: Version | None) -> None:
    """Make MLflow's aliases say what is true after a canary was taken back: as before."""
    set_alias(fleet, stable, CHAMPION)
    delete_alias(fleet, CHALLENGER)
    if old_fallback is None:
        delete_alias(fleet, FALLBACK)
    else:
        set_alias(fleet, old_fallback, FALLBACK)


def _retire_others(fleet: Fleet, keep: set[str]) -> None:
    observed = fleet.observe()
    changes = [
        RetireSlot(cloud.cloud, slot.name)
        for cloud in observed.clouds
        for slot in cloud.slots
        if slot.name not in keep and slot.weight == 0
    ]
    for change in changes:
        fleet.say(str(change))
    retire_slots(fleet, changes)
