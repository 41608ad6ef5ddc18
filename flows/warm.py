"""Runs of the urgent deployments, carried out in this process, where everything that they need is imported already.

A process worker starts a Python for each run, which takes seconds before the first line of a flow. A warm runner asks
Prefect once a second, and at once when Prefect tells of a new run, for due runs of the queue `urgent`; it claims each
by setting it Pending, which Prefect grants once, and runs it in a thread. A process worker that polls the same queue is
no danger, and a help where no warm runner lives: whoever claims a run first has it.

Of runs that piled up while nobody took any, those that a newer one makes needless are cancelled: see flows/overdue.py.
A claim whose answer was lost on the way is found in Prefect a moment later, and carried out.

A run in a thread cannot be ended from outside. Cancelled before it began, it does not begin; cancelled later it goes
on to its end, as a rollback must. Heavy flows are left to a process worker, which ends what is cancelled.

    python -m flows.warm
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import contextvars
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from prefect.client.orchestration import get_client
from prefect.events import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter
from prefect.settings import get_current_settings

from flows.connections import warm_up
from flows.due import DueQueue
from flows.endings import TROUBLE, Endings
from flows.orphans import mend_orphans
from flows.taking import SWEEP, URGENT, Taking
from lockstep import terminal
from lockstep.config import load
from lockstep.errors import ConfigError, LockstepError

LOG: Final = logging.getLogger("lockstep.warm")
POOL: Final = "lockstep"
QUEUE: Final = "urgent"
POLL: Final = 1.0  # seconds
LEAST: Final = 0.05  # seconds between two looks, however often Prefect tells of runs
LONGEST: Final = 600.0  # seconds between two looks for claims of dead runners, where one of them cannot be mended
CALL: Final = 20.0  # seconds that one round of calls to Prefect's API may take


class WarmRunner:
    """Takes runs until `stop`. The Prefect API may come and go: runs that are due wait for it, as it keeps them."""

    def __init__(self, config_path: Path | None = None) -> None:
        self._config_path = config_path
        self._queue = DueQueue(POOL, QUEUE, [flow.name for flow, _ in URGENT])
        self._endings = Endings()
        self._taking = Taking(self._queue, self._endings, self._look_again)
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._stopping = False
        self._connected = threading.Event()
        self._thread = threading.Thread(
            # The address of the server may be set for the caller's context alone.
            target=contextvars.copy_context().run,
            args=(self._live,),
            name="lockstep-warm",
            daemon=True,
        )

    @property
    def connected(self) -> bool:
        """Whether Prefect's API answered the last time that it was asked."""
        return self._connected.is_set()

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the runs that are carried out now."""
        return self._taking.ids

    def start(self) -> None:
        """Begin to take runs; returns at once, whether Prefect's API is there or not."""
        self._thread.start()
        threading.Thread(target=warm_up, args=(self._config_path,), name="lockstep-warm-up", daemon=True).start()

    def wait_connected(self, timeout: float) -> bool:
        """Wait until Prefect's API has answered; False after `timeout` seconds without an answer."""
        return self._connected.wait(timeout)

    def stop(self, timeout: float = 60.0) -> bool:
        """Take no more runs, wait `timeout` seconds at most for those that run; True when all have ended.

        What runs on then ends with the process, and is told as Crashed by the next warm runner on this machine.
        """
        if not self._stopping and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(CALL + POLL)
        deadline = time.monotonic() + timeout
        threads = self._taking.threads
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    def _end(self) -> None:
        self._stopping = True
        self._wake.set()

    def _look_again(self) -> None:
        """A run has ended: there may be room for another."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _serve(self) -> None:
        listening = asyncio.ensure_future(self._listen())
        mending = asyncio.ensure_future(self._mend())
        while not self._stopping:
            try:
                async with get_client() as client:
                    while not self._stopping:
                        async with asyncio.timeout(CALL):
                            await self._taking.take_up_lost(client)
                            await self._taking.take_due(client)
                        self._endings.tell_again()
                        self._told_connected(None)
                        await self._rest()
            except (
                Exception
            ) as error:  # whatever it is, the next look may go well: nobody would start this thread again
                if not isinstance(error, TROUBLE):
                    LOG.exception("a look at Prefect's queue failed")
                self._told_connected(error)
            await self._rest()
        for beside in (listening, mending):
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside

    async def _mend(self) -> None:
        """See to what dead runners had claimed, once, beside the taking: a run that is due does not wait for it."""
        pause = SWEEP
        while True:
            try:
                async with get_client() as client, asyncio.timeout(CALL):
                    if await mend_orphans(client, self._queue):
                        return
            except Exception as error:  # as above
                if not isinstance(error, TROUBLE):
                    LOG.exception("a look for what dead runners had claimed failed")
            await asyncio.sleep(POLL if not self.connected else pause)
            pause = min(2 * pause, LONGEST) if self.connected else SWEEP

    async def _rest(self) -> None:
        await asyncio.sleep(LEAST)  # a server that is busy with other runs tells of a hundred a second
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL)
        if not self._stopping:
            self._wake.clear()

    def _told_connected(self, error: BaseException | None) -> None:
        if error is None:
            if not self._connected.is_set():
                LOG.info("runs of the queue %r are taken from %s", QUEUE, get_current_settings().api.url)
            self._connected.set()
            return
        if self._connected.is_set():
            LOG.warning("Prefect's API does not answer, runs wait for it: %r", error)
        self._connected.clear()

    async def _listen(self) -> None:
        """Wake up when Prefect tells of a run that waits; polling finds it a second later where this fails."""
        wanted = EventFilter(event=EventNameFilter(name=["prefect.flow-run.Scheduled"]))
        while not self._stopping:
            try:
                async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as told:
                    async for _ in told:
                        self._wake.set()
            except Exception as error:  # the subscriber raises bare ones, and nothing depends on it
                LOG.debug("no events from Prefect: %r", error)
            await asyncio.sleep(POLL)


def start(config_path: Path | str | None = None) -> WarmRunner:
    """A warm runner that takes runs from now on; raises ConfigError when no Prefect server is configured.

    `config_path` is the lockstep.yaml whose clouds are connected beforehand; runs themselves go by their Fleet block.
    """
    if not get_current_settings().api.url:
        raise ConfigError(
            "no Prefect server is configured",
            hint="start one (prefect server start) and export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    runner = WarmRunner(Path(config_path) if config_path else None)
    runner.start()
    return runner


def main(given: list[str] | None = None) -> int:
    """Take runs until SIGTERM or Ctrl-C; what runs then is waited for, until the second signal."""
    parser = argparse.ArgumentParser(prog="python -m flows.warm", description="Take runs of the urgent deployments.")
    parser.add_argument("--config", type=Path, help="configuration file (default: $LOCKSTEP_CONFIG or lockstep.yaml)")
    options = parser.parse_args(given)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _ask_to_stop(asked))
    try:
        load(options.config)  # a mistake in the file is told at once
        runner = start(options.config)
    except LockstepError as error:
        terminal.show_error(error, as_json=False)
        return error.exit_status
    asked.wait()
    return 0 if runner.stop() else 1


def _ask_to_stop(asked: threading.Event) -> None:
    if asked.is_set():
        raise KeyboardInterrupt
    asked.set()


if __name__ == "__main__":
    sys.exit(main())
