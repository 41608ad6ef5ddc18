"""Where a rollback would go and what it would change: looks at MLflow, the clouds and the ledger, changes nothing."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.desired import Known, read_known, without_mlflow
from lockstep.operations.fleet import Fleet
from lockstep.operations.intact import accept_or_refuse, seal_problems
from lockstep.rules.known_good import known_good
from lockstep.rules.naming import find_version
from lockstep.rules.plan import Plan, Target, plan_changes
from lockstep.rules.state import FleetState, Version
from lockstep.rules.target import Way, Why, choose_way, nothing_to_leave
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.ledger import Entry

PROMOTION: Final = "promote"
TRIAL: Final = "canary_deploy"
MOVES: Final = ("rollback", TRIAL, PROMOTION)  # operations that decide what serves
JUST_NOW: Final = 900.0  # seconds in which further alerts tell of the incident that was just dealt with


@dataclass(frozen=True)
class RollbackPlan:
    """Where a rollback would go and what it would change on the clouds that answer; a dry run shows this.

    `known` is what it was decided by, to which its commit and its end are written.
    `accepted` is what the ledger must know of a broken seal of the target that was accepted. `needless` says why there
    is nothing to leave: then nothing is to be carried out.
    """

    way: Way
    known: Known
    before: FleetState
    plan: Plan
    accepted: Mapping[str, object] = field(default_factory=dict)
    needless: str = ""


def plan_rollback(
    fleet: Fleet,
    to: Version | str | None = None,
    accept_broken_seal: str = "",
    *,
    leaving: str = "",
    asked: float = 0.0,
) -> RollbackPlan:
    """Look at MLflow, the clouds and the ledger, and plan; changes nothing.

    `to` is a version, or a text that names one as in `find_version`, and so is `leaving`, the one to get away from.
    Without it what served at the time `asked` (Unix seconds) is, if that is told: what came since is left alone, unless
    `to` names a version that does not serve.

    Raises NotFoundError when one of them names none, and RefusedError when there is no known-good version, when the
    target is condemned or was never replicated, or when its seal does not hold; `accept_broken_seal` is the reason to
    go on then, if no other version that was known to be good is intact.
    """
    if not fleet.clouds:
        raise RefusedError(
            f"the fleet of {fleet.model} has no cloud, so there is nothing to roll back",
            hint="name its clouds in lockstep.yaml: fleets.NAME.clouds",
        )
    known = read_known(fleet)
    fleet = without_mlflow(fleet, known)
    named = find_version(known.record, to) if isinstance(to, str) else to
    bad = find_version(known.record, leaving) if leaving else None
    before = fleet.observe(urgent=True)
    moves = _moves(fleet)
    way = choose_way(known.record, named, before, _arrived(moves), bad)
    splits = {cloud.name: TrafficSplit.all_to(way.target.slot) for cloud in fleet.clouds}
    plan = plan_changes(Target((way.target,), splits), before)
    champion = known.record.desired.champion
    serves = champion is not None and champion.digest == way.target.digest and not plan.changes
    if named is None or serves:  # who names a version gets it
        needless = nothing_to_leave(known.record, bad, before) if bad else _moved(moves, asked) if asked else ""
        if needless:
            return RollbackPlan(way, known, before, Plan(fleet.model, ()), needless=needless)
    _refuse_unreplicated(fleet, way.target, plan, before)
    problems = seal_problems(
        fleet, way.target, [cloud for cloud in fleet.clouds if cloud.name not in before.unreachable]
    )
    accepted = accept_or_refuse(fleet, "rollback", way.target, problems, accept_broken_seal, way.left)
    return RollbackPlan(way, known, before, plan, accepted)


def further_back(planned: RollbackPlan) -> str:
    """The command that goes further back than where a rollback has just led; "" where this one goes somewhere."""
    if planned.way.why is not Why.ARRIVED or planned.way.left:
        return ""
    good = [one.version for one in known_good(planned.known.record) if one.version != planned.way.target]
    return f"lockstep rollback {planned.before.model} --to {good[0].label if good else 'VERSION'}"


def _refuse_unreplicated(fleet: Fleet, target: Version, plan: Plan, before: FleetState) -> None:
    """A target without a slot anywhere, and without bytes anywhere to make one of, would only fail later, and change.

    Where a part of the clouds has it, those follow, and the others are named SPLIT: a rollback goes forward.
    """
    cold = {change.cloud for change in plan.prepares}
    if not cold or any(cloud.cloud not in cold for cloud in before.clouds):
        return

    def missing(cloud: Cloud) -> bool:
        return cloud.name in cold and not fleet.replicas(cloud).is_committed(target)

    found = fleet.look_at_each(f"look for {target}", missing)
    # A store that does not answer may hold it.
    if all(outcome.error is None and outcome.value for outcome in found if outcome.cloud in cold):
        raise RefusedError(
            f"{target} was never replicated: its bytes are on none of {', '.join(sorted(cold))}",
            hint=f"nothing was changed; lockstep replicate {fleet.model} {target.label}, or choose another version",
        )


def _moves(fleet: Fleet) -> Sequence[Entry]:
    """The newest entries of operations that decide what serves, the oldest first."""
    try:
        newest = fleet.ledger.entries(fleet.model, last=200)  # a rollout leaves several entries a step
    except LockstepError as error:  # a ledger that cannot be read holds no rollback up
        fleet.say(f"whether a rollback has just arrived is not known: {error.reason}")
        return ()
    return [one for one in newest if one.kind.removesuffix(".outcome").removesuffix(".intent") in MOVES]


def _arrived(moves: Sequence[Entry]) -> str:
    """Digest that the newest move of traffic, if it is a rollback of the last minutes, leads or led to."""
    decided = [one for one in moves if not one.kind.startswith(PROMOTION)]
    if not decided or not decided[-1].kind.startswith("rollback.") or decided[-1].at < time.time() - JUST_NOW:
        return ""
    return str(decided[-1].body.get("digest", ""))


def _moved(moves: Sequence[Entry], asked: float) -> str:
    """Which rollback or promotion came after that time and made another version the champion; "" for none.

    The promotion of a version that was tried at that time is none: it is what was meant.
    """
    tried = _tried(moves, asked)
    for one in reversed(moves):
        promoted = one.kind.startswith(PROMOTION)
        if one.at <= asked or (promoted and one.body.get("version") in tried):  # older lines may come late
            continue
        arrived = one.kind == f"{PROMOTION}.outcome" or (
            one.kind == "rollback.outcome" and bool(one.body.get("seconds"))
        )
        if arrived and (one.kind.startswith("rollback.") or not one.body.get("error")):
            what = one.kind.partition(".")[0]
            return f"since it was asked for, a {what} has led to version {one.body.get('version')}"
    return ""


def _tried(moves: Sequence[Entry], at: float) -> Collection[object]:
    """Versions whose canary had begun by then, and was neither ended nor taken back."""
    found: set[object] = set()
    for one in sorted((one for one in moves if one.at <= at), key=lambda one: one.at):
        if one.kind == f"{TRIAL}.intent":
            found.add(one.body.get("version"))
        elif one.kind == f"{TRIAL}.outcome":
            found.discard(one.body.get("version"))
        elif one.kind.startswith("rollback."):
            found.clear()
    return found
