"""Claim runs that are due in Prefect's queue, one at a time, and carry each out in a thread of this process."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Abort
from prefect.flow_engine import run_flow
from prefect.states import Pending

from flows.due import DueQueue
from flows.endings import Endings
from flows.monitor import monitor
from flows.orphans import claim_text
from flows.overdue import cancel_needless, needless
from flows.reconcile import reconcile
from flows.rollback import rollback

LOG: Final = logging.getLogger("lockstep.warm")
SWEEP: Final = 20.0  # seconds between two looks for claims of our own that nobody carries out
#: Flows that are run, the most urgent first, and how many of one at a time; what waits longer stays due.
URGENT: Final[tuple[tuple[Flow[Any, Any], int], ...]] = ((rollback, 64), (reconcile, 8), (monitor, 8))


class Taking:
    """The runs that this process has claimed. Runs are claimed by one loop alone; `ended` hears of each that ended."""

    def __init__(self, queue: DueQueue, endings: Endings, ended: Callable[[], None]) -> None:
        self._queue = queue
        self._endings = endings
        self._ended = ended
        self._flows: dict[str, tuple[int, Flow[Any, Any], int]] = {
            flow.name: (place, flow, most) for place, (flow, most) in enumerate(URGENT)
        }
        self._running: dict[str, tuple[str, threading.Thread]] = {}  # run id -> flow's name
        self._names: dict[str, str] = {}  # flow id -> flow's name
        self._claim: Final = claim_text(str(uuid4()))  # by which Prefect shows that a run is ours
        self._sweep = 0.0  # when claims are looked for next, on the monotonic clock
        self._lock = threading.Lock()

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the runs that are carried out now."""
        with self._lock:
            return tuple(self._running)

    @property
    def threads(self) -> tuple[threading.Thread, ...]:
        """That carry them out."""
        with self._lock:
            return tuple(thread for _, thread in self._running.values())

    async def take_due(self, client: PrefectClient) -> None:
        """Begin with every run that is due and that there is room for."""
        due = await self._queue.due(client)
        known = [(await self._name_of(client, one), one) for one in due]
        ours = sorted(
            ((self._flows[name][0], name, run) for name, run in known if name in self._flows), key=lambda one: one[:2]
        )
        old = needless(due)
        wait: set[str] | None = None
        # One after the other: SQLite would keep them all waiting.
        for name, run in self._fitting([one for one in ours if str(one[2].id) not in old]):
            if name != rollback.name and wait is None:
                wait = await cancel_needless(client, due, old)
            if str(run.id) not in (wait or ()):
                await self._take(client, name, run)
        if wait is None:
            await cancel_needless(client, due, old)

    async def take_up_lost(self, client: PrefectClient) -> None:
        """Carry out what Prefect holds for claimed by this runner, and nobody carries out: the answer was lost.

        Claims are made by this loop alone, so that one that is not running before the look was lost.
        """
        if time.monotonic() < self._sweep:
            return
        running = {*self.ids, *self._endings.untold}
        for run in await self._queue.claimed(client):
            lost = run.state_type is StateType.PENDING and run.state is not None and run.state.message == self._claim
            name = await self._name_of(client, run) if lost and str(run.id) not in running else ""
            if name in self._flows:
                LOG.warning("run %s was claimed, and the answer was lost on the way: it is begun now", run.name)
                self._begin(name, run)
        self._sweep = time.monotonic() + SWEEP

    def _fitting(self, ours: Sequence[tuple[int, str, FlowRun]]) -> list[tuple[str, FlowRun]]:
        """Those that there is room for; nothing keeps a rollback waiting but other rollbacks."""
        with self._lock:
            busy = [name for name, _ in self._running.values()]
            held = set(self._running)
        fitting: list[tuple[str, FlowRun]] = []
        for _, name, run in ours:
            taken = busy.count(name) + sum(1 for other, _ in fitting if other == name)
            if str(run.id) not in held and taken < self._flows[name][2]:
                fitting.append((name, run))
        return fitting

    async def _name_of(self, client: PrefectClient, run: FlowRun) -> str:
        key = str(run.flow_id)
        if key not in self._names:
            self._names[key] = (await client.read_flow(run.flow_id)).name
        return self._names[key]

    async def _take(self, client: PrefectClient, name: str, run: FlowRun) -> None:
        until, self._sweep = self._sweep, 0.0  # looked for at once, unless the answer comes
        claimed: OrchestrationResult[Any] = await client.set_flow_run_state(run.id, Pending(message=self._claim))
        if claimed.status is not SetStateStatus.ACCEPT:
            # Another runner was quicker, somebody cancelled it, or the deployment's limit is reached; or it was a
            # second attempt of the client's, which Prefect refuses since the first was accepted.
            return
        self._sweep = until
        run.state = claimed.state
        self._begin(name, run)

    def _begin(self, name: str, run: FlowRun) -> None:
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._carry_out, self._flows[name][1], run),
            name=f"run-{run.id}",
            daemon=True,
        )
        with self._lock:
            self._running[str(run.id)] = (name, thread)
        thread.start()

    def _carry_out(self, flow: Flow[Any, Any], run: FlowRun) -> None:
        try:
            with contextlib.suppress(Abort):  # cancelled before it began
                run_flow(flow, flow_run=run, parameters=run.parameters, return_type="state")
            self._endings.tell(run, None)
        except BaseException as error:  # a thread must not end without a word in Prefect
            LOG.exception("run %s of %s crashed", run.id, flow.name)
            self._endings.tell(run, error)
        finally:
            with self._lock:
                self._running.pop(str(run.id), None)
            self._ended()
