"""How an operation's single steps are carried out: in threads here, as Prefect tasks inside a flow.

An operation says what has to be done on which cloud, as jobs; a runner does them at the same time and says what came of
each. A job that fails does not stop the others, and never raises out of `run`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

from lockstep.errors import LockstepError, RetryLaterError, UnreachableError
from lockstep.operations.trying import LETTING_GO, SIGN_EVERY, Stop, Trying, going_on, left_behind, tried

T = TypeVar("T")
#: Seconds before the second, third and fourth attempt at a job that may succeed later.
BACKOFF: Final = (0.2, 1.0, 3.0)
#: Seconds that a look may come later than the first one that answers.
GRACE: Final = 2.0


@dataclass(frozen=True)
class Job(Generic[T]):
    """One step on one cloud. `call` must be idempotent: it may be run again after a failure or a crash.

    What may succeed later is tried again `retries` times, but not once `limit` seconds have gone by. `say` hears of
    trouble at once, and that it is still tried.
    """

    cloud: str
    name: str
    call: Callable[[], T]
    retries: int = 2
    limit: float = math.inf
    say: Callable[[str], None] = lambda told: None


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


def untold(outcome: object) -> None:
    """For callers that wait for all."""


class Runner(Protocol):
    """Carries out jobs."""

    def run(self, jobs: Sequence[Job[T]], done: Callable[[Outcome[T]], None] = untold) -> tuple[Outcome[T], ...]:
        """Do all jobs at the same time; outcomes in the order of the jobs.

        `done` is told of each outcome as soon as it is there, from any thread.
        """


class ThreadRunner:
    """Runs jobs in threads of this process, one a job, each in the caller's context.

    An interrupt ends repetitions, and is raised once every job has ended: in a `forward_only` block, and of `looks`,
    those that do not end at once are left behind.
    """

    def __init__(self, *, looks: bool = False) -> None:
        self._looks = looks

    def run(self, jobs: Sequence[Job[T]], done: Callable[[Outcome[T]], None] = untold) -> tuple[Outcome[T], ...]:
        """See Runner."""
        going_on()
        answers: _Answers[T] = SimpleQueue()
        stop, forward = Stop(), left_behind()
        if forward is not None:
            forward.hear(lambda: answers.put(None))
        pending = [Trying(job.say, job.limit, stop) for job in jobs]

        def answer(place: int) -> None:
            try:
                outcome = attempt(jobs[place], pending[place])
                done(outcome)
                answers.put((place, outcome))
            except BaseException as error:
                answers.put((place, error))

        _start(answer, len(jobs))
        found: dict[int, Outcome[T] | BaseException] = {}
        try:
            while len(found) < len(jobs):
                _take(answers, found, pending)
        except BaseException:
            stop.tell()
            patience = 0.0 if self._looks else math.inf if forward is None else LETTING_GO
            _take_rest(answers, found, len(jobs), patience)
            raise
        return tuple(_outcome(found[place]) for place in range(len(jobs)))


#: A job's place and what came of it; None: an interrupt, heard of by whom this thread works for.
_Answers = SimpleQueue[tuple[int, "Outcome[T] | BaseException"] | None]


def _start(answer: Callable[[int], None], count: int) -> None:
    for place in range(count):  # not of a pool: those are waited for when the process ends
        name = f"lockstep {place}"
        threading.Thread(target=copy_context().run, args=(answer, place), name=name, daemon=True).start()


def _take(answers: _Answers[T], found: dict[int, Outcome[T] | BaseException], pending: Sequence[Trying]) -> None:
    """The next answer; until it comes those that are missing give signs of life."""
    while True:
        try:
            heard = answers.get(timeout=SIGN_EVERY)
        except Empty:
            for place, job in enumerate(pending):
                if place not in found:
                    job.sign()
            continue
        if heard is None:
            raise KeyboardInterrupt
        found[heard[0]] = heard[1]
        return


def _take_rest(answers: _Answers[T], found: dict[int, Outcome[T] | BaseException], count: int, patience: float) -> None:
    """What still ends by itself, within `patience` seconds."""
    deadline = time.monotonic() + patience
    while len(found) < count:
        try:
            left = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
            heard = answers.get(timeout=left)
        except Empty:
            return
        if heard is not None:
            found[heard[0]] = heard[1]


def _outcome(found: Outcome[T] | BaseException) -> Outcome[T]:
    if isinstance(found, BaseException):
        raise found
    return found


def attempt(job: Job[T], trying: Trying | None = None) -> Outcome[T]:
    """Do one job, again after a pause while it fails with RetryLaterError and retries are left."""
    trying = trying or Trying(job.say, job.limit)
    began = time.monotonic()
    for number in range(job.retries + 1):
        try:
            with tried(trying):
                value = job.call()
            return Outcome(job.cloud, job.name, time.monotonic() - began, value)
        except RetryLaterError as error:
            if number == job.retries or trying.over:
                return Outcome(job.cloud, job.name, time.monotonic() - began, error=error)
            trying.trouble(error.problem)
            if not trying.pause(BACKOFF[min(number, len(BACKOFF) - 1)]):
                return Outcome(job.cloud, job.name, time.monotonic() - began, error=error)
        except LockstepError as error:
            return Outcome(job.cloud, job.name, time.monotonic() - began, error=error)
    raise AssertionError("unreachable")


def look(jobs: Sequence[Job[T]], patience: float = math.inf) -> tuple[Outcome[T], ...]:
    """The same for looks that the urgent must not wait for: one that hangs while others have answered is left behind.

    Once one has answered, the others have GRACE seconds more, or twice what it took if that is longer: a process that
    has just begun and a machine that is loaded are slow for all of them. Who does not answer is UnreachableError, and
    so is everyone once `patience` seconds have gone by.
    """
    answers: SimpleQueue[tuple[int, Outcome[T] | BaseException]] = SimpleQueue()

    def answer(place: int) -> None:
        try:
            answers.put((place, attempt(jobs[place])))
        except BaseException as error:
            answers.put((place, error))

    _start(answer, len(jobs))
    began = time.monotonic()
    deadline = began + patience
    answered = False
    found: dict[int, Outcome[T]] = {}
    while len(found) < len(jobs):
        try:
            left = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
            place, outcome = answers.get(timeout=left)
        except Empty:
            break
        if isinstance(outcome, BaseException):
            raise outcome
        found[place] = outcome
        if outcome.done and not answered:
            answered = True
            now = time.monotonic()
            deadline = min(deadline, now + max(GRACE, 2 * (now - began)))
    waited = time.monotonic() - began
    return tuple(found.get(place) or _silent(job, waited) for place, job in enumerate(jobs))


def _silent(job: Job[T], waited: float) -> Outcome[T]:
    error = UnreachableError(
        f"no answer within {waited:.1f} s ({job.name})", cloud=job.cloud, hint="it was not waited for any longer"
    )
    return Outcome(job.cloud, job.name, waited, error=error)
