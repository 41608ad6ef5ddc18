"""What waits in a queue of a work pool, looked at in a way that writes nothing into Prefect's database.

The call that workers poll by writes twice each time. Once a second and beside it, SQLite keeps flows waiting for a
minute now and then, and so a rollback. That call, by which the UI knows that somebody takes from the queue, is made
only now and then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkQueueFilter,
    WorkQueueFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

SHOWN: Final = 20.0  # seconds between two signs of life; after 60 the UI calls a queue's deployments not ready
MOST: Final = 200  # runs of one answer, as many as Prefect gives
PAGES: Final = 50  # that are read of a queue nobody has taken from for long: the newest run may be an urgent one


class DueQueue:
    """The runs of some flows in one queue."""

    def __init__(self, pool: str, queue: str, flows: Sequence[str]) -> None:
        self._pool = pool
        self._queue = queue
        self._flows = list(flows)
        self._shown = float("-inf")
        self._paused = False

    async def due(self, client: PrefectClient) -> list[FlowRun]:
        """Runs that should have begun, the longest waiting first; none while somebody has paused the pool or queue."""
        if time.monotonic() - self._shown > SHOWN:
            await self._show(client)
        return [] if self._paused else await self._read(client, (StateType.SCHEDULED,), datetime.now(UTC))

    async def claimed(self, client: PrefectClient) -> list[FlowRun]:
        """Runs that somebody has claimed and not ended."""
        return await self._read(client, (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING), None)

    async def _read(
        self, client: PrefectClient, states: tuple[StateType, ...], before: datetime | None
    ) -> list[FlowRun]:
        found: list[FlowRun] = []
        for _ in range(PAGES):
            page = await self._page(client, states, before, len(found))
            found += page
            if len(page) < MOST:
                break
        return found

    async def _page(
        self, client: PrefectClient, states: tuple[StateType, ...], before: datetime | None, offset: int
    ) -> list[FlowRun]:
        return await client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=self._flows)),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool])),
            work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=[self._queue])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
                next_scheduled_start_time=_before(before),
            ),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=MOST,
            offset=offset,
        )

    async def _show(self, client: PrefectClient) -> None:
        try:
            pool = await client.read_work_pool(self._pool)
            queue = await client.read_work_queue_by_name(self._queue, self._pool)
            await client.get_scheduled_flow_runs_for_work_pool(self._pool, [self._queue], datetime.now(UTC))
        except ObjectNotFound:  # `lockstep init` has not been here
            self._paused = False
        else:
            self._paused = bool(pool.is_paused or queue.is_paused)
        self._shown = time.monotonic()


def _before(moment: datetime | None) -> FlowRunFilterNextScheduledStartTime | None:
    return None if moment is None else FlowRunFilterNextScheduledStartTime.model_validate({"before_": moment})
