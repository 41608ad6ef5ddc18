"""Runs that piled up while no runner lived: what a newer run makes needless is cancelled, and says so in Prefect."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from lockstep.rules.waited import Due, superseded

LOG: Final = logging.getLogger("lockstep.warm")
AT_ONCE: Final = 20  # that are cancelled in one look: what is due beside them must not wait for a thousand


def needless(due: Sequence[FlowRun]) -> Mapping[str, str]:
    """Ids of the runs that are not to be carried out, each with the id of the newer one that does what it would do."""
    return superseded([_seen(run) for run in due], time.time())


async def cancel_needless(client: PrefectClient, due: Sequence[FlowRun], old: Mapping[str, str]) -> set[str]:
    """Cancel some of `old`; gives the ids of the newer runs that must wait for the rest, which would be newest else.

    One that somebody else has claimed meanwhile is not begun there either.
    """
    runs = [run for run in due if str(run.id) in old]
    names = {str(run.id): run.name for run in due}
    for run in runs[:AT_ONCE]:
        newer = old[str(run.id)]
        told = f"superseded by run {names[newer]} ({newer}), which is newer and does the same: nobody took this in time"
        LOG.info("run %s is not carried out: %s", run.name, told)
        await client.set_flow_run_state(run.id, Cancelled(message=told))
    return {old[str(run.id)] for run in runs[AT_ONCE:]}


def _seen(run: FlowRun) -> Due:
    expected = run.expected_start_time or run.created
    return Due(
        str(run.id),
        str(run.deployment_id or ""),
        run.parameters,
        time.time() if expected is None else expected.timestamp(),
    )
