"""Whether a person's word lets a rollout go on; decided without I/O.

- Only a clear yes, with a name and a reason, goes on: who, when and why are what the ledger is asked for later.
- A no is a no, whoever says it and why ever.
- Nobody's word in time is a no: a canary is not promoted because people sleep.
- A question falls away when the model is held, or somebody else decides what serves: a yes that comes then is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lockstep.rules.printable import one_line, visible


class Gate(StrEnum):
    """Where a rollout waits for a person."""

    NONE = "none"
    BEFORE_START = "before-start"  # nothing was changed yet
    BEFORE_PROMOTION = "before-promotion"  # every stage has passed, and the canary has all traffic


class Answer(StrEnum):
    """What came of the question."""

    APPROVED = "approved"
    REJECTED = "rejected"
    TIMED_OUT = "timed out"
    WITHDRAWN = "withdrawn"  # nobody needs to answer any more: held, overtaken, or whoever asked was stopped


@dataclass(frozen=True)
class Word:
    """What a person said, as it was said."""

    approved: bool
    name: str
    reason: str


@dataclass(frozen=True)
class Approval:
    """The answer, who gave it (empty: nobody), and why."""

    answer: Answer
    name: str
    reason: str

    def __str__(self) -> str:
        who = f" by {self.name}" if self.name else ""
        return f"{self.answer}{who}{f': {self.reason}' if self.reason else ''}"


def decide(word: Word | None, seconds: float) -> Approval:
    """What a word comes to; None stands for no word in `seconds`."""
    if word is None:
        return Approval(Answer.TIMED_OUT, "", f"nobody answered within {seconds:g} s")
    name, reason = visible(one_line(word.name)), visible(one_line(word.reason))
    if word.approved and not (name and reason):
        missing = " and no ".join([*([] if name else ["name"]), *([] if reason else ["reason"])])
        return Approval(Answer.REJECTED, name, f"approved with no {missing}")
    return Approval(Answer.APPROVED if word.approved else Answer.REJECTED, name, reason)
