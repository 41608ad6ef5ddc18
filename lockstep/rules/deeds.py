"""Ledger entries read as what people did: one deed per operation, with its steps inside it.

An operation leaves `<operation>.intent` and `<operation>.outcome` (event ids `<event>/intent` and `<event>/outcome`);
what has no beginning and end, a verdict, a refusal or an approval, is one entry by itself. Steps name the operation
that they were part of in `within`. A question is `approval.wanted`, its answer `approval.outcome`: their bodies name
`version` and `digest`, and the answer's `answer` and `reason`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from lockstep.rules.alerts.intent import BY_ALERT, State

#: Before the event id of an entry that nobody vouches for, and where its body refers to another event.
UNVOUCHED: Final = "unvouched/"
#: What people call an operation whose entries share their first word with its opposite's.
NAMED: Final = {"hold.released": "release"}
#: The end of what an alert, or a person through the agent, asked for: its body names `action`, `state` and `told`.
ANSWERED: Final = "alert.answered"
ALERT, REQUEST = "alert", "request"
#: States of it that a person must look at.
WRONG: Final = (State.FAILED.value, State.SPLIT.value)


class Line(Protocol):
    """What is read of a ledger entry; `at` is Unix seconds, `number` its index in the ledger, from 0.

    `late` says that it was appended after it happened.
    """

    @property
    def number(self) -> int: ...  # noqa: D102 - told above
    @property
    def event_id(self) -> str: ...  # noqa: D102
    @property
    def at(self) -> float: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def actor(self) -> str: ...  # noqa: D102
    @property
    def body(self) -> Mapping[str, object]: ...  # noqa: D102
    @property
    def late(self) -> bool: ...  # noqa: D102


class Ending(StrEnum):
    """How a deed ended, as far as the ledger says."""

    DONE = "done"
    FAILED = "failed"  # it ended with an error
    REFUSED = "refused"  # it never began
    OPEN = "no outcome"  # still running, or killed


@dataclass(frozen=True)
class Deed:
    """One operation or step. `began` and `ended` are Unix seconds; `body` is the intent's overlaid by the outcome's."""

    operation: str
    event: str
    actor: str
    began: float
    ended: float | None
    ending: Ending
    body: Mapping[str, object]
    entries: tuple[int, ...]
    steps: tuple[Deed, ...] = field(default=())

    @property
    def unvouched(self) -> bool:
        """Whether it waited for the ledger without a signature, so that anybody may have put it in."""
        return self.event.startswith(UNVOUCHED)

    @property
    def version(self) -> str:
        """Label of the version that it is about; empty for none."""
        return text(self.body, "version")

    @property
    def digest(self) -> str:
        """Digest of the version that it is about; empty for none."""
        return text(self.body, "digest")

    @property
    def reason(self) -> str:
        """Why, as whoever asked put it."""
        return text(self.body, "reason") or text(self.body, "why") or "; ".join(texts(self.body, "reasons"))

    @property
    def error(self) -> str:
        """What went wrong, or why it was refused."""
        told = self.told if text(self.body, "state") in WRONG else ""
        return text(self.body, "error") or text(self.body, "refused") or told

    @property
    def answer(self) -> str:
        """What was done for an alert or for a person who asked the agent, and what came of it; empty for all else."""
        action, state = text(self.body, "action"), text(self.body, "state")
        return f"{action}: {state}" if self.operation in (ALERT, REQUEST) and action and state else ""

    @property
    def told(self) -> str:
        """The same in a sentence."""
        return text(self.body, "told") if self.answer else ""

    @property
    def clouds(self) -> frozenset[str]:
        """Clouds that it names, its steps included."""
        named = {cloud for key in ("before", "after", "clouds", "split", "failed") for cloud in mapping(self.body, key)}
        return frozenset(named).union(*(step.clouds for step in self.steps))

    def find(self, operation: str) -> tuple[Deed, ...]:
        """Steps of that name, however deep."""
        found: list[Deed] = []
        for step in self.steps:
            found += [step] if step.operation == operation else []
            found += step.find(operation)
        return tuple(found)


def in_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    """As they were appended, whatever the clock said then: one that is set back must not turn what was done around.

    What was appended late, after the ledger could not be written, stands where it happened by its own time.
    """
    placed = sorted((line for line in lines if not line.late), key=lambda line: line.number)
    for late in sorted((line for line in lines if line.late), key=lambda line: (line.at, line.number)):
        place = next((place for place, line in enumerate(placed) if line.at > late.at), len(placed))
        placed.insert(place, late)
    return tuple(placed)


def read_deeds(lines: Sequence[Line]) -> tuple[Deed, ...]:
    """The operations in the order in which they began, steps inside their operation; every entry is in one deed."""
    ordered = in_order(lines)
    outcomes = {text(line.body, "intent"): line for line in ordered if line.kind.endswith(".outcome")}
    alone: list[Deed] = []
    met: set[int] = set()
    for line in ordered:
        event = line.event_id.removesuffix("/intent")
        if line.kind.endswith(".intent"):
            outcome = outcomes.get(event)
            met |= {line.number} | ({outcome.number} if outcome else set())
            alone.append(_deed(event, line, outcome))
    alone += [_deed(line.event_id, line, None) for line in ordered if line.number not in met]
    inside: dict[str, list[Deed]] = {}
    known = {deed.event for deed in alone}
    for deed in sorted(alone, key=lambda deed: (deed.began, deed.entries)):
        outer = text(deed.body, "within")
        inside.setdefault(outer if outer in known and outer != deed.event else "", []).append(deed)

    def whole(deed: Deed) -> Deed:
        return replace(deed, steps=tuple(whole(step) for step in inside.pop(deed.event, ())))

    return tuple(whole(deed) for deed in inside.pop("", ()))


def _deed(event: str, first: Line, outcome: Line | None) -> Deed:
    operation, _, stage = first.kind.rpartition(".")
    operation = NAMED.get(first.kind, operation)
    if first.kind == ANSWERED:
        operation = ALERT if first.actor.startswith(BY_ALERT) else REQUEST
    body = {**first.body, **(outcome.body if outcome else {})}
    ended: float | None = outcome.at if outcome else first.at
    failed = text(body, "error") or (first.kind == ANSWERED and text(body, "state") in WRONG)
    ending = Ending.FAILED if failed else Ending.DONE
    if stage == "refused":
        ending = Ending.REFUSED
    elif stage == "intent" and outcome is None:
        ending, ended = Ending.OPEN, None
    if ended is not None:
        ended = max(first.at, ended)  # a clock that was set back must not make an end come before its beginning
    entries = (first.number, outcome.number) if outcome else (first.number,)
    return Deed(operation or first.kind, event, first.actor, first.at, ended, ending, body, entries)


def named(operation: str, version: str) -> str:
    """An operation with the label of its version ("": none) as a phrase: a rollback leads to it."""
    return f"{operation} {'to' if operation == 'rollback' else 'of'} version {version}" if version else operation


def text(body: Mapping[str, object], key: str) -> str:
    """The text under `key`; empty when there is none or it is something else."""
    value = body.get(key)
    return value if isinstance(value, str) else ""


def mapping(body: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The mapping under `key`; empty when there is none."""
    value = body.get(key)
    return {str(name): item for name, item in value.items()} if isinstance(value, Mapping) else {}


def texts(body: Mapping[str, object], key: str) -> tuple[str, ...]:
    """The list of texts under `key`; empty when there is none."""
    value = body.get(key)
    return tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else ()
