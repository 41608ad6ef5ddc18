"""A rollout that waits in Prefect for a person, while somebody holds the model."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest
import requests
from prefect.client.schemas.objects import State

from blocks.saving import block_name, blocks_of, save
from flows.canary_deploy import canary_deploy
from lockstep.operations.hold import hold, release
from lockstep.rules.approval import Gate
from tests.integration.deployed import Deployed
from tests.integration.flows.prefect_server import PrefectServer

pytestmark = pytest.mark.timeout(300)


def test_a_hold_ends_the_pause(deployed: Deployed, prefect_server: PrefectServer) -> None:
    config = deployed.changed_config()
    settings = config.fleets["default"]
    asking = settings.rollout.model_copy(update={"approval": Gate.BEFORE_START, "approval_seconds": 3600})
    name = f"{deployed.model}-asking"
    model = config.models[deployed.model].model_copy(update={"fleet": name})
    changes = {"fleets": {name: settings.model_copy(update={"rollout": asking})}, "models": {deployed.model: model}}
    save(blocks_of(config.model_copy(update=changes), deployed.folder))
    ended: list[State[Any]] = []

    def deploy() -> None:
        block = block_name(name)
        ended.append(canary_deploy(deployed.model, deployed.v3.label, fleet=block, return_state=True))

    rollout = threading.Thread(target=contextvars.copy_context().run, args=(deploy,), daemon=True)
    wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}, "name": {"like_": f"deploy {deployed.model}"}}}
    with deployed.unchanged():
        rollout.start()
        try:
            while not (
                paused := requests.post(f"{prefect_server.api}/flow_runs/filter", json=wanted, timeout=30).json()
            ):
                assert rollout.is_alive(), ended
            hold(deployed.fleet, "the upstream table is late")
            rollout.join(120)  # of the hour that it would wait
            assert not rollout.is_alive()
        finally:
            release(deployed.fleet, "it is there")
    assert ended[0].is_failed()
    assert "the upstream table is late" in str(ended[0].message)
    asked, answered = deployed.fleet.ledger.entries(deployed.model, "approval.", last=2)
    assert asked.kind == "approval.wanted"
    assert str(asked.body["link"]).endswith(f"/runs/flow-run/{paused[0]['id']}")
    assert answered.body["answer"] == "withdrawn"
    assert answered.actor == asked.actor, "nobody has answered"
