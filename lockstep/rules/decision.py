"""Which sealed version made one decision: by what its cloud captured of the request, else by what served then.

A captured request names the slot that answered. Without one, every slot that had traffic at the instant may have
answered; several are named with their weights, and none is chosen among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lockstep.rules.history import Certainty, History, Interval, Sealed, Surprise
from lockstep.rules.moments import show_moment


class Basis(StrEnum):
    """What an answer rests on."""

    CAPTURED = "the cloud's captured request"
    INTERVALS = "the ledger's intervals"


@dataclass(frozen=True)
class Sighting:
    """One request as its cloud captured it: when (Unix seconds), its id, and what answered, as far as it was kept.

    `source` is where the capture stands.
    """

    at: float
    request_id: str
    slot: str
    label: str = ""
    digest: str = ""
    source: str = ""


@dataclass(frozen=True)
class Candidate:
    """A version that can have answered. `weights` are its per cents under each split that may have served."""

    slot: str
    version: Sealed | None
    weights: tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """The answer: candidates with the most traffic first; `sure` says that it can only have been the one."""

    model: str
    cloud: str
    moment: float
    request_id: str
    basis: Basis
    candidates: tuple[Candidate, ...]
    interval: Interval
    notes: tuple[str, ...]
    contested: bool = False  # a cloud's own word contradicts the ledger about this interval
    source: str = ""  # where the captured request stands

    @property
    def sure(self) -> bool:
        """Whether one version alone can have answered."""
        return len(self.candidates) == 1 and (
            self.basis is Basis.CAPTURED or (self.interval.certainty is Certainty.CERTAIN and not self.contested)
        )

    @property
    def entries(self) -> tuple[int, ...]:
        """Ledger indices that it rests on: those of the interval, and the registrations of the candidates."""
        seals = (one.version.entry for one in self.candidates if one.version is not None)
        return tuple(sorted({*self.interval.entries, *(entry for entry in seals if entry is not None)}))


def decide(
    model: str, history: History, cloud: str, moment: float, sighting: Sighting | None = None, request_id: str = ""
) -> Decision:
    """The version(s) behind a request that `cloud` answered at `moment`; raises NotFoundError as `History.at` does."""
    interval = history.at(cloud, moment)
    if sighting is None:
        return Decision(
            model,
            cloud,
            moment,
            request_id,
            Basis.INTERVALS,
            candidates(history, interval),
            interval,
            _notes(interval, history),
            any(_contests(one, interval) for one in history.surprises),
        )
    served = candidates(history, interval)
    slot, sealed = _seen(history, sighting)
    weights = next((one.weights for one in served if one.slot == slot), ())
    notes = []
    if not weights and interval.splits:
        notes.append(
            f"the ledger tells of no traffic on {slot} at that time (it tells of "
            f"{' or '.join(map(_split, interval.splits))}): somebody else moved it, or a clock is wrong"
        )
    if sealed is None:
        notes.append(f"no entry tells which version has the slot {slot}")
    elif sighting.digest and not sealed.digest.startswith(sighting.digest):
        notes.append(f"the container named the digest {sighting.digest[:12]}, the ledger {sealed.digest[:12]}")
    return Decision(
        model,
        cloud,
        moment,
        sighting.request_id,
        Basis.CAPTURED,
        (Candidate(slot, sealed, weights),),
        interval,
        tuple(notes),
        source=sighting.source,
    )


def candidates(history: History, interval: Interval) -> tuple[Candidate, ...]:
    """Slots that had or may have had traffic in an interval, the largest share first."""
    slots = dict.fromkeys(slot for split in interval.splits if split is not None for slot, _ in split.weights)
    found = [
        Candidate(
            slot,
            history.versions.get(slot),
            tuple(dict.fromkeys(split.weight(slot) if split is not None else 0 for split in interval.splits)),
        )
        for slot in slots
    ]
    return tuple(sorted(found, key=lambda one: (-max(one.weights), one.slot)))


def _seen(history: History, sighting: Sighting) -> tuple[str, Sealed | None]:
    if sighting.slot:
        return sighting.slot, history.versions.get(sighting.slot)
    for slot, sealed in history.versions.items():
        if sighting.digest and sealed.digest.startswith(sighting.digest):
            return slot, sealed
    return sighting.slot, None


def _contests(surprise: Surprise, interval: Interval) -> bool:
    return surprise.cloud == interval.cloud and surprise.at == interval.until


def _notes(interval: Interval, history: History) -> tuple[str, ...]:
    notes = [interval.note] if interval.note else []
    for surprise in history.surprises:
        if _contests(surprise, interval):
            notes.append(
                f"entry {surprise.entry} found {_split(surprise.reported)} there at {show_moment(surprise.at)}: "
                f"somebody else moved the traffic after {show_moment(interval.since)}, or the cloud's record lagged"
            )
    unsealed = [one.slot for one in candidates(history, interval) if one.version is None or one.version.entry is None]
    notes += [f"no entry tells of the registration of {slot}" for slot in unsealed]
    return tuple(notes)


def _split(split: object) -> str:
    return "no traffic" if split is None else str(split)
