"""A fleet whose rollouts wait for a person: refused, rejected and unanswered ones change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockstep.errors import RefusedError, RejectedError
from lockstep.operations.approving import Question
from lockstep.operations.canary import canary_deploy
from lockstep.rules.approval import Gate, Word
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import ROLLOUT


def test_a_rollout_starts_only_with_somebody_s_yes(deployed: Deployed) -> None:
    rollout = {**ROLLOUT, "approval": "before-start", "approval_seconds": 5}
    fleet = deployed.changed(fleets__default__rollout=rollout)
    asked: list[Question] = []

    def no(question: Question) -> Word:
        asked.append(question)
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
    said = fleet.ledger.entries(deployed.model, "approval.outcome")[-3:]
    assert [entry.body["answer"] for entry in said] == ["rejected", "timed out", "rejected"]
    assert said[0].body["reason"] == "not on a Friday"
    assert said[0].actor == "Ada"
    assert "Ada" not in str(said[0].body)


def test_a_pipeline_that_can_ask_nobody_is_told_so(deployed: Deployed, tmp_path: Path) -> None:
    rollout = {**ROLLOUT, "approval": "before-promotion"}
    config = deployed.configured(tmp_path / "lockstep.yaml", fleets__default__rollout=rollout)
    ended = lockstep("deploy", deployed.model, deployed.v3.label, "--json", config=config)
    assert ended.status == RefusedError.exit_status
    assert "--approve" in ended.err + ended.out
    assert deployed.answers() == deployed.everywhere(deployed.v2)
