"""`lockstep alerts log`: every alert that the ledger holds is found by its model, with what came of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lockstep.agent.inbox import Received
from lockstep.agent.scribe import answer_of, line_of
from lockstep.cli import app
from lockstep.commands.ledger import open_configured
from lockstep.config import load
from lockstep.errors import NotFoundError, ProofError
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.stores.ledger import Ledger

AMAZON = {
    "kind": "sagemaker",
    "region": "eu-central-1",
    "bucket": "acme",
    "role_arn": f"arn:aws:iam::{'1' * 12}:role/a",
    "image": "acme",
}
ENDED = Intent("i-1", "tumour", "b" * 64, "", Action.ROLLBACK, State.DONE, "", "alert:am", 2, 5.0, 9.0, "v1 serves")


@dataclass(frozen=True)
class Place:
    """A configuration and its ledger."""

    config: Path
    ledger: Ledger

    def keep(self, number: int, model: str = "tumour", intent: str = "", told: str = "") -> None:
        """An alert's line, as the agent writes it."""
        alert = Received(
            key=f"key-{number}",
            known_by=f"id-{number}",
            trouble="trouble",
            source="am",
            id=f"a-{number}",
            incident="incident",
            status="firing",
            title=f"alert {number}",
            severity="critical",
            model=model,
            version="",
            cloud="",
            action=Action.ROLLBACK,
            rule="errors" if model else "",
            told=told,
            body="d" * 64,
            intent=intent,
            since=4.0,
            at=5.0 + number,
        )
        self.ledger.append_batch([line_of(alert)])

    def asked(self, *arguments: str) -> str:
        """What the command answers."""
        found = CliRunner().invoke(app, ["--config", str(self.config), "alerts", "log", *arguments])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found.stdout

    def ids(self, *arguments: str) -> list[str]:
        """The alerts that it lists."""
        return [one["id"] for one in json.loads(self.asked(*arguments, "--json"))["alerts"]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    data = {
        "mlflow": {"tracking_uri": "http://127.0.0.1:1"},
        "ledger": "ledger.db",
        "clouds": {"aws": AMAZON},
        "fleets": {"default": {"clouds": ["aws"]}},
        "models": {"tumour": {}, "fraud": {}},
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lockstep.yaml").write_text(yaml.safe_dump(data))
    ledger = open_configured(load(tmp_path / "lockstep.yaml"))
    yield Place(tmp_path / "lockstep.yaml", ledger)
    ledger.close()


def test_an_alert_is_found_by_its_model_with_what_came_of_it(place: Place) -> None:
    place.keep(1, intent="i-1")
    place.keep(2, "", told="no rule fits")
    place.keep(3, "fraud", intent="i-2")
    place.keep(4, intent="i-1")
    place.ledger.append_batch([answer_of(ENDED)])
    assert place.ids() == ["a-4", "a-3", "a-2", "a-1"], "the newest first, whatever they are about"
    assert place.ids("tumour") == ["a-4", "a-1"]
    assert place.ids("tumour", "--last", "1") == ["a-4"]
    (one,) = json.loads(place.asked("tumour", "-n", "1", "--json"))["alerts"]
    assert (one["entry"], one["model"], one["rule"], one["intent"]) == (3, "tumour", "errors", "i-1")
    assert one["answered"] == {
        **{"entry": 4, "at": "1970-01-01T00:00:09.000Z", "action": "rollback", "state": "done"},
        **{"told": "v1 serves", "alerts": 2},
    }
    told = place.asked()
    assert "came of it: rollback: done: v1 serves  (entry 4, 1970-01-01T00:00:09.000Z)" in told
    assert "came of it: no rule fits" in told
    assert "about   no model, no rule fits" in told
    assert "came of it: not ended yet, as far as the ledger says" in told


def test_a_storm_of_other_alerts_hides_none(place: Place) -> None:
    place.keep(0)
    for number in range(1, 60):
        place.keep(number, "fraud")
    assert place.ids("tumour") == ["a-0"]
    assert len(place.ids()) == 20


def test_the_newest_end_counts_of_what_was_taken_up_again(place: Place) -> None:
    place.keep(1, intent="i-1")
    for state, ended in ((State.FAILED, 9.0), (State.DONE, 20.0)):
        place.ledger.append_batch([answer_of(Intent(**{**vars(ENDED), "state": state, "ended": ended}))])
    assert json.loads(place.asked("--json"))["alerts"][0]["answered"]["state"] == "done"


def test_without_alerts_it_says_so_and_a_misspelt_model_is_told(place: Place) -> None:
    assert place.asked() == "the ledger holds no alert\n"
    assert place.asked("fraud") == "the ledger holds no alert about fraud\n"
    with pytest.raises(NotFoundError):
        place.asked("tumuor")
    place.keep(1, "tumuor")  # no model of ours, though a vendor told of it
    assert place.ids("tumuor") == ["a-1"]


def test_a_ledger_that_somebody_changed_is_told(place: Place) -> None:
    place.keep(1)
    with contextlib.closing(sqlite3.connect(place.config.with_name("ledger.db"))) as database:
        database.execute("DROP TRIGGER entry_no_update")
        database.execute("UPDATE entry SET leaf = CAST(replace(CAST(leaf AS TEXT), 'alert 1', 'alert 2') AS BLOB)")
        database.commit()
    result = CliRunner().invoke(app, ["--config", str(place.config), "alerts", "log"])
    assert result.exit_code == ProofError.exit_status
    assert "tampered" in result.stderr
