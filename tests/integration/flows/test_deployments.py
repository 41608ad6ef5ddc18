"""`lockstep init`, the deployments, and runs of them as the UI's Run button and an alert start them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import init
from flows.deploying import ROOT
from lockstep.operations.fleet import open_fleet
from tests.ending import end
from tests.integration.fleets import configure, save_model, unique
from tests.integration.flows.prefect_server import PrefectServer
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(600)
DEPLOYMENTS = {"register", "replicate", "canary-deploy", "monitor", "reconcile", "scrub", "rollback"}


def initialised(capsys: pytest.CaptureFixture[str], config: Path, *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert init.main(["--config", str(config), "--json", *options]) == 0
    return dict(json.loads(capsys.readouterr().out))


def changed(answer: dict[str, Any]) -> dict[str, list[str]]:
    return {one["name"]: one["fields"] for one in answer["changes"] if one["change"] != "unchanged"}


def ask(server: PrefectServer, method: str, path: str, body: object = None) -> Any:
    """Call the API as a browser does; SQLite may be busy for a moment, which Prefect answers with 503."""
    for _ in range(20):
        answer = requests.request(method, server.api + path, json=body, timeout=90)
        if answer.status_code != 503:
            break
        time.sleep(0.3)
    assert answer.ok, f"{answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def deployment(server: PrefectServer, name: str) -> dict[str, Any]:
    found = ask(server, "GET", f"/deployments/name/lockstep-{name}/{name}")
    return dict(found)


@contextlib.contextmanager
def working(server: PrefectServer, folder: Path) -> Iterator[None]:
    """A process worker that was started in a folder of its own."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "lockstep", "--name", "tests"]
    environment = {**server.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            end(process)


def ended(server: PrefectServer, run: str, timeout: float = 150.0) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while True:
        found = dict(ask(server, "GET", f"/flow_runs/{run}"))
        if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return found
        assert time.monotonic() < deadline, f"{found['name']} is {found['state_name']} after {timeout} s"
        time.sleep(0.5)


def test_init_and_runs_of_what_it_deployed(
    prefect_server: PrefectServer,
    sandbox: RunningSandbox,
    mlflow_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = unique("deployed")
    config = configure(sandbox, mlflow_server, tmp_path, model)
    path = tmp_path / "lockstep.yaml"

    shown = initialised(capsys, path)
    assert not shown["saved"]
    # Other tests may have saved the clouds' blocks already.
    assert set(changed(shown)) - {"mlflow", *config.clouds} == {"default", "lockstep", *DEPLOYMENTS}
    assert changed(initialised(capsys, path)) == changed(shown), "showing the difference changed something"

    with sandbox.control.denying("gcp", "aiplatform.endpoints.update"):
        assert init.main(["--config", str(path), "--yes", "--json"]) == 3
        refused = json.loads(capsys.readouterr().out)
        assert "gcp does not grant aiplatform.endpoints.update" in refused["error"]
        assert "--despite-permissions" in refused["hint"]
        assert init.main(["--config", str(path), "--yes"]) == 3
        assert "(moves traffic): see docs/clouds.md#google-vertex-ai" in capsys.readouterr().out
        knowing = initialised(capsys, path, "--despite-permissions")
        assert changed(knowing) == changed(shown), "something was saved"
        assert [one["permission"] for one in knowing["permissions"]["gcp"]["missing"]] == [
            "aiplatform.endpoints.update"
        ]

    assert initialised(capsys, path, "--yes")["saved"]
    again = initialised(capsys, path, "--yes")
    assert changed(again) == {}
    assert not again["saved"]

    # A person turns the schedule on; a changed secret is saved without touching that, and is not shown.
    schedule = deployment(prefect_server, "monitor")["schedules"][0]
    assert not schedule["active"]
    address = f"/deployments/{deployment(prefect_server, 'monitor')['id']}"
    ask(prefect_server, "PATCH", f"{address}/schedules/{schedule['id']}", {"active": True})
    content = yaml.safe_load(path.read_text())
    content["clouds"]["aws"]["secret_access_key"] = "another-secret"
    path.write_text(yaml.safe_dump(content))
    assert changed(initialised(capsys, path)) == {"aws": ["secret_access_key"]}
    assert init.main(["--config", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "secret_access_key" in printed
    assert "another-secret" not in printed
    assert initialised(capsys, path, "--yes")["saved"]
    assert changed(initialised(capsys, path)) == {}
    ask(prefect_server, "PATCH", f"{address}", {"description": "edited by hand"})
    assert changed(initialised(capsys, path)) == {"monitor": ["description"]}
    initialised(capsys, path, "--yes")
    assert deployment(prefect_server, "monitor")["schedules"][0]["active"], "redeploying switched the schedule off"
    # The server's own scheduler makes the runs: it needs versions of its libraries that fit each other.
    scheduled = ask(prefect_server, "GET", f"/flow_runs/{_run_of(prefect_server, 'monitor')}")
    assert scheduled["auto_scheduled"]
    assert scheduled["state_type"] == "SCHEDULED"
    ask(
        prefect_server,
        "PATCH",
        f"{address}/schedules/{deployment(prefect_server, 'monitor')['schedules'][0]['id']}",
        {"active": False},
    )

    refused = requests.post(
        f"{prefect_server.api}/deployments/{deployment(prefect_server, 'rollback')['id']}/create_flow_run",
        json={"parameters": {"model": model, "dry_run": "perhaps"}, "enforce_parameter_schema": True},
        timeout=90,
    )
    assert refused.status_code in (409, 422), refused.text

    (folder := tmp_path / "elsewhere").mkdir()
    source = save_model(tmp_path / "v1")
    with working(prefect_server, folder):
        pressed = ask(
            prefect_server,
            "POST",
            f"/deployments/{deployment(prefect_server, 'register')['id']}/create_flow_run",
            {"parameters": {"model": model, "source": source}, "state": {"type": "SCHEDULED"}},
        )
        alert = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": "lockstep.alert",
            "resource": {"prefect.resource.id": f"lockstep.model.{model}"},
            "payload": {"model": model, "reason": "alert 4711"},
        }
        run = ended(prefect_server, pressed["id"])
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        assert run["name"] == f"register {model} 1"
        versions = open_fleet(config, model).registry.versions(model)
        assert [version.label for version in versions] == ["1"]

        ask(prefect_server, "POST", "/events", [alert])
        rollback = ended(prefect_server, _run_of(prefect_server, "rollback"))
    parameters = rollback["parameters"]
    assert datetime.fromisoformat(parameters.pop("alert_at")) == datetime.fromisoformat(str(alert["occurred"]))
    assert parameters == {"model": model, "reason": "alert 4711", "fleet": "default", "alert": alert["id"]}
    assert rollback["state_type"] == "FAILED"
    assert "no known-good version" in rollback["state"]["message"]
    assert "what to do" in rollback["state"]["message"]


def _run_of(server: PrefectServer, name: str) -> str:
    wanted = {"deployments": {"name": {"any_": [name]}}}
    deadline = time.monotonic() + 60
    while not (found := ask(server, "POST", "/flow_runs/filter", wanted)):
        assert time.monotonic() < deadline, f"no run of {name} was started"
        time.sleep(0.5)
    return str(found[0]["id"])


def test_a_server_that_does_not_answer_is_named_within_seconds(
    sandbox: RunningSandbox, mlflow_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(sandbox, mlflow_server, tmp_path, unique("silent"))
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        api = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        began = time.monotonic()
        with temporary_settings({PREFECT_API_URL: api}):
            assert init.main(["--config", str(tmp_path / "lockstep.yaml"), "--yes"]) == 5
        assert time.monotonic() - began < 10
    said = capsys.readouterr()
    text = "".join((said.out + said.err).split())
    assert api in text
    assert "prefectserverstart" in text


def test_a_server_that_is_not_configured_is_asked_for(
    sandbox: RunningSandbox, mlflow_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(sandbox, mlflow_server, tmp_path, unique("nowhere"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert init.main(["--config", str(tmp_path / "lockstep.yaml"), "--yes"]) == 3
    said = capsys.readouterr()
    assert "PREFECT_API_URL" in said.out + said.err


def test_every_flow_has_one_deployment() -> None:
    entries = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {entry["name"] for entry in entries} == DEPLOYMENTS
    for entry in entries:
        assert entry["description"].endswith(".")
        assert entry["enforce_parameter_schema"]
        assert (ROOT / entry["entrypoint"].split(":")[0]).is_file()
