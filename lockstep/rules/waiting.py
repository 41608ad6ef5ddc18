"""Which questions wait for a person's word, as the ledger tells it; decided without I/O.

A question is an entry `approval.wanted`. It waits until it is answered or its time is over, and no longer than it means
something: a hold, a rollback or a promotion settles it, and so does the end of the rollout that asked. One that was
killed cannot say so; asked again, begun anew, or taken back by reconcile, its question is no more. Two that ask before
they have begun may both wait for a word: as long as they ask the same the newer question stands for both, and a no to
it leaves the older one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.rules.approval import Answer
from lockstep.rules.deeds import Deed, Line, in_order, text, texts

KINDS: Final = "approval."
WANTED: Final = "approval.wanted"
ANSWERED: Final = "approval.outcome"
#: What decides which version serves, whoever is asked about another one.
DECIDES: Final = ("rollback.intent", "promote.intent")
HELD: Final = "hold.placed"
BEGUN: Final = "canary_deploy.intent"
ENDED: Final = "canary_deploy.outcome"
RECONCILED: Final = "reconcile.intent"
#: Kinds of entries that may settle a question, however much else was written since.
SETTLES: Final = (HELD, *DECIDES, BEGUN, ENDED, RECONCILED)


@dataclass(frozen=True)
class Waiting:
    """A question that waits: `since` and `until` are Unix seconds, `within` is the rollout that asks, "" before one.

    `link` is the address at which it is answered, "" for a terminal; `via` is what asks.
    """

    id: str
    model: str
    version: str
    digest: str
    gate: str
    asks: str
    told: tuple[str, ...]
    since: float
    until: float
    within: str = ""
    via: str = ""
    link: str = ""

    @property
    def where(self) -> str:
        """Where and how it is answered, in words."""
        if self.link:
            return f"answer in Prefect: {self.link}"
        if self.via:
            return f"answer in Prefect: {self.via}"
        return f"answer at the terminal where `lockstep deploy {self.model} {self.version}` runs"


def still_waiting(lines: Sequence[Line], model: str, now: float) -> tuple[Waiting, ...]:
    """The model's questions that wait now, the oldest first; `lines` are its newest entries of KINDS and SETTLES."""
    found: dict[str, Waiting] = {}
    for line in in_order(lines):
        if line.kind == WANTED:
            asked = _read(line, model)
            # One writes a model at a time, and a run asks once: what asked so before was killed.
            found = {
                one: before
                for one, before in found.items()
                if not _same(before, asked) or not (asked.within or (asked.link and asked.link == before.link))
            }
            found[asked.id] = asked
        elif line.kind == ANSWERED:
            answered = found.pop(text(line.body, "question"), None)
            if answered is not None and text(line.body, "answer") == Answer.APPROVED.value:
                found = {one: before for one, before in found.items() if not _same(before, answered)}
        elif line.kind == HELD or line.kind in DECIDES:
            found.clear()
        elif line.kind == ENDED:
            found = {one: asked for one, asked in found.items() if asked.within != text(line.body, "intent")}
        elif line.kind in (BEGUN, RECONCILED):  # one writes a model at a time: what ran before was killed
            found = {one: asked for one, asked in found.items() if not asked.within}
    waiting = [one for one in found.values() if now < one.until]
    newest = {(one.digest, one.gate): one.id for one in waiting}
    return tuple(one for one in waiting if newest[one.digest, one.gate] == one.id)


def _same(one: Waiting, other: Waiting) -> bool:
    return (one.digest, one.gate) == (other.digest, other.gate)


def is_answer(deed: Deed) -> bool:
    """Whether a deed is somebody's answer, or that none came; a question has an entry of its own."""
    return deed.operation == KINDS.rstrip(".") and "asks" not in deed.body


def _read(line: Line, model: str) -> Waiting:
    body = line.body
    until = body.get("until")
    link = text(body, "link")
    return Waiting(
        line.event_id,
        model,
        text(body, "version"),
        text(body, "digest"),
        text(body, "gate"),
        text(body, "asks"),
        told=texts(body, "told"),
        since=line.at,
        until=float(until) if isinstance(until, int | float) and not isinstance(until, bool) else line.at,
        within=text(body, "within"),
        via=text(body, "via"),
        link=link if link.startswith(("https://", "http://")) else "",
    )
