"""The same for many models, a few at the same time; an interrupt ends it within seconds, whatever one of them is at."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from lockstep.operations.trying import LETTING_GO, Stop, going_on, left_behind

A = TypeVar("A")
T = TypeVar("T")
#: Seconds for what an interrupt finds under way: its jobs are let go of, then those beside them, then it is written.
PATIENCE: Final = 4 * LETTING_GO


def all_of(items: Sequence[A], call: Callable[[A], T], at_once: int) -> tuple[T, ...]:
    """Call for each item, `at_once` at the same time, each in a copy of this context: a flow's runner lives in it.

    Raises what a call raised, once all have ended. In a `forward_only` block an interrupt is raised within seconds:
    nothing else begins, and what does not end by then is left behind.
    """
    if len(items) <= 1:
        return tuple(map(call, items))
    waiting = deque((place, copy_context(), item) for place, item in enumerate(items))
    found: dict[int, T | BaseException] = {}
    news: SimpleQueue[None] = SimpleQueue()  # wakes who waits, and holds no answer: an interrupt may lose what it gave
    stop = left_behind()
    if stop is not None:
        stop.hear(lambda: news.put(None))
    try:
        for number in range(min(at_once, len(items))):  # not of a pool: those are waited for when the process ends
            name = f"lockstep model {number}"
            threading.Thread(target=_work, args=(waiting, call, found, news, stop), name=name, daemon=True).start()
        while len(found) < len(items):
            news.get()
            going_on()
    except BaseException:
        begun = len(items) - _forget(waiting)
        if stop is not None:
            stop.tell()
            _wait_for_rest(news, found, begun)
        raise
    return tuple(_value(found[place]) for place in range(len(items)))


def _work(
    waiting: deque[tuple[int, Context, A]],
    call: Callable[[A], T],
    found: dict[int, T | BaseException],
    news: SimpleQueue[None],
    stop: Stop | None,
) -> None:
    while stop is None or not stop.wait(0.0):
        try:
            place, context, item = waiting.popleft()
        except IndexError:
            return
        try:
            found[place] = context.run(call, item)
        except BaseException as error:
            found[place] = error
        news.put(None)


def _forget(waiting: deque[tuple[int, Context, A]]) -> int:
    """Take away what nobody has begun with; how many that were."""
    forgotten = 0
    while True:
        try:
            waiting.pop()
        except IndexError:
            return forgotten
        forgotten += 1


def _wait_for_rest(news: SimpleQueue[None], found: Mapping[int, T | BaseException], count: int) -> None:
    """What still ends by itself."""
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        try:
            news.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return


def _value(found: T | BaseException) -> T:
    if isinstance(found, BaseException):
        raise found
    return found
