"""Take every cloud back to a known-good version at once. A rollback only goes forward: no cloud holds the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.errors import RefusedError, SplitError
from lockstep.operations.canary import CONDEMNED_TAG
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record, traffic
from lockstep.operations.probe import with_probe
from lockstep.operations.switch import failures, move_all, prepare_slots, show
from lockstep.rules.plan import Plan, Target, plan_changes
from lockstep.rules.state import CHALLENGER, CHAMPION, FALLBACK, DesiredState, FleetState, Version
from lockstep.rules.switch import Ending, SwitchResult
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class Rollback:
    """What a rollback did. `seconds` runs from the call to the last cloud verified; `left` is what served before."""

    target: Version
    left: Version | None
    plan: Plan
    before: FleetState
    after: FleetState
    result: SwitchResult
    seconds: float


def choose_target(desired: DesiredState, named: Version | None, tags: Mapping[str, str] | None) -> Version:
    """The version to go back to: the named one, else the fallback. `tags` are the chosen version's tags, if known.

    Raises RefusedError when there is no known-good version, or when the chosen one is condemned.
    """
    target = named or desired.fallback
    if target is None:
        raise RefusedError(
            f"{desired.model} has no known-good version to go back to (no alias {FALLBACK!r})",
            hint=f"name one: lockstep rollback {desired.model} --to VERSION",
        )
    if tags is not None and tags.get(CONDEMNED_TAG):
        raise RefusedError(
            f"{target} is condemned: {tags[CONDEMNED_TAG]}",
            hint=f"choose another version: lockstep rollback {desired.model} --to VERSION",
        )
    return target


def plan_rollback(fleet: Fleet, target: Version, observed: FleetState) -> Plan:
    """What a rollback to `target` would change on the clouds that answer; this is what a dry run shows."""
    splits = {cloud.name: TrafficSplit.all_to(target.slot) for cloud in fleet.clouds}
    return plan_changes(Target((target,), splits), observed)


def rollback(fleet: Fleet, *, to: Version | None = None, reason: str = "") -> Rollback:
    """Put every cloud on the target, read back and probed; condemns the version that is left behind.

    Already there: verifies, and says so. Raises SplitError when a cloud could not follow, after the others did.
    """
    began = time.monotonic()
    desired = fleet.registry.desired(fleet.model)
    chosen = to or desired.fallback
    target = choose_target(desired, to, fleet.registry.tags(chosen) if chosen else None)
    fleet = with_probe(fleet, target)
    left = desired.champion if desired.champion and desired.champion.digest != target.digest else None
    before = fleet.observe()
    plan = plan_rollback(fleet, target, before)
    intent = {"reason": reason, "before": traffic(before), "plan": list(plan.explain())}
    with record(fleet, "rollback", target, **intent) as outcome:
        fleet.say(f"rolling {fleet.model} back to {target}")
        show(fleet, plan)
        unready = failures(prepare_slots(fleet, plan.prepares))
        _commit(fleet, target, left, reason)
        moved = move_all(fleet, target, before, {cloud.name for cloud in fleet.clouds} - set(unready))
        result = SwitchResult(moved.seconds, {**unready, **moved.reasons})
        after = fleet.observe()
        seconds = time.monotonic() - began
        outcome.update(
            left="" if left is None else left.label,
            ending=result.ending.value,
            seconds={cloud: round(value, 3) for cloud, value in result.seconds.items()},
            split=dict(result.reasons),
            after=traffic(after),
        )
        if result.ending is not Ending.DONE:
            raise SplitError(
                f"{fleet.model} is split: {target} serves on {', '.join(result.seconds) or 'no cloud'}, not on "
                f"{result.explain()}",
                hint=f"run `lockstep rollback {fleet.model} --to {target.label}` again until every cloud follows",
            )
        _drop_own_fallback(fleet, target)
    return Rollback(target, left, plan, before, after, result, seconds)


def _commit(fleet: Fleet, target: Version, left: Version | None, reason: str) -> None:
    """From here on MLflow says that the target should serve everywhere."""
    fleet.registry.set_alias(target, CHAMPION)
    fleet.registry.delete_alias(fleet.model, CHALLENGER)
    if left is not None:
        fleet.registry.tag(left, CONDEMNED_TAG, f"rolled back from: {reason or 'no reason given'}")


def _drop_own_fallback(fleet: Fleet, target: Version) -> None:
    """What serves is no way back from itself. Only once it serves everywhere: until then the alias says where to go."""
    fallback = fleet.registry.alias(fleet.model, FALLBACK)
    if fallback is not None and fallback.digest == target.digest:
        fleet.registry.delete_alias(fleet.model, FALLBACK)
