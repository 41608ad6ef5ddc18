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

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lockstep.rules.capacity import Least
from lockstep.rules.plan import Change, Plan, ReplaceSlot, ResizeSlot, ShiftTraffic, Target, plan_changes
from lockstep.rules.state import CHALLENGER, FALLBACK, CloudState, DesiredState, FleetState, SlotState, Version
from lockstep.rules.traffic import TrafficSplit

#: The name of a slot that Lockstep made: `Version.slot`.
OWN_SLOT: Final = re.compile(r"v[0-9]+-[0-9a-f]{8}")


@dataclass(frozen=True)
class Finishing:
    """A rollback that was killed: its decision stands, and is carried out before anything else is mended."""

    target: Version
    reason: str = ""
    left: tuple[Version, ...] = ()

    def explain(self, changes: Sequence[str]) -> tuple[str, ...]:
        """One line a step, around its changes on the clouds."""
        why = self.reason or "no reason given"
        condemned = (f"condemn {version}: rolled back from: {why}" for version in self.left)
        return (f"finish the rollback to {self.target}: {why}", *changes, *condemned)


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside MLflow's aliases and the clouds' answers.

    `holder` is the live operation that holds the model, `unfinished` one that was killed, `split` one that told of
    clouds that did not follow, `settling` why no slot may go now; each a phrase, "" for none. `known` are the splits by
    cloud that Lockstep itself left or asked for, the one that was read back last first. `altered` are differences by
    cloud and slot between what was written and what is there; `condemned` reasons by digest; `good` is the version
    that should be the fallback where the alias names none that can be. `finishing` is the unfinished operation where
    it is a rollback.
    """

    holder: str = ""
    unfinished: str = ""
    split: str = ""
    settling: str = ""
    known: Mapping[str, Sequence[TrafficSplit]] = field(default_factory=dict)
    altered: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    good: Version | None = None
    least: Mapping[str, Least] = field(default_factory=dict)
    condemned: Mapping[str, str] = field(default_factory=dict)
    finishing: Finishing | None = None


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be. `healed` says that the plan mends it; else `hint` is a person's step.

    `by_hand` says that it was changed past Lockstep; `before` and `after` are then what it was and is. `waits` says
    that it is meant to be so for now: the model is in step with it.
    """

    cloud: str
    told: str
    healed: bool = True
    hint: str = ""
    by_hand: bool = False
    before: str = ""
    after: str = ""
    waits: bool = False

    def __str__(self) -> str:
        changed = f" (changed by hand from {self.before} to {self.after})" if self.by_hand and self.before else ""
        where = f"{self.cloud}: " if self.cloud else ""
        return f"{where}{self.told}{changed}" + (f" – {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Reconciliation:
    """One model's plan and differences. `over` is a canary whose rollout was killed, `held` who works on the model.

    `aliases` are those of MLflow that are set, or go (None), once the traffic is where it should be. `expected` says
    why the ledger explains the differences, "" when it does not. With `finishing` all of it is that rollback's.
    """

    model: str
    plan: Plan
    differences: tuple[Difference, ...] = ()
    over: Version | None = None
    aliases: Mapping[str, Version | None] = field(default_factory=dict)
    held: str = ""
    expected: str = ""
    finishing: Finishing | None = None

    @property
    def in_step(self) -> bool:
        """Whether nothing has to be changed or looked at."""
        return not self.work and all(one.waits for one in self.differences) and not self.held

    @property
    def work(self) -> bool:
        """Whether there is something to do."""
        return bool(self.plan.changes or self.aliases)

    def explain(self) -> tuple[str, ...]:
        """One line a step, in the order in which they are taken."""
        if self.finishing is not None:
            return self.finishing.explain(self.plan.explain() if self.plan.changes else ())
        names = tuple(
            f"MLflow: point the alias {alias!r} at {version}" if version else f"MLflow: delete the alias {alias!r}"
            for alias, version in self.aliases.items()
        )
        return (*self.plan.explain(), *names) if self.plan.changes or not names else names

    @property
    def by_hand(self) -> tuple[Difference, ...]:
        """What somebody changed past Lockstep."""
        return tuple(difference for difference in self.differences if difference.by_hand)


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
        changes = _Cloud(desired, cloud, facts, over, remove_foreign)
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
        changes = _Cloud(alone, cloud, facts, None, remove_foreign=False)
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


class _Cloud:
    """One model on one cloud: what differs, and what mends it."""

    def __init__(
        self, desired: DesiredState, cloud: CloudState, facts: Facts, over: Version | None, remove_foreign: bool
    ) -> None:
        assert desired.champion is not None
        self._model = desired.model
        self._champion = desired.champion
        self._cloud = cloud
        self._facts = facts
        self._over = over
        self._remove_foreign = remove_foreign
        fallback = desired.fallback
        self._fallback = fallback if fallback is not None and fallback.digest != self._champion.digest else None
        self._wanted = TrafficSplit.all_to(self._champion.slot)

    @property
    def _warm(self) -> tuple[Version, ...]:
        fallback = self._fallback
        usable = fallback is not None and fallback.digest not in self._facts.condemned
        return (self._champion, fallback) if fallback is not None and usable else (self._champion,)

    def plan(self, model: str) -> Plan:
        """The changes here."""
        retire = {slot.name for slot, goes in self._foreign() if goes}
        target = Target(self._warm, {self._cloud.cloud: self._wanted}, frozenset(retire))
        plan = plan_changes(target, FleetState(model, (self._cloud,), {}))
        again: list[Change] = []
        if self._distrusted and not plan.shifts:
            again.append(ShiftTraffic(self._cloud.cloud, self._cloud.split, self._wanted))
        replaces = [
            ReplaceSlot(self._cloud.cloud, version)
            for version in self._warm
            if self._altered(version) and not self._weight(version)
        ]
        anew = {change.version for change in replaces}
        kept = [change for change in plan.prepares if change.version not in anew]
        made = anew | {change.version for change in kept}
        resizes = [
            ResizeSlot(self._cloud.cloud, version.slot, capacity, least)
            for version, capacity, least in self._small()
            if version not in made
        ]
        least = self._least
        if self._fallback in made and least.fallback > least.champion:  # what a new slot begins with
            slot = self._fallback.slot if self._fallback else ""
            resizes.append(ResizeSlot(self._cloud.cloud, slot, least.champion, least.fallback))
        return Plan(model, (*kept, *plan.shifts, *again, *replaces, *resizes, *plan.retires))

    def differences(self) -> Iterator[Difference]:
        """What is not as it should be here."""
        yield from self.serving()
        for version, capacity, least in self._small():
            yield Difference(self._cloud.cloud, f"slot {version.slot} has {capacity} instances, fewer than {least}")
        yield from self._alterations()
        yield from self._strangers()

    def serving(self) -> Iterator[Difference]:
        """What keeps champion and fallback from serving, or from being ready to."""
        cloud = self._cloud
        if cloud.split != self._wanted:
            yield self._traffic()
        elif self._distrusted:
            why = self._facts.unfinished or f"the rollout of {self._over} was killed"
            yield Difference(cloud.cloud, f"traffic is set again: {why}")
        for version in self._warm:
            slot = cloud.slot(version.slot)
            role = "champion" if version == self._champion else "fallback"
            if slot is None:
                yield Difference(cloud.cloud, f"the {role} {version} has no slot")
            elif not slot.ready:
                yield Difference(cloud.cloud, f"the slot of the {role} {version} is {slot.status or 'not ready'}")

    @property
    def _distrusted(self) -> bool:
        """Whether a request of a killed operation may still change the traffic here."""
        slot = self._cloud.slot(self._champion.slot)
        return bool(self._over or self._facts.unfinished) and slot is not None and slot.ready

    def _traffic(self) -> Difference:
        cloud, split = self._cloud, self._cloud.split
        known = self._facts.known.get(cloud.cloud, ())
        by_hand = bool(known) and split not in known
        shown = str(split or "no traffic")
        before = str(known[0]) if by_hand else ""
        return Difference(
            cloud.cloud,
            f"serves {shown}, not {self._champion.slot}",
            by_hand=by_hand,
            before=before,
            after=shown if by_hand else "",
        )

    def _alterations(self) -> Iterator[Difference]:
        for version in self._warm:
            told = self._altered(version)
            if not told:
                continue
            weight = self._weight(version)
            hint = f"it takes {weight} % of the traffic: lockstep rollback {self._model}" if weight else ""
            text = f"slot {version.slot} was altered: {'; '.join(told)}"
            yield Difference(self._cloud.cloud, text, healed=not weight, hint=hint, by_hand=True)

    def _altered(self, version: Version) -> tuple[str, ...]:
        slot = self._cloud.slot(version.slot)
        if slot is None:
            return ()
        told = tuple(self._facts.altered.get(self._cloud.cloud, {}).get(version.slot, ()))
        if not told and slot.digest and slot.digest != version.digest:
            told = (f"it runs digest {slot.digest[:12]}, not {version.digest[:12]}",)
        return told

    def _weight(self, version: Version) -> int:
        slot = self._cloud.slot(version.slot)
        return 0 if slot is None else slot.weight

    @property
    def _least(self) -> Least:
        return self._facts.least.get(self._cloud.cloud, Least())

    def _small(self) -> Iterator[tuple[Version, int, int]]:
        for version in self._warm:
            slot = self._cloud.slot(version.slot)
            wanted = self._least.champion if version == self._champion else self._least.fallback
            if slot is not None and slot.ready and slot.capacity < wanted:
                yield version, slot.capacity, wanted

    def _foreign(self) -> Iterator[tuple[SlotState, bool]]:
        """Slots that no alias names, and whether they go."""
        kept = {self._champion.slot} | ({self._fallback.slot} if self._fallback else set())
        for slot in self._cloud.slots:
            if slot.name not in kept:
                own = OWN_SLOT.fullmatch(slot.name) is not None
                yield slot, self._remove_foreign or (own and not self._facts.settling)

    def _strangers(self) -> Iterator[Difference]:
        for slot, goes in self._foreign():
            own = OWN_SLOT.fullmatch(slot.name) is not None
            if self._over is not None and slot.name == self._over.slot:
                yield Difference(self._cloud.cloud, f"slot {slot.name} is a canary whose rollout was killed")
            elif own and not goes:
                text = f"slot {slot.name} is left for now: {self._facts.settling}"
                yield Difference(self._cloud.cloud, text, healed=False, waits=True)
            elif own:
                yield Difference(self._cloud.cloud, f"no alias names slot {slot.name}")
            else:
                command = f"to remove it: lockstep reconcile {self._model} --remove-foreign"
                text = f"slot {slot.name} was not made by Lockstep"
                yield Difference(self._cloud.cloud, text, goes, "" if goes else command, by_hand=True)


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
