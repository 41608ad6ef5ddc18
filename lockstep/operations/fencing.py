"""The lease that this thread of control writes under, and the check that comes before everything that it changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol


class Writer(Protocol):
    """One model's writer, as what it changes knows it."""

    @property
    def model(self) -> str:
        """The model that it may write."""

    @property
    def intent(self) -> Mapping[str, object]:
        """What an intent in the ledger says of the lease."""

    def check(self) -> None:
        """Raise OvertakenError when somebody else writes now; asks the database of leases, no cloud."""

    def wait(self, seconds: float) -> None:
        """Return after so long, or as soon as it is found out that somebody else writes."""


_WRITERS: Final[ContextVar[tuple[Writer, ...]]] = ContextVar("lockstep_writers", default=())


def current(model: str) -> Writer | None:
    """The writer that this thread of control is inside of for the model."""
    return next((writer for writer in _WRITERS.get() if writer.model == model), None)


@contextmanager
def inside(writer: Writer) -> Iterator[None]:
    """What happens in the block happens under the writer's lease."""
    before = _WRITERS.set((writer, *_WRITERS.get()))
    try:
        yield
    finally:
        _WRITERS.reset(before)


def check(model: str) -> None:
    """Raise OvertakenError when another operation has taken the model from the one that calls."""
    guard(model)()


def guard(model: str) -> Callable[[], None]:
    """`check` for jobs, which may run in other threads: called in each attempt of a job, right before it changes."""
    writer = current(model)
    return _nothing if writer is None else writer.check


def pause(model: str, seconds: float) -> None:
    """Let time pass for an operation on the model; ends when it is overtaken, so that `check` is asked."""
    writer = current(model)
    if writer is None:
        time.sleep(seconds)  # nobody could end it
    else:
        writer.wait(seconds)


def announced(model: str) -> Mapping[str, object]:
    """What an intent in the ledger says of the lease: `fence`, or that there is none; nothing outside of `writing`.

    Raises OvertakenError as `check` does: nobody announces what he may not do.
    """
    check(model)
    return fence(model)


def fence(model: str) -> Mapping[str, object]:
    """The same for an outcome, which is written whatever has happened since."""
    writer = current(model)
    return {} if writer is None else writer.intent


def _nothing() -> None:
    """Outside of an operation that writes, in tests say, nobody is overtaken."""
