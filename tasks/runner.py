"""An operation's jobs as Prefect task runs: one a job, all at the same time, with retries, a time limit and a log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from lockstep.config import Config
from lockstep.errors import LockstepError, RetryLaterError
from lockstep.operations.running import BACKOFF, Job, Outcome, untold
from lockstep.operations.trying import SIGN_EVERY, Trying, tried

T = TypeVar("T")
#: A verb has time limits of its own, and says more when it meets one; a task's limit comes after all of them.
GRACE: Final = 120.0
# Prefect warns at every task run that a limit cannot interrupt a call in a thread: the calls' own limits do.
logging.getLogger("prefect.task_runs").addFilter(lambda record: not str(record.msg).startswith("Timeout of "))


@dataclass
class _Attempts(Generic[T]):
    """What came of a job's attempts, kept beside the task run so that errors arrive as the objects that they are."""

    trying: Trying
    began: float = field(default_factory=time.monotonic)
    value: T | None = None
    error: LockstepError | None = None
    done: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class PrefectRunner:
    """Runs jobs as task runs of the flow that is running. `timeout` is seconds for all attempts of one job.

    Only RetryLaterError is tried again, as often as the job says. A job's LockstepError fails its task run and comes
    back as its outcome; anything else is a mistake in the program and fails the flow.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def run(self, jobs: Sequence[Job[T]], done: Callable[[Outcome[T]], None] = untold) -> tuple[Outcome[T], ...]:
        """See lockstep.operations.running.Runner; must be called inside a flow."""
        submitted = [self._submit(job) for job in jobs]
        for job, attempts, future in submitted:
            future.add_done_callback(partial(_tell, job, attempts, done))
        for _, attempts, future in submitted:
            while not attempts.ended.wait(SIGN_EVERY):
                for _, one, _ in submitted:
                    if not one.ended.is_set():
                        one.trying.sign()
            future.wait()
        return tuple(self._outcome(job, attempts, future.state) for job, attempts, future in submitted)

    def _submit(self, job: Job[T]) -> tuple[Job[T], _Attempts[T], PrefectFuture[None]]:
        attempts: _Attempts[T] = _Attempts(Trying(job.say, job.limit))

        def attempt() -> None:
            attempts.error = None
            try:
                with tried(attempts.trying):
                    attempts.value = job.call()
            except LockstepError as error:
                attempts.error = error
                raise
            attempts.done = True

        def may_succeed_later(*_: object) -> bool:
            again = not attempts.trying.over and isinstance(attempts.error, RetryLaterError)
            if again and attempts.error is not None:
                attempts.trying.trouble(attempts.error.problem)
            return again

        run = task(
            name=f"step on {job.cloud}" if job.cloud else "step",
            task_run_name=job.name.replace("{", "(").replace("}", ")"),  # braces would be filled in
            tags=[job.cloud] if job.cloud else [],
            retries=job.retries,
            retry_delay_seconds=list(BACKOFF),
            retry_condition_fn=may_succeed_later,
            timeout_seconds=self._timeout,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(attempt)
        return job, attempts, run.submit()

    def _outcome(self, job: Job[T], attempts: _Attempts[T], state: State[Any]) -> Outcome[T]:
        seconds = time.monotonic() - attempts.began
        if attempts.done and state.is_completed():
            return Outcome(job.cloud, job.name, seconds, attempts.value)
        if attempts.error is not None:
            return Outcome(job.cloud, job.name, seconds, error=attempts.error)
        if state.name == "TimedOut":
            late = RetryLaterError(
                f"{job.name} did not end within {self._timeout:.0f} s",
                hint="look at the cloud's console, then run the same again: every step may be repeated",
            )
            return Outcome(job.cloud, job.name, seconds, error=late)
        state.result(raise_on_failure=True)  # raises what no operation foresaw
        raise RuntimeError(f"task {job.name} ended as {state.name}: {state.message}")


def _tell(job: Job[T], attempts: _Attempts[T], done: Callable[[Outcome[T]], None], _: object) -> None:
    """What a job's attempts came to; a task run that ended in another way is for `run` to raise."""
    seconds = time.monotonic() - attempts.began
    try:
        if attempts.done:
            done(Outcome(job.cloud, job.name, seconds, attempts.value))
        elif attempts.error is not None:
            done(Outcome(job.cloud, job.name, seconds, error=attempts.error))
    finally:
        attempts.ended.set()


def runner_for(config: Config) -> PrefectRunner:
    """A runner whose limit lies beyond every limit that the clouds' settings set for a verb."""
    slowest = max(cloud.deploy_timeout + cloud.traffic_timeout for cloud in config.clouds.values())
    return PrefectRunner(slowest + GRACE)
