"""What an interrupt tells: what was done by then, and how it goes on."""

from __future__ import annotations

import pytest

from lockstep.errors import Interruption
from lockstep.operations.interrupting import (
    ReconcileCourse,
    RollbackCourse,
    RolloutCourse,
    reconcile_interruption,
    told_if_interrupted,
)
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


def test_an_interrupted_reconcile_says_of_every_model_where_it_is() -> None:
    done, behind, open_one, finishing, late = (ReconcileCourse(name) for name in ("a", "b", "c", "d", "e"))
    assert "before anything was changed" in reconcile_interruption([done, late]).problem
    done.end("")
    behind.begin(["aws"])
    behind.end("aws: is down")
    open_one.begin(["aws", "azure", "gcp"])
    open_one.moved("aws", 1.23456, "")
    open_one.moved("gcp", 2.0, "is busy")
    finishing.begin([])
    facts = {"clouds": {"aws": 0.5}, "split": {"gcp": "not verified"}}
    finishing.leave(Interruption("interrupted: the rollback of d to 2 is not finished", facts=facts))
    told = reconcile_interruption([done, behind, open_one, finishing, late])
    assert "a: in step. b: not in step: aws: is down. c: left open: verified on aws;" in told.problem
    assert "not known to follow: azure; gcp (is busy). d: left open: the rollback of d to 2 is not" in told.problem
    assert told.problem.endswith("e: not begun")
    assert told.facts["next"] == "lockstep reconcile b c d e"
    assert told.facts["models"]["c"] == {  # type: ignore[index]
        "in_step": False,
        "state": "left open",
        "clouds": {"aws": 1.235},
        "split": {"azure": "not verified", "gcp": "is busy"},
    }
    assert told.facts["models"]["d"]["clouds"] == {"aws": 0.5}  # type: ignore[index]
    assert told.facts["models"]["d"]["split"] == {"gcp": "not verified"}  # type: ignore[index]


def test_a_model_that_is_tried_again_is_open_again() -> None:
    course = ReconcileCourse("a")
    course.begin(["aws"])
    course.moved("aws", 1.0, "")
    course.end("gcp: is busy")
    course.begin(["gcp"])
    assert (course.state, course.verified, course.split) == ("left open", {}, {"gcp": "not verified"})
