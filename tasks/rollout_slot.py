"""One rollout a model at a time, over all deployments and workers, by a global concurrency limit of Prefect's.

A deployment's own limit counts runs of all models together: a rollout of one model would keep the others waiting. A
rollback never asks for the slot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency._asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from lockstep.errors import BusyError

WAIT: Final = 15.0  # seconds that a busy server may take to give a slot that is free
LEASE: Final = 60.0  # seconds after which the slot of a process that died is free again


@contextlib.contextmanager
def only_rollout_of(model: str) -> Iterator[None]:
    """Hold the model's one slot; raises BusyError at once when another rollout has it.

    A lease that cannot be renewed (Prefect's server restarts) does not end the rollout: half-way is the worst place.
    """
    name = f"lockstep:{model}"
    if not _is_free(name):
        raise _busy(model, name)
    with contextlib.ExitStack() as slot:
        try:
            slot.enter_context(
                concurrency(
                    name, strict=True, timeout_seconds=WAIT, lease_duration=LEASE, raise_on_lease_renewal_failure=False
                )
            )
        except AcquireConcurrencySlotTimeoutError as error:  # another one was quicker
            raise _busy(model, name) from error
        yield


def _is_free(name: str) -> bool:
    """Whether nobody holds the slot now; makes the limit first, since a missing one would let everybody through."""
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            return True
    return limit.active_slots < limit.limit


def _busy(model: str, name: str) -> BusyError:
    return BusyError(
        f"another rollout of {model} is running",
        hint=f"wait for it, or cancel its run in Prefect; after a crash the slot {name!r} is free in a minute",
    )
