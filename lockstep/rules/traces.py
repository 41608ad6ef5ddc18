"""What the ledger's newest entries tell about a model's clouds: who did what last, what was killed, what is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from lockstep.errors import RefusedError
from lockstep.rules.deeds import Line, in_order, mapping, named, text
from lockstep.rules.traffic import TrafficSplit

#: Newest entries of a model that are read for it: a rollout leaves several a step.
ENTRIES: Final = 400
#: Operations that decide what serves, or bring clouds to what was decided.
MOVES: Final = ("rollback", "canary_deploy", "reconcile")
#: Seconds after a rollback in which another one may follow.
JUST_NOW: Final = 900.0


@dataclass(frozen=True)
class Trace:
    """`known` are splits by cloud that were read back or asked for, the newest that was read back first.

    `unfinished` is the newest intent of a move without outcome; `split` why the newest move that ended is not done
    everywhere; `rolled_back` when a rollback ended last (Unix seconds), `actor` who wrote the newest entry.
    """

    known: Mapping[str, tuple[TrafficSplit, ...]] = field(default_factory=dict)
    unfinished: Line | None = None
    split: str = ""
    rolled_back: float | None = None
    actor: str = ""

    @property
    def killed(self) -> str:
        """The unfinished operation as a phrase, "" for none."""
        if self.unfinished is None:
            return ""
        operation = self.unfinished.kind.removesuffix(".intent")
        began = datetime.fromtimestamp(self.unfinished.at, UTC)
        what = named(operation, text(self.unfinished.body, "version"))
        return f"the {what} that {self.unfinished.actor} began {began:%Y-%m-%d %H:%M:%S} UTC did not end"

    def ways_on(self, model: str, champion: str, candidate: str) -> str:
        """What can be done about the unfinished operation, "" for none; by the versions' labels, "" for none."""
        kind = "" if self.unfinished is None else self.unfinished.kind.removesuffix(".intent")
        version = "" if self.unfinished is None else text(self.unfinished.body, "version")
        if kind in ("rollback", "reconcile"):
            return f"lockstep reconcile {model} finishes it"
        trying = candidate or (version if kind == "canary_deploy" else "")
        return ways_from_canary(model, champion, trying) if trying else ""

    def settling(self, now: float) -> str:
        """Why slots should stay for the moment, "" when they need not; `now` is Unix seconds."""
        if self.rolled_back is None or not 0 <= now - self.rolled_back < JUST_NOW:
            return ""
        return f"a rollback ended {now - self.rolled_back:.0f} s ago"


def ways_from_canary(model: str, champion: str, canary: str) -> str:
    """What can be done about a rollout that nobody works on any more."""
    on = f"lockstep deploy {model} {canary} goes on with it"
    if not champion or champion == canary:
        return on
    return f"{on}, lockstep reconcile {model} takes its canary back, lockstep rollback {model} condemns it as well"


def read_trace(lines: Sequence[Line]) -> Trace:
    """The trace of one model's newest entries."""
    ordered = in_order(lines)
    known: dict[str, tuple[TrafficSplit, ...]] = {}
    opened: dict[str, Line] = {}
    split, rolled_back = "", None
    for line in ordered:
        operation, _, stage = line.kind.rpartition(".")
        if operation == "shift" and stage == "intent":
            for cloud, wanted in _splits(line.body, "after").items():
                known[cloud] = (*known.get(cloud, ()), wanted)
        elif operation == "shift" and stage == "outcome":
            known.update({cloud: (seen,) for cloud, seen in _splits(line.body, "after").items()})
        if operation not in MOVES or (operation != "rollback" and text(line.body, "within")):
            continue  # a rollback decides, also where monitoring asked for it
        event = line.event_id.removesuffix("/intent")
        if stage == "intent":
            opened[event] = line
        elif stage == "outcome":
            opened.pop(text(line.body, "intent"), None)
            failed = text(line.body, "error")
            reasons = mapping(line.body, "split")
            split = "; ".join(f"{cloud}: {why}" for cloud, why in sorted(reasons.items()))
            split = f"the {operation} is split: {split}" if split else ""
            if not failed:
                opened.clear()  # whatever was left half done before is where it should be now
            if operation != "reconcile":
                rolled_back = line.at if operation == "rollback" else None
    newest = next(reversed(opened.values()), None)
    return Trace(known, newest, split, rolled_back, ordered[-1].actor if ordered else "")


def _splits(body: Mapping[str, object], key: str) -> dict[str, TrafficSplit]:
    found = {}
    for cloud, weights in mapping(body, key).items():
        if not isinstance(weights, Mapping):
            continue
        whole = {str(slot): weight for slot, weight in weights.items() if isinstance(weight, int)}
        try:
            found[cloud] = TrafficSplit.of(whole)
        except RefusedError:
            continue  # an entry of another time, or one that was written by hand
    return found
