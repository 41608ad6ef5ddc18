"""Carry out what reconciling decided for one model: the traffic first, then what takes minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lockstep.errors import LockstepError
from lockstep.operations.desired import Known, tell, without_mlflow
from lockstep.operations.fencing import guard
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record
from lockstep.operations.probe import with_probe
from lockstep.operations.running import Job, Outcome, untold
from lockstep.operations.switch import Done, failures, prepare_slots, retire_slots, shift_traffic, stop_if_overtaken
from lockstep.rules.owed import OwedAlias
from lockstep.rules.plan import PrepareSlot, ReplaceSlot, ResizeSlot, RetireSlot
from lockstep.rules.reconciliation import Reconciliation
from lockstep.rules.state import Version


def heal(
    fleet: Fleet, known: Known, champion: Version, found: Reconciliation, moved: Done = untold
) -> Mapping[str, str]:
    """Do the plan; why each cloud that could not follow did not. What a silent MLflow cannot be told is owed.

    A cloud that fails at a step is left out of its next ones; the others go on. Where the champion's slot is ready
    traffic moves at once, elsewhere when the slot was made. The fallback comes after the traffic. `moved` is told of
    each cloud's traffic as soon as it is verified or given up.
    """
    plan = found.plan
    fleet = without_mlflow(fleet, known)
    fleet = _probing(fleet, champion) if plan.shifts else fleet
    why = f"reconcile: {'; '.join(str(one) for one in found.differences if one.healed)}"[:1000]
    failed: dict[str, str] = {}
    late = {one.cloud for one in plan.prepares if one.version == champion}
    late |= {one.cloud for one in plan.replaces if one.version == champion}
    quick = [shift for shift in plan.shifts if shift.cloud not in late]
    failed.update(shift_traffic(fleet, quick, [champion], why, moved).reasons)

    def first(version: Version) -> bool:
        return version == champion

    _make(fleet, plan.prepares, plan.replaces, first, failed)
    slow = [shift for shift in plan.shifts if shift.cloud in late - set(failed)]
    failed.update(shift_traffic(fleet, slow, [champion], why, moved).reasons)
    if not failed:
        tell(fleet, known, [OwedAlias(alias, version) for alias, version in found.aliases.items()])
    _make(fleet, plan.prepares, plan.replaces, lambda version: version != champion, failed)
    failed.update(failures(resize_slots(fleet, [one for one in plan.resizes if one.cloud not in failed])))
    gone = retire_slots(fleet, [one for one in plan.retires if one.cloud not in failed])
    return {**failed, **failures(gone)}


def resize_slots(fleet: Fleet, changes: Sequence[ResizeSlot]) -> tuple[Outcome[None], ...]:
    """Give slots their instances, on all clouds at the same time."""
    if not changes:
        return ()

    check = guard(fleet.model)

    def resize(change: ResizeSlot) -> None:
        check()
        fleet.cloud(change.cloud).resize(fleet.model, change.slot, change.after)

    def bound(change: ResizeSlot) -> Callable[[], None]:
        return lambda: resize(change)

    named: dict[str, dict[str, list[int]]] = {}
    for change in changes:
        named.setdefault(change.cloud, {})[change.slot] = [change.before, change.after]
    with record(fleet, "resize", None, clouds=named) as outcome:
        outcomes = fleet.runner.run(
            [
                Job(change.cloud, str(change), bound(change), say=partial(fleet.warn, cloud=change.cloud))
                for change in changes
            ]
        )
        outcome.update(clouds=named, failed=failures(outcomes))
        stop_if_overtaken(outcomes)
        return outcomes


def _make(
    fleet: Fleet,
    prepares: Sequence[PrepareSlot],
    replaces: Sequence[ReplaceSlot],
    wanted: Callable[[Version], bool],
    failed: dict[str, str],
) -> None:
    """Have the slots of the `wanted` versions ready, those that were altered made anew."""
    anew = [one for one in replaces if wanted(one.version) and one.cloud not in failed]
    failed.update(failures(retire_slots(fleet, [RetireSlot(one.cloud, one.version.slot) for one in anew])))
    again = [PrepareSlot(one.cloud, one.version) for one in anew]
    new = [one for one in prepares if wanted(one.version)]
    failed.update(failures(prepare_slots(fleet, [one for one in (*new, *again) if one.cloud not in failed])))


def _probing(fleet: Fleet, champion: Version) -> Fleet:
    """A cloud's own word has to do where no row to ask with can be made up."""
    try:
        return with_probe(fleet, champion)
    except LockstepError as error:
        fleet.say(f"{champion} will not be asked for real answers: {error.problem}")
        return fleet
