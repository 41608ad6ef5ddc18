"""One model on one cloud: what differs from what MLflow says, and the changes that mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lockstep.rules.capacity import Least
from lockstep.rules.plan import Change, Plan, ReplaceSlot, ResizeSlot, ShiftTraffic, Target, plan_changes
from lockstep.rules.reconciliation import Difference, Facts
from lockstep.rules.state import CloudState, DesiredState, FleetState, SlotState, Version
from lockstep.rules.traffic import TrafficSplit

#: The name of a slot that Lockstep made: `Version.slot`.
OWN_SLOT: Final = re.compile(r"v[0-9]+-[0-9a-f]{8}")


class CloudMending:
    """The differences and changes of one cloud; `over` is a canary whose rollout was killed."""

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
