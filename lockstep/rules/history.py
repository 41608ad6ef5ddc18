"""What served on each cloud, when, as the ledger can vouch for it.

- A split is CERTAIN from the moment at which it was read back and probed, until the next change was announced.
- Between an intent and its outcome a cloud is IN TRANSITION: the split before or the one after it may have served.
- It is UNKNOWN where an intent has no outcome (a process that was killed) and where a cloud did not follow, until a
  later shift is verified there, and before the first shift that the ledger tells of.
- Several changes at once leave all their splits possible; the newest that was read back is what stays.
- Entries count by their own time, also those that were appended late.

Intervals of one cloud touch, never overlap, and reach from the model's first entry on without an end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from lockstep.errors import NotFoundError, RefusedError
from lockstep.rules.deeds import Deed, Line, mapping, read_deeds, text
from lockstep.rules.moments import show_moment
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit

Split = TrafficSplit | None  # None: nothing takes traffic
UNTOLD: Final = "no entry tells yet what served"


class Certainty(StrEnum):
    """How well an interval is known."""

    CERTAIN = "certain"
    TRANSITION = "in transition"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Interval:
    """A stretch of time on one cloud, Unix seconds, `until` None for one that lasts.

    `splits` is the split that served, when certain, else every one that may have; `entries` are the ledger's indices
    that it rests on, `note` says why it is not certain.
    """

    cloud: str
    since: float
    until: float | None
    certainty: Certainty
    splits: tuple[Split, ...]
    entries: tuple[int, ...]
    note: str = ""

    def holds(self, at: float) -> bool:
        """Whether it covers the instant."""
        return self.since <= at and (self.until is None or at < self.until)


@dataclass(frozen=True)
class Sealed:
    """A version as the ledger names it; `entry` is the index of its registration, None where there is none."""

    label: str
    digest: str
    entry: int | None = None
    content: str = ""
    run_id: str = ""

    @property
    def slot(self) -> str:
        """Name of its slot on every cloud."""
        return Version("", self.label, self.digest).slot


@dataclass(frozen=True)
class Surprise:
    """A cloud reported another split than the one that was last verified: somebody else moved its traffic."""

    cloud: str
    at: float
    expected: Split
    reported: Split
    entry: int


@dataclass(frozen=True)
class History:
    """One model's past: intervals by cloud, its versions by slot, and what clouds reported that nobody asked for."""

    intervals: Mapping[str, tuple[Interval, ...]]
    versions: Mapping[str, Sealed]
    surprises: tuple[Surprise, ...]
    deeds: tuple[Deed, ...]
    began: float

    def at(self, cloud: str, moment: float) -> Interval:
        """The interval that holds the instant; raises NotFoundError for a cloud or a time that no entry tells of."""
        if cloud not in self.intervals:
            known = ", ".join(self.intervals) or "none"
            raise NotFoundError(f"the ledger tells of no traffic on {cloud!r} (clouds it tells of: {known})")
        if moment < self.began:
            raise NotFoundError(
                f"{show_moment(moment)} is before the model's first entry in the ledger, of {show_moment(self.began)}",
                hint="name a later time",
            )
        return next(interval for interval in self.intervals[cloud] if interval.holds(moment))


@dataclass
class _Cloud:
    """One cloud while its events are read in order."""

    name: str
    certainty: Certainty = Certainty.UNKNOWN
    splits: tuple[Split, ...] = ()
    entries: tuple[int, ...] = ()
    note: str = UNTOLD
    running: dict[str, _Change] = field(default_factory=dict)
    done: list[Interval] = field(default_factory=list)
    since: float = 0.0

    def view(self) -> tuple[Certainty, tuple[Split, ...], tuple[int, ...], str]:
        """What can be said now."""
        if not self.running:
            return self.certainty, self.splits, self.entries, self.note
        splits = dict.fromkeys([*self.splits, *(split for one in self.running.values() for split in one.splits)])
        entries = dict.fromkeys([*self.entries, *(one.entry for one in self.running.values())])
        lost = [one for one in self.running.values() if one.lost]
        if lost:
            note = f"entry {lost[0].entry} announced a change and nothing says what came of it"
            return Certainty.UNKNOWN, tuple(splits), tuple(entries), note
        notes = [self.note] if self.note and self.note != UNTOLD else []
        note = "; ".join([*notes, *(f"entry {one.entry} was being carried out" for one in self.running.values())])
        return Certainty.TRANSITION, tuple(splits), tuple(entries), note


@dataclass(frozen=True)
class _Change:
    """A change under way: what may come to serve through it, and the index of its intent."""

    began: float
    entry: int
    splits: tuple[Split, ...]
    lost: bool


@dataclass(frozen=True)
class _Event:
    """The beginning of a `change`, or its end: the split that was `verified`, False where that did not happen."""

    at: float
    order: int
    cloud: str
    deed: Deed
    change: _Change | None = None
    verified: Split | bool = False
    reason: str = ""


def read_history(lines: Sequence[Line]) -> History:
    """The history that a model's entries tell; they must be all of the model's, from its first one on.

    Raises NotFoundError without any.
    """
    if not lines:
        raise NotFoundError("the ledger holds no entry of this model", hint="register a version of it, and deploy it")
    deeds = read_deeds(lines)
    events = sorted(_events(deeds), key=lambda event: (event.at, event.order))
    began = min(line.at for line in lines)
    clouds: dict[str, _Cloud] = {}
    surprises: list[Surprise] = []
    for event in events:
        cloud = clouds.setdefault(event.cloud, _Cloud(event.cloud, since=began))
        before = cloud.view()
        if event.change is not None:
            surprises += _surprise(cloud, event)
            _begin(cloud, event, event.change)
        else:
            _end(cloud, event)
        if cloud.view() != before:
            _cut(cloud, event.at, before)
    intervals = {name: (*cloud.done, _interval(cloud, None, cloud.view())) for name, cloud in sorted(clouds.items())}
    return History(intervals, _versions(deeds), tuple(surprises), deeds, began)


def _cut(cloud: _Cloud, at: float, view: tuple[Certainty, tuple[Split, ...], tuple[int, ...], str]) -> None:
    if at > cloud.since:  # what lasted no time at all is no interval
        cloud.done.append(_interval(cloud, at, view))
    cloud.since = at


def _interval(
    cloud: _Cloud, until: float | None, view: tuple[Certainty, tuple[Split, ...], tuple[int, ...], str]
) -> Interval:
    return Interval(cloud.name, cloud.since, until, *view)


def _begin(cloud: _Cloud, event: _Event, change: _Change) -> None:
    if event.deed.operation == "prepare":
        # The only slot of an endpoint may take its traffic at once; where something serves, a new slot takes none.
        if any(split is not None for split in cloud.splits):
            return
        cloud.splits = tuple(dict.fromkeys([*cloud.splits, None, *change.splits]))
        cloud.certainty = Certainty.UNKNOWN if change.lost else Certainty.TRANSITION
        cloud.entries, cloud.note = (*cloud.entries, change.entry), f"entry {change.entry} made the first slot there"
        return
    if not cloud.splits:  # the first that the ledger hears of this cloud
        cloud.splits = (_split(mapping(event.deed.body, "before").get(cloud.name)),)
    cloud.running[event.deed.event] = change


def _end(cloud: _Cloud, event: _Event) -> None:
    if event.deed.operation == "prepare":
        cloud.certainty = Certainty.UNKNOWN if cloud.certainty is Certainty.TRANSITION else cloud.certainty
        return
    change = cloud.running.pop(event.deed.event)
    outcome = event.deed.entries[-1]
    if isinstance(event.verified, bool):
        cloud.splits = tuple(dict.fromkeys([*cloud.splits, *change.splits]))
        cloud.certainty, cloud.entries = Certainty.UNKNOWN, tuple(dict.fromkeys([*cloud.entries, *event.deed.entries]))
        cloud.note = f"{event.reason or 'it could not be verified'} (entry {outcome})"
        return
    cloud.certainty, cloud.splits, cloud.entries, cloud.note = Certainty.CERTAIN, (event.verified,), (outcome,), ""
    # What a process that died had announced before this shift began was overwritten by it.
    for name in [name for name, one in cloud.running.items() if one.lost and one.began <= change.began]:
        del cloud.running[name]


def _surprise(cloud: _Cloud, event: _Event) -> list[Surprise]:
    before = mapping(event.deed.body, "before")
    reported = before.get(cloud.name)
    if event.deed.operation != "shift" or cloud.certainty is not Certainty.CERTAIN or cloud.running:
        return []
    if not isinstance(reported, Mapping) or _split(reported) == cloud.splits[0]:
        return []  # None: the cloud was not asked, or did not answer
    return [Surprise(cloud.name, event.at, cloud.splits[0], _split(reported), event.deed.entries[0])]


def _events(deeds: Sequence[Deed]) -> list[_Event]:
    found: list[_Event] = []
    for deed in deeds:
        found += _events(deed.steps)
        if deed.operation == "shift":
            found += _shift_events(deed)
        elif deed.operation == "prepare":
            for cloud, slots in mapping(deed.body, "clouds").items():
                splits = tuple(TrafficSplit.all_to(str(slot)) for slot in slots) if isinstance(slots, list) else ()
                change = _Change(deed.began, deed.entries[0], splits, lost=deed.ended is None)
                found.append(_Event(deed.began, 0, cloud, deed, change))
                found += [] if deed.ended is None else [_Event(deed.ended, 1, cloud, deed)]
    return found


def _shift_events(deed: Deed) -> list[_Event]:
    """Beginnings and ends by cloud. An outcome's `after` holds the verified clouds alone; its intent's holds all."""
    found: list[_Event] = []
    verified, reasons = mapping(deed.body, "verified"), mapping(deed.body, "split")
    wanted = mapping(deed.body, "wanted")
    after = mapping(deed.body, "after")
    for cloud in {**wanted, **after, **reasons}:
        split = _split(wanted.get(cloud, after.get(cloud)))
        lost = deed.ended is None
        found.append(_Event(deed.began, 1, cloud, deed, _Change(deed.began, deed.entries[0], (split,), lost)))
        if deed.ended is None:
            continue
        if cloud in verified:
            found.append(_Event(read_back(deed, cloud), 2, cloud, deed, verified=_split(after.get(cloud))))
        else:
            reason = str(reasons.get(cloud) or text(deed.body, "error"))
            found.append(_Event(deed.ended, 2, cloud, deed, reason=reason))
    return found


def read_back(shift: Deed, cloud: str) -> float:
    """Unix seconds at which a cloud was verified in a shift that has ended, and that lie within the shift."""
    assert shift.ended is not None
    try:
        found = datetime.fromisoformat(str(mapping(shift.body, "verified").get(cloud)))
    except ValueError:
        return shift.ended
    return shift.ended if found.tzinfo is None else min(max(found.timestamp(), shift.began), shift.ended)


def _split(weights: object) -> Split:
    """A split as an entry has it; None where nothing takes traffic or the numbers are no split."""
    if not isinstance(weights, Mapping):
        return None
    try:
        return TrafficSplit.of({str(slot): weight for slot, weight in weights.items() if isinstance(weight, int)})
    except RefusedError:
        return None


def _versions(deeds: Sequence[Deed]) -> Mapping[str, Sealed]:
    """Versions by slot, from whatever names one with label and digest; registrations tell the most."""
    found: dict[str, Sealed] = {}

    def meet(sealed: Sealed) -> None:
        known = found.get(sealed.slot)
        told = known is not None and (known.entry is not None or sealed.entry is None)  # the first registration counts
        if sealed.label and len(sealed.digest) == 64 and not told:
            found[sealed.slot] = sealed

    def walk(deed: Deed) -> None:
        entry = deed.entries[-1] if deed.operation == "register" and not deed.error else None
        body = deed.body
        meet(Sealed(deed.version, deed.digest, entry, text(body, "content"), text(body, "run_id")))
        for slot in mapping(body, "slots").values():
            if isinstance(slot, Mapping):
                meet(Sealed(str(slot.get("version", "")), str(slot.get("digest", ""))))
        for step in deed.steps:
            walk(step)

    for deed in deeds:
        walk(deed)
    return dict(sorted(found.items()))
