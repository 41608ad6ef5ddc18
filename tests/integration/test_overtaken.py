"""A rollback in the middle of a rollout wins: the canary's process stops and leaves what the rollback decided."""

from __future__ import annotations

import threading

from lockstep.errors import LockstepError, OvertakenError
from lockstep.operations.canary import canary_deploy
from lockstep.operations.rollback import rollback
from lockstep.operations.status import status
from lockstep.rules.state import CHALLENGER
from tests.integration.deployed import Deployed


def test_a_rollback_stops_a_running_canary(deployed: Deployed) -> None:
    began = threading.Event()
    fleet = deployed.changed(fleets__default__rollout__step_seconds=60, fleets__default__rollout__patience=120)
    watched = type(fleet)(**{**vars(fleet), "observer": lambda event: began.set() if "%" in event.text else None})
    ended: list[LockstepError] = []

    def deploy() -> None:
        try:
            canary_deploy(watched, deployed.v3)
        except LockstepError as error:
            ended.append(error)

    rollout = threading.Thread(target=deploy)
    rollout.start()
    try:
        assert began.wait(60)
        # The watch has begun once the first cloud's traffic was moved and verified.
        while all(cloud.split and cloud.split.weight(deployed.v3.slot) == 0 for cloud in fleet.observe().clouds):
            assert rollout.is_alive(), ended
        done = rollback(fleet, reason="an alert in the middle of a rollout")
        rollout.join(timeout=30)
        assert not rollout.is_alive()
    finally:
        rollout.join(timeout=1)
    assert (done.target, done.left) == (deployed.v2, (deployed.v3,)), "the newest change is taken back first"
    assert isinstance(ended[0], OvertakenError)
    assert "overtaken" in str(ended[0])
    found = status(fleet, prove=True)
    assert found.out_of_step == {}
    assert found.desired.champion == deployed.v2
    assert fleet.registry.alias(deployed.model, CHALLENGER) is None
    for cloud in found.state.clouds:
        assert str(cloud.split) == f"{deployed.v2.slot} 100 %"
