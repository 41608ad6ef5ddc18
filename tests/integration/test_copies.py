"""The ledger's copies as operations and the command line keep them, on the sandbox's three clouds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from lockstep.agent.alert_rules import AlertRules
from lockstep.agent.assembly import Agent
from lockstep.config import Config
from lockstep.errors import ForkError
from lockstep.operations.comparison import CopyCheck, compare_copies
from lockstep.operations.copies import copy_ledger
from lockstep.operations.fleet import Event, Fleet, open_fleet
from lockstep.operations.journal import record
from lockstep.operations.lastly import told_first
from lockstep.stores.keys import create_keys
from lockstep.stores.ledger import Ledger
from tests.integration.fleets import configure, unique
from tests.sandbox_control import Control, RunningSandbox

WRITE = {"aws": "PutObject", "azure": "PutBlob", "gcp": "storage.objects.insert"}
NOWHERE = "http://127.0.0.1:9"  # MLflow is not asked for anything here


@dataclass
class Scene:
    """A model's fleet with keys and an empty ledger, and what it said."""

    config: Config
    model: str
    folder: Path
    control: Control
    said: list[Event] = field(default_factory=list)

    def fleet(self) -> Fleet:
        return open_fleet(self.config, self.model, observer=self.said.append)

    def act(self, count: int = 1) -> None:
        """That many operations: an intent and an outcome each."""
        fleet = self.fleet()
        for _ in range(count):
            with record(fleet, "rehearsal", None):
                pass

    def checks(self) -> dict[str, CopyCheck]:
        fleet = self.fleet()
        return {check.cloud: check for check in compare_copies(fleet.clouds, fleet.ledger)}

    def sizes(self) -> dict[str, int | None]:
        checks = self.checks()
        assert all(check.holds for check in checks.values()), checks
        return {cloud: check.size for cloud, check in checks.items()}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "lockstep.cli", "--config", str(self.folder / "lockstep.yaml"), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120, check=False)

    def put_back(self, saved: Path) -> None:
        """The database as it was when `saved` was made, as after a restored backup."""
        database = Path(self.config.ledger.database)
        for leftover in database.parent.glob(f"{database.name}*"):
            if leftover.is_file():
                leftover.unlink()
        shutil.copy(saved, database)

    def save(self, path: Path) -> Path:
        with closing(sqlite3.connect(self.config.ledger.database)) as connection:
            connection.execute("VACUUM INTO ?", (str(path),))
        return path


@pytest.fixture
def scene(sandbox: RunningSandbox, tmp_path: Path) -> Iterator[Scene]:
    model = unique("copied")
    config = configure(sandbox, NOWHERE, tmp_path, model, archives=True)
    create_keys(config.keys, config.ledger.origin)
    yield Scene(config, model, tmp_path, sandbox.control)
    sandbox.control.clear()


def everywhere(scene: Scene, size: int | None) -> dict[str, int | None]:
    return dict.fromkeys(scene.config.clouds, size)


def test_after_each_operation_every_cloud_holds_what_it_left(scene: Scene) -> None:
    scene.act()
    assert scene.sizes() == everywhere(scene, 2)
    scene.act(2)
    assert scene.sizes() == everywhere(scene, 6)
    assert scene.said == []


def test_steps_inside_an_operation_wait_for_its_end(scene: Scene) -> None:
    fleet = scene.fleet()
    with record(fleet, "outer", None):
        with record(fleet, "inner", None):
            pass
        assert scene.sizes() == everywhere(scene, None)
    assert scene.sizes() == everywhere(scene, 4)


def test_an_operation_that_fails_is_copied_too_and_fails_as_it_did(scene: Scene) -> None:
    with pytest.raises(ForkError, match="for a test"), record(scene.fleet(), "rehearsal", None):
        raise ForkError("for a test")
    assert scene.sizes() == everywhere(scene, 2)


def test_copies_are_made_after_the_result_was_told_with_all_that_came_until_then(scene: Scene) -> None:
    with told_first():
        scene.act(2)
        assert scene.sizes() == everywhere(scene, None)
    assert scene.sizes() == everywhere(scene, 4)


def test_a_cloud_that_is_down_is_named_stops_nothing_and_is_caught_up(scene: Scene) -> None:
    cloud = next(iter(scene.config.clouds))
    with scene.control.during(cloud, "down"):
        scene.act(2)
        assert {event.cloud for event in scene.said} == {cloud}
        assert all("the ledger was not copied" in event.text for event in scene.said)
    scene.act()
    assert scene.sizes() == everywhere(scene, 6)


def test_an_agent_that_begins_catches_up(scene: Scene) -> None:
    with scene.control.during("azure", "down"):
        scene.act()
    assert scene.sizes() == {**everywhere(scene, 2), "azure": None}
    Agent(scene.config, AlertRules()).catch_up()
    assert scene.sizes() == everywhere(scene, 2)


def test_without_a_key_nothing_is_copied_and_nothing_complained_of(scene: Scene) -> None:
    shutil.rmtree(scene.config.keys.folder)
    scene.act()
    assert scene.said == []
    assert scene.sizes() == everywhere(scene, None)
    ran = scene.run("ledger", "copy")
    assert ran.returncode == 0
    assert "lockstep keys create" in ran.stderr


def test_the_command_copies_and_says_what_protects_each(scene: Scene) -> None:
    fleet = scene.fleet()
    fleet.ledger.append("one", "note", scene.model, "flow:test", {})
    ran = scene.run("ledger", "copy", "--json")
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    assert answer["signed"]
    found = {copy["cloud"]: (copy["entries"], copy["write_once"], copy["error"]) for copy in answer["copies"]}
    assert found == {cloud: (1, cloud != "azure", "") for cloud in scene.config.clouds}
    shown = scene.run("ledger", "copy")
    assert shown.returncode == 0
    if "azure" in scene.config.clouds:
        assert "not write-once" in " ".join(shown.stdout.split())


def test_a_rolled_back_database_is_noticed(scene: Scene) -> None:
    scene.act()
    saved = scene.save(scene.folder / "backup.db")
    scene.act()
    scene.put_back(saved)
    checks = scene.checks()
    assert {check.first_bad for check in checks.values()} == {2}
    assert all("rolled back" in check.problems[0] for check in checks.values())
    ran = scene.run("ledger", "copy")
    assert ran.returncode == 3
    assert "was rolled back, cut short or replaced" in ran.stderr
    # Nobody notices at the machine itself: it goes on as if nothing had been, and only the copies know.
    scene.act(2)
    assert {event.cloud for event in scene.said} == set(scene.config.clouds)
    assert {check.first_bad for check in scene.checks().values()} == {2}


def test_a_checkpoint_that_was_taken_from_the_database_is_missed(scene: Scene) -> None:
    """The ledger by itself cannot know of it; each copy does."""
    scene.act()
    scene.act()
    assert scene.sizes() == everywhere(scene, 4)
    with closing(sqlite3.connect(scene.config.ledger.database)) as connection:
        wards = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'checkpoint'")
        for (ward,) in wards.fetchall():
            connection.execute(f'DROP TRIGGER "{ward}"')
        assert connection.execute("DELETE FROM checkpoint WHERE size = 2").rowcount == 1
        connection.commit()
    for check in scene.checks().values():
        (problem,) = check.problems
        assert "2 entries" in problem
        assert "was taken from the database here" in problem


@pytest.mark.parametrize("cloud", sorted(WRITE))
def test_history_rewritten_with_the_real_key_is_exposed_by_one_copy_alone(scene: Scene, cloud: str) -> None:
    if cloud not in scene.config.clouds:
        pytest.skip(f"the sandbox runs without {cloud}")
    fleet = scene.fleet()
    only = (fleet.cloud(cloud),)
    real = [f"event {number}" for number in range(12)]
    for event in real:
        fleet.ledger.append(event, "note", scene.model, "flow:test", {})
    assert copy_ledger(only, fleet.ledger, fleet.retention)[0].size == 12
    forged = Ledger(scene.folder / "forged.db", origin=scene.config.ledger.origin, signer=fleet.keys.ledger)
    for entry in fleet.ledger.entries()[:7]:
        forged.append(entry.event_id, entry.kind, entry.model, entry.actor, entry.body)
    (check,) = compare_copies(only, forged)
    assert not check.holds
    for event in [*real[7:], "one more"]:
        forged.append(event, "note", scene.model, "flow:test", {"rewritten": True})
    (report,) = copy_ledger(only, forged, fleet.retention)
    assert isinstance(report.error, ForkError)
    (check,) = compare_copies(only, forged)
    assert check.first_bad is not None
    assert check.first_bad <= 7


@pytest.mark.parametrize(  # one way of writing for all objects, one order of objects for all clouds
    ("cloud", "name"),
    [("aws", "tile/entries/000.p/5"), ("azure", "tile/0/000.p/5"), ("gcp", f"checkpoint/{5:020d}")],
)
def test_the_process_killed_at_any_object_continues(scene: Scene, cloud: str, name: str) -> None:
    if cloud not in scene.config.clouds:
        pytest.skip(f"the sandbox runs without {cloud}")
    ledger = scene.fleet().ledger
    for number in range(5):
        ledger.append(f"event {number}", "note", scene.model, "flow:test", {})
    hanging = scene.control.fault(cloud, "hang", operation=WRITE[cloud], resource=f"*{name}", count=1)
    process = subprocess.Popen(scene.command("ledger", "copy"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_met(scene.control, hanging)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    scene.control.clear()
    assert scene.checks()[cloud].size is None, "a checkpoint stands only over what is whole"
    scene.act()
    assert scene.sizes() == everywhere(scene, 7)


def wait_until_met(control: Control, number: int) -> None:
    """Return when a call has met the fault."""
    deadline = time.monotonic() + 60
    while any(int(fault["number"]) == number for fault in requests.get(f"{control.url}/faults", timeout=10).json()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
