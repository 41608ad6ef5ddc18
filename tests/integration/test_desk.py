"""The desk with a real fleet: what is accepted is done once, whatever comes in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lockstep.agent.alert_rules import parse_alert_rules
from lockstep.agent.desk import Desk
from lockstep.agent.notice import Notice
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.intent import Intent, State
from lockstep.rules.event_names import ALERT_RECEIVED, INTENT_ACCEPTED, ROLLBACK_COMPLETED
from tests.integration.deployed import Deployed

RULES = """
rules:
  - {name: sure, when: {alertname: [Broken]}, model: "{labels.model}", version: "{labels.version}", action: rollback}
  - {name: perhaps, when: {alertname: Slow}, model: "{labels.model}", action: rollback-if-confirmed}
  - {name: stop, when: {alertname: Drift}, model: "{labels.model}", action: hold}
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

    def desk(self, **agent: object) -> Desk:
        config = self.deployed.changed_config(agent={"inbox": str(self.folder / "inbox.db"), **agent})
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
        return Alert(source, f"{source}-{number}", "i", status, f"{name} <b>{number}</b>", fields=fields)

    def accept(self, desk: Desk, *alerts: Alert) -> tuple[str, ...]:
        return desk.accept(alerts[0].source, alerts, b"{}", time.time()).intents

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


def test_an_alert_rolls_back_once_and_everyone_is_told(scene: Scene) -> None:
    deployed, before = scene.deployed, scene.rollbacks()
    with scene.running() as desk:
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
    assert (entry.actor, entry.body["via"]) == ("alert:am", "agent")
    alert = entry.body["alert"]
    assert isinstance(alert, dict)
    assert alert["id"] == done.id
    lines = [one for one in deployed.fleet.ledger.entries("", "alert.received") if one.body["answer"] == done.id]
    assert sorted(str(one.body["id"]) for one in lines) == ["am-1", "am-2", "grafana-1"]
    answers = list(deployed.fleet.ledger.entries(deployed.model, "alert.answered"))
    assert answers[-1].body["answer"] == done.id
    assert answers[-1].body["state"] == "done"
    heard = [notice.event for notice in scene.listener.heard]
    assert heard.count(ALERT_RECEIVED) == 3
    assert heard.count(INTENT_ACCEPTED) == 1
    assert heard.count(ROLLBACK_COMPLETED) == 1
