"""What an interrupt tells: what was done by then, and how it goes on."""

from __future__ import annotations

import pytest

from lockstep.errors import Interruption
from lockstep.operations.interrupting import RollbackCourse, RolloutCourse, told_if_interrupted
from lockstep.rules.state import Version

V2, V3 = Version("churn", "2", "b" * 64), Version("churn", "3", "c" * 64)


def test_an_interrupt_before_the_intent_says_that_nothing_was_changed() -> None:
    course = RollbackCourse("churn", ("aws", "gcp"))
    with pytest.raises(Interruption) as told, told_if_interrupted(course.interruption):
        raise KeyboardInterrupt
    assert "nothing was changed" in told.value.problem
    assert told.value.facts["next"] == "lockstep status churn"


def test_an_interrupted_rollback_names_who_follows_who_does_not_and_the_next_step() -> None:
    course = RollbackCourse("churn", ("aws", "azure", "gcp"))
    course.begin(V2, (V3,))
    course.ended("azure", 1.0, "")
    course.ended("gcp", 2.0, "is busy")
    told = course.interruption()
    assert "verified on azure; not known to serve it: aws; gcp (is busy)" in told.problem
    assert told.hint.startswith("lockstep rollback churn goes on")
    assert (told.facts["target"], told.facts["leaves"]) == ("2", ["3"])
    assert told.facts["split"] == {"aws": "not verified", "gcp": "is busy"}


@pytest.mark.parametrize(
    ("course", "told"),
    [
        (RolloutCourse(V3), "nothing was changed"),
        (RolloutCourse(V3, begun=True), "is not finished, and was not taken back"),
        (RolloutCourse(V3, begun=True, back=V2), f"{V3} was taken back, {V2} serves everywhere"),
        (RolloutCourse(V3, begun=True, promoted=True), f"{V3} is promoted and serves everywhere"),
    ],
)
def test_an_interrupted_rollout_says_what_serves(course: RolloutCourse, told: str) -> None:
    assert told in course.interruption().problem
