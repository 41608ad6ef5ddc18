"""Bring every cloud to what MLflow says: look, plan, show, and heal what may be healed without a person.

An unchanged fleet costs a few calls a cloud. Nothing that was seen from afar is acted upon: a model that differs is
looked at closely, and planned for again, before anything is changed.

An interrupt leaves open what is under way, as a killed process does; the next reconcile trusts no cloud's word then.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lockstep.errors import BusyError, Interruption, LockstepError, RefusedError, SplitError
from lockstep.operations.fleet import Fleet
from lockstep.operations.healing import heal
from lockstep.operations.interrupting import ReconcileCourse, reconcile_interruption, told_if_interrupted
from lockstep.operations.journal import note, record, slots, traffic
from lockstep.operations.lease import live_holder, writing
from lockstep.operations.looking import Look, look_at, observe_all
from lockstep.operations.owed import settle
from lockstep.operations.reasons import made_reason
from lockstep.operations.rollback import rollback
from lockstep.operations.running import Outcome
from lockstep.operations.switch import Verified, reason_of
from lockstep.operations.together import all_of
from lockstep.operations.trying import forward_only, going_on
from lockstep.rules.deeds import text
from lockstep.rules.plan import Plan
from lockstep.rules.reconciliation import Difference, Finishing, Reconciliation
from lockstep.rules.reconciling import reconcile_model, surprising, unhealed
from lockstep.rules.state import FleetState
from lockstep.stores.looks import Looks, keep_looks, read_looks

AT_ONCE = 8  # models
#: How far each model has got, for whoever interrupts.
Courses = Mapping[str, ReconcileCourse]


@dataclass(frozen=True)
class Reconciled:
    """One model: what was found, the state before and after (None: nothing was done), what is left, and whom to tell.

    `failed` says why clouds could not follow, `error` what kept the whole model from being looked at or healed.
    """

    model: str
    found: Reconciliation
    before: FleetState
    after: FleetState | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    error: LockstepError | None = None
    tell: str = ""

    @property
    def left(self) -> tuple[Difference, ...]:
        """Differences that are there now, as far as is known."""
        if self.after is None:
            return tuple(one for one in self.found.differences if not one.waits)
        return unhealed(self.found, self.failed)

    @property
    def in_step(self) -> bool:
        """Whether every cloud is as MLflow says now; not known, and so no, while a live operation holds the model."""
        return self.error is None and not self.failed and not self.left and not self.found.held

    @property
    def why(self) -> str:
        """What keeps it from being in step."""
        if self.error is not None:
            return self.error.problem
        return self.found.held or "; ".join(map(str, self.left))


def reconcile(
    fleets: Sequence[Fleet],
    *,
    dry_run: bool = False,
    accept_surprise: str = "",
    remove_foreign: bool = False,
    looks: Looks | None = None,
    courses: Courses | None = None,
) -> tuple[Reconciled, ...]:
    """Plan for all models, then heal each that differs; one result a model, whatever happens to the others.

    Raises RefusedError, with nothing changed, when the plan is a surprising one and `accept_surprise` gives no reason.
    """
    looks, courses = looks or read_looks(folder_of(fleets)), courses or courses_of(fleets)
    with told_if_interrupted(partial(interruption, courses)), forward_only():
        return _reconcile(fleets, dry_run, accept_surprise, remove_foreign, looks, courses)


def _reconcile(
    fleets: Sequence[Fleet], dry_run: bool, accept_surprise: str, remove_foreign: bool, looks: Looks, courses: Courses
) -> tuple[Reconciled, ...]:
    states = observe_all(fleets, looks)
    firsts = all_of(fleets, lambda fleet: _look(fleet, states[fleet.model], looks, remove_foreign), AT_ONCE)
    _keep(fleets, looks)
    if dry_run:
        return firsts
    for fleet, done in zip(fleets, firsts, strict=True):
        _tell(fleet, done)
    surprise = _surprise(fleets, firsts)
    if surprise and not accept_surprise:
        raise _refused(fleets, firsts, surprise)

    accepted = accept_surprise if surprise else ""
    by_model = {one.model: one for one in firsts}

    def finish(fleet: Fleet) -> Reconciled:
        course, first = courses[fleet.model], by_model[fleet.model]
        done = _finish(fleet, first, course, looks, remove_foreign, accepted)
        course.end("" if done.in_step else done.why)
        return done

    return all_of(fleets, finish, AT_ONCE)


def _finish(
    fleet: Fleet, first: Reconciled, course: ReconcileCourse, looks: Looks, remove_foreign: bool, accepted: str
) -> Reconciled:
    """Heal a model that was looked at; what kept it from that is its own."""
    _settle(fleet)
    unfinished = first.found.finishing is not None and not first.found.held  # what it left is not condemned yet
    if first.error is not None or not (first.found.work or unfinished):
        return first
    try:
        if first.found.finishing is not None:
            return _finish_rollback(fleet, first, first.found.finishing, course)
        with writing(fleet, "reconcile"):
            return _heal(fleet, first, course, looks, remove_foreign, accepted)
    except BusyError as error:
        return replace(first, found=replace(first.found, held=error.problem))
    except LockstepError as error:
        return replace(first, error=error)


def courses_of(fleets: Sequence[Fleet]) -> Courses:
    """Of models of which nothing has begun."""
    return {fleet.model: ReconcileCourse(fleet.model) for fleet in fleets}


def interruption(courses: Courses) -> Interruption:
    """What an interrupt now leaves."""
    return reconcile_interruption(tuple(courses.values()))


def folder_of(fleets: Sequence[Fleet]) -> Path | None:
    """Where what was seen of the clouds is kept."""
    return next((fleet.last_known.folder for fleet in fleets), None)


def _keep(fleets: Sequence[Fleet], looks: Looks) -> None:
    """A memory that cannot be written costs calls, and stops nothing."""
    try:
        keep_looks(folder_of(fleets), looks)
    except LockstepError as error:
        fleets[0].say(f"what was seen of the clouds was not kept: {error.problem}")


def _settle(fleet: Fleet) -> None:
    """MLflow is told what it is owed before it is asked; as long as it cannot be, the debt stands for it."""
    try:
        settle(fleet)
    except LockstepError as error:
        fleet.say(f"{fleet.model}: MLflow is still owed something: {error.problem}")


def _look(fleet: Fleet, state: FleetState, looks: Looks, remove_foreign: bool) -> Reconciled:
    """What differs; an error that keeps one model from being looked at is its own."""
    try:
        return _planned(look_at(fleet, state, looks, live_holder(fleet)), fleet, remove_foreign)
    except LockstepError as error:
        return Reconciled(fleet.model, Reconciliation(fleet.model, Plan(fleet.model, ())), state, error=error)


def _planned(look: Look, fleet: Fleet, remove_foreign: bool) -> Reconciled:
    found = reconcile_model(look.desired, look.state, look.facts, remove_foreign=remove_foreign)
    persons = [fleet.owner, f"{look.trace.actor}, who worked on it last" if look.trace.actor else ""]
    tell = " and ".join(filter(None, persons)) if found.by_hand else ""
    return Reconciled(fleet.model, found, look.state, tell=tell)


def _tell(fleet: Fleet, done: Reconciled) -> None:
    """The plan first, and why. Where there is none the result says all."""
    found = done.found
    if not found.work:
        return
    for difference in found.differences:
        fleet.say(f"{fleet.model}: {difference}")
    for line in found.explain():
        fleet.say(f"{fleet.model}: plan: {line}")
    if done.tell:
        fleet.say(f"{fleet.model}: somebody changed it by hand; tell {done.tell}")


def _surprise(fleets: Sequence[Fleet], done: Sequence[Reconciled]) -> str:
    limits = [fleet.settings.reconcile for fleet in fleets]
    return surprising(
        [one.found for one in done],
        min((one.max_models for one in limits), default=0),
        min((one.max_shifts for one in limits), default=0),
    )


def _refused(fleets: Sequence[Fleet], done: Sequence[Reconciled], surprise: str) -> RefusedError:
    """The refusal, which the ledger gets once, however often the same is found."""
    hint = (
        "nothing was changed; look at `lockstep reconcile --dry-run`, and if all of it is right: "
        "lockstep reconcile --accept-surprise REASON"
    )
    for fleet, one in zip(fleets, done, strict=True):
        newest = fleet.ledger.entries(fleet.model, last=1)
        told = newest[-1].body if newest and newest[-1].kind == "reconcile.refused" else {}
        body = {"refused": surprise, "hint": hint, "plan": list(one.found.explain()), "tell": one.tell}
        if one.found.work and not one.found.expected and text(told, "refused") != surprise:
            note(fleet, "reconcile.refused", body)
    return RefusedError(f"the plan is a surprising one: {surprise}", hint=hint)


def _heal(
    fleet: Fleet, first: Reconciled, course: ReconcileCourse, looks: Looks, remove_foreign: bool, accepted: str
) -> Reconciled:
    """Look closely, plan again, and do it; between the first look and now others may have mended it."""
    look = look_at(fleet, fleet.observe(), looks)
    now = _planned(look, fleet, remove_foreign)
    if now.found.finishing is not None or not now.found.work:
        _tell(fleet, now)
        return replace(now, after=look.state if now.found.in_step else None)
    if now.found.plan != first.found.plan:
        _tell(fleet, now)
    began = time.monotonic()
    champion = look.desired.champion
    assert champion is not None  # without one there is no plan
    intent = {
        "before": traffic(now.before),
        "slots": slots(champion, state=now.before),
        "differences": [str(one) for one in now.found.differences],
        "plan": list(now.found.explain()),
        **({"tell": now.tell} if now.tell else {}),
        **({"why": now.found.expected} if now.found.expected else {}),
        **({"accepted_because": accepted} if accepted else {}),
    }
    done = now

    def moved(one: Outcome[Verified]) -> None:
        course.moved(one.cloud, one.seconds if one.value is None else one.value.seconds, reason_of(one))

    going_on()
    course.begin([shift.cloud for shift in now.found.plan.shifts])
    try:
        with record(fleet, "reconcile", champion, **intent) as outcome:
            failed = heal(fleet, look.known, champion, now.found, moved)
            after = fleet.observe()
            done = replace(now, after=after, failed=failed)
            split = {**after.unreachable, **failed}
            outcome.update(after=traffic(after), split=split, seconds=round(time.monotonic() - began, 3))
            if split:
                outcome.update(left=[str(one) for one in done.left])
                raise _split(fleet, split)
    except SplitError as error:
        done = replace(done, error=error)
    return done


def _split(fleet: Fleet, reasons: Mapping[str, str]) -> SplitError:
    return SplitError(
        f"{fleet.model} is not in step: " + "; ".join(f"{cloud}: {why}" for cloud, why in sorted(reasons.items())),
        hint=f"the next reconcile goes on; at once: lockstep reconcile {fleet.model}",
    )


def _finish_rollback(fleet: Fleet, now: Reconciled, begun: Finishing, course: ReconcileCourse) -> Reconciled:
    """Where a rollback was killed its decision stands: it is made again, to the same version.

    Under its own lease, which stops all else: it is as urgent as it was.
    """
    fleet.say(f"{fleet.model}: finishing the rollback to {begun.target}: {now.found.expected}")
    going_on()
    course.begin(())
    try:
        done = rollback(fleet, to=begun.target, reason=made_reason(begun.reason))
    except Interruption as interrupt:
        course.leave(interrupt)
        raise KeyboardInterrupt from interrupt  # it is told among the other models
    return replace(now, after=done.after)
