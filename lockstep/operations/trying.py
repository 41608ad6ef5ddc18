"""A job while it is tried: who waits for it hears of its trouble, and it ends when nobody wants it any longer.

An interrupt (Ctrl-C, SIGTERM) ends pauses and repetitions. What is in a call then is waited for, since what lands later
could undo what is done after it: not so inside of `forward_only`, and not of looks.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

#: Seconds between two signs of life of a job that is in trouble, or takes long.
SIGN_EVERY: Final = 10.0
#: Seconds that what is under way has to end by itself, once it was interrupted and may be left behind.
LETTING_GO: Final = 2.0


class Stop:
    """Told once; everything that has asked to hear of it does, also what asks later."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._hearers: list[Callable[[], None]] = []

    def tell(self) -> None:
        """Nobody wants it to be tried any longer."""
        with self._lock:
            self._event.set()
            hearers, self._hearers = self._hearers, []
        for hear in hearers:
            hear()

    def hear(self, hear: Callable[[], None]) -> None:
        """Call `hear` when it is told."""
        with self._lock:
            if not self._event.is_set():
                self._hearers.append(hear)
                return
        hear()

    def wait(self, seconds: float) -> bool:
        """Whether it was told within so many seconds."""
        return self._event.wait(seconds)


class Trying:
    """One job from its first attempt on; `limit` is the seconds after which no attempt begins."""

    def __init__(self, say: Callable[[str], None], limit: float, stop: Stop | None = None) -> None:
        self._say = say
        self._limit = limit
        self._stop = stop or Stop()
        self._began = time.monotonic()
        self._until = "" if math.isinf(limit) else f"{datetime.fromtimestamp(time.time() + limit, UTC):%H:%M:%S} UTC"
        self._seen = ""
        self._troubled = False

    def trouble(self, problem: str) -> None:
        """It failed, and is tried again: told at once the first time, and by `sign` from then on."""
        self._seen = problem
        if not self._troubled:
            self._troubled = True
            self._tell()

    def saw(self, seen: str) -> None:
        """It is not done yet, which is no trouble in the first seconds."""
        self._seen = seen

    def sign(self) -> None:
        """A sign of life of what takes long; what has no limit may take its time as long as nothing goes wrong."""
        if self._troubled or self._until:
            self._tell()

    def pause(self, seconds: float) -> bool:
        """Let time pass; False at once when nobody wants it to be tried any longer."""
        return not self._stop.wait(seconds)

    @property
    def over(self) -> bool:
        """Whether no other attempt begins."""
        return time.monotonic() - self._began >= self._limit or self._stop.wait(0.0)

    def _tell(self) -> None:
        seen = self._seen or "no answer yet"
        if not self._until:
            self._say(f"{seen}: trying again")
        elif time.monotonic() - self._began < self._limit:
            self._say(f"{seen}: trying until {self._until}")
        else:
            self._say(f"{seen}: this is the last attempt")


_TRYING: Final[ContextVar[Trying | None]] = ContextVar("lockstep_trying", default=None)
_FORWARD: Final[ContextVar[Stop | None]] = ContextVar("lockstep_forward_only", default=None)


@contextmanager
def tried(trying: Trying) -> Iterator[None]:
    """What happens in the block is an attempt of this job."""
    before = _TRYING.set(trying)
    try:
        yield
    finally:
        _TRYING.reset(before)


def trying() -> Trying:
    """The job that this thread of control works for; outside of any one that nobody listens to."""
    return _TRYING.get() or Trying(lambda told: None, math.inf)


@contextmanager
def forward_only() -> Iterator[None]:
    """What changes something in the block is left behind by an interrupt: nothing that follows it goes another way.

    So is what is in such a block inside of this one.
    """
    going_on()
    stop, outer = Stop(), left_behind()
    if outer is not None:
        outer.hear(stop.tell)
    before = _FORWARD.set(stop)
    try:
        yield
    except Exception:
        raise
    except BaseException:
        stop.tell()
        raise
    finally:
        _FORWARD.reset(before)


def left_behind() -> Stop | None:
    """What tells everything in this `forward_only` block that it was interrupted; None outside of any."""
    return _FORWARD.get()


def going_on() -> None:
    """Raise the interrupt of this `forward_only` block where it has come meanwhile: nothing else may begin."""
    stop = left_behind()
    if stop is not None and stop.wait(0.0):
        raise KeyboardInterrupt
