"""Scheduled flows over models that serve, and the alert as the documentation sends it."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State

from blocks.saving import block_name, blocks_of, save
from flows.reconcile import reconcile as reconcile_flow
from flows.rollback import rollback as rollback_flow
from flows.scrub import scrub as scrub_flow
from lockstep.config import ModelSettings
from lockstep.rules.event_names import ROLLBACK_SPLIT, resource_id
from lockstep.rules.traffic import TrafficSplit
from tests.integration.deployed import Deployed
from tests.integration.flows.prefect_server import PrefectServer
from tests.integration.tampered import object_overwritten
from tests.integration.test_docs import MODEL, run, shell

pytestmark = pytest.mark.timeout(300)


def test_scrub_leaves_a_table_and_fails_when_something_was_altered(
    deployed: Deployed, prefect_server: PrefectServer
) -> None:
    config = deployed.changed_config()
    config = config.model_copy(update={"fleets": {deployed.model: config.fleets["default"]}})
    model = config.models[deployed.model].model_copy(update={"fleet": deployed.model})
    save(blocks_of(config.model_copy(update={"models": {deployed.model: model}}), deployed.folder))
    block = block_name(deployed.model)

    good = scrub_flow(fleet=block, days=1, return_state=True)
    assert good.is_completed(), good.message
    text = artifacts(good)
    assert "everything is as it was sealed" in text
    assert "| version | check | mlflow |" in text
    assert all(cloud in text for cloud in deployed.clouds)

    with object_overwritten(deployed.fleet.cloud("aws"), deployed.v2, "files/MLmodel"):
        bad = scrub_flow(deployed.model, fleet=block, days=1, return_state=True)
    assert bad.is_failed()
    assert "aws: files/MLmodel has sha256" in str(bad.message)
    assert "ALTERED" in artifacts(bad)


def test_reconcile_mends_every_model_of_its_fleet(deployed: Deployed, prefect_server: PrefectServer) -> None:
    config = deployed.changed_config()
    models = {deployed.model: config.models[deployed.model], "nothing-registered": ModelSettings()}
    config = config.model_copy(
        update={
            "fleets": {deployed.model: config.fleets["default"]},
            "models": {name: one.model_copy(update={"fleet": deployed.model}) for name, one in models.items()},
        }
    )
    save(blocks_of(config, deployed.folder))
    deployed.fleet.clouds[0].set_traffic(deployed.model, TrafficSplit.all_to(deployed.v1.slot))
    state = reconcile_flow(fleet=block_name(deployed.model), return_state=True)
    assert state.is_completed(), state.message
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    report = artifacts(state)
    assert "brought in step" in report
    assert f"traffic {deployed.v1.slot} 100 % -> {deployed.v2.slot} 100 %" in report


def test_a_rollback_that_splits_says_so_and_reconcile_brings_the_cloud_over(
    deployed: Deployed, prefect_server: PrefectServer
) -> None:
    """By the event that an automation of prefect.yaml starts reconcile with, and with what that passes on."""
    config = deployed.changed_config()
    config = config.model_copy(
        update={
            "fleets": {deployed.model: config.fleets["default"]},
            "models": {deployed.model: config.models[deployed.model].model_copy(update={"fleet": deployed.model})},
        }
    )
    save(blocks_of(config, deployed.folder))
    block = block_name(deployed.model)
    with deployed.control.during("azure", "down"):
        state = rollback_flow(deployed.model, reason="an alert", fleet=block, return_state=True)
    assert state.is_failed()
    assert deployed.answers() == {**deployed.everywhere(deployed.v1), "azure": deployed.v2.digest}
    (event,) = events_about(prefect_server, deployed.model, ROLLBACK_SPLIT)
    assert (event["payload"]["model"], event["payload"]["fleet"]) == (deployed.model, block)
    assert "azure: " in event["payload"]["problem"]
    mended = reconcile_flow(event["payload"]["model"], fleet=event["payload"]["fleet"], wait=60, return_state=True)
    assert mended.is_completed(), mended.message
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def events_about(server: PrefectServer, model: str, name: str) -> list[dict[str, Any]]:
    """Events of that name; the server writes them when it comes to it."""
    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [resource_id(model)]}}}
    deadline = time.monotonic() + 60
    while True:
        answer = requests.post(f"{server.api}/events/filter", json=wanted, timeout=30)
        found = list(answer.json()["events"]) if answer.ok else []
        if found:
            return found
        assert time.monotonic() < deadline, f"no event {name} of {model}"
        time.sleep(0.2)


def test_the_alert_reaches_prefect_by_the_line_of_curl(prefect_server: PrefectServer, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    (snippet,) = shell("prefect")
    began = datetime.now(UTC) - timedelta(seconds=5)
    environment = {"PREFECT_API_URL": prefect_server.api, "PREFECT_API_AUTH_STRING": "admin:any"}
    run(snippet, snippet.text, tmp_path, environment)
    wanted = {"filter": {"event": {"name": ["lockstep.alert"]}, "occurred": {"since": began.isoformat()}}}
    deadline = time.monotonic() + 60
    found: list[dict[str, object]] = []
    while not found and time.monotonic() < deadline:
        answer = requests.post(f"{prefect_server.api}/events/filter", json=wanted, timeout=30)
        found = answer.json()["events"] if answer.ok else []
        time.sleep(0.2)  # the server writes events when it comes to it
    assert [event["payload"] for event in found] == [{"model": MODEL, "reason": "alert 4711: conversion halved"}]


def artifacts(state: State[Any]) -> str:
    """Text of all artifacts of the state's flow run."""
    assert state.state_details.flow_run_id is not None
    run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    return "\n".join(str(artifact.data) for artifact in found)
