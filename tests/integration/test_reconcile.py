"""Every cloud is brought to what MLflow says: what was changed by hand, what is missing, and what was killed."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.errors import Interruption
from lockstep.operations.canary import canary_deploy
from lockstep.operations.fleet import Event, Fleet
from lockstep.operations.lease import writing
from lockstep.operations.reconcile import Reconciled, reconcile
from lockstep.operations.replicate import replicate
from lockstep.operations.status import status
from lockstep.rules.capacity import cold_fallback
from lockstep.rules.deeds import mapping
from lockstep.rules.state import CHALLENGER, CONDEMNED_TAG
from lockstep.rules.traffic import TrafficSplit
from tests.contract.tampering import tamperer
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import opened, registered, unique
from tests.integration.tampered import subject_on

pytestmark = pytest.mark.timeout(180)
NOWHERE = "http://127.0.0.1:1"


def once(fleet: Fleet, *, dry_run: bool = False) -> Reconciled:
    (done,) = reconcile([fleet], dry_run=dry_run)
    return done


def told(done: Reconciled) -> str:
    return "; ".join(map(str, done.found.differences))


def test_a_fleet_in_step_is_only_looked_at(deployed: Deployed) -> None:
    entries = len(deployed.fleet.ledger.entries(deployed.model))
    with deployed.only_reads():
        done = once(deployed.fleet)
    assert done.in_step, told(done)
    assert len(deployed.fleet.ledger.entries(deployed.model)) == entries


def test_calls_do_not_grow_with_the_models(deployed: Deployed) -> None:
    """Three further models of the same bytes: nothing that is unchanged is asked about by itself."""

    def deploy(fleet: Fleet) -> None:
        version = registered(fleet, str(deployed.folder / "v1"))
        replicate(fleet, version)
        canary_deploy(fleet, version)

    fleets = [deployed.fleet, *(deployed.other_model() for _ in range(3))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(deploy, fleets[1:]))
    calls_of_reconcile(deployed, fleets)  # which looks at everything once
    few = calls_of_reconcile(deployed, fleets[:1])
    assert calls_of_reconcile(deployed, fleets) == few
    assert set(few) == set(deployed.clouds)
    assert max(few.values()) <= 3, few


def calls_of_reconcile(deployed: Deployed, fleets: list[Fleet]) -> Counter[str]:
    """By cloud, of a reconcile that finds everything in step."""
    began = time.time()
    done = reconcile(fleets)
    assert [told(one) for one in done if not one.in_step] == []
    asked = [(str(call["cloud"]), str(call["operation"])) for call in deployed.control.calls(since=began)]
    return Counter(
        cloud for cloud, operation in asked if "oken" not in operation and not operation.startswith("event:")
    )


def test_what_was_changed_by_hand_is_named_and_mended(deployed: Deployed) -> None:
    model, v1, v2, v3 = deployed.model, deployed.v1, deployed.v2, deployed.v3
    # What Lockstep left there last, as a rollout would have written it.
    lost, moved, more = (deployed.fleet.cloud(name) for name in deployed.clouds)
    known = {name: {v2.slot: 100} for name in deployed.clouds}
    deployed.fleet.ledger.append("known/outcome", "shift.outcome", model, "ann", {"after": known, "within": "x"})
    lost.retire(model, v1.slot)
    moved.set_traffic(model, TrafficSplit.of({v1.slot: 30, v2.slot: 70}))
    more.prepare(v3)
    with deployed.only_reads():
        seen = once(deployed.fleet, dry_run=True)
    assert seen.tell.startswith("ann")
    assert f"{moved.name}: serves {v1.slot} 30 %, {v2.slot} 70 %, not {v2.slot} (changed by hand from" in told(seen)
    assert f"{lost.name}: the fallback {v1} has no slot" in told(seen)
    assert f"{more.name}: no alias names slot {v3.slot}" in told(seen)

    done = once(deployed.fleet)
    assert done.in_step, (told(done), done.error)
    assert done.after is not None
    for cloud in done.after.clouds:
        assert cloud.split == TrafficSplit.all_to(v2.slot)
        assert {slot.name for slot in cloud.slots} == {v1.slot, v2.slot}
    assert deployed.answers() == deployed.everywhere(v2)
    entries = deployed.fleet.ledger.entries(model, "reconcile.")
    assert [entry.kind for entry in entries[-2:]] == ["reconcile.intent", "reconcile.outcome"]
    assert any("changed by hand" in str(one) for one in list(entries[-2].body["differences"]))  # type: ignore[call-overload]
    assert once(deployed.fleet).in_step


def test_a_cloud_that_is_down_holds_no_other(deployed: Deployed) -> None:
    model, v1, v2 = deployed.model, deployed.v1, deployed.v2
    for cloud in deployed.fleet.clouds:
        cloud.set_traffic(model, TrafficSplit.all_to(v1.slot))
    deployed.control.fault("gcp", "down")
    done = once(deployed.fleet)
    assert not done.in_step
    assert done.error is not None
    assert done.error.exit_status == 6
    assert list(done.after.unreachable if done.after else {}) == ["gcp"]
    deployed.control.clear()
    done = once(deployed.fleet)
    assert done.in_step, told(done)
    assert deployed.answers() == deployed.everywhere(v2)


def test_what_was_killed_is_finished(deployed: Deployed) -> None:
    model, v1, v2, v3 = deployed.model, deployed.v1, deployed.v2, deployed.v3
    registry, ledger = deployed.fleet.registry, deployed.fleet.ledger
    # A rollout of v3 that was killed at 50 % a while ago.
    ledger.append(f"{model}-k/intent", "canary_deploy.intent", model, "ann", {"version": "3"})
    registry.set_alias(v3, CHALLENGER)
    for cloud in deployed.fleet.clouds:
        cloud.prepare(v3)
        cloud.set_traffic(model, TrafficSplit.of({v2.slot: 50, v3.slot: 50}))
    seen = status(deployed.fleet)
    assert not seen.in_step, "status and reconcile say the same"
    assert list(seen.out_of_step) == list(deployed.clouds)
    assert f"lockstep deploy {model} 3 goes on with it" in seen.killed
    done = once(deployed.fleet)
    assert done.in_step, (told(done), done.error)
    assert status(deployed.fleet).in_step
    assert deployed.answers() == deployed.everywhere(v2)
    assert registry.alias(model, CHALLENGER) is None
    # A rollback to v1 that was killed before MLflow knew of it.
    body = {"version": "1", "digest": v1.digest, "reason": "it is worse"}
    ledger.append(f"{model}-r/intent", "rollback.intent", model, "ann", body)
    said: list[str] = []
    watched = replace(deployed.fleet, observer=lambda event: said.append(event.text))
    plan = once(watched, dry_run=True).found.explain()
    assert plan[0] == f"finish the rollback to {v1}: it is worse"
    assert plan[-1] == f"condemn {v2}: rolled back from: it is worse"
    assert not [line for line in said if v1.label in line], "the result says it, and that once"
    done = once(deployed.fleet)
    assert done.in_step, (told(done), done.error)
    assert deployed.answers() == deployed.everywhere(v1)
    assert registry.tags(v2)[CONDEMNED_TAG] == "rolled back from: it is worse"


def interrupted(deployed: Deployed, *others: Fleet) -> Interruption:
    """What a reconcile says to Ctrl-C once the other two follow: AWS hangs for longer than anybody waits."""
    deployed.control.fault("aws", "hang", operation="UpdateEndpointWeightsAndCapacities", delay=60)
    verified: set[str] = set()

    def watch(event: Event) -> None:
        if "verified after" in event.text:
            verified.add(event.cloud)
            if len(verified) == 2:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(Interruption) as told:
        reconcile([replace(deployed.fleet, observer=watch), *others])
    ours = mapping(mapping(told.value.facts, "models"), deployed.model)
    assert (ours["state"], set(mapping(ours, "clouds"))) == ("left open", {"azure", "gcp"})
    assert ours["split"] == {"aws": "not verified"}
    assert told.value.hint.startswith(f"lockstep reconcile {deployed.model} goes on with it")
    deployed.control.clear()
    return told.value


def test_one_that_is_interrupted_says_where_it_is_and_goes_on_later(deployed: Deployed) -> None:
    model, other = deployed.model, deployed.other_model()
    for cloud in deployed.fleet.clouds:
        cloud.set_traffic(model, TrafficSplit.all_to(deployed.v1.slot))
    told = interrupted(deployed, other)
    assert mapping(mapping(told.facts, "models"), other.model)["state"] == "in step"
    assert f"{model}: left open: verified on" in told.problem
    assert deployed.fleet.ledger.entries(model, "reconcile.")[-1].kind == "reconcile.intent", "it was closed"
    assert f"did not end: lockstep reconcile {model} finishes it" in status(deployed.fleet).killed
    assert once(deployed.fleet).in_step
    assert status(deployed.fleet).killed == ""
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_one_that_is_interrupted_while_it_finishes_a_rollback_leaves_that_open(deployed: Deployed) -> None:
    model, event, ledger = deployed.model, unique("killed"), deployed.fleet.ledger
    leaves = [{"version": "2", "digest": deployed.v2.digest}]
    body = {"version": "1", "digest": deployed.v1.digest, "reason": "an alert", "leaves": leaves}
    ledger.append(f"{event}/intent", "rollback.intent", model, "ann", body)
    assert f"{model}: left open: the rollback of {model} to" in interrupted(deployed).problem
    assert [entry.event_id for entry in ledger.entries(model, "rollback.")][-1] == f"{event}/intent", "it was closed"
    assert once(deployed.fleet).in_step
    assert CONDEMNED_TAG in deployed.fleet.registry.tags(deployed.v2)
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_the_command_line(deployed: Deployed, tmp_path: Path) -> None:
    model, v1 = deployed.model, deployed.v1
    fine = lockstep("reconcile", config=deployed.config)
    assert (fine.status, fine.out.strip()) == (0, f"{model}: in step"), fine
    deployed.fleet.clouds[0].set_traffic(model, TrafficSplit.all_to(v1.slot))
    limited = deployed.configured(tmp_path / "c.yaml", fleets__default__reconcile={"max_shifts": 0})
    refused = lockstep("reconcile", config=limited)
    assert refused.status == 3, refused
    assert "--accept-surprise" in refused.err
    seen = lockstep("reconcile", model, "--dry-run", "--json", config=limited)
    assert seen.status == 6
    assert [one["cloud"] for one in seen.document["models"][model]["differences"]] == [deployed.clouds[0]]
    done = lockstep("reconcile", model, "--accept-surprise", "a drill", "--wait", "20", config=limited)
    assert done.status == 0, done
    assert f"{model}: brought in step" in done.out
    assert deployed.fleet.ledger.entries(model, "reconcile.intent")[-1].body["accepted_because"] == "a drill"
    assert lockstep("reconcile", "nobody", config=limited).status == 4


def test_a_model_that_somebody_works_on_is_left_alone(deployed: Deployed) -> None:
    deployed.fleet.clouds[0].set_traffic(deployed.model, TrafficSplit.all_to(deployed.v1.slot))
    other = opened(deployed.changed_config(), deployed.model)
    with writing(other, "canary_deploy"), deployed.only_reads():
        done = once(deployed.fleet)
    assert "canary_deploy" in done.found.held
    assert not done.in_step
    assert once(deployed.fleet).in_step


def test_a_small_and_an_altered_way_back_are_mended(deployed: Deployed, request: pytest.FixtureRequest) -> None:
    """Somebody gave the fallback's slot on Azure another environment; and it is to have two instances everywhere."""
    wanted = deployed.changed(**{f"clouds__{cloud}__fallback_instances": 2 for cloud in deployed.clouds})
    subject = replace(subject_on(deployed, "azure"), stable=deployed.v1, canary=deployed.v2)
    tamperer(subject, request.getfixturevalue("sandbox")).changes()[
        "deployment .*: environment variable EXTRA was added"
    ](subject)
    seen = once(wanted, dry_run=True)
    assert f"azure: slot {deployed.v1.slot} was altered" in told(seen), told(seen)
    assert f"aws: slot {deployed.v1.slot} has 1 instances, fewer than 2" in told(seen)
    assert len(cold_fallback(seen.before, deployed.v1, wanted.least)) == 3
    done = once(wanted)
    assert done.in_step, (told(done), done.error)
    assert done.after is None or cold_fallback(done.after, deployed.v1, wanted.least) == []
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    for cloud in deployed.fleet.clouds:
        cloud.resize(deployed.model, deployed.v1.slot, 1)


def test_without_mlflow_what_was_last_known_is_brought_about(deployed: Deployed) -> None:
    """The state is remembered from the looks before; a second one over the same clouds asks for little."""
    assert once(deployed.fleet).in_step
    deployed.fleet.clouds[0].set_traffic(deployed.model, TrafficSplit.all_to(deployed.v1.slot))
    done = once(deployed.changed(mlflow__tracking_uri=NOWHERE))
    assert done.in_step, (told(done), done.error)
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    assert once(deployed.fleet).in_step
    began = time.time()
    assert once(deployed.changed()).in_step
    asked = [call for call in deployed.control.calls(since=began) if "oken" not in str(call["operation"])]
    for cloud in deployed.clouds:
        ours = [str(call["operation"]) for call in asked if call["cloud"] == cloud]
        assert len([one for one in ours if not one.startswith(("OpenId", "Discover"))]) <= 2, ours
