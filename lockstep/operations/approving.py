"""Ask a person before a rollout starts or promotes, where its fleet says so; who, when and why goes into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lockstep.errors import RefusedError, RejectedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note, slots
from lockstep.rules.approval import Answer, Gate, Word, decide
from lockstep.rules.state import Version


@dataclass(frozen=True)
class Question:
    """What is asked: may `version` go on at `gate`? `told` is what speaks for it, `seconds` how long is waited."""

    version: Version
    gate: Gate
    told: tuple[str, ...]
    seconds: float

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


def ask(fleet: Fleet, gate: Gate, version: Version, told: Sequence[str], approver: Approver | None) -> None:
    """Ask where the fleet wants to be asked at this gate; raises RejectedError unless somebody approved."""
    rollout = fleet.settings.rollout
    if rollout.approval is not gate or gate is Gate.NONE:
        return
    refuse_unasked(fleet, approver)
    assert approver is not None
    fleet.say(f"waiting for an approval of {version}, for {rollout.approval_seconds:g} s at most")
    found = decide(approver(Question(version, gate, tuple(told), rollout.approval_seconds)), rollout.approval_seconds)
    # The person stands where every person does in the ledger, as a pseudonym: the body keeps no name.
    body = {**slots(version)[version.slot], "gate": gate.value, "answer": found.answer.value, "reason": found.reason}
    note(replace(fleet, actor=found.name or fleet.actor), "approval.outcome", body)
    fleet.say(f"{version}: {found}")
    if found.answer is not Answer.APPROVED:
        raise RejectedError(
            f"{version} was not approved: {found}",
            hint=f"what served before goes on serving; see `lockstep log {fleet.model}`",
        )
