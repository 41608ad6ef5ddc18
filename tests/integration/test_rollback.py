"""A rollback in trouble: no cloud holds the others, and one that was killed is finished by the next."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid

import pytest

from lockstep.errors import LockstepError, SplitError
from lockstep.operations.fleet import Event
from lockstep.operations.rollback import rollback
from lockstep.rules.deeds import mapping
from lockstep.rules.meanwhile import Meanwhile
from lockstep.rules.state import CHAMPION, CONDEMNED_TAG, FALLBACK, VERDICT_TAG
from lockstep.rules.traffic import TrafficSplit
from tests.contract.clouds import eventually
from tests.integration.deployed import Deployed, lockstep

pytestmark = pytest.mark.timeout(180)


def test_a_cloud_that_hangs_holds_no_other(deployed: Deployed) -> None:
    fleet = deployed.changed(clouds__azure__call_timeout=3.0, clouds__azure__traffic_timeout=4.0)
    told: dict[str, float] = {}

    def watch(event: Event) -> None:
        if "verified after" in event.text:
            told.setdefault(event.cloud, time.monotonic())

    watched = type(fleet)(**{**vars(fleet), "observer": watch})
    with deployed.control.during("azure", "hang", seconds=120, delay=6), pytest.raises(SplitError) as split:
        rollback(watched, reason="azure hangs")
    ended = time.monotonic()
    assert set(told) == {"aws", "gcp"}
    assert all(ended - at > 3.0 for at in told.values()), "they were verified while azure was still being tried"
    assert "azure: " in str(split.value)
    outcome = fleet.ledger.entries(deployed.model, "rollback.outcome")[-1].body
    assert (outcome["ending"], sorted(outcome["seconds"])) == ("split", ["aws", "gcp"])  # type: ignore[call-overload]
    assert outcome["next_try"] == fleet.settings.reconcile.every
    seen = lockstep("status", deployed.model, "--json", config=deployed.config)
    behind = seen.document["split"]["azure"]
    assert behind["next_try"] == behind["since"] + fleet.settings.reconcile.every
    assert "the next try" in lockstep("status", deployed.model, config=deployed.config).out

    # What brings it over has decided nothing anew, and has changed one cloud all the same.
    deployed.fleet.cloud("azure").set_traffic(deployed.model, TrafficSplit.all_to(deployed.v2.slot))
    brought = lockstep("rollback", deployed.model, "--json", config=deployed.config).document
    assert (brought["left"], brought["condemned"], brought["changed"]) == ([deployed.v2.label], [], ["azure"])
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    said = lockstep("rollback", deployed.model, config=deployed.config).out
    assert f"already on {deployed.v1}" in said
    assert "brought over" not in said


def test_callers_of_a_busy_cloud_are_told_how_to_reach_the_target(deployed: Deployed) -> None:
    fleet = deployed.changed(clouds__aws__traffic_timeout=1.5)
    aws = fleet.cloud("aws")
    deployed.control.fault("aws", "busy", operation="UpdateEndpointWeightsAndCapacities", delay=25, count=1)
    with contextlib.suppress(LockstepError):  # it is accepted, and lasts
        aws.set_traffic(deployed.model, TrafficSplit.of({deployed.v2.slot: 99, deployed.v1.slot: 1}))
    with pytest.raises(SplitError, match=f"TargetVariant={deployed.v1.slot}"):
        rollback(fleet, reason="an alert")
    told = lockstep("status", deployed.model, config=deployed.config).out
    assert f"TargetVariant={deployed.v1.slot}" in told
    assert eventually(lambda: not aws.observe(deployed.model).busy, 60)


def test_a_rollback_that_was_killed_is_finished_by_the_next(deployed: Deployed) -> None:
    """Killed after the decision and the first flip, as the ledger and the clouds show it then."""
    fleet, event = deployed.fleet, str(uuid.uuid4())
    left = {"version": deployed.v2.label, "digest": deployed.v2.digest}
    intent = {"version": deployed.v1.label, "digest": deployed.v1.digest, "leaves": [left], "reason": "an alert"}
    fleet.ledger.append(f"{event}/intent", "rollback.intent", deployed.model, "anna", intent)
    fleet.registry.set_alias(deployed.v1, CHAMPION)
    fleet.clouds[0].set_traffic(deployed.model, TrafficSplit.all_to(deployed.v1.slot))
    told: list[str] = []
    watched = type(fleet)(**{**vars(fleet), "observer": lambda event: told.append(event.text)})
    since = len(fleet.ledger.entries(deployed.model, "rollback."))
    done = rollback(watched)
    assert any("going on with the rollback" in line and "anna" in line for line in told)
    assert (done.target.digest, [one.digest for one in done.left]) == (deployed.v1.digest, [deployed.v2.digest])
    assert CONDEMNED_TAG in fleet.registry.tags(deployed.v2)
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    (outcome,) = fleet.ledger.entries(deployed.model, "rollback.")[since:]
    assert (outcome.kind, outcome.body["intent"], outcome.body["error"]) == ("rollback.outcome", event, "")


def test_a_killed_rollback_is_given_up_for_another_target(deployed: Deployed) -> None:
    fleet, event = deployed.fleet, str(uuid.uuid4())
    intent = {"version": deployed.v1.label, "digest": deployed.v1.digest, "leaves": []}
    fleet.ledger.append(f"{event}/intent", "rollback.intent", deployed.model, "anna", intent)
    done = rollback(fleet, to=deployed.v2)
    assert done.target == deployed.v2
    outcomes = {str(entry.body["intent"]): entry for entry in fleet.ledger.entries(deployed.model, "rollback.outcome")}
    assert "given up" in str(outcomes[event].body["error"])
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_traffic_is_drained_to_another_good_version_while_the_target_is_deployed(deployed: Deployed) -> None:
    """v3 is cold, v2 is left, v1 is ready and was judged well: it stands in until v3 is there."""
    fleet = deployed.fleet
    fleet.registry.tag(deployed.v1, VERDICT_TAG, "pass")
    since = len(fleet.ledger.entries(deployed.model, "shift.outcome"))
    rollback(fleet, to=deployed.v3, reason="v2 is bad", meanwhile=Meanwhile.DRAIN)
    drained, *flips = fleet.ledger.entries(deployed.model, "shift.outcome")[since:]
    assert drained.body["after"] == {cloud: {deployed.v1.slot: 100} for cloud in deployed.clouds}
    flipped = {}
    for flip in flips:  # each cloud as soon as it is ready
        for cloud, before in mapping(flip.body, "before").items():
            assert before == {deployed.v1.slot: 100}
            flipped[cloud] = mapping(flip.body, "after")[cloud]
    assert flipped == {cloud: {deployed.v3.slot: 100} for cloud in deployed.clouds}
    assert deployed.answers() == deployed.everywhere(deployed.v3)


def test_reconcile_condemns_what_an_interrupted_rollback_left_though_all_is_in_step(deployed: Deployed) -> None:
    fleet, event, wanted = deployed.fleet, str(uuid.uuid4()), TrafficSplit.all_to(deployed.v1.slot)
    left = {"version": deployed.v2.label, "digest": deployed.v2.digest}
    intent = {"version": deployed.v1.label, "digest": deployed.v1.digest, "leaves": [left], "reason": "an alert"}
    fleet.ledger.append(f"{event}/intent", "rollback.intent", deployed.model, "anna", intent)
    fleet.registry.set_alias(deployed.v1, CHAMPION)
    fleet.registry.delete_alias(deployed.model, FALLBACK)
    assert all(one.done for one in fleet.on_each("switch", lambda cloud: cloud.set_traffic(deployed.model, wanted)))
    assert eventually(lambda: all(cloud.split == wanted for cloud in fleet.observe().clouds), 30)
    done = lockstep("reconcile", deployed.model, config=deployed.config)
    assert done.status == 0, done
    assert "an alert" in fleet.registry.tags(deployed.v2)[CONDEMNED_TAG]


@pytest.mark.parametrize("goes_on", ["rollback", "reconcile"])
def test_a_rollback_that_is_interrupted_says_where_it_is_and_goes_on_later(deployed: Deployed, goes_on: str) -> None:
    ledger, model = deployed.fleet.ledger, deployed.model
    others = [cloud for cloud in deployed.fleet.clouds if cloud.name != "aws"]
    wanted = TrafficSplit.all_to(deployed.v1.slot)
    with deployed.control.during("aws", "down"):
        running = subprocess.Popen(
            [sys.executable, "-m", "lockstep.cli", "--config", str(deployed.config), "rollback", model, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert eventually(lambda: all(cloud.observe(model).split == wanted for cloud in others), 60)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=30)  # aws would be tried for 60 s
        finally:
            running.kill()
            running.wait()
        assert running.returncode == 130
        trouble = [json.loads(line) for line in err.splitlines()]
        assert {(line["model"], line["cloud"]) for line in trouble} == {(model, "aws")}, err
        assert any(": trying until " in line["trouble"] for line in trouble), err
        told = json.loads(out)
        assert (told["exit_status"], told["target"], told["leaves"]) == (130, "1", ["2"])
        assert "aws" in told["split"]
        assert {*told["clouds"], *told["split"]} == set(deployed.clouds)
        assert told["next"] == f"lockstep rollback {model}"
        assert ledger.entries(model, "rollback.")[-1].kind == "rollback.intent", "it was closed"
        shift = ledger.entries(model, "shift.outcome")[-1].body
        assert set(mapping(shift, "verified")) == set(told["clouds"])
        shown = " ".join(lockstep("status", model, config=deployed.config).out.split())
        assert "rollback to version 1 that" in shown
        assert f"did not end: lockstep reconcile {model} finishes it" in shown
    done = lockstep(goes_on, model, config=deployed.config)
    assert done.status == 0, done
    assert "going on with the rollback" in done.err
    assert CONDEMNED_TAG in deployed.fleet.registry.tags(deployed.v2)
    assert deployed.answers() == deployed.everywhere(deployed.v1)
