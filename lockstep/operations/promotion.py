"""Promote a canary everywhere or nowhere: what carries the steps of `rules/switch.py` out for a promotion.

Its flip goes in stages, each judged before the next; its decision is the verdict at 100 % and the champion's alias.
What cannot finish is taken back, whatever it was that stopped it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from lockstep.errors import (
    DeploymentFailedError,
    LockstepError,
    OvertakenError,
    RetryLaterError,
    SplitError,
    VerdictError,
)
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.approving import Approver, ask
from lockstep.operations.fencing import check
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import raise_if_held
from lockstep.operations.journal import note, record, slots
from lockstep.operations.known_good import grant_if_earned
from lockstep.operations.remembering import earned_only
from lockstep.operations.switch import failures, move_all, prepare_slots, retire_slots, shift_traffic
from lockstep.operations.walk import Hands, Tell, walk
from lockstep.operations.watch import StageReport, Watch, describe
from lockstep.rules.approval import Gate
from lockstep.rules.judge import Decision
from lockstep.rules.known_good import fallback_after_promotion
from lockstep.rules.plan import PrepareSlot, RetireSlot, Target, plan_changes
from lockstep.rules.rollout import Move, Stage
from lockstep.rules.state import CHAMPION, CONDEMNED_TAG, FALLBACK, VERDICT_TAG, Version
from lockstep.rules.switch import Announced, Ended, Kind, Place, Switch, SwitchResult, after


class Promotion:
    """One canary beside the stable version, on its way to all traffic.

    `stable` serves, `canary` is tried. `reports` are the stages that ended so far, `fallback` is the one from the
    promotion on, and `cause` what first stopped it, None as long as nothing did.
    """

    def __init__(
        self,
        fleet: Fleet,
        stable: Version,
        canary: Version,
        stages: Sequence[Stage],
        approver: Approver | None = None,
    ) -> None:
        self.reports: list[StageReport] = []
        self.fallback: Version | None = None
        self.cause: BaseException | None = None
        self._fleet = fleet
        self.stable = stable
        self.canary = canary
        self._stages = tuple(stages)
        self._approver = approver

    def walk(self, prepares: Sequence[PrepareSlot]) -> Switch:
        """Walk the announced promotion to its end: committed, or taken back as far as the clouds allow it.

        `prepares` are the slots that are missing. Raises OvertakenError when another operation decides meanwhile.
        """
        cold = {change.cloud for change in prepares}
        switch = Switch.of(Kind.PROMOTION, [cloud.name for cloud in self._fleet.clouds], cold)

        def prepare(clouds: tuple[str, ...], tell: Tell) -> None:
            failed = failures(prepare_slots(self._fleet, prepares))
            for cloud in clouds:
                tell(Ended(cloud, Place.PREPARING, reason=failed.get(cloud, "")))
            all_or_raise(self._fleet, self.canary, failed)

        hands = Hands(self._commit, prepare, self._flip, self._take_back, self._trouble)
        return walk(after(switch, Announced()), hands)

    def guard(self) -> None:
        """Raise OvertakenError when a rollback has taken the lease, or somebody moved MLflow's aliases by hand.

        MLflow being silent is no sign of anything.
        """
        check(self._fleet.model)
        try:
            desired = self._fleet.registry.desired(self._fleet.model)
        except RetryLaterError as error:
            self._fleet.say(f"MLflow does not answer, going on: {error}")
            return
        if desired.champion != self.stable or desired.challenger != self.canary:
            raise OvertakenError(
                f"the rollout of {self.canary} was overtaken: now {desired.champion or 'no version'} should serve",
                hint=f"see `lockstep status {self._fleet.model}`; deploy again when that is settled",
            )

    def remove(self, switch: Switch) -> None:
        """Take the canary's slots away after it was taken back; raises SplitError naming the clouds that are stuck."""
        self._leave_to_others()
        stuck = switch.at(Place.STUCK)
        observed = self._fleet.observe()
        placed = [cloud.cloud for cloud in observed.clouds if cloud.slot(self.canary.slot)]
        retire_slots(
            self._fleet, [RetireSlot(cloud, self.canary.slot) for cloud in sorted(placed) if cloud not in stuck]
        )
        if stuck:
            told = "; ".join(f"{cloud}: {switch.reasons[cloud]}" for cloud in sorted(stuck))
            raise SplitError(
                f"{self.canary} could not be taken back everywhere: {told}",
                hint=f"lockstep rollback {self._fleet.model} --to {self.stable.label}",
            ) from self.cause

    def note_verdict(self) -> None:
        """Tag the version with the verdict that it was taken back for, if it was one."""
        if isinstance(self.cause, VerdictError):
            decision = self.reports[-1].verdict.decision
            self._fleet.registry.tag(self.canary, VERDICT_TAG, decision.value)
            if decision is Decision.FAIL:
                self._fleet.registry.tag(self.canary, CONDEMNED_TAG, self.cause.problem)

    # -- the steps -------------------------------------------------------------------------------------------------

    @cached_property
    def _watch(self) -> Watch:
        """Sees everything from the first shift on."""
        return Watch(self._fleet, self.stable, self.canary, self._go_on)

    def _flip(self, clouds: tuple[str, ...], tell: Tell) -> None:
        *steps, last = self._stages
        watch = self._watch
        for stage in steps:
            all_or_raise(self._fleet, self.canary, self._shift(stage).reasons)
            self._judge(watch, stage)
        result = self._shift(last)
        for cloud in clouds:
            tell(Ended(cloud, Place.FLIPPING, result.seconds.get(cloud, 0.0), result.reasons.get(cloud, "")))
        all_or_raise(self._fleet, self.canary, result.reasons)

    def _commit(self) -> None:
        self._judge(self._watch, self._stages[-1])
        self._ask()
        self._go_on()
        self._promote()

    def _ask(self) -> None:
        began = time.monotonic()
        told = [f"{one.stage.title}: {'; '.join(one.verdict.reasons)}" for one in self.reports]
        ask(self._fleet, Gate.BEFORE_PROMOTION, self.canary, told, self._approver, self._unless_stopped)
        if time.monotonic() - began > self._fleet.settings.rollout.look_every:
            self._judge(self._watch, self._stages[-1])  # what it did while a person thought

    def _shift(self, stage: Stage) -> SwitchResult:
        self._go_on()
        self._fleet.say(f"canary {self.canary}: {stage.title}")
        target = Target((self.stable, self.canary), stage.splits(self.stable.slot, self.canary.slot))
        shifts = plan_changes(target, self._fleet.observe()).shifts
        return shift_traffic(self._fleet, shifts, [self.stable, self.canary], f"canary: {stage.title}")

    def _unless_stopped(self) -> None:
        """Raise when a rollback has taken the lease, or the model is held; asks the ledger's database alone."""
        check(self._fleet.model)
        raise_if_held(self._fleet)

    def _go_on(self) -> None:
        """Raise when the rollout must not go on: it was overtaken, or the model is held."""
        self.guard()
        raise_if_held(self._fleet)

    def _judge(self, watch: Watch, stage: Stage) -> None:
        report = watch.stage(stage)
        self.reports.append(report)
        body = {**slots(self.canary)[self.canary.slot], "stable": self.stable.digest, **describe(report)}
        note(self._fleet, "verdict.outcome", body)
        if report.move is Move.TAKE_BACK:
            raise VerdictError(
                f"{self.canary} was judged {report.verdict.decision.value} at {report.stage.title}: "
                f"{'; '.join(report.verdict.reasons)}",
                hint=f"{self.stable} serves everywhere; see `lockstep status {self.canary.model}`",
            )

    def _promote(self) -> None:
        """Make the aliases say what already serves everywhere: the champion's alias is the commit point.

        The fallback is the stable version if it has soaked, else one that is known to be good, if there is one.
        """
        fleet, stable, version = self._fleet, self.stable, self.canary
        fleet.say(f"promoting {version}")
        with record(fleet, "promote", version, champion=stable.digest) as outcome:
            known, _ = earned_only(fleet, fleet.registry.record(fleet.model))
            soaked = grant_if_earned(fleet, known, stable)
            fallback = fallback_after_promotion(known, stable, version, earned=soaked.earned)
            if fallback is not None and not soaked.earned:
                fleet.say(_not_soaked(stable, soaked.told, fallback))
            fleet.registry.tag(version, VERDICT_TAG, Decision.PASS.value)
            if fallback is None:
                delete_alias(fleet, FALLBACK)
            else:
                set_alias(fleet, fallback, FALLBACK)
            set_alias(fleet, version, CHAMPION)
            outcome.update(champion=version.digest, fallback=fallback.digest if fallback else None)
        self.fallback = fallback

    def _take_back(self, clouds: tuple[str, ...], tell: Tell) -> None:
        """All traffic back to the stable version, on every cloud: no cloud's word that the canary has none is believed.

        A decision that another operation, or a person, made meanwhile is left alone.
        """
        self._leave_to_others()
        self._fleet.say(f"taking {self.canary} back everywhere")
        why = f"version {self.canary.label} is taken back"
        result = move_all(self._fleet, self.stable, self._fleet.observe(), clouds, why)
        for cloud in clouds:
            tell(Ended(cloud, Place.TAKING_BACK, result.seconds.get(cloud, 0.0), result.reasons.get(cloud, "")))

    def _leave_to_others(self) -> None:
        """Raise OvertakenError when it is theirs to decide; what cannot be known keeps no canary in place."""
        try:
            self.guard()
        except OvertakenError:
            raise
        except LockstepError as error:
            self._fleet.say(f"whether another operation decides now is not known: {error.problem}")

    def _trouble(self, error: BaseException) -> None:
        self.cause = self.cause or error


def all_or_raise(fleet: Fleet, version: Version, reasons: Mapping[str, str]) -> None:
    """Raise DeploymentFailedError when there is a cloud with a reason why not."""
    if reasons:
        raise DeploymentFailedError(
            f"{version} could not be deployed on every cloud: "
            + "; ".join(f"{cloud}: {why}" for cloud, why in sorted(reasons.items())),
            hint=f"mend what is named and deploy again; `lockstep status {fleet.model}` shows what serves",
        )


def _not_soaked(stable: Version, told: str, fallback: Version) -> str:
    """Which version is the way back from now on, and why."""
    if fallback.digest == stable.digest:
        return f"the fallback is {stable}, though it has not soaked ({told}): no other version is known to be good"
    return f"the fallback stays {fallback}: {stable} has not soaked ({told})"
