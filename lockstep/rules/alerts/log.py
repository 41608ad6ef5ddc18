"""The alerts that the ledger holds, each with what came of it.

A line `alert.received` stands under no model, so that a storm of alerts buries no operation's entries, and names the
model that its rule gave in `about`; a line `alert.answered` tells of the end of an intent, which the `answer` of both
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from lockstep.rules import deeds
from lockstep.rules.deeds import Line, text
from lockstep.rules.moments import show_moment

RECEIVED: Final = "alert.received"
ANSWERED: Final = deeds.ANSWERED


@dataclass(frozen=True)
class Answered:
    """How an intent ended, by the ledger's entry of that number; `alerts` were folded into it."""

    entry: int
    at: float
    action: str
    state: str
    told: str
    alerts: int


@dataclass(frozen=True)
class Logged:
    """An alert as the ledger has it; `model` is "" where no rule gave one, `intent` where none was started or joined.

    `answered` is None while the ledger tells of no end of the intent.
    """

    entry: int
    at: float
    source: str
    id: str
    incident: str
    status: str
    title: str
    severity: str
    model: str
    rule: str
    told: str
    digest: str
    intent: str
    answered: Answered | None = None

    @property
    def outcome(self) -> str:
        """What came of it, for people."""
        if not self.intent:
            return self.told or "nothing"
        if self.answered is None:
            return "not ended yet, as far as the ledger says"
        one = self.answered
        return f"{one.action}: {one.state}{f': {one.told}' if one.told else ''}"


def is_about(line: Line, model: str) -> bool:
    """Whether a line `alert.received` is of that model; "" for any."""
    return not model or text(line.body, "about") == model


def read_alerts(received: Sequence[Line], answered: Sequence[Line]) -> tuple[Logged, ...]:
    """The alerts in their order, each with the end of its intent."""
    ends = {text(line.body, "answer"): _answered(line) for line in answered}
    return tuple(
        Logged(
            *(line.number, line.at, text(line.body, "source"), text(line.body, "id"), text(line.body, "incident")),
            *(text(line.body, "status"), text(line.body, "title"), text(line.body, "severity")),
            *(text(line.body, "about"), text(line.body, "rule"), text(line.body, "told"), text(line.body, "digest")),
            text(line.body, "answer"),
            ends.get(text(line.body, "answer")),
        )
        for line in received
    )


def tell(one: Logged) -> tuple[str, ...]:
    """An alert for people: a heading, then what it was about, and what came of it."""
    rule = f"by the rule {one.rule!r}" if one.rule else "no rule fits"
    ended = f"  (entry {one.answered.entry}, {show_moment(one.answered.at)})" if one.answered else ""
    return (
        f"{one.status} {one.title or one.id!r}".strip(),
        f"  when    {show_moment(one.at)}  (ledger entry {one.entry})",
        f"  from    {one.source}, id {one.id}{f', {one.severity}' if one.severity else ''}",
        f"  about   {one.model or 'no model'}, {rule}",
        *([f"  told    {one.told}"] if one.told and one.intent else []),
        f"  came of it: {one.outcome}{ended}",
    )


def as_json(one: Logged) -> dict[str, object]:
    """An alert as plain values."""
    return {
        **{"at": show_moment(one.at), "entry": one.entry, "source": one.source, "id": one.id, "title": one.title},
        **{"incident": one.incident, "status": one.status, "severity": one.severity or None},
        **{"model": one.model or None, "rule": one.rule or None, "told": one.told or None, "digest": one.digest},
        **{"intent": one.intent or None, "outcome": one.outcome},
        "answered": None if one.answered is None else {**asdict(one.answered), "at": show_moment(one.answered.at)},
    }


def _answered(line: Line) -> Answered:
    alerts = line.body.get("alerts")
    return Answered(
        *(line.number, line.at, text(line.body, "action"), text(line.body, "state"), text(line.body, "told")),
        alerts if isinstance(alerts, int) else 0,
    )
