"""What a status makes of clouds' answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockstep.operations.status import CloudProof, Status
from lockstep.rules.measurement import Answer
from lockstep.rules.state import CloudState, DesiredState, FleetState, SlotState, Version

V1 = Version("tumour", "1", "a" * 64)
V2 = Version("tumour", "2", "b" * 64)


def status(digests: list[str], challenger: Version | None = None) -> Status:
    slot = SlotState(V1.slot, 100, True, "InService", label=V1.label, digest=V1.digest)
    state = FleetState("tumour", (CloudState("aws", "tumour", exists=True, slots=(slot,)),), {})
    answers = tuple(Answer("aws", V1.slot, "1", digest, b"", "", 0.0) for digest in digests)
    return Status(DesiredState("tumour", V1, challenger, None), state, (CloudProof("aws", answers),), ())


def test_answers_of_the_champion_prove_it() -> None:
    assert status([V1.digest] * 3).out_of_step == {}


@pytest.mark.parametrize("digests", [[""], [V1.digest, ""], []])
def test_an_answer_without_a_digest_proves_nothing(digests: list[str]) -> None:
    assert "prove nothing" in status(digests).out_of_step["aws"]
    assert "prove nothing" in status(digests, challenger=V2).out_of_step["aws"]


def test_another_digest_is_named_and_a_canary_is_none() -> None:
    assert V2.digest[:12] in status([V1.digest, V2.digest]).out_of_step["aws"]
    assert status([V1.digest, V2.digest], challenger=V2).out_of_step == {}
    assert "cccccccccccc" in status([V1.digest, "c" * 64], challenger=V2).out_of_step["aws"]


def test_a_canary_that_nobody_works_on_is_out_of_step() -> None:
    slots = tuple(
        SlotState(version.slot, weight, True, "InService", label=version.label, digest=version.digest)
        for version, weight in ((V1, 75), (V2, 25))
    )
    state = FleetState("tumour", (CloudState("aws", "tumour", exists=True, slots=slots),), {})
    lives = Status(DesiredState("tumour", V1, V2), state, (), ())
    assert lives.in_step
    killed = replace(lives, killed="the rollout was killed")
    assert not killed.in_step
    assert V2.slot in killed.out_of_step["aws"]
