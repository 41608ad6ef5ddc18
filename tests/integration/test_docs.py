"""What the documentation shows and needs servers: its shell, its alert, its Prometheus queries."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from lockstep.stores.outcomes import PrometheusOutcomes
from tests.docs_snippets import Snippet, named_json, pages, snippets
from tests.integration.deployed import Deployed
from tests.integration.fleets import save_model

pytestmark = pytest.mark.timeout(400)

PRODUCTION = Path("docs/production.md")
#: The model in the documentation's examples.
MODEL = "tumour"


def shell(mark: str) -> list[Snippet]:
    return [one for page in pages() for one in snippets(page) if (one.language, one.mark) == ("bash", mark)]


def run(snippet: Snippet, text: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a block in `folder` as a person would who has Lockstep installed; gives back what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, f"{snippet}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("snippet", shell("test"), ids=str)
def test_shell_that_needs_nothing_runs(snippet: Snippet, tmp_path: Path) -> None:
    run(snippet, snippet.text, tmp_path, {})


@pytest.mark.parametrize("snippet", shell("fleet"), ids=str)
def test_shell_runs_on_a_fleet_that_serves(snippet: Snippet, deployed: Deployed) -> None:
    text = re.sub(rf"\b{MODEL}\b", deployed.model, snippet.text)
    printed = run(snippet, text, deployed.folder, {"LOCKSTEP_CONFIG": str(deployed.config)})
    assert all(cloud in printed for cloud in deployed.clouds) or "rolled back" in printed


def test_the_pages_version_is_made_and_checked_without_lockstep(mlflow_server: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    aws = {
        "kind": "sagemaker",
        "region": "eu-central-1",
        "bucket": "models",
        "role_arn": "arn:aws:iam::111122223333:role/serving",
        "image": "i",
    }
    config = {
        "mlflow": {"tracking_uri": mlflow_server},
        "clouds": {"aws": aws},
        "fleets": {"default": {"clouds": ["aws"]}},
        "models": {MODEL: {}},
    }
    (tmp_path / "lockstep.yaml").write_text(yaml.safe_dump(config))
    blocks = shell("version")
    assert len(blocks) == 2
    for snippet in blocks:
        run(snippet, snippet.text, tmp_path, {"MLFLOW_TRACKING_URI": mlflow_server})
    (version,) = json.loads((tmp_path / "versions.json").read_text())
    assert (tmp_path / "fetched" / version["digest"] / "requirements.lock").is_file()


def test_the_alerts_body_is_what_prefect_and_the_automation_take() -> None:
    from prefect.events.schemas.events import Event

    (event,) = (Event.model_validate(one) for one in named_json(PRODUCTION)["alert"])
    assert event.resource.id == f"lockstep.model.{MODEL}"
    deployments = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    triggers = [trigger for one in deployments for trigger in one.get("triggers", ())]
    (trigger,) = (trigger for trigger in triggers if event.event in trigger["expect"])
    taken = set(re.findall(r"event\.payload\.(\w+)", json.dumps(trigger["parameters"])))
    assert set(event.payload) == taken


def test_prometheus_is_asked_what_the_page_says() -> None:
    page = Path("docs/outcomes.md")
    (text,) = (one.text for one in snippets(page) if one.mark == "outcomes" and "prometheus" in one.text)
    asked: list[str] = []
    with prometheus(asked) as address:
        source = PrometheusOutcomes.model_validate({**yaml.safe_load(text), "url": address})
        until = datetime.now(UTC)
        (count,) = source.counts(until - timedelta(minutes=10), until)
    assert (count.cloud, count.version, count.total, count.bad) == ("gcp", "3", 120, 7)
    assert all("[600s]" in query for query in asked)
    assert ['right="false"' in query for query in asked] == [False, True]


@contextmanager
def prometheus(asked: list[str]) -> Iterator[str]:
    """An address that answers queries as Prometheus' HTTP API does: a vector of one sample."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)["query"][0]
            asked.append(query)
            sample = {"metric": {"cloud": "gcp", "version": "3"}, "value": [0, "7" if "false" in query else "120"]}
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": [sample]}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
