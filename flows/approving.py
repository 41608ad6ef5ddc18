"""An approval in Prefect: the run pauses with a form, in the UI or over its API, and goes on with what was said."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

import httpx
from prefect import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, PrefectException
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.events import tell
from lockstep.errors import LockstepError
from lockstep.operations.approving import Question
from lockstep.rules.approval import Word
from lockstep.rules.event_names import APPROVAL_WANTED
from tasks.artifacts import bullets

LOG: Final = logging.getLogger("lockstep.approving")
POLL = 1  # seconds between two looks whether somebody has answered, and whether anybody needs to
ENDS: Final = 5.0  # seconds that the watch beside it is waited for: Prefect's client tries for a minute
LONGEST: Final = 1000  # characters of a reason
TROUBLE: Final = (httpx.HTTPError, PrefectException, OSError)


class Choice(StrEnum):
    """The two ways to go on."""

    APPROVE = "approve"
    REJECT = "reject"


class ApprovalForm(RunInput):
    """What is asked for; the open-source server knows no persons, so the name is typed in."""

    decision: Choice = Field(description="Approve, or take it back.")
    reason: str = Field(min_length=1, max_length=LONGEST, description="Why; kept in the ledger.")
    name: str = Field(min_length=1, max_length=200, description="Your name; kept in the ledger as a pseudonym.")


def ask_by_pausing(question: Question, fleet: str) -> Word | None:
    """Pause the run until somebody answers; None when nobody does in time. `fleet` is the Fleet block's name.

    Raises what the question's check raises, within seconds: the pause is ended then.
    """
    version = question.version
    tell(APPROVAL_WANTED, version.model, fleet, target=version.label, gate=question.gate.value, question=str(question))
    form = ApprovalForm.with_initial_data(description=f"# {question}\n\n{bullets(question.told)}")
    with _ended_when_over(question) as over:
        try:
            said = pause_flow_run(wait_for_input=form, timeout=int(max(1, question.seconds)), poll_interval=POLL)
        except FlowPauseTimeout:
            return None
    if over.error is not None:
        raise over.error
    assert isinstance(said, ApprovalForm)  # outside of an event loop Prefect waits for the answer itself
    return Word(said.decision is Choice.APPROVE, said.name, said.reason)


@dataclass
class _Over:
    """Why nobody needs to answer any more, None as long as somebody does."""

    error: LockstepError | None = None
    stop: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def _ended_when_over(question: Question) -> Iterator[_Over]:
    """Ask the question's check beside the pause, which blocks, and end the pause when nobody needs to answer any more.

    It is ended as a person would end it, by resuming the run with the form filled in: Prefect takes one answer, so a
    person's that came a moment before stands, and is looked at by whoever asked.
    """
    over = _Over()
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    # The lease that the check asks for and Prefect's address are known to this context.
    watch = threading.Thread(
        target=contextvars.copy_context().run,
        args=(_watch, question, context.flow_run.id, over),
        name="approval",
        daemon=True,
    )
    watch.start()
    try:
        yield over
    finally:
        over.stop.set()
        watch.join(ENDS)


def _watch(question: Question, run: UUID, over: _Over) -> None:
    while not over.stop.wait(POLL):
        try:
            if over.error is None:
                question.check()
        except LockstepError as error:
            over.error = error
        except Exception:  # one that nobody thought of must not end the looking
            LOG.exception("whether %s must still be answered could not be looked at", question)
        if over.error is not None:
            _resume(run, over.error.problem)


def _resume(run: UUID, why: str) -> None:
    """End the pause; refused while the run has not paused yet, so it is to be tried again until the run goes on."""
    said = {"decision": Choice.REJECT.value, "reason": why[:LONGEST], "name": "lockstep"}
    try:
        with get_client(sync_client=True) as client:
            client.resume_flow_run(run, run_input=said)
    except TROUBLE as error:
        LOG.warning("the pause of run %s could not be ended: %r", run, error)
