"""A rollout that waits in Prefect for a person, while somebody holds the model or rolls it back."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests
from prefect import flow
from prefect.client.schemas.objects import State

from blocks.saving import block_name, blocks_of, save
from flows.approving import ask_by_pausing
from flows.canary_deploy import canary_deploy
from lockstep.errors import OvertakenError
from lockstep.operations.approving import ask
from lockstep.operations.fencing import guard
from lockstep.operations.hold import hold, release
from lockstep.operations.lease import writing
from lockstep.operations.rollback import rollback
from lockstep.rules.approval import Gate
from tests.integration.deployed import Deployed
from tests.integration.flows.prefect_server import PrefectServer

pytestmark = pytest.mark.timeout(300)


def while_paused(server: PrefectServer, name: str, run: Callable[[], State[Any]], then: Callable[[], object]) -> Any:
    """How a flow ended that pauses for an hour, when something is done meanwhile; and the run as it paused."""
    ended: list[State[Any]] = []
    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(lambda: ended.append(run()),), daemon=True
    )  # the server's address is set for this context
    wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}, "name": {"like_": name}}}
    thread.start()
    while not (paused := requests.post(f"{server.api}/flow_runs/filter", json=wanted, timeout=60).json()):
        assert thread.is_alive(), ended
    then()
    thread.join(120)
    assert not thread.is_alive()
    return ended[0], paused[0]


def test_a_hold_ends_the_pause(deployed: Deployed, prefect_server: PrefectServer) -> None:
    config = deployed.changed_config()
    settings = config.fleets["default"]
    asking = settings.rollout.model_copy(update={"approval": Gate.BEFORE_START, "approval_seconds": 3600})
    name = f"{deployed.model}-asking"
    model = config.models[deployed.model].model_copy(update={"fleet": name})
    changes = {"fleets": {name: settings.model_copy(update={"rollout": asking})}, "models": {deployed.model: model}}
    save(blocks_of(config.model_copy(update=changes), deployed.folder))
    block = block_name(name)
    with deployed.unchanged():
        try:
            ended, paused = while_paused(
                prefect_server,
                f"deploy {deployed.model}",
                lambda: canary_deploy(deployed.model, deployed.v3.label, fleet=block, return_state=True),
                lambda: hold(deployed.fleet, "the upstream table is late"),
            )
        finally:
            release(deployed.fleet, "it is there")
    assert ended.is_failed()
    assert "the upstream table is late" in str(ended.message)
    asked, answered = deployed.fleet.ledger.entries(deployed.model, "approval.", last=2)
    assert asked.kind == "approval.wanted"
    assert str(asked.body["link"]).endswith(f"/runs/flow-run/{paused['id']}")
    assert answered.body["answer"] == "withdrawn"
    assert answered.actor == asked.actor, "nobody has answered"


def test_a_rollback_that_takes_the_lease_ends_the_pause(deployed: Deployed, prefect_server: PrefectServer) -> None:
    """The watch beside the pause is another thread, and knows the lease all the same."""
    fleet = deployed.changed(fleets__default__rollout__approval="before-promotion")
    name = f"waits {deployed.model}"

    @flow(name="waits", flow_run_name=name)
    def waits() -> None:
        with writing(fleet, "canary_deploy", deployed.v3):
            approver = partial(ask_by_pausing, fleet="none")
            ask(fleet, Gate.BEFORE_PROMOTION, deployed.v3, (), approver, guard(deployed.model))

    ended, _ = while_paused(
        prefect_server, name, lambda: waits(return_state=True), lambda: rollback(deployed.fleet, reason="an alert")
    )
    assert ended.is_failed()
    with pytest.raises(OvertakenError, match="was overtaken by the rollback"):
        ended.result()
    (answered,) = deployed.fleet.ledger.entries(deployed.model, "approval.outcome", last=1)
    assert answered.body["answer"] == "withdrawn"
    assert deployed.answers() == deployed.everywhere(deployed.v1)
