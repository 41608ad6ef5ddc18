"""What must be done so that every cloud is as MLflow says, and what only a person can mend.

- Traffic goes to the champion alone; champion and fallback have ready slots with at least the stated capacity.
- A model that a live operation holds is left to it. A canary without a live operation is one whose rollout was
  killed: it is taken back.
- After an operation that was killed no cloud's word is believed: its last request may still be on the way. Traffic is
  set again, though it shows already where it should be.
- Slots that no alias names go when their names are Lockstep's; those made by hand go only when that was asked for. The
  fallback's slot never goes, and nothing goes right after a rollback: on SageMaker a removal would be in the way of
  the next one.
- A slot whose definition was changed is made anew while it takes no traffic; with traffic that is a person's decision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from lockstep.rules.mending import CloudMending
from lockstep.rules.plan import Change, Plan
from lockstep.rules.reconciliation import Difference, Facts, Finishing, Reconciliation
from lockstep.rules.state import CHALLENGER, FALLBACK, DesiredState, FleetState, Version


def reconcile_model(
    desired: DesiredState, observed: FleetState, facts: Facts, *, remove_foreign: bool = False
) -> Reconciliation:
    """Plan and differences of one model on the clouds that answered; the others are differences of their own."""
    nothing = Plan(desired.model, ())
    unreachable = tuple(
        Difference(cloud, f"unreachable: {why}", healed=False) for cloud, why in sorted(observed.unreachable.items())
    )
    if facts.holder:
        return Reconciliation(desired.model, nothing, unreachable, held=facts.holder)
    if facts.finishing is not None:
        return _finished(desired, observed, facts, facts.finishing, unreachable)
    champion = desired.champion
    if champion is None:
        return Reconciliation(desired.model, nothing, (*unreachable, *_unwanted(desired.model, observed)))
    challenger = desired.challenger
    over = challenger if challenger is not None and challenger.digest != champion.digest else None
    expected = facts.unfinished or facts.split or (f"the rollout of {over} was killed" if over else "")
    aliases, reasons = _aliases(desired, facts)
    desired = replace(desired, fallback=aliases.get(FALLBACK, desired.fallback))
    told: list[Difference] = [*unreachable, *_condemned(desired, facts)]
    told += (Difference("", why) for why in reasons)
    prepares, shifts, rest, retires = list[Change](), list[Change](), list[Change](), list[Change]()
    for cloud in observed.clouds:
        changes = CloudMending(desired, cloud, facts, over, remove_foreign)
        told += changes.differences()
        plan = changes.plan(observed.model)
        prepares += plan.prepares
        shifts += plan.shifts
        rest += (*plan.replaces, *plan.resizes)
        retires += plan.retires
    return Reconciliation(
        desired.model,
        Plan(desired.model, (*prepares, *shifts, *rest, *retires)),
        tuple(told),
        over=over,
        aliases=aliases,
        expected=expected,
    )


def _finished(
    desired: DesiredState,
    observed: FleetState,
    facts: Facts,
    finishing: Finishing,
    unreachable: tuple[Difference, ...],
) -> Reconciliation:
    """What a rollback that is finished does; aliases, slots and all else are for the reconcile after it."""
    alone = DesiredState(desired.model, finishing.target)
    told, prepares, shifts = list(unreachable), list[Change](), list[Change]()
    for cloud in observed.clouds:
        changes = CloudMending(alone, cloud, facts, None, remove_foreign=False)
        told += changes.serving()
        plan = changes.plan(desired.model)
        prepares += plan.prepares
        shifts += plan.shifts
    plan = Plan(desired.model, (*prepares, *shifts))
    return Reconciliation(desired.model, plan, tuple(told), expected=facts.unfinished, finishing=finishing)


def surprising(found: Sequence[Reconciliation], max_models: int, max_shifts: int) -> str:
    """Why a person should look before all of this is done at once; "" for what may go on.

    What the ledger explains (a split that was told, an operation that was killed) surprises nobody and is not counted.
    """
    unexplained = [one for one in found if one.plan.changes and not one.expected]
    shifts = sum(len(one.plan.shifts) for one in unexplained)
    told = []
    if len(unexplained) > max_models:
        names = ", ".join(one.model for one in unexplained)
        told.append(f"{len(unexplained)} models would be changed ({names}), more than {max_models}")
    if shifts > max_shifts:
        told.append(f"traffic would be moved {shifts} times, more than {max_shifts}")
    return "; ".join(told)


def _aliases(desired: DesiredState, facts: Facts) -> tuple[dict[str, Version | None], list[str]]:
    """Aliases to be changed, and why; the model has a champion, and no live operation."""
    changed: dict[str, Version | None] = {}
    reasons = []
    champion, challenger, fallback = desired.champion, desired.challenger, desired.fallback
    if champion is not None and challenger is not None:
        promoted = challenger.digest == champion.digest
        changed[CHALLENGER] = None
        why = f"{challenger} is the champion" if promoted else f"the rollout of {challenger} was killed"
        reasons.append(f"the alias {CHALLENGER!r} is over: {why}")
    same = champion is not None and fallback is not None and fallback.digest == champion.digest
    if same or (facts.good is not None and (fallback is None or fallback.digest in facts.condemned)):
        changed[FALLBACK] = facts.good
        reasons.append("the fallback is the champion, and no way back from itself" if same else "there is no fallback")
    return changed, reasons


def _unwanted(model: str, observed: FleetState) -> Iterator[Difference]:
    for cloud in observed.clouds:
        if cloud.split is not None:
            text = f"serves {cloud.split}, though no version is champion"
            hint = f"say which version should: lockstep deploy {model} VERSION"
            yield Difference(cloud.cloud, text, healed=False, hint=hint)


def _condemned(desired: DesiredState, facts: Facts) -> Iterator[Difference]:
    for role, version in (("champion", desired.champion), ("fallback", desired.fallback)):
        if version is not None and version.digest in facts.condemned:
            text = f"the {role} {version} is condemned: {facts.condemned[version.digest]}"
            hint = f"lockstep rollback {desired.model}" if role == "champion" else "a rollback needs a version by name"
            yield Difference("", text, healed=False, hint=hint)


def unhealed(found: Reconciliation, failed: Collection[str] = ()) -> tuple[Difference, ...]:
    """What is left when the plan was carried out everywhere but on the clouds that `failed`."""
    return tuple(one for one in found.differences if not one.waits and (not one.healed or one.cloud in failed))
