"""An approval in Prefect: the run pauses with a form, in the UI or over its API, and goes on with what was said."""

from __future__ import annotations

from enum import StrEnum

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.events import tell
from lockstep.operations.approving import Question
from lockstep.rules.approval import Word
from lockstep.rules.event_names import APPROVAL_WANTED
from tasks.artifacts import bullets

POLL = 1  # seconds between two looks whether somebody has answered


class Choice(StrEnum):
    """The two ways to go on."""

    APPROVE = "approve"
    REJECT = "reject"


class ApprovalForm(RunInput):
    """What is asked for; the open-source server knows no persons, so the name is typed in."""

    decision: Choice = Field(description="Approve, or take it back.")
    reason: str = Field(min_length=1, max_length=1000, description="Why; kept in the ledger.")
    name: str = Field(min_length=1, max_length=200, description="Your name; kept in the ledger as a pseudonym.")


def ask_by_pausing(question: Question, fleet: str) -> Word | None:
    """Pause the run until somebody answers; None when nobody does in time. `fleet` is the Fleet block's name."""
    version = question.version
    tell(APPROVAL_WANTED, version.model, fleet, target=version.label, gate=question.gate.value, question=str(question))
    form = ApprovalForm.with_initial_data(description=f"# {question}\n\n{bullets(question.told)}")
    try:
        said = pause_flow_run(wait_for_input=form, timeout=int(max(1, question.seconds)), poll_interval=POLL)
    except FlowPauseTimeout:
        return None
    assert isinstance(said, ApprovalForm)  # outside of an event loop Prefect waits for the answer itself
    return Word(said.decision is Choice.APPROVE, said.name, said.reason)
