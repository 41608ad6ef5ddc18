"""Runs that a warm runner claimed and whose process has ended: nobody else would ever say so in Prefect."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Scheduled

from flows.due import DueQueue
from flows.reconcile import DEPLOYMENT, FOLLOW
from lockstep.rules.lease import Process
from lockstep.stores.processes import is_gone, this_process

LOG: Final = logging.getLogger("lockstep.warm")
CLAIM: Final = "claimed by the warm runner "


def claim_text(runner: str) -> str:
    """Message of the Pending state by which a run is claimed: it names this process, and which runner of it."""
    return CLAIM + json.dumps({**asdict(this_process()), "runner": runner})


def claimant(states: Sequence[State]) -> Process | None:
    """The process of the warm runner that claimed a run last; None when none did."""
    for state in sorted(states, key=lambda one: one.timestamp, reverse=True):
        if state.type is StateType.PENDING and (state.message or "").startswith(CLAIM):
            return _process((state.message or "").removeprefix(CLAIM))
    return None


def _process(told: str) -> Process | None:
    """The process that a claim names; None for what is no claim of ours. A newer Lockstep's may say more."""
    try:
        given = json.loads(told)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    host, pid = given.get("host"), given.get("pid")
    place, started = given.get("place", ""), given.get("started", "")
    if not isinstance(host, str) or type(pid) is not int or not isinstance(place, str) or not isinstance(started, str):
        return None
    return Process(host, pid, place, started)


async def mend_orphans(client: PrefectClient, queue: DueQueue) -> bool:
    """End or begin again what was claimed by a process that is certainly gone; whether that went well for each run.

    A run that had not begun is due again. One that had is Crashed; what it left half done is finished by reconcile, by
    the ledger, not by a second run: an old rollback that is run again could go one version further.
    """
    well = True
    for run in await queue.claimed(client):
        try:
            await _mend(client, run)
        except ObjectNotFound:
            LOG.info("run %s was deleted in Prefect", run.name)
        except Exception as error:  # whatever is odd about it, the others are not to wait for that
            LOG.warning("whether run %s is still carried out could not be looked at: %r", run.name, error)
            well = False
    return well


async def _mend(client: PrefectClient, run: FlowRun) -> None:
    process = claimant(await client.read_flow_run_states(run.id))
    if process is None or not is_gone(process):
        return
    if run.state_type is StateType.PENDING:
        LOG.info("run %s was claimed by a process that ended before it began: it is due again", run.name)
        await client.set_flow_run_state(run.id, Scheduled(message="its runner ended before it began"), force=True)
        return
    LOG.warning("run %s ended with the process that carried it out", run.name)
    told = f"process {process.pid} on {process.host}, which carried it out, has ended; reconcile finishes the rest"
    await _reconcile(client, run)  # first: who is killed between the two finds the run again, and the key keeps it one
    await client.set_flow_run_state(run.id, Crashed(message=told), force=True)


async def _reconcile(client: PrefectClient, run: FlowRun) -> None:
    model = run.parameters.get("model")
    try:
        deployment = await client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        LOG.warning("there is no deployment %s to finish what run %s began", DEPLOYMENT, run.name)
        return
    given = {"model": model, "fleet": run.parameters.get("fleet", "default"), "wait": FOLLOW}
    await client.create_flow_run_from_deployment(
        deployment.id, parameters=given, idempotency_key=f"lockstep-after-{run.id}"
    )
