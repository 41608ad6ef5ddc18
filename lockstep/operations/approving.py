"""Ask a person before a rollout starts or promotes, where its fleet says so; who, when and why goes into the ledger.

A question is `approval.wanted` there, from which the agent learns that people must be told, and what came of it is
`approval.outcome`. While it waits `Question.check` is to be asked now and then: a hold, or a rollback, ends the wait.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lockstep.errors import LockstepError, OvertakenError, RefusedError, RejectedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import raise_if_held
from lockstep.operations.journal import note, slots
from lockstep.rules.approval import Answer, Approval, Gate, Word, decide
from lockstep.rules.state import Version
from lockstep.rules.waiting import ANSWERED, DECIDES, WANTED


def _asked_still() -> None:
    """Nothing ends the wait."""


@dataclass(frozen=True)
class Question:
    """What is asked: may `version` go on at `gate`? `told` is what speaks for it, `seconds` how long is waited.

    `check` raises LockstepError when nobody needs to answer any more: whoever waits for a person calls it every second
    or two, and raises what it raises.
    """

    version: Version
    gate: Gate
    told: tuple[str, ...]
    seconds: float
    check: Callable[[], None] = _asked_still

    def __str__(self) -> str:
        what = "start the rollout of" if self.gate is Gate.BEFORE_START else "promote"
        return f"May Lockstep {what} {self.version}?"


#: Asks a person and waits; None when nobody answered in time.
Approver = Callable[[Question], Word | None]


def refuse_unasked(fleet: Fleet, approver: Approver | None) -> None:
    """Raise RefusedError when somebody must be asked, and nobody can be: before anything is changed."""
    gate = fleet.settings.rollout.approval
    if gate is not Gate.NONE and approver is None:
        raise RefusedError(
            f"rollouts of {fleet.model} need an approval ({gate}), and nobody is there to ask",
            hint='nothing was changed; add --approve "reason", or run the deployment canary-deploy in Prefect',
        )


def ask(
    fleet: Fleet,
    gate: Gate,
    version: Version,
    told: Sequence[str],
    approver: Approver | None,
    check: Callable[[], None] = _asked_still,
) -> None:
    """Ask where the fleet wants to be asked at this gate; raises RejectedError unless somebody approved.

    Raises what `check` raises as soon as it does, and whatever the answer was: see Question.
    """
    rollout = fleet.settings.rollout
    if rollout.approval is not gate or gate is Gate.NONE:
        return
    refuse_unasked(fleet, approver)
    assert approver is not None
    question = Question(version, gate, tuple(told), rollout.approval_seconds, check)
    about = {**slots(version)[version.slot], "gate": gate.value}
    event = _want(fleet, question, about)
    fleet.say(f"waiting for an approval of {version}, for {rollout.approval_seconds:g} s at most")
    found, over = _answer(question, approver)
    # The person stands where every person does in the ledger, as a pseudonym: the body keeps no name.
    body = {**about, "question": event, "answer": found.answer.value, "reason": found.reason}
    note(replace(fleet, actor=found.name or fleet.actor), ANSWERED, body)
    fleet.say(f"{version}: {found}")
    if over is not None:
        raise over
    if found.answer is not Answer.APPROVED:
        raise RejectedError(
            f"{version} was not approved: {found}",
            hint=f"what served before goes on serving; see `lockstep log {fleet.model}`",
        )


def _want(fleet: Fleet, question: Question, about: dict[str, str]) -> str:
    """Write the question into the ledger, and where it is answered; gives the id by which its answer names it."""
    event = str(uuid.uuid4())
    body = {
        **about,
        **{"asks": str(question), "told": list(question.told), "until": round(time.time() + question.seconds, 3)},
        **({"via": fleet.via} if fleet.via else {}),
        **({"link": fleet.link} if fleet.link else {}),
    }
    note(fleet, WANTED, body, event)
    return event


def _answer(question: Question, approver: Approver) -> tuple[Approval, BaseException | None]:
    """The answer; with an error when there is none, since what was asked is settled or the wait was broken off."""
    try:
        word = approver(question)
        if word is not None and word.approved:  # a no is a no, whatever came meanwhile
            question.check()
    except LockstepError as over:
        return Approval(Answer.WITHDRAWN, "", over.problem), over
    except BaseException as broken:  # a Ctrl-C, a worker that is stopped
        return Approval(Answer.WITHDRAWN, "", f"{type(broken).__name__}: {broken}".removesuffix(": ")), broken
    return decide(word, question.seconds), None


def unless_decided(fleet: Fleet) -> Callable[[], None]:
    """A check for a question before anything has begun, which holds no lease.

    It raises when the model is held, or when a rollback or a promotion has begun since.
    """
    before = _decisions(fleet)

    def check() -> None:
        raise_if_held(fleet)
        now = _decisions(fleet)
        if before is not None and now is not None and now != before:
            raise OvertakenError(
                f"what serves of {fleet.model} has changed since the approval was asked for",
                hint=f"nothing was changed; see `lockstep status {fleet.model}`, and deploy again",
            )

    return check


def _decisions(fleet: Fleet) -> tuple[str, ...] | None:
    """The newest intents that decide what serves, None for a ledger that cannot be read, which tells nothing."""
    try:
        newest = [fleet.ledger.entries(fleet.model, kind, last=1) for kind in DECIDES]
    except LockstepError as error:
        fleet.say(f"whether anybody decides what serves is not known: {error.problem}")
        return None
    return tuple(entry.event_id for found in newest for entry in found)
