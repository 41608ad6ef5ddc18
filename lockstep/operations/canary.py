"""Try a version beside the one that serves, in steps, on all clouds together; promote it everywhere or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.errors import (
    BusyError,
    DeploymentFailedError,
    LockstepError,
    OvertakenError,
    RefusedError,
    RetryLaterError,
    SplitError,
    UnreachableError,
    VerdictError,
)
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.fencing import check
from lockstep.operations.fleet import Fleet
from lockstep.operations.intact import accept_or_refuse, record_problems, seal_problems
from lockstep.operations.journal import note, record, refusals, slots, traffic
from lockstep.operations.known_good import grant_if_earned
from lockstep.operations.late import follow, follow_when_ended
from lockstep.operations.lease import writing
from lockstep.operations.owed import settle
from lockstep.operations.probe import with_probe
from lockstep.operations.remembering import read_record, remember_details, still_condemned
from lockstep.operations.replicate import missing_replicas
from lockstep.operations.switch import failures, move_all, prepare_slots, retire_slots, shift_traffic, show
from lockstep.operations.watch import StageReport, Watch, describe
from lockstep.rules.capacity import cold_fallback
from lockstep.rules.judge import Decision
from lockstep.rules.known_good import fallback_after_promotion
from lockstep.rules.plan import RetireSlot, Target, plan_changes
from lockstep.rules.rollout import Move, Stage, plan_stages
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, VERDICT_TAG, FleetState, Version
from lockstep.rules.switch import SwitchResult
from lockstep.rules.target import condemned_error
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class Rollout:
    """How a canary ended well: the stages that it passed, and the fleet before and after."""

    version: Version
    stages: tuple[StageReport, ...]
    before: FleetState
    after: FleetState


def canary_deploy(
    fleet: Fleet, version: Version, *, steps: tuple[int, ...] | None = None, accept_broken_seal: str = ""
) -> Rollout:
    """Deploy `version` as a canary and promote it when every step passes.

    The first version of a model is deployed straight away: there is nothing to compare it with. Raises RefusedError
    for a version that is not replicated or is condemned, or whose seal or native records are not as they were written
    (`accept_broken_seal`: the reason to go on when no other version that was known to be good is intact), VerdictError
    when the canary was taken back, and the cause when a cloud could not follow: then the canary was taken back as well.
    BusyError when another operation is changing the model; OvertakenError when a rollback came in between.
    """
    stages = plan_stages([cloud.name for cloud in fleet.clouds], steps or fleet.settings.rollout.steps)
    try:
        with writing(fleet, "canary_deploy", version) as writer:
            return _deploy(fleet, version, stages, accept_broken_seal)
    except OvertakenError:
        if writer.lost is not None:
            follow_when_ended(fleet, version, writer.lost)
        raise


def _deploy(fleet: Fleet, version: Version, stages: tuple[Stage, ...], accept_broken_seal: str) -> Rollout:
    with refusals(fleet, "canary_deploy", version):
        settle(fleet)
        accepted = check_deployable(fleet, version, accept_broken_seal)
        fleet = with_probe(fleet, version)
        desired = read_record(fleet).desired
        before = fleet.observe()
        _refuse_unreachable(version, before)
        _refuse_busy(fleet, version, before)
        _refuse_second(fleet, version, desired.challenger, before)
    stable = desired.champion
    intent = {"before": traffic(before), "slots": slots(version, state=before), **accepted}
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
            reports, fallback = _roll_out(fleet, stable, version, desired.fallback, stages, before, outcome)
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


def _refuse_second(fleet: Fleet, version: Version, challenger: Version | None, before: FleetState) -> None:
    if challenger is None or challenger.digest == version.digest:
        return
    slots = {cloud.cloud: cloud.slot(challenger.slot) for cloud in before.clouds}
    served = [name for name, slot in slots.items() if slot is not None and slot.weight > 0]
    if served:
        raise RefusedError(
            f"{version} was not deployed, since {challenger} is a canary with traffic on {', '.join(served)}",
            hint="nothing was changed; wait for that rollout, or take its canary back: "
            f"lockstep rollback {fleet.model}",
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
    _all_or_raise(fleet, version, failures(prepare_slots(fleet, plan.prepares)))
    result = shift_traffic(fleet, plan.shifts, [version], "the first version: 100 % at once")
    _all_or_raise(fleet, version, result.reasons)


def _roll_out(
    fleet: Fleet,
    stable: Version,
    canary: Version,
    old_fallback: Version | None,
    stages: tuple[Stage, ...],
    before: FleetState,
    outcome: dict[str, object],
) -> tuple[tuple[StageReport, ...], Version | None]:
    """Walk the stages and promote after the last; take the canary back on any trouble before that.

    Returns how the stages ended, and the fallback from now on.
    """
    reports: list[StageReport] = []
    announced = shifted = False
    try:
        plan = plan_changes(Target((stable, canary), {}), before)
        show(fleet, plan)
        set_alias(fleet, canary, CHALLENGER)
        announced = True
        _all_or_raise(fleet, canary, failures(prepare_slots(fleet, plan.prepares)))

        def guard() -> None:
            raise_if_overtaken(fleet, stable, canary)

        watch = Watch(fleet, stable, canary, guard)
        for stage in stages:
            guard()
            fleet.say(f"canary {canary}: {stage.title}")
            target = Target((stable, canary), stage.splits(stable.slot, canary.slot))
            shifted = True
            shifts = plan_changes(target, fleet.observe()).shifts
            result = shift_traffic(fleet, shifts, [stable, canary], f"canary: {stage.title}")
            _all_or_raise(fleet, canary, result.reasons)
            report = watch.stage(stage)
            reports.append(report)
            note(fleet, "verdict.outcome", {**slots(canary)[canary.slot], "stable": stable.digest, **describe(report)})
            if report.move is Move.TAKE_BACK:
                raise _judged(report, stable, canary)  # noqa: TRY301 - taken back below, as after any trouble
        guard()
        fallback = _promote(fleet, stable, canary)
    except BaseException as error:  # a Ctrl-C in the middle of a rollout must not leave a bad canary behind
        outcome["stages"] = [describe(report) for report in reports]
        if not announced:
            raise  # nothing was changed
        if isinstance(error, OvertakenError) or _is_overtaken(fleet, stable, canary):
            check(fleet.model)  # what another writer decided is left alone, see `canary_deploy`
            _follow_champion(fleet, canary)
            raise
        try:
            take_back(fleet, stable, canary, shifted=shifted)
        except SplitError:
            # The challenger's alias stays: it tells a rollback that there is a canary to take back first.
            outcome["challenger"] = canary.digest
            _note_verdict(fleet, canary, error, reports)
            raise
        # MLflow comes after the traffic: it may be the very thing that is down.
        _note_end(fleet, stable, canary, old_fallback, error, reports)
        raise
    delete_alias(fleet, CHALLENGER)
    return tuple(reports), fallback


def raise_if_overtaken(fleet: Fleet, stable: Version, canary: Version) -> None:
    """Raise OvertakenError when a rollback has taken the lease, or somebody moved MLflow's aliases by hand.

    MLflow being silent is no sign of anything.
    """
    check(fleet.model)
    try:
        desired = fleet.registry.desired(fleet.model)
    except RetryLaterError as error:
        fleet.say(f"MLflow does not answer, going on: {error}")
        return
    if desired.champion != stable or desired.challenger != canary:
        raise OvertakenError(
            f"the rollout of {canary} was overtaken: now {desired.champion or 'no version'} should serve",
            hint=f"see `lockstep status {fleet.model}`; deploy again when that is settled",
        )


def _is_overtaken(fleet: Fleet, stable: Version, canary: Version) -> bool:
    try:
        raise_if_overtaken(fleet, stable, canary)
    except OvertakenError:
        return True
    return False


def _follow_champion(fleet: Fleet, canary: Version) -> None:
    """Somebody moved MLflow's aliases by hand: the clouds follow."""
    champion = fleet.registry.desired(fleet.model).champion
    if champion is not None:
        follow(fleet, canary, champion)


def take_back(fleet: Fleet, stable: Version, canary: Version, *, shifted: bool = True) -> None:
    """All traffic back to the stable version, wherever the canary has a slot, then those slots away.

    `shifted` tells whether the canary was ever given traffic; if so, no cloud's word that it has none is believed.
    Raises SplitError naming the clouds that could not follow; the others are back all the same.
    """
    fleet.say(f"taking {canary} back everywhere")
    observed = fleet.observe()
    placed = {cloud.cloud for cloud in observed.clouds if cloud.slot(canary.slot)} | set(observed.unreachable)
    why = f"version {canary.label} is taken back"
    result = move_all(fleet, stable, observed, placed, why) if shifted else SwitchResult({}, {})
    retire_slots(
        fleet,
        [RetireSlot(name, canary.slot) for name in sorted(placed - set(result.reasons) - set(observed.unreachable))],
    )
    if result.reasons:
        raise SplitError(
            f"{canary} could not be taken back everywhere: {result.explain()}",
            hint=f"lockstep rollback {fleet.model} --to {stable.label}",
        )


def _note_end(
    fleet: Fleet,
    stable: Version,
    canary: Version,
    old_fallback: Version | None,
    error: BaseException,
    reports: list[StageReport],
) -> None:
    """Make MLflow say what is true after a canary was taken back: aliases as before, the verdict on the version."""
    set_alias(fleet, stable, CHAMPION)
    delete_alias(fleet, CHALLENGER)
    if old_fallback is None:
        delete_alias(fleet, FALLBACK)
    else:
        set_alias(fleet, old_fallback, FALLBACK)
    _note_verdict(fleet, canary, error, reports)


def _note_verdict(fleet: Fleet, canary: Version, error: BaseException, reports: list[StageReport]) -> None:
    if isinstance(error, VerdictError):
        decision = reports[-1].verdict.decision
        fleet.registry.tag(canary, VERDICT_TAG, decision.value)
        if decision is Decision.FAIL:
            fleet.registry.tag(canary, CONDEMNED_TAG, error.problem)


def _promote(fleet: Fleet, stable: Version, version: Version) -> Version | None:
    """Make the aliases say what already serves everywhere: the champion's alias is the commit point.

    Returns the fallback: the stable version if it has soaked, else one that is known to be good, if there is one.
    """
    fleet.say(f"promoting {version}")
    with record(fleet, "promote", version, champion=stable.digest) as outcome:
        known = fleet.registry.record(fleet.model)
        soaked = grant_if_earned(fleet, known, stable)
        fallback = fallback_after_promotion(known, stable, version, earned=soaked.earned)
        if fallback is not None and not soaked.earned:
            fleet.say(f"{stable} has not soaked ({soaked.told}): the fallback is {fallback}")
        fleet.registry.tag(version, VERDICT_TAG, Decision.PASS.value)
        if fallback is None:
            delete_alias(fleet, FALLBACK)
        else:
            set_alias(fleet, fallback, FALLBACK)
        set_alias(fleet, version, CHAMPION)
        outcome.update(champion=version.digest, fallback=fallback.digest if fallback else None)
    return fallback


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


def _judged(report: StageReport, stable: Version, canary: Version) -> VerdictError:
    return VerdictError(
        f"{canary} was judged {report.verdict.decision.value} at {report.stage.title}: "
        f"{'; '.join(report.verdict.reasons)}",
        hint=f"{stable} serves everywhere; see `lockstep status {canary.model}`",
    )


def _all_or_raise(fleet: Fleet, version: Version, reasons: Mapping[str, str]) -> None:
    if reasons:
        raise DeploymentFailedError(
            f"{version} could not be deployed on every cloud: "
            + "; ".join(f"{cloud}: {why}" for cloud, why in sorted(reasons.items())),
            hint=f"mend what is named and deploy again; `lockstep status {fleet.model}` shows what serves",
        )
