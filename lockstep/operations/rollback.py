"""Take every cloud back to a known-good version at once. A rollback only goes forward: no cloud holds the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lockstep.errors import DeploymentFailedError, DigestMismatchError, LockstepError, RefusedError, SplitError
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.fleet import Fleet
from lockstep.operations.intact import accept_or_refuse, seal_problems
from lockstep.operations.journal import record, refusals, slots, traffic
from lockstep.operations.lease import writing
from lockstep.operations.probe import with_probe
from lockstep.operations.switch import failures, move_all, prepare_slots, show
from lockstep.rules.plan import Plan, Target, plan_changes
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, FleetState, Version
from lockstep.rules.switch import Ending, SwitchResult
from lockstep.rules.target import Way, choose_way
from lockstep.rules.traffic import TrafficSplit

MOVES: Final = ("rollback", "canary_deploy")  # operations that decide what serves
JUST_NOW: Final = 900.0  # seconds in which further alerts tell of the incident that was just dealt with


@dataclass(frozen=True)
class RollbackPlan:
    """Where a rollback would go and what it would change on the clouds that answer; a dry run shows this.

    `accepted` is what the ledger must know of a broken seal of the target that was accepted.
    """

    way: Way
    before: FleetState
    plan: Plan
    accepted: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollback:
    """What a rollback did. `seconds` runs from the call to the last cloud verified; `left` are condemned now."""

    target: Version
    left: tuple[Version, ...]
    plan: Plan
    before: FleetState
    after: FleetState
    result: SwitchResult
    seconds: float


def plan_rollback(fleet: Fleet, to: Version | None = None, accept_broken_seal: str = "") -> RollbackPlan:
    """Look at MLflow, the clouds and the ledger, and plan; changes nothing.

    Raises RefusedError when there is no known-good version, when the target is condemned, or when its seal does not
    hold; `accept_broken_seal` is the reason to go on then, if no other version that was known to be good is intact.
    """
    desired = fleet.registry.desired(fleet.model)
    before = fleet.observe()
    way = choose_way(desired, to, before, _arrived(fleet))
    condemned = fleet.registry.tags(way.target).get(CONDEMNED_TAG)
    if condemned:
        raise RefusedError(
            f"{way.target} is condemned: {condemned}",
            hint=f"choose another version: lockstep rollback {fleet.model} --to VERSION",
        )
    problems = seal_problems(
        fleet, way.target, [cloud for cloud in fleet.clouds if cloud.name not in before.unreachable]
    )
    accepted = accept_or_refuse(fleet, "rollback", way.target, problems, accept_broken_seal, way.left)
    splits = {cloud.name: TrafficSplit.all_to(way.target.slot) for cloud in fleet.clouds}
    return RollbackPlan(way, before, plan_changes(Target((way.target,), splits), before), accepted)


def rollback(fleet: Fleet, *, to: Version | None = None, reason: str = "", accept_broken_seal: str = "") -> Rollback:
    """Put every cloud on the target, read back and probed; condemns the versions that are left behind.

    Already there: verifies, and says so. Raises SplitError when a cloud could not follow, after the others did, and
    DeploymentFailedError, with nothing changed, when no cloud could make the target ready.
    """
    began = time.monotonic()

    def plan() -> RollbackPlan:
        with refusals(fleet, "rollback", to, reason=reason):
            return plan_rollback(fleet, to, accept_broken_seal)

    with writing(fleet, "rollback", to, urgent=True) as writer:
        planned = plan()
        if writer.take(planned.way.target):  # a rollout wrote until now
            planned = plan()
        return _carry_out(fleet, planned, reason, began)


def _carry_out(fleet: Fleet, planned: RollbackPlan, reason: str, began: float) -> Rollback:
    target, before, plan = planned.way.target, planned.before, planned.plan
    fleet = _probing(fleet, target, broken=bool(planned.accepted))
    intent = {
        **planned.accepted,
        "reason": reason,
        "before": traffic(before),
        "slots": slots(target, *planned.way.left, state=before),
        "plan": list(plan.explain()),
    }
    with record(fleet, "rollback", target, **intent) as outcome:
        fleet.say(f"rolling {fleet.model} back to {target}")
        show(fleet, plan)
        unready = failures(prepare_slots(fleet, plan.prepares))
        if unready and not {cloud.cloud for cloud in before.clouds} - set(unready):
            raise DeploymentFailedError(
                f"{target} could not be made ready on any cloud: {SwitchResult({}, unready).explain()}",
                hint=f"nothing was changed; see `lockstep versions {fleet.model}` for another version, or mend what is "
                f"named: lockstep replicate {fleet.model} {target.label}",
            )
        _commit(fleet, planned.way)
        ready = {cloud.name for cloud in fleet.clouds} - set(unready)
        moved = move_all(fleet, target, before, ready, f"rollback: {reason or 'no reason given'}")
        result = SwitchResult(moved.seconds, {**unready, **moved.reasons})
        after = fleet.observe()
        seconds = time.monotonic() - began
        outcome.update(
            left=[version.label for version in planned.way.left],
            ending=result.ending.value,
            seconds={cloud: round(value, 3) for cloud, value in result.seconds.items()},
            split=dict(result.reasons),
            after=traffic(after),
        )
        _condemn(fleet, planned.way, reason)
        if result.ending is not Ending.DONE:
            raise SplitError(
                f"{fleet.model} is split: {target} serves on {', '.join(result.seconds) or 'no cloud'}, not on "
                f"{result.explain()}",
                hint=f"run `lockstep rollback {fleet.model} --to {target.label}` again until every cloud follows",
            )
        _drop_own_fallback(fleet, target)
    return Rollback(target, planned.way.left, plan, before, after, result, seconds)


def _probing(fleet: Fleet, target: Version, *, broken: bool) -> Fleet:
    """Without an intact manifest no row can be made up; a target that was accepted so is moved to without probing."""
    try:
        return with_probe(fleet, target)
    except DigestMismatchError as error:
        if not broken:
            raise
        fleet.say(f"{target} will not be asked for real answers: {error.problem}")
        return fleet


def _commit(fleet: Fleet, way: Way) -> None:
    """From here on MLflow says that the target should serve everywhere."""
    set_alias(fleet, way.target, CHAMPION)
    delete_alias(fleet, CHALLENGER)


def _condemn(fleet: Fleet, way: Way, reason: str) -> None:
    """After the traffic: a note that cannot be written must not keep a bad version serving."""
    for version in way.left:
        fleet.registry.tag(version, CONDEMNED_TAG, f"rolled back from: {reason[:1000] or 'no reason given'}")


def _arrived(fleet: Fleet) -> str:
    """Digest that the newest move of traffic, if it is a rollback of the last minutes, leads or led to."""
    try:
        newest = fleet.ledger.entries(fleet.model, last=200)  # a rollout leaves several entries a step
    except LockstepError as error:  # a ledger that cannot be read holds no rollback up
        fleet.say(f"whether a rollback has just arrived is not known: {error.reason}")
        return ""
    moves = [one for one in newest if one.kind.removesuffix(".outcome").removesuffix(".intent") in MOVES]
    if not moves or not moves[-1].kind.startswith("rollback.") or moves[-1].at < time.time() - JUST_NOW:
        return ""
    return str(moves[-1].body.get("digest", ""))


def _drop_own_fallback(fleet: Fleet, target: Version) -> None:
    """What serves is no way back from itself. Only once it serves everywhere: until then the alias says where to go."""
    fallback = fleet.registry.alias(fleet.model, FALLBACK)
    if fallback is not None and fallback.digest == target.digest:
        delete_alias(fleet, FALLBACK)
