"""A rollback that waited for another one tells what came of that, also where clouds could not follow it."""

from __future__ import annotations

from lockstep.operations.joining import split_with
from lockstep.rules.deeds import read_deeds
from tests.unit.lines import Line


def test_the_second_of_two_says_of_a_split_what_the_first_one_says() -> None:
    intent = {"version": "1", "digest": "d" * 64}
    outcome = {
        **intent,
        "intent": "r",
        "error": "churn is split",
        "left": ["2"],
        "seconds": {"aws": 0.25},
        "split": {"gcp": "is down"},
    }
    (deed,) = read_deeds(
        [
            Line(0, "r/intent", 0.0, "rollback.intent", intent, "ann"),
            Line(1, "r/outcome", 1.0, "rollback.outcome", outcome),
        ]
    )
    told = split_with(deed, "churn")
    assert str(told) == "churn is split (told by the rollback by ann, which has just ended)"
    assert (told.facts["target"], told.facts["condemned"], told.facts["joined"]) == ("1", ["2"], "r")
    assert (told.facts["clouds"], told.facts["split"]) == ({"aws": 0.25}, {"gcp": "is down"})
    assert told.hint.startswith(str(told.facts["next"]))
