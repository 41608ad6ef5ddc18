"""Prefect and the ledger in PostgreSQL, as they are run for several machines; the other tests keep both in SQLite."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.saving import block_name, blocks_of, save
from flows import warm
from flows.rollback import rollback
from lockstep.operations.fleet import open_fleet
from tests.integration.deployed import Deployed
from tests.integration.flows.prefect_server import PrefectServer, running_prefect
from tests.integration.flows.test_deployments import ask, ended
from tests.postgres import PostgresServer

pytestmark = pytest.mark.timeout(600)


def deployment_of_rollback(server: PrefectServer) -> str:
    """Id of the deployment, in the queue in which prefect.yaml puts it."""
    ask(server, "POST", "/work_pools/", {"name": warm.POOL, "type": "process"})
    flow = ask(server, "POST", "/flows/", {"name": rollback.name})
    deployment = {
        "name": "rollback",
        "flow_id": flow["id"],
        "entrypoint": "flows/rollback.py:rollback",
        "work_pool_name": warm.POOL,
        "work_queue_name": warm.QUEUE,
    }
    return str(ask(server, "POST", "/deployments/", deployment)["id"])


def test_a_rollback_by_its_deployment(deployed: Deployed, postgres: PostgresServer, tmp_path: Path) -> None:
    database = postgres.database(f"prefect-{uuid.uuid4().hex[:12]}")
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True, connect_timeout=30) as connection:
        connection.execute("CREATE EXTENSION pg_trgm")  # the server searches events by it
    ledger = {"database": postgres.database(f"ledger-{uuid.uuid4().hex[:12]}"), "spool": str(tmp_path / "spool")}
    config = deployed.changed_config(ledger=ledger, state=str(tmp_path / "state"))
    path = deployed.configured(tmp_path / "lockstep.yaml", ledger=ledger)
    with (
        running_prefect(tmp_path, database.replace("+psycopg", "+asyncpg")) as server,
        temporary_settings({PREFECT_API_URL: server.api}),
    ):
        save(blocks_of(config, deployed.folder))
        deployment = deployment_of_rollback(server)
        runner = warm.start(path)
        try:
            given = {"model": deployed.model, "fleet": block_name("default"), "reason": "alert 4711"}
            wanted = {"parameters": given, "state": {"type": "SCHEDULED"}}
            run = ask(server, "POST", f"/deployments/{deployment}/create_flow_run", wanted)
            done = ended(server, run["id"])
        finally:
            assert runner.stop()
            # They would go on to report to a server that is gone, and keep the process from ending.
            EventsWorker.drain_all(timeout=60)
            APILogWorker.drain_all(timeout=60)
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    assert done["name"] == f"rollback {deployed.model} {deployed.v2.label} -> {deployed.v1.label}"
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    fleet = open_fleet(config, deployed.model)
    (outcome,) = fleet.ledger.entries(deployed.model, "rollback.outcome")
    assert outcome.body["ending"] == "done"
    (intent,) = fleet.ledger.entries(deployed.model, "rollback.intent")
    assert run["id"] in str(intent.body["via"])
