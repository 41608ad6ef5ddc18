"""Which questions wait, by the ledger alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.waiting import still_waiting
from tests.unit.lines import Line

V3 = {"version": "3", "digest": "c" * 64}


def lines(*told: tuple[str, str, dict[str, object]]) -> list[Line]:
    return [Line(number, event, 100.0 + number, kind, body) for number, (event, kind, body) in enumerate(told)]


def wanted(event: str = "q", until: float = 1000.0, **body: object) -> tuple[str, str, dict[str, object]]:
    given = {**V3, "gate": "before-promotion", "asks": "May it?", "told": ["50 %: fine"], "until": until, **body}
    return event, "approval.wanted", given


def outcome(**body: object) -> tuple[str, str, dict[str, object]]:
    return "a", "approval.outcome", {**V3, **body}


def test_a_question_waits_with_all_that_people_need_to_answer_it() -> None:
    (found,) = still_waiting(lines(wanted(link="https://prefect.example/runs/1", via="run 1")), "churn", 200.0)
    assert (found.id, found.model, found.version, found.gate) == ("q", "churn", "3", "before-promotion")
    assert (found.asks, found.told, found.since, found.until) == ("May it?", ("50 %: fine",), 100.0, 1000.0)
    assert found.where == "answer in Prefect: https://prefect.example/runs/1"
    (found,) = still_waiting(lines(wanted(link="javascript:alert(1)")), "churn", 200.0)
    assert (found.link, found.where) == ("", "answer at the terminal where `lockstep deploy churn 3` runs")


@pytest.mark.parametrize(
    "then",
    [
        ("a", "approval.outcome", {**V3, "question": "q", "answer": "approved"}),
        ("h", "hold.placed", {"reason": "late"}),
        ("r/intent", "rollback.intent", {"version": "1"}),
        ("p/intent", "promote.intent", {"version": "2"}),
        ("d/outcome", "canary_deploy.outcome", {"intent": "d"}),
        ("e/intent", "canary_deploy.intent", V3),
        ("f/intent", "reconcile.intent", {"version": "2"}),
    ],
)
def test_it_vanishes_when_it_is_answered_or_settled(then: tuple[str, str, dict[str, object]]) -> None:
    assert still_waiting(lines(wanted(within="d")), "churn", 200.0)
    assert still_waiting(lines(wanted(within="d"), then), "churn", 200.0) == ()


def test_what_is_somebody_else_s_leaves_it_waiting() -> None:
    others: list[tuple[str, str, dict[str, object]]] = [
        ("a", "approval.outcome", {"question": "another"}),
        ("d/outcome", "canary_deploy.outcome", {"intent": "another"}),
        ("x", "verdict.outcome", {"within": "d"}),
        ("s", "hold.released", {}),
    ]
    assert len(still_waiting(lines(wanted(within="d"), *others), "churn", 200.0)) == 1
    for kind in ("canary_deploy.intent", "reconcile.intent"):
        begun = lines(wanted(gate="before-start"), ("e/intent", kind, {"version": "2"}))
        assert len(still_waiting(begun, "churn", 200.0)) == 1


def test_asked_again_after_a_kill_it_is_one_question() -> None:
    (found,) = still_waiting(lines(wanted("q", within="d"), wanted("q2", within="e")), "churn", 200.0)
    assert found.id == "q2"


@pytest.mark.parametrize(
    ("answer", "left"), [("rejected", ["q"]), ("timed out", ["q"]), ("withdrawn", ["q"]), ("approved", [])]
)
def test_of_two_terminals_that_ask_the_same_a_no_leaves_the_other(answer: str, left: list[str]) -> None:
    asked = [wanted("q", gate="before-start"), wanted("q2", gate="before-start", until=500.0)]
    told = outcome(question="q2", answer=answer)
    assert [one.id for one in still_waiting(lines(*asked), "churn", 200.0)] == ["q2"]
    assert [one.id for one in still_waiting(lines(*asked), "churn", 600.0)] == ["q"]
    assert [one.id for one in still_waiting(lines(*asked, told), "churn", 200.0)] == left
    older = outcome(question="q", answer="rejected")
    assert [one.id for one in still_waiting(lines(*asked, older), "churn", 200.0)] == ["q2"]


def test_a_run_that_asks_again_has_one_question() -> None:
    link = "https://prefect.example/runs/1"
    asked = [wanted("q", gate="before-start", link=link), wanted("q2", gate="before-start", link=link)]
    assert still_waiting(lines(*asked, outcome(question="q2", answer="rejected")), "churn", 200.0) == ()


@given(st.floats(0, 2000), st.none() | st.floats(0, 2000) | st.text() | st.booleans())
def test_nothing_waits_beyond_its_time(now: float, until: object) -> None:
    found = still_waiting(lines(wanted(until=until)), "churn", now)  # type: ignore[arg-type]  # as anybody may write it
    assert all(now < one.until for one in found)
    assert bool(found) == (now < (until if isinstance(until, float) else 100.0))
