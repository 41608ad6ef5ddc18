"""What strangers have the agent's log say: all of it is named, and a flood of it stays few lines."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent.sparing import LONGEST, OTHERS, THINGS, Sparing


class Timers:
    """A clock that is moved by hand, and what is to be called."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._calls, (self.now + seconds, self._number, call))

    def until(self, end: float) -> None:
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = end

    def __len__(self) -> int:
        return len(self._calls)


def test_each_thing_is_said_at_once_and_then_counted() -> None:
    lines: list[str] = []
    timers = Timers()
    log = Sparing(lines.append, timers.later)
    for _ in range(3):
        log.say("a", "wrong", "10.0.0.1")
        log.say("b", "missing", "10.0.0.2")
    assert lines == ["a: wrong (from 10.0.0.1)", "b: missing (from 10.0.0.2)"]
    log.say("b", "missing", "10.0.0.3")
    timers.until(1.0)
    assert lines[2:] == [
        "a: wrong: 2 more in the last 1 s, the latest from 10.0.0.1",
        "b: missing: 3 more in the last 1 s, the latest from 10.0.0.3",
    ]
    timers.until(3.0)
    assert (len(lines), len(timers)) == (4, 0), "what is quiet again is forgotten"
    log.say("a", "wrong", "")
    assert lines[4:] == ["a: wrong (from an unknown address)"]


def test_a_flood_of_many_things_for_an_hour_is_a_bounded_number_of_lines() -> None:
    lines: list[str] = []
    timers = Timers()
    log = Sparing(lines.append, timers.later)
    for second in range(3600):
        for number in range(2 * THINGS):
            log.say("a", f"thing {number}", "10.0.0.1")
        timers.until(second + 0.5)
    assert len(timers) == THINGS + 1
    assert len(lines) < (THINGS + 1) * (3600 / LONGEST + 10)
    assert any(OTHERS in line for line in lines)
    log.say("b", "missing", "10.0.0.2")
    assert lines[-1] == "b: missing (from 10.0.0.2)", "what comes to another place is named"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=60))
def test_nothing_is_lost(said: list[tuple[str, float]]) -> None:
    lines: list[str] = []
    timers = Timers()
    log = Sparing(lines.append, timers.later)
    for thing, pause in said:
        timers.until(timers.now + pause)
        log.say(thing, "wrong", "10.0.0.1")
    timers.until(timers.now + 10 * LONGEST)
    for thing in "abc":
        told = [line.partition(": wrong: ")[2] for line in lines if line.startswith(thing)]
        assert sum(int(one.split()[0]) if one else 1 for one in told) == sum(one == thing for one, _ in said)
