"""The log in words: a line a cloud, numbers with their verdicts, and nothing said that the ledger does not know."""

from __future__ import annotations

from collections.abc import Mapping

from lockstep.rules.deeds import ANSWERED, Deed, Ending, read_deeds
from lockstep.rules.telling import as_json, headline, step_line, tell
from lockstep.rules.waiting import is_answer
from tests.unit.lines import Line

CLOUDS = ("aws", "azure", "gcp")
V1 = {"v1-11111111": 100}
NUMBERS = {f"{name} {arm}": 0.25 for name in ("errors", "outcomes") for arm in ("log evidence", "canary", "stable")}


def deed(*lines: tuple[str, str, Mapping[str, object]]) -> Deed:
    """The one operation that these entries (event id, kind, body) tell of, a second apart."""
    (found,) = read_deeds(
        [Line(number, event, float(number), kind, body) for number, (event, kind, body) in enumerate(lines)]
    )
    return found


def rollout(before: Mapping[str, object]) -> Deed:
    return deed(
        ("d/intent", "canary_deploy.intent", {"version": "1", "digest": "1" * 64, "before": before}),
        (
            "s/intent",
            "shift.intent",
            {"within": "d", "before": dict.fromkeys(CLOUDS), "after": dict.fromkeys(CLOUDS, V1)},
        ),
        (
            "v",
            "verdict.outcome",
            {"within": "d", "decision": "pass", "stage": "25 %", "reasons": ["no harm"], "numbers": NUMBERS},
        ),
        ("d/outcome", "canary_deploy.outcome", {"intent": "d", "after": dict.fromkeys(CLOUDS, V1)}),
    )


def test_the_entries_are_named_once() -> None:
    alone = deed(("r", "deploy.refused", {"refused": "no"}))
    assert tell(alone, "ann")[1].endswith("(ledger entry 0)")
    both = deed(("r/intent", "register.intent", {}), ("r/outcome", "register.outcome", {"intent": "r"}))
    assert tell(both, "ann")[1].endswith("(ledger entries 0, 1)")


def test_what_nobody_vouches_for_is_told_as_that() -> None:
    forged = deed(("unvouched/h", "hold.released", {"reason": "why"}))
    assert any("nobody vouches for it" in said for said in tell(forged, "mallory"))
    assert as_json(forged)["unvouched"] is True
    honest = deed(("h", "hold.released", {"reason": "why"}))
    assert not any("vouches" in said for said in tell(honest, "ann"))
    assert "unvouched" not in as_json(honest)


def test_what_came_of_an_alert_or_of_a_persons_word_is_told_by_action_and_state() -> None:
    def answered(actor: str, action: str, state: str) -> Deed:
        body = {"answer": "i", "action": action, "state": state, "told": "so it went", "digest": "2" * 64}
        (found,) = read_deeds([Line(0, "i/answered/1", 1.0, ANSWERED, body, actor)])
        return found

    done = answered("alert:am", "rollback", "done")
    assert tell(done, "alert:am")[0] == f"alert ({'2' * 12}): rollback: done"
    assert "  told   so it went" in tell(done, "alert:am")
    assert (done.ending, done.error) == (Ending.DONE, "")
    assert headline(answered("alert:am", "notify", "notified")) == "notify: notified"
    for state in ("failed", "split"):
        wrong = answered("Ada", "rollback", state)
        assert tell(wrong, "Ada")[0] == f"request ({'2' * 12}): rollback: {state}"
        assert (wrong.ending, as_json(wrong)["error"]) == (Ending.FAILED, "so it went")
    assert headline(deed(("h", "hold.outcome", {"state": "failed", "told": "x", "action": "y"}))) == ""


def test_a_shift_of_several_clouds_has_a_line_a_cloud() -> None:
    told = tell(rollout({cloud: {} for cloud in CLOUDS}), "ann")
    for cloud in CLOUDS:
        (line,) = (line for line in told if f"{cloud}: " in line)
        assert "no traffic -> v1-11111111 100 %" in line
    assert max(map(len, told)) <= 120
    assert not any("not known" in line for line in told)


def test_a_cloud_that_did_not_answer_is_not_said_to_be_without_traffic() -> None:
    told = rollout({"aws": {}, "azure": "unreachable: down", "gcp": {}})
    shift, _ = told.steps
    assert "azure: not known -> v1-11111111 100 %" in step_line(shift, told)
    assert "aws: no traffic -> " in step_line(shift, told)


def test_a_verdict_carries_its_numbers() -> None:
    told = "\n".join(tell(rollout({}), "ann"))
    assert "verdict pass at 25 %: no harm" in told
    assert all(f"{name} 0.25" in told for name in NUMBERS)


def test_a_registration_that_failed_names_its_source() -> None:
    failed = deed(
        ("r/intent", "register.intent", {"source": "runs:/1/model"}),
        ("r/outcome", "register.outcome", {"intent": "r", "error": "no signature"}),
    )
    told = tell(failed, "ann")
    assert "  source runs:/1/model" in told
    assert "  error  no signature" in told


def test_an_approval_is_told_with_who_gave_it_and_why_and_the_question_beside_it() -> None:
    asked = {"within": "d", "version": "3", "digest": "3" * 64, "asks": "May Lockstep promote churn 3?"}
    said = {"within": "d", "version": "3", "question": "q", "answer": "rejected", "reason": "not on a Friday"}
    whole = deed(
        ("d/intent", "canary_deploy.intent", {"version": "3"}),
        ("q", "approval.wanted", asked),
        ("a", "approval.outcome", said),
        ("d/outcome", "canary_deploy.outcome", {"intent": "d"}),
    )
    question, answer = whole.steps
    assert [is_answer(step) for step in whole.steps] == [False, True]
    assert (step_line(question, whole), step_line(answer, whole)) == (
        "approval wanted",
        "approval rejected by ann: not on a Friday",
    )
    assert tell(answer, "ann")[0] == "approval: rejected"
    (late,) = read_deeds([Line(0, "a", 0.0, "approval.outcome", {"answer": "timed out", "reason": "nobody"}, "bob")])
    assert step_line(late) == "approval timed out: nobody"


def test_a_release_is_not_called_a_hold() -> None:
    assert deed(("h", "hold.placed", {"reason": "late"})).operation == "hold"
    assert deed(("r", "hold.released", {"reason": "complete"})).operation == "release"
