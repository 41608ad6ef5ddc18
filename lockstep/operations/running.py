"""How an operation's single steps are carried out: in threads here, as Prefect tasks inside a flow.

An operation says what has to be done on which cloud, as jobs; a runner does them at the same time and says what came of
each. A job that fails does not stop the others, and never raises out of `run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from lockstep.errors import LockstepError, RetryLaterError

T = TypeVar("T")
#: Seconds before the second, third and fourth attempt at a job that may succeed later.
BACKOFF: Final = (0.2, 1.0, 3.0)


@dataclass(frozen=True)
class Job(Generic[T]):
    """One step on one cloud. `call` must be idempotent: it may be run again after a failure or a crash."""

    cloud: str
    name: str
    call: Callable[[], T]
    retries: int = 2


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a job: a value, or an error that says why not."""

    cloud: str
    name: str
    seconds: float
    value: T | None = None
    error: LockstepError | None = None

    @property
    def done(self) -> bool:
        """Whether it succeeded."""
        return self.error is None


class Runner(Protocol):
    """Carries out jobs."""

    def run(self, jobs: Sequence[Job[T]]) -> tuple[Outcome[T], ...]:
        """Do all jobs at the same time; outcomes in the order of the jobs."""


class ThreadRunner:
    """Runs jobs in threads of this process, one a job."""

    def run(self, jobs: Sequence[Job[T]]) -> tuple[Outcome[T], ...]:
        """See Runner."""
        if not jobs:
            return ()
        with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="lockstep") as pool:
            return tuple(pool.map(attempt, jobs))


def attempt(job: Job[T]) -> Outcome[T]:
    """Do one job, again after a pause while it fails with RetryLaterError and retries are left."""
    began = time.monotonic()
    for number in range(job.retries + 1):
        try:
            value = job.call()
            return Outcome(job.cloud, job.name, time.monotonic() - began, value)
        except RetryLaterError as error:
            if number == job.retries:
                return Outcome(job.cloud, job.name, time.monotonic() - began, error=error)
            time.sleep(BACKOFF[min(number, len(BACKOFF) - 1)])
        except LockstepError as error:
            return Outcome(job.cloud, job.name, time.monotonic() - began, error=error)
    raise AssertionError("unreachable")
