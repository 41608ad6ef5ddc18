"""Whether there is still something to roll back, by what the ledger says came since it was asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from lockstep.operations import rollback_plan
from lockstep.operations.desired import Known
from lockstep.operations.rollback_plan import RollbackPlan, further_back, plan_rollback
from lockstep.rules.state import FleetState, ModelRecord, Version
from lockstep.rules.target import Why
from lockstep.stores.ledger import Entry
from tests.unit.test_target import LATE, V1, V2, V3, record, serving

ASKED = 200.0


def move(at: float, kind: str, version: Version, *, late: bool = False, **body: object) -> Entry:
    number = int(at)
    return Entry(number, f"e{number}", at, kind, "m", "x", {"version": version.label, **body}, late)


def promoted(at: float, version: Version) -> Entry:
    return move(at, "promote.outcome", version, error="")


def rolled_back(at: float, version: Version) -> Entry:
    return move(at, "rollback.outcome", version, digest=version.digest, seconds={"aws": 1.0}, error="")


def planned(
    known: ModelRecord, observed: FleetState, moves: Sequence[Entry], to: Version | None = None, leaving: str = ""
) -> RollbackPlan:
    """The plan of a rollback that was asked for at ASKED."""
    fleet = SimpleNamespace(
        model="m",
        clouds=(SimpleNamespace(name="aws"),),
        observe=lambda urgent: observed,
        ledger=SimpleNamespace(entries=lambda model, last: list(moves)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollback_plan, "read_known", lambda fleet: Known(known))
        patch.setattr(rollback_plan, "without_mlflow", lambda fleet, known: fleet)
        patch.setattr(rollback_plan, "_refuse_unreplicated", lambda *given: None)
        patch.setattr(rollback_plan, "seal_problems", lambda *given: {})
        patch.setattr(rollback_plan, "accept_or_refuse", lambda *given: {})
        return plan_rollback(fleet, to, leaving=leaving, asked=ASKED)  # type: ignore[arg-type]


CHAMPION = record(V3, good={V2: LATE})


def test_a_canary_that_is_promoted_after_the_alert_is_left_all_the_same() -> None:
    moves = [move(100.0, "canary_deploy.intent", V3), promoted(201.0, V3)]
    plan = planned(CHAMPION, serving({V3: 100}), moves)
    assert (plan.needless, plan.way.target, plan.way.left) == ("", V2, (V3,))
    ended = move(203.0, "canary_deploy.outcome", V3)
    assert planned(CHAMPION, serving({V3: 100}), [*moves, ended]).needless == ""


@pytest.mark.parametrize(
    "before",
    [
        [],
        [move(100.0, "canary_deploy.intent", V2)],
        [move(100.0, "canary_deploy.intent", V3), move(150.0, "canary_deploy.outcome", V3, error="taken back")],
        [move(100.0, "canary_deploy.intent", V3), rolled_back(150.0, V2)],
    ],
    ids=["none before", "another", "one that failed", "one that a rollback took back"],
)
def test_what_was_first_tried_after_the_alert_and_promoted_is_left_alone(before: list[Entry]) -> None:
    moves = [*before, move(201.0, "canary_deploy.intent", V3), promoted(202.0, V3)]
    assert "a promote has led to version 3" in planned(CHAMPION, serving({V3: 100}), moves).needless


def test_a_line_that_came_late_hides_no_newer_one() -> None:
    late = move(90.0, "canary_deploy.intent", V1, late=True)
    plan = planned(record(V2, good={V1: LATE}), serving({V2: 100}), [rolled_back(300.0, V2), late])
    assert "a rollback has led to version 2" in plan.needless


@pytest.mark.parametrize("leaving", ["", V3.digest], ids=["since then", "it is left"])
def test_a_version_that_is_named_and_does_not_serve_is_never_needless(leaving: str) -> None:
    known, moves = record(V2, good={V1: LATE}), [rolled_back(201.0, V2)]
    assert planned(known, serving({V2: 100}), moves, leaving=leaving).needless
    plan = planned(known, serving({V2: 100}), moves, V1, leaving)
    assert (plan.needless, plan.way.target, plan.way.left) == ("", V1, (V2,))
    assert planned(known, serving({V2: 100}), moves, V2, leaving).needless, "asked twice, it goes back once"
    assert planned(known, serving({V2: 50, V1: 50}), moves, V2, leaving).needless == "", "nor where it serves in part"


def test_a_rollback_that_stays_where_one_has_just_led_names_the_way_further_back() -> None:
    arrived = move(time.time(), "rollback.outcome", V3, digest=V3.digest, seconds={"aws": 1.0}, error="")
    plan = planned(CHAMPION, serving({V3: 100}), [arrived])
    assert (plan.way.why, further_back(plan)) == (Why.ARRIVED, f"lockstep rollback {V3.model} --to {V2.label}")
    assert further_back(planned(CHAMPION, serving({V3: 100}), [])) == ""
