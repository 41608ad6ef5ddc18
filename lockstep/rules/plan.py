"""The difference between what should be and what is, as a frozen list of small typed changes.

The list that is shown is the list that is carried out: both walk `Plan.changes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.rules.state import CloudState, FleetState, Version
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class PrepareSlot:
    """Have the version's slot ready on a cloud, without traffic."""

    cloud: str
    version: Version

    def __str__(self) -> str:
        return f"{self.cloud}: make slot {self.version.slot} ready"


@dataclass(frozen=True)
class ShiftTraffic:
    """Move an endpoint's traffic; `before` is None where nothing takes any yet."""

    cloud: str
    before: TrafficSplit | None
    after: TrafficSplit

    def __str__(self) -> str:
        return f"{self.cloud}: traffic {self.before or 'none'} -> {self.after}"


@dataclass(frozen=True)
class RetireSlot:
    """Remove a slot that takes no traffic."""

    cloud: str
    slot: str

    def __str__(self) -> str:
        return f"{self.cloud}: retire slot {self.slot}"


@dataclass(frozen=True)
class ReplaceSlot:
    """Make a slot that takes no traffic anew, since what it is made of was changed."""

    cloud: str
    version: Version

    def __str__(self) -> str:
        return f"{self.cloud}: make slot {self.version.slot} anew"


@dataclass(frozen=True)
class ResizeSlot:
    """Give a slot more instances; `before` and `after` count them."""

    cloud: str
    slot: str
    before: int
    after: int

    def __str__(self) -> str:
        return f"{self.cloud}: slot {self.slot} from {self.before} to {self.after} instances"


Change = PrepareSlot | ShiftTraffic | ReplaceSlot | ResizeSlot | RetireSlot


@dataclass(frozen=True)
class Target:
    """How a model's endpoints should look.

    `warm` are the versions whose slots must be ready on every cloud, `splits` the traffic by cloud (a cloud that is
    not named keeps its own), `retire` the names of slots that should go.
    """

    warm: tuple[Version, ...]
    splits: Mapping[str, TrafficSplit]
    retire: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """Changes in the order of their kinds: slots first, then traffic, then slots made anew, sizes and removals."""

    model: str
    changes: tuple[Change, ...]

    @property
    def prepares(self) -> tuple[PrepareSlot, ...]:
        """Slots to make ready."""
        return tuple(change for change in self.changes if isinstance(change, PrepareSlot))

    @property
    def shifts(self) -> tuple[ShiftTraffic, ...]:
        """Traffic to move."""
        return tuple(change for change in self.changes if isinstance(change, ShiftTraffic))

    @property
    def replaces(self) -> tuple[ReplaceSlot, ...]:
        """Slots to make anew."""
        return tuple(change for change in self.changes if isinstance(change, ReplaceSlot))

    @property
    def resizes(self) -> tuple[ResizeSlot, ...]:
        """Slots to give more instances."""
        return tuple(change for change in self.changes if isinstance(change, ResizeSlot))

    @property
    def retires(self) -> tuple[RetireSlot, ...]:
        """Slots to remove."""
        return tuple(change for change in self.changes if isinstance(change, RetireSlot))

    def explain(self) -> tuple[str, ...]:
        """One line a change, or one that says that there is nothing to do."""
        return tuple(str(change) for change in self.changes) or (f"{self.model}: nothing to change",)


def plan_changes(target: Target, observed: FleetState) -> Plan:
    """What has to be done on the clouds that answered; those that did not are in `observed.unreachable`."""
    prepares: list[Change] = []
    shifts: list[Change] = []
    retires: list[Change] = []
    for cloud in observed.clouds:
        prepares += [PrepareSlot(cloud.cloud, version) for version in target.warm if not _is_ready(cloud, version)]
        wanted = target.splits.get(cloud.cloud)
        if wanted is not None and cloud.split != wanted:
            shifts.append(ShiftTraffic(cloud.cloud, cloud.split, wanted))
        kept = {slot for slot, _ in (wanted or cloud.split or TrafficSplit.all_to("-")).weights}
        retires += [
            RetireSlot(cloud.cloud, slot.name)
            for slot in cloud.slots
            if slot.name in target.retire and slot.name not in kept
        ]
    return Plan(observed.model, (*prepares, *shifts, *retires))


def _is_ready(cloud: CloudState, version: Version) -> bool:
    slot = cloud.slot(version.slot)
    return slot is not None and slot.ready
