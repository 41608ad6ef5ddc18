"""The agent is killed after it has answered 202: what it accepted is done after the next start, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from lockstep.rules.state import CONDEMNED_TAG
from lockstep.stores.ledger import Entry
from tests.chaos.seed import SEED, drawn
from tests.chaos.truth import check, entries_since, of_kind, size
from tests.ending import end
from tests.integration.deployed import Deployed

pytestmark = pytest.mark.timeout(240)

TIMES = 30
LONGEST = 2.0  # seconds after the answer; a rollback here takes less
TOKEN = uuid.uuid4().hex
READY = 90.0


@contextmanager
def agent(config: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real agent, with its address once it takes alerts."""
    command = [sys.executable, "-m", "lockstep.cli", "--config", str(config), "agent", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["TOKEN"] = TOKEN
    with log.open("a") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment)
    try:
        assert process.stdout is not None
        told = ""
        while not told.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, log.read_text()
            told += line
        document = json.loads(told)
        assert "address" in document, document
        yield process, document["address"]
    finally:
        end(process)


def alert(model: str) -> dict[str, Any]:
    one = {
        **{"status": "firing", "labels": {"alertname": "Wrong", "model": model, "number": uuid.uuid4().hex}},
        **{"annotations": {}, "startsAt": "2026-11-23T02:00:00Z", "endsAt": "0001-01-01T00:00:00Z"},
        **{"generatorURL": "", "fingerprint": uuid.uuid4().hex[:16]},
    }
    return {
        **{"version": "4", "groupKey": uuid.uuid4().hex, "truncatedAlerts": 0, "status": "firing", "receiver": "us"},
        **{"groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [one]},
    }


@pytest.fixture
def configured(deployed: Deployed, tmp_path: Path) -> Path:
    rules = {
        "sources": {"alertmanager": {"kind": "alertmanager", "tokens": ["${TOKEN}"]}},
        "rules": [{"model": "{labels.model}", "action": "rollback"}],
    }
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    viewer = {"ann": {"role": "viewer", "token": "${TOKEN}"}}
    settings = {"port": 0, "alerts": "alerts.yaml", "inbox": "inbox.db", "tokens": viewer}
    return deployed.configured(tmp_path / "lockstep.yaml", agent=settings)


def ask(method: str, url: str, **rest: Any) -> requests.Response:
    """As soon as somebody answers."""
    deadline = time.monotonic() + READY
    while True:
        try:
            return requests.request(method, url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30, **rest)
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    "number", [pytest.param(one, marks=[pytest.mark.chaos_full] if one else []) for one in range(TIMES)]
)
def test_what_was_accepted_is_done_once(deployed: Deployed, configured: Path, number: int) -> None:
    # Most rollbacks are in their first steps for most of the time that they take.
    pause = LONGEST * drawn(f"agent {number}").random() ** 2
    since, known, log = time.time(), size(deployed), configured.with_name("agent.log")

    def received(deployed: Deployed) -> list[Entry]:
        lines = deployed.fleet.ledger.entries(None, "alert.received")  # alerts stand under no model
        return [entry for entry in lines if entry.number >= known and entry.body["about"] == deployed.model]

    with agent(configured, log) as (process, address):
        answer = ask("POST", f"{address}/hooks/alertmanager", json=alert(deployed.model))
        assert answer.status_code == 202, answer.text
        (intent,) = answer.json()["intents"]
        time.sleep(pause)
        process.kill()
    with agent(configured, log) as (process, address):
        deadline = time.monotonic() + READY
        while not (found := ask("GET", f"{address}/api/intents/{intent}").json())["ended"]:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        while not received(deployed):  # the ledger's lines do not hold up a rollback
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    try:
        assert found["state"] == "done", found
        check(deployed, deployed.v1, since)
        rollbacks = entries_since(deployed, known, "rollback.")
        assert len(of_kind(rollbacks, "rollback.intent")) == len(of_kind(rollbacks, "rollback.outcome")) == 1
        tags = {version: deployed.fleet.registry.tags(version) for version in (deployed.v1, deployed.v2, deployed.v3)}
        assert [version for version, tag in tags.items() if CONDEMNED_TAG in tag] == [deployed.v2]
        assert [entry.body["answer"] for entry in received(deployed)] == [intent]
    except BaseException as error:
        error.add_note(f"seed {SEED}; killed {pause:.3f} s after the answer; log: {log.read_text()[-3000:]}")
        raise
