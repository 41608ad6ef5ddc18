"""The desk with a real fleet: what is accepted is done once, whatever comes in between."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lockstep.agent import inbox
from lockstep.agent.alert_rules import parse_alert_rules
from lockstep.agent.desk import Desk
from lockstep.agent.notice import Notice
from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.canary import canary_deploy
from lockstep.operations.hold import find_hold, held_and_released, release
from lockstep.operations.status import status
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.intent import Intent, State
from lockstep.rules.event_names import ALERT_RECEIVED, INTENT_ACCEPTED, ROLLBACK_COMPLETED, ROLLBACK_SPLIT
from lockstep.rules.traffic import TrafficSplit
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import unique

RULES = """
rules:
  - {name: sure, when: {alertname: [Broken]}, model: "{labels.model}", version: "{labels.version}", action: rollback}
  - {name: perhaps, when: {alertname: Slow}, model: "{labels.model}", action: rollback-if-confirmed}
  - {name: stop, when: {alertname: Drift}, model: "{labels.model}", action: hold}
  - {name: tell, when: {alertname: Late}, model: "{labels.model}", action: notify}
"""
SOON = 90.0


@dataclass
class Listener:
    """A receiver of notices in this process."""

    name: str = "listener"
    heard: list[Notice] = field(default_factory=list)

    def wants(self, notice: Notice) -> bool:
        return True

    def send(self, notice: Notice) -> None:
        self.heard.append(notice)


@dataclass
class Scene:
    deployed: Deployed
    folder: Path
    listener: Listener = field(default_factory=Listener)
    changes: dict[str, object] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: unique("alert"))  # the ledger is shared, and knows an alert for ever

    def desk(self, **agent: object) -> Desk:
        config = self.deployed.changed_config(agent={"inbox": str(self.folder / "inbox.db"), **agent}, **self.changes)
        return Desk(config, parse_alert_rules(RULES, "alerts.yaml", {}), receivers=[self.listener])

    @contextmanager
    def running(self, **agent: object) -> Iterator[Desk]:
        desk = self.desk(**agent)
        desk.start()
        try:
            yield desk
        finally:
            desk.stop(SOON)

    def alert(
        self, number: int, name: str = "Broken", *, resolved: bool = False, source: str = "am", **labels: str
    ) -> Alert:
        fields = {"labels.alertname": name, "labels.model": self.deployed.model}
        fields |= {f"labels.{key}": value for key, value in labels.items()}
        status = Status.RESOLVED if resolved else Status.FIRING
        return Alert(source, f"{self.mark}-{source}-{number}", "i", status, f"{name} <b>{number}</b>", fields=fields)

    def accept(self, desk: Desk, *alerts: Alert) -> tuple[str, ...]:
        return desk.accept(alerts[0].source, alerts, b"{}", time.time()).intents

    def lines(self, intent_id: str) -> list[str]:
        """Alerts of an intent in the ledger, as `source-number`."""
        entries = self.deployed.fleet.ledger.entries("", "alert.received")
        found = [str(one.body["id"]) for one in entries if one.body["answer"] == intent_id]
        return sorted(one.removeprefix(f"{self.mark}-") for one in found)

    def rollbacks(self) -> int:
        """Rollbacks that were begun in the ledger."""
        return len(self.deployed.fleet.ledger.entries(self.deployed.model, "rollback.intent"))


@pytest.fixture
def scene(deployed: Deployed, tmp_path: Path) -> Scene:
    return Scene(deployed, tmp_path)


def until(desk: Desk, intent_id: str, holds: Callable[[Intent], bool] = lambda one: not one.open) -> Intent:
    """The intent once it is so; a state in another thread's database, which tells nobody."""
    deadline = time.monotonic() + SOON
    while True:
        found = desk.intent(intent_id)
        assert found is not None
        if holds(found):
            return found
        assert time.monotonic() < deadline, found
        threading.Event().wait(0.05)


def replace_intent(desk: Desk, intent_id: str, **changes: Any) -> None:
    """Put the inbox where a process that is killed may leave it."""

    def change(connection: sqlite3.Connection) -> None:
        found = inbox.find_intent(connection, intent_id)
        assert found is not None
        inbox.put_intent(connection, replace(found, **changes))

    desk._database.write(change)


def test_an_alert_rolls_back_once_and_everyone_is_told(scene: Scene) -> None:
    deployed, before = scene.deployed, scene.rollbacks()
    with scene.running() as desk:
        (told,) = scene.accept(desk, scene.alert(1, "Late", source="watch"))
        accepted = desk.accept("am", [scene.alert(1), scene.alert(2)], b"{}", time.time())
        assert (len(accepted.intents), accepted.alerts, accepted.duplicates) == (1, 2, 0)
        again = desk.accept("am", [scene.alert(1)], b"{}", time.time())
        assert (again.intents, again.alerts, again.duplicates) == (accepted.intents, 0, 1)
        other = desk.accept("grafana", [scene.alert(1, source="grafana")], b"{}", time.time())
        assert other.intents == accepted.intents
        done = until(desk, accepted.intents[0])
    assert (done.state, done.version, done.alerts, done.moved) == (State.DONE, deployed.v2.digest, 3, True)
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert scene.rollbacks() == before + 1

    entry = deployed.fleet.ledger.entries(deployed.model, "rollback.intent")[-1]
    assert (entry.actor, entry.body["via"]) == ("alert:am", "agent"), "not alert:watch, which was only told of"
    assert (done.actor, done.id != told, done.reason.startswith("am: ")) == ("alert:am", True, True)
    alert = entry.body["alert"]
    assert isinstance(alert, dict)
    assert alert["id"] == done.id
    assert scene.lines(done.id) == ["am-1", "am-2", "grafana-1"]
    answers = list(deployed.fleet.ledger.entries(deployed.model, "alert.answered"))
    assert answers[-1].body["answer"] == done.id
    assert answers[-1].body["state"] == "done"
    heard = [notice.event for notice in scene.listener.heard]
    assert heard.count(ALERT_RECEIVED) == 4
    assert heard.count(INTENT_ACCEPTED) == 1
    assert heard.count(ROLLBACK_COMPLETED) == 1


def test_what_was_accepted_is_done_after_any_kill_and_once(scene: Scene) -> None:
    """A kill loses threads and memory alone: a new desk on the same inbox stands for the next start."""
    deployed, before = scene.deployed, scene.rollbacks()
    killed = scene.desk()  # never started: killed right after its answer
    (intent_id,) = scene.accept(killed, scene.alert(1))
    replace_intent(killed, intent_id, state=State.RUNNING)  # and here before the rollback began
    with scene.running() as desk:
        done = until(desk, intent_id)
    assert (done.state, done.version, scene.rollbacks()) == (State.DONE, deployed.v2.digest, before + 1)
    assert deployed.answers() == deployed.everywhere(deployed.v1)

    # Killed after the rollback and before the inbox knew: the ledger says that it is done.
    replace_intent(killed, intent_id, state=State.RUNNING, ended=0.0, version="", moved=False, told="")
    # And the same where not even that it ran was kept: what it was to leave serves no more.
    other = scene.accept(killed, scene.alert(2, version=deployed.v2.label, source="late"))[0]
    assert other == intent_id
    with deployed.only_reads(), scene.running() as desk:
        again = until(desk, intent_id)
    assert (again.state, again.version, again.moved) == (State.DONE, deployed.v2.digest, True)
    assert scene.rollbacks() == before + 1

    # Killed before the alerts' lines were marked as recorded: they stand there once.
    killed._database.write(lambda connection: connection.execute("UPDATE alert SET recorded = 0"))
    with scene.running() as desk:
        deadline = time.monotonic() + SOON
        while desk.backlog()["unrecorded_alerts"]:
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)
    assert scene.lines(intent_id) == ["am-1", "late-2"]
    killed.stop(SOON)


def test_a_rollback_that_was_killed_in_the_middle_goes_on_as_the_same_one(scene: Scene) -> None:
    deployed, before = scene.deployed, scene.rollbacks()
    killed = scene.desk()
    (intent_id,) = scene.accept(killed, scene.alert(1))
    replace_intent(killed, intent_id, state=State.RUNNING)
    ledger, v1, v2 = deployed.fleet.ledger, deployed.v1, deployed.v2
    leaves = [{"version": v2.label, "digest": v2.digest}]
    begun = {"version": v1.label, "digest": v1.digest, "leaves": leaves, "alert": {"id": intent_id}}
    ledger.append(f"{intent_id}-deed/intent", "rollback.intent", deployed.model, "alert:am", begun)
    deployed.fleet.registry.set_alias(v1, "champion")  # its commit point was passed
    with scene.running() as desk:
        done = until(desk, intent_id)
    assert (done.state, done.version) == (State.DONE, v2.digest)
    assert deployed.answers() == deployed.everywhere(v1)
    assert scene.rollbacks() == before + 1
    outcome = ledger.entries(deployed.model, "rollback.outcome")[-1]
    assert outcome.event_id == f"{intent_id}-deed/outcome"
    killed.stop(SOON)


def test_a_desk_that_carries_nothing_out_is_not_ready(scene: Scene) -> None:
    idle = scene.desk()
    (problem,) = idle.problems()
    assert "restart the agent" in problem
    idle.stop(SOON)
    with scene.running() as desk:
        assert desk.problems() == ()


def test_what_starts_nothing_changes_nothing(scene: Scene) -> None:
    deployed = scene.deployed
    with deployed.unchanged(), scene.running() as desk:
        assert scene.accept(desk, scene.alert(1, resolved=True)) == ()
        (told,) = scene.accept(desk, scene.alert(2, "Unknown"))
        assert until(desk, told).state is State.NOTIFIED
        (gone,) = scene.accept(desk, scene.alert(3, version=deployed.v1.label))
        found = until(desk, gone)
        assert (found.state, found.moved) == (State.DONE, False)
        assert "serves no more" in found.told
        (missing,) = scene.accept(desk, scene.alert(4, version="99"))
        assert until(desk, missing).state is State.FAILED
        (slow,) = scene.accept(desk, scene.alert(5, "Slow", version=deployed.v2.label))
        looked = until(desk, slow)
        assert (looked.state, looked.version) == (State.NOT_CONFIRMED, deployed.v2.digest)
        assert "0 of 5 answers failed" in looked.told


def test_what_is_confirmed_is_rolled_back_and_a_person_is_called_when_it_comes_again(scene: Scene) -> None:
    deployed = scene.deployed
    deployed.write_outcomes(deployed.v2, good=5, bad=60)
    with scene.running(flapping_rollbacks=1) as desk:
        (slow,) = scene.accept(desk, scene.alert(1, "Slow"))
        done = until(desk, slow)
        assert (done.state, done.version, done.urgent) == (State.DONE, deployed.v2.digest, True)
        assert "it is held until a person has looked" in done.told
        assert "; confirmed: " in done.told
        assert "answers failed" in done.told
        assert deployed.answers() == deployed.everywhere(deployed.v1)
        (again,) = scene.accept(desk, scene.alert(2, version=deployed.v1.label))
        assert again != slow
        held = until(desk, again)
        assert (held.state, held.urgent) == (State.HELD, True)
        assert deployed.answers() == deployed.everywhere(deployed.v1)
        assert find_hold(deployed.fleet) is not None
        try:
            with pytest.raises(RefusedError, match="is held since"):
                canary_deploy(deployed.fleet, deployed.v3)
        finally:
            release(deployed.fleet, "the test is over")
        hold, released = held_and_released(deployed.fleet)
        assert hold is None
        # What comes before the agent knows of the release is answered by the hold, until it does.
        assert scene.accept(desk, scene.alert(3, source="late", version=deployed.v1.label)) == (again,)
        desk.released(deployed.model, released)
        (anew, *_) = desk.intents()
        assert (anew.state, anew.actor, anew.urgent) == (State.NOTIFIED, "alert:late", True)
        assert "just been rolled back" in anew.told
    assert find_hold(deployed.fleet) is None
    assert sum(notice.urgent for notice in scene.listener.heard) == 3


def test_a_person_rolls_back_what_was_seen_and_no_further(scene: Scene) -> None:
    deployed, before = scene.deployed, scene.rollbacks()
    with scene.running() as desk:
        asked = desk.ask_rollback(deployed.model, None, "it is slow", "Ada", deployed.v2.digest)
        twice = desk.ask_rollback(deployed.model, None, "it is slow", "Ada", deployed.v2.digest)
        done = until(desk, asked.id)
        assert (done.state, done.moved) == (State.DONE, True)
        if twice.id != asked.id:  # asked when the first had ended
            assert until(desk, twice.id).moved is False
        late = desk.ask_rollback(deployed.model, None, "it is slow", "Bob", deployed.v2.digest)
        assert (until(desk, late.id).state, until(desk, late.id).moved) == (State.DONE, False)
        with pytest.raises(RefusedError):
            desk.ask_rollback(deployed.model, None, " ", "Bob")
    assert scene.rollbacks() == before + 1
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert deployed.fleet.ledger.entries(deployed.model, "rollback.intent")[-1].actor == "Ada"


def test_a_cloud_that_does_not_follow_calls_a_person_and_is_found_so_after_a_kill(scene: Scene) -> None:
    deployed, before = scene.deployed, scene.rollbacks()
    scene.changes = {"clouds__azure__call_timeout": 3.0, "clouds__azure__traffic_timeout": 4.0}
    with scene.running() as desk, deployed.control.during("azure", "hang", seconds=120, delay=6):
        (intent_id,) = scene.accept(desk, scene.alert(1, version=deployed.v2.label))
        split = until(desk, intent_id)
    assert (split.state, split.version, split.urgent, split.moved) == (State.SPLIT, deployed.v2.digest, True, True)
    assert "azure" in split.told
    (told,) = [notice for notice in scene.listener.heard if notice.event == ROLLBACK_SPLIT]
    assert told.urgent
    assert list(told.data["split"]) == ["azure"]  # type: ignore[call-overload]
    killed = scene.desk()
    replace_intent(killed, intent_id, state=State.RUNNING, ended=0.0, told="", moved=False)
    killed.stop(SOON)
    with scene.running() as desk:
        again = until(desk, intent_id)
        assert (again.state, again.moved) == (State.SPLIT, True)
        assert scene.rollbacks() == before + 1

        # Later it answers again, and a fresh alert brings it over: the others served the target before.
        deployed.fleet.cloud("azure").set_traffic(deployed.model, TrafficSplit.all_to(deployed.v2.slot))
        replace_intent(desk, intent_id, began=again.began - 5000.0, ended=again.ended - 5000.0)
        (late,) = scene.accept(desk, scene.alert(2, version=deployed.v2.label))
        mended = until(desk, late)
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert (mended.state, mended.version, mended.moved) == (State.DONE, deployed.v2.digest, True)
    assert f"azure was brought over from version {deployed.v2.label}" in mended.told
    (told,) = [notice for notice in scene.listener.heard if notice.event == ROLLBACK_COMPLETED]
    assert (told.data["intent"], told.data["left"]) == (late, deployed.v2.label)
    answered = deployed.fleet.ledger.entries(deployed.model, "alert.answered")[-1].body
    assert (answered["answer"], answered["rolled_back"]) == (late, True)
    assert find_hold(deployed.fleet) is None, "it went back once, not twice"


def test_a_hold_takes_a_running_canary_back(deployed: Deployed) -> None:
    began = threading.Event()
    fleet = deployed.changed(fleets__default__rollout__step_seconds=60, fleets__default__rollout__patience=120)
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
        assert began.wait(SOON)
        while all(cloud.split and cloud.split.weight(deployed.v3.slot) == 0 for cloud in fleet.observe().clouds):
            assert rollout.is_alive(), ended
        told = lockstep("hold", deployed.model, "--reason", "the upstream table is late", config=deployed.config)
        assert told.status == 0, told.err
        rollout.join(SOON)
        assert not rollout.is_alive()
        assert any("the upstream table is late" in warning for warning in status(fleet).warnings)
    finally:
        told = lockstep("release", deployed.model, "--reason", "it is there", "--json", config=deployed.config)
    assert told.document == {"model": deployed.model, "held": False, "was": "the upstream table is late"}
    assert "is held since" in str(ended[0])
    assert "the upstream table is late" in str(ended[0])
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    assert all(cloud.slot(deployed.v3.slot) is None for cloud in fleet.observe().clouds)
    assert fleet.registry.record(deployed.model).of(deployed.v3).condemned == ""
