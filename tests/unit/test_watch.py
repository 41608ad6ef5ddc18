"""How looks become periods of evidence: a watch over a fleet whose clouds report what the test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lockstep.config import FleetSettings, RolloutSettings
from lockstep.operations.running import Outcome
from lockstep.operations.watch import Watch
from lockstep.rules.judge import Decision
from lockstep.rules.measurement import SlotMetrics
from lockstep.rules.rollout import Move, Stage
from lockstep.rules.state import Version

STABLE, CANARY = Version("m", "1", "a" * 64), Version("m", "2", "b" * 64)


def fleet(bad_of_canary: int) -> Any:
    """Each look, one more request to either version; `bad_of_canary` of ten canary answers are errors."""
    looks = 0

    def look(*_: object, **__: object) -> tuple[Outcome[tuple[SlotMetrics, ...]], ...]:
        nonlocal looks
        looks += 1
        slots = (
            SlotMetrics("aws", STABLE.slot, looks, 0),
            SlotMetrics("aws", CANARY.slot, looks, looks * bad_of_canary // 10),
        )
        return (Outcome("aws", "measure", 0.0, slots),)

    rollout = RolloutSettings(steps=(50, 100), step_seconds=0, min_requests=12, look_every=0.01)
    return SimpleNamespace(
        model="m",
        settings=FleetSettings(clouds=("aws",), rollout=rollout),
        outcomes=None,
        look_at_each=look,
        say=lambda *_, **__: None,
    )


def watch(bad_of_canary: int) -> Watch:
    return Watch(fleet(bad_of_canary), STABLE, CANARY, lambda: None)


HALF = Stage("50 %", {"aws": 50})


def test_looks_that_see_one_request_each_still_find_a_bad_canary() -> None:
    report = watch(8).stage(HALF, sleep=lambda _: None)
    assert (report.move, report.verdict.decision) == (Move.TAKE_BACK, Decision.FAIL)


def test_a_good_canary_advances_once_enough_was_seen() -> None:
    report = watch(0).stage(HALF, sleep=lambda _: None)
    assert (report.move, report.verdict.decision) == (Move.ADVANCE, Decision.PASS)
    assert report.verdict.numbers["requests"] >= 12


def test_a_guard_ends_the_watch() -> None:
    def overtaken() -> None:
        raise InterruptedError

    try:
        Watch(fleet(0), STABLE, CANARY, overtaken).stage(HALF, sleep=lambda _: None)
    except InterruptedError:
        return
    raise AssertionError("the guard was not asked")
