"""A fleet whose rollouts wait for a person: refused, rejected and unanswered ones change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path

import pytest

from lockstep.errors import LockstepError, OvertakenError, RefusedError, RejectedError
from lockstep.operations.approving import Approver, Question
from lockstep.operations.canary import canary_deploy
from lockstep.operations.hold import hold, release
from lockstep.operations.rollback import rollback
from lockstep.rules.approval import Gate, Word
from lockstep.rules.waiting import still_waiting
from lockstep.stores.ledger import Entry
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import ROLLOUT, Traffic

YES = Word(True, "Ada", "measured offline")


def waiting_for(question: Question) -> Word:
    """As whoever waits for a person does, until nobody needs to answer any more."""
    for _ in range(10):
        question.check()
    return YES


def after(first: Callable[[], object], then: Approver) -> Approver:
    """Somebody else does something while the question waits: outside of the rollout's thread of control."""

    def answer(question: Question) -> Word | None:
        Context().run(first)
        return then(question)

    return answer


@contextmanager
def held(deployed: Deployed) -> Iterator[Callable[[], object]]:
    """A hold that is placed when it is called, and released after the block."""
    try:
        yield lambda: hold(deployed.fleet, "the upstream table is late")
    finally:
        release(deployed.fleet, "it is there")


def outcomes(deployed: Deployed, last: int = 1) -> list[Entry]:
    """The newest answers, each of which names its question."""
    found = deployed.fleet.ledger.entries(deployed.model, "approval.")[-2 * last :]
    assert [entry.kind for entry in found] == ["approval.wanted", "approval.outcome"] * last
    assert [entry.body["question"] for entry in found[1::2]] == [entry.event_id for entry in found[::2]]
    return list(found[1::2])


def test_a_rollout_starts_only_with_somebody_s_yes(deployed: Deployed) -> None:
    rollout = {**ROLLOUT, "approval": "before-start", "approval_seconds": 5}
    fleet = deployed.changed(fleets__default__rollout=rollout)
    asked: list[Question] = []

    def no(question: Question) -> Word:
        asked.append(question)
        seen = still_waiting(fleet.ledger.entries(deployed.model), deployed.model, fleet_time(deployed))
        assert [(one.version, one.gate) for one in seen] == [(deployed.v3.label, "before-start")]
        return Word(False, "Ada", "not on a Friday")

    with deployed.unchanged():
        with pytest.raises(RefusedError, match="nobody is there to ask"):
            canary_deploy(fleet, deployed.v3)
        with pytest.raises(RejectedError, match="rejected by Ada: not on a Friday"):
            canary_deploy(fleet, deployed.v3, approver=no)
        with pytest.raises(RejectedError, match="nobody answered within 5 s"):
            canary_deploy(fleet, deployed.v3, approver=lambda question: None)
        with pytest.raises(RejectedError, match="approved with no reason"):
            canary_deploy(fleet, deployed.v3, approver=lambda question: Word(True, "Ada", ""))
    (question,) = asked
    assert (question.gate, question.version, question.seconds) == (Gate.BEFORE_START, deployed.v3, 5)
    said = outcomes(deployed, 3)
    assert [entry.body["answer"] for entry in said] == ["rejected", "timed out", "rejected"]
    assert said[0].body["reason"] == "not on a Friday"
    assert said[0].actor == "Ada"
    assert "Ada" not in str(said[0].body)
    entries = fleet.ledger.entries(deployed.model)
    assert still_waiting(entries, deployed.model, entries[-1].at) == ()


def fleet_time(deployed: Deployed) -> float:
    """When the newest entry was written."""
    return deployed.fleet.ledger.entries(deployed.model, last=1)[0].at


@pytest.mark.parametrize("then", [lambda question: YES, waiting_for], ids=["answered", "waiting"])
def test_what_is_held_or_was_decided_meanwhile_does_not_start(deployed: Deployed, then: Approver) -> None:
    fleet = deployed.changed(fleets__default__rollout={**ROLLOUT, "approval": "before-start"})
    with deployed.unchanged(), held(deployed) as place:
        with pytest.raises(RefusedError, match="the upstream table is late"):
            canary_deploy(fleet, deployed.v3, approver=after(place, then))
        (answer,) = outcomes(deployed)
        assert (answer.body["answer"], answer.actor) == ("withdrawn", fleet.actor)
        assert "the upstream table is late" in str(answer.body["reason"])
        with pytest.raises(RefusedError, match="the upstream table is late"):  # and nobody is asked while it is held
            canary_deploy(fleet, deployed.v3, approver=then)
        assert outcomes(deployed) == [answer]
    going = after(lambda: rollback(deployed.fleet, reason="an alert"), then)
    with pytest.raises(OvertakenError, match="has changed since the approval was asked for"):
        canary_deploy(fleet, deployed.v3, approver=going)
    assert outcomes(deployed)[0].body["answer"] == "withdrawn"
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_before_a_promotion_all_but_a_yes_takes_the_canary_back(deployed: Deployed) -> None:
    rollout = {**ROLLOUT, "steps": [100], "approval": "before-promotion", "approval_seconds": 5, "min_requests": 3}
    fleet = deployed.changed(fleets__default__rollout=rollout)

    def ended(approver: Approver, error: type[LockstepError], words: str, answer: str) -> Entry:
        with pytest.raises(error, match=words):
            canary_deploy(fleet, deployed.v3, approver=approver)
        (found,) = outcomes(deployed)
        assert (found.body["gate"], found.body["answer"]) == ("before-promotion", answer)
        assert (found.body["version"], found.body["digest"]) == (deployed.v3.label, deployed.v3.digest)
        assert fleet.registry.desired(deployed.model).champion == deployed.v2
        assert fleet.registry.desired(deployed.model).challenger is None
        assert deployed.answers() == deployed.everywhere(deployed.v2)
        return found

    def full(question: Question) -> None:
        assert question.gate is Gate.BEFORE_PROMOTION
        assert all(cloud.split and cloud.split.weight(deployed.v3.slot) == 100 for cloud in fleet.observe().clouds)

    def no(question: Question) -> Word:
        full(question)
        return Word(False, "Ada", "the ward was not told")

    with Traffic(deployed.fleet, deployed.outcomes).flowing():
        said = ended(no, RejectedError, "rejected by Ada", "rejected")
        assert (said.actor, said.body["reason"]) == ("Ada", "the ward was not told")
        said = ended(lambda question: None, RejectedError, "nobody answered within 5 s", "timed out")
        assert (said.actor, said.body["reason"]) == (fleet.actor, "nobody answered within 5 s")
        assert all(cloud.slot(deployed.v3.slot) is None for cloud in fleet.observe().clouds)
        with held(deployed) as place:
            said = ended(after(place, waiting_for), RefusedError, "the upstream table is late", "withdrawn")
        assert "the upstream table is late" in str(said.body["reason"])
        assert all(cloud.slot(deployed.v3.slot) is None for cloud in fleet.observe().clouds)
        going = after(lambda: rollback(deployed.fleet, reason="an alert"), waiting_for)
        ended(going, OvertakenError, "was overtaken by the rollback", "withdrawn")


def test_a_pipeline_that_can_ask_nobody_is_told_so(deployed: Deployed, tmp_path: Path) -> None:
    rollout = {**ROLLOUT, "approval": "before-promotion"}
    config = deployed.configured(tmp_path / "lockstep.yaml", fleets__default__rollout=rollout)
    ended = lockstep("deploy", deployed.model, deployed.v3.label, "--json", config=config)
    assert ended.status == RefusedError.exit_status
    assert "--approve" in ended.err + ended.out
    assert deployed.answers() == deployed.everywhere(deployed.v2)
