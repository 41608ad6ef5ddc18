from __future__ import annotations

import threading

import pytest

from lockstep.errors import RefusedError, UnreachableError
from lockstep.operations import running, trying
from lockstep.operations.running import Job, Outcome, ThreadRunner, look
from lockstep.operations.trying import forward_only, left_behind
from lockstep.operations.trying import trying as trying_now


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BACKOFF", (0.0,))


def test_jobs_run_at_the_same_time_and_outcomes_keep_their_order() -> None:
    together = threading.Barrier(3, timeout=10)  # breaks unless all three are inside at once
    jobs = [Job(name, name, together.wait) for name in ("aws", "azure", "gcp")]
    outcomes = ThreadRunner().run(jobs)
    assert [outcome.cloud for outcome in outcomes] == ["aws", "azure", "gcp"]
    assert all(outcome.done for outcome in outcomes)


def test_what_may_succeed_later_is_tried_again_and_what_was_refused_is_not() -> None:
    calls = {"later": 0, "refused": 0}

    def later() -> str:
        calls["later"] += 1
        if calls["later"] < 3:
            raise UnreachableError("not yet")
        return "there"

    def refused() -> str:
        calls["refused"] += 1
        raise RefusedError("no")

    first, second = ThreadRunner().run([Job("a", "later", later), Job("b", "refused", refused)])
    assert (first.value, calls["later"]) == ("there", 3)
    assert isinstance(second.error, RefusedError)
    assert calls["refused"] == 1


def test_retries_end() -> None:
    def never() -> None:
        raise UnreachableError("never")

    (outcome,) = ThreadRunner().run([Job("a", "never", never, retries=1)])
    assert isinstance(outcome.error, UnreachableError)


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ThreadRunner().run([Job("a", "wrong", lambda: 1 // 0)])


def test_nothing_to_do_is_nothing_done() -> None:
    assert ThreadRunner().run([]) == ()


def test_no_attempt_begins_once_its_time_is_over() -> None:
    calls = []

    def never() -> None:
        calls.append(1)
        raise UnreachableError("never")

    (outcome,) = ThreadRunner().run([Job("a", "never", never, retries=5, limit=0.0)])
    assert isinstance(outcome.error, UnreachableError)
    assert len(calls) == 1


def test_each_outcome_is_told_as_soon_as_it_is_there() -> None:
    first = threading.Event()
    told: list[str] = []

    def done(outcome: Outcome[bool]) -> None:
        told.append(outcome.cloud)
        first.set()

    jobs = [Job("slow", "slow", lambda: first.wait(10)), Job("quick", "quick", lambda: True)]
    assert [outcome.value for outcome in ThreadRunner().run(jobs, done)] == [True, True]
    assert told == ["quick", "slow"]


def test_a_look_that_hangs_is_left_behind_once_another_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE", 0.05)
    end = threading.Event()
    quick, hanging, refused = look(
        [Job("a", "look", lambda: True), Job("b", "look", lambda: end.wait(20)), Job("c", "look", refuse, retries=0)]
    )
    end.set()
    assert quick.value is True
    assert isinstance(hanging.error, UnreachableError)
    assert "no answer within" in str(hanging.error)
    assert isinstance(refused.error, RefusedError)


def test_looks_are_waited_for_while_none_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "GRACE", 0.0)
    (outcome, failed) = look([Job("a", "look", lambda: threading.Event().wait(0.3)), Job("b", "look", refuse)])
    assert outcome.done
    assert isinstance(failed.error, RefusedError)


def test_an_interrupt_leaves_behind_what_only_goes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "LETTING_GO", 0.2)
    monkeypatch.setattr(running, "LETTING_GO", 0.2)
    end, told, paused = threading.Event(), list[str](), list[bool]()

    def interrupt() -> bool:
        stop = left_behind()
        assert stop is not None
        stop.tell()
        return True

    def waits() -> None:
        paused.append(trying_now().pause(60))

    jobs = [Job("a", "hangs", lambda: end.wait(60)), Job("b", "waits", waits), Job("c", "quick", interrupt)]
    with pytest.raises(KeyboardInterrupt), forward_only():
        ThreadRunner().run(jobs, lambda outcome: told.append(outcome.cloud))  # type: ignore[arg-type]
    end.set()
    assert sorted(told) == ["b", "c"]
    assert paused == [False], "it was waited for"


def test_trouble_is_told_at_once_and_again_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SIGN_EVERY", 0.01)
    told: list[str] = []
    third = threading.Event()

    def say(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            third.set()

    def fails() -> None:
        if told:
            assert third.wait(10), told
        raise UnreachableError("cannot be reached")

    ThreadRunner().run([Job("a", "fails", fails, retries=1, limit=600.0, say=say)])
    assert told[0].startswith("cannot be reached: trying until ")
    assert len(told) >= 3
    assert told[1] == told[0]


def test_what_takes_long_and_has_no_trouble_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SIGN_EVERY", 0.01)
    told: list[str] = []
    ThreadRunner().run([Job("a", "deploys", lambda: threading.Event().wait(0.1), say=told.append)])
    assert told == []


def refuse() -> bool:
    raise RefusedError("no")
