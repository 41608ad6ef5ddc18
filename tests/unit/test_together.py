"""Many models at the same time, and an interrupt that waits for none of them for long."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

import pytest

from lockstep.operations import running, together, trying
from lockstep.operations.running import Job, ThreadRunner
from lockstep.operations.together import all_of
from lockstep.operations.trying import forward_only, going_on, left_behind


def interrupt() -> None:
    """As Ctrl-C does, from any thread."""
    stop = left_behind()
    assert stop is not None
    stop.tell()


def test_results_keep_their_order_and_so_many_are_inside_at_once() -> None:
    two = threading.Barrier(2, timeout=10)  # breaks unless two are inside at once

    def call(number: int) -> int:
        two.wait()
        return number * 10

    assert all_of([1, 2, 3, 4], call, 2) == (10, 20, 30, 40)


def test_a_mistake_is_raised_once_the_others_have_ended() -> None:
    ended = []

    def call(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError
        ended.append(number)

    with pytest.raises(ZeroDivisionError):
        all_of([1, 2, 3], call, 2)
    assert sorted(ended) == [2, 3]


def test_an_interrupt_leaves_behind_what_hangs_and_begins_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", 0.5)
    end, begun = threading.Event(), list[str]()

    def call(name: str) -> None:
        begun.append(name)
        if name == "hangs":
            end.wait(60)
        else:
            interrupt()

    with pytest.raises(KeyboardInterrupt), forward_only():
        all_of(["hangs", "interrupts", "late"], call, 2)
    end.set()
    assert sorted(begun) == ["hangs", "interrupts"]


def test_an_interrupt_reaches_the_jobs_of_every_model_and_what_goes_forward_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "LETTING_GO", 0.1)
    end, told = threading.Event(), list[str]()
    hanging = threading.Barrier(2, timeout=10)

    def hang() -> None:
        hanging.wait()
        end.wait(60)

    def call(name: str) -> None:
        try:
            if name == "interrupts":
                hanging.wait()
                interrupt()
                return
            with forward_only():  # a rollback that is finished in a reconcile
                ThreadRunner().run([Job("aws", "hangs", hang)])
        except KeyboardInterrupt:
            told.append(name)
            raise

    with pytest.raises(KeyboardInterrupt), forward_only():
        all_of(["hangs", "interrupts"], call, 2)
    end.set()
    assert told == ["hangs"], "it was not told, or not waited for"


class TakenAndLost(SimpleQueue[None]):
    """Ctrl-C between what was taken first and what is done with it."""

    interrupted = threading.Event()
    in_vain = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        try:
            super().get(block, timeout)
        except Empty:
            self.in_vain.set()
            raise
        if not self.interrupted.is_set():
            self.interrupted.set()
            raise KeyboardInterrupt


def test_an_interrupt_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", 1.0)
    monkeypatch.setattr(together, "SimpleQueue", TakenAndLost)

    def call(name: str) -> None:
        if name == "ends later":
            assert TakenAndLost.interrupted.wait(60)

    with pytest.raises(KeyboardInterrupt), forward_only():
        all_of(["ends", "ends later"], call, 2)
    assert not TakenAndLost.in_vain.is_set(), "it waited for an answer that it had"


def test_after_an_interrupt_no_job_begins() -> None:
    begun = []

    def jobs() -> None:
        interrupt()
        ThreadRunner().run([Job("aws", "begins", lambda: begun.append("job"))])

    with pytest.raises(KeyboardInterrupt), forward_only():
        jobs()
    assert begun == []
    assert trying.left_behind() is None
    going_on()  # outside of any block nothing was interrupted
