"""A rollback in the middle of a rollout wins, and of two rollbacks one does the work: nobody writes beside another."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from lockstep.errors import BusyError, LockstepError, OvertakenError
from lockstep.operations.canary import canary_deploy
from lockstep.operations.fleet import Event, Fleet
from lockstep.operations.late import follow_when_ended
from lockstep.operations.lease import writing
from lockstep.operations.rollback import Rollback, rollback
from lockstep.operations.status import status
from lockstep.rules.deeds import Deed, read_deeds, text
from lockstep.rules.state import CHALLENGER, Version
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.leases import Leases
from tests.integration.deployed import Deployed, lockstep
from tests.integration.test_leases import holder
from tests.ledger_places import Place


def stopping(fleet: Fleet, when: Callable[[str], bool]) -> tuple[Fleet, threading.Event, threading.Event]:
    """The fleet, whose operations stop at an event until the second one is set; the first tells that they have."""
    reached, go_on = threading.Event(), threading.Event()

    def observe(event: Event) -> None:
        if when(event.text) and not reached.is_set():
            reached.set()
            assert go_on.wait(60)

    return replace(fleet, observer=observe), reached, go_on


def newest(deployed: Deployed, *operations: str) -> list[Deed]:
    """Operations since the fixture put everything back, in the order in which they began."""
    entries = deployed.fleet.ledger.entries(deployed.model)
    since = max((entry.number for entry in entries if entry.event_id.startswith("restored")), default=-1)
    deeds = read_deeds([entry for entry in entries if entry.number > since])
    return [deed for deed in deeds if deed.operation in operations]


def test_a_rollback_stops_a_running_canary(deployed: Deployed) -> None:
    began = threading.Event()
    """In the middle of the hour between two of its looks: it is told, and need not look."""
    hours = {"step_seconds": 3600, "patience": 7200, "look_every": 3600}
    fleet = deployed.changed(**{f"fleets__default__rollout__{name}": value for name, value in hours.items()})
    watched = replace(fleet, observer=lambda event: began.set() if "%" in event.text else None)
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
        writer = status(fleet).writer
        assert writer is not None
        assert writer.told.startswith(f"canary_deploy of version {deployed.v3.label} by ")
        with pytest.raises(BusyError, match="is being changed by the canary_deploy of version 3"):
            canary_deploy(fleet, deployed.v3)
        done = rollback(fleet, reason="an alert in the middle of a rollout")
        rollout.join(timeout=30)
        assert not rollout.is_alive()
    finally:
        rollout.join(timeout=1)
    assert (done.target, done.left) == (deployed.v2, (deployed.v3,)), "the newest change is taken back first"
    assert isinstance(ended[0], OvertakenError)
    assert f"was overtaken by the rollback to version {deployed.v2.label}" in str(ended[0])
    found = status(fleet, prove=True)
    assert (found.out_of_step, found.writer) == ({}, None)
    assert found.desired.champion == deployed.v2
    assert fleet.registry.alias(deployed.model, CHALLENGER) is None
    for cloud in found.state.clouds:
        assert str(cloud.split) == f"{deployed.v2.slot} 100 %"
    rollout_deed, _, rollback_deed = newest(deployed, "canary_deploy", "rollback")
    assert rollout_deed.body["fence"] == int(str(rollback_deed.body["fence"])) - 1
    assert rollout_deed.ended is not None
    late = [step for step in rollout_deed.steps if step.began > rollback_deed.began and step.operation != "verdict"]
    assert late == [], "after the rollback began the rollout changed nothing"


def test_a_shift_that_landed_after_the_rollback_is_taken_away(deployed: Deployed) -> None:
    """The rollout's call was on its way when the rollback was done; a cloud may carry such calls out in any order."""
    fleet = deployed.fleet
    cloud = fleet.clouds[0]
    done = rollback(fleet, to=deployed.v1)
    other = Leases(fleet.ledger.database).read(deployed.model)
    assert other is not None
    cloud.set_traffic(deployed.model, TrafficSplit.canary(deployed.v1.slot, deployed.v2.slot, 50))
    follow_when_ended(fleet, deployed.v2, replace(other, fence=other.fence - 1))
    assert cloud.verify_traffic(deployed.model, TrafficSplit.all_to(deployed.v1.slot)) is not True, "others wrote since"
    other = Leases(fleet.ledger.database).read(deployed.model)
    assert other is not None
    follow_when_ended(
        fleet, deployed.v2, replace(other, urgent=True, version=done.target.label, digest=done.target.digest)
    )
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_two_rollbacks_at_once_are_one(deployed: Deployed) -> None:
    first, reached, go_on = stopping(deployed.fleet, lambda text: text.startswith("rolling "))
    with ThreadPoolExecutor(2) as pool:
        one: Future[Rollback] = pool.submit(rollback, first, reason="alert 1")
        assert reached.wait(60)
        waiting = threading.Event()
        second = replace(deployed.fleet, observer=lambda event: waiting.set() if "waiting" in event.text else None)
        two: Future[Rollback] = pool.submit(rollback, second, reason="alert 2")
        assert waiting.wait(60)
        go_on.set()
        done, told = one.result(60), two.result(60)
    assert (done.target, done.left, done.first) == (deployed.v1, (deployed.v2,), None)
    assert (told.target, told.plan.changes, set(told.result.seconds)) == (deployed.v1, (), set(deployed.clouds))
    (deed,) = newest(deployed, "rollback")
    assert told.first is not None
    assert (told.first.event, told.first.left) == (deed.event, (deployed.v2.label,))
    (join,) = newest(deployed, "join")
    assert (text(join.body, "joined"), join.reason, join.version) == (deed.event, "alert 2", deployed.v1.label)
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_a_second_rollback_to_another_version_comes_after_the_first(deployed: Deployed) -> None:
    first, reached, go_on = stopping(deployed.fleet, lambda text: text.startswith("rolling "))

    def back(target: Version) -> Rollback:
        return rollback(replace(deployed.fleet, observer=lambda event: waiting.set()), to=target)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(rollback, first)
        assert reached.wait(60)
        waiting = threading.Event()
        two = pool.submit(back, deployed.v3)
        assert waiting.wait(60)
        go_on.set()
        assert one.result(60).target == deployed.v1
        told = two.result(60)
    assert (told.target, told.left, told.first) == (deployed.v3, (deployed.v1,), None)
    assert [deed.version for deed in newest(deployed, "rollback")] == [deployed.v1.label, deployed.v3.label]
    assert deployed.answers() == deployed.everywhere(deployed.v3)


def test_a_rollback_that_is_killed_is_done_by_the_one_that_waits(deployed: Deployed) -> None:
    waiting = threading.Event()
    second = replace(deployed.fleet, observer=lambda event: waiting.set() if "waiting" in event.text else None)
    place = Place(str(deployed.folder / "ledger.db"), deployed.folder / "ledger.spool")
    with ThreadPoolExecutor(1) as pool, holder(place, "rollback", deployed.model) as first:
        two = pool.submit(rollback, second)
        assert waiting.wait(60)
        first.kill()
        told = two.result(60)
    assert (told.target, told.left, told.first) == (deployed.v1, (deployed.v2,), None)
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_processes_that_roll_back_at_once_take_turns(deployed: Deployed) -> None:
    command = [sys.executable, "-m", "lockstep.cli", "--config", str(deployed.config), "rollback", deployed.model]
    started = [
        subprocess.Popen([*command, "--reason", f"alert {number}", "--json"], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert {one["target"] for one in told} == {deployed.v1.label}
    assert sum(bool(one["left"]) for one in told) == 1, "one does the work"
    deeds = sorted(newest(deployed, "rollback"), key=lambda deed: deed.began)
    assert len(deeds) + len(newest(deployed, "join")) == 2
    fences = [int(str(deed.body["fence"])) for deed in deeds]
    assert fences == sorted(set(fences))
    for before, after in itertools.pairwise(deeds):
        assert before.ended is not None
        assert before.ended <= after.began
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_status_names_who_writes(deployed: Deployed) -> None:
    with writing(deployed.fleet, "reconcile"):
        told = lockstep("status", deployed.model, config=deployed.config).out
        assert "being changed by the reconcile (process" in told
        assert lockstep("status", deployed.model, "--json", config=deployed.config).document["writer"] is not None
    assert lockstep("status", deployed.model, "--json", config=deployed.config).document["writer"] is None
