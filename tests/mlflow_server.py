"""A real MLflow server: its own process, SQLite and artifact folder in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from demo.processes import leashed
from tests.ending import end

START_TIMEOUT = 150.0
POLL = 0.05


@contextlib.contextmanager
def running_mlflow(folder: Path) -> Iterator[str]:
    """Start MLflow with its files below `folder`, give its address, and stop it, by its id, on every way out.

    The application is started without MLflow's command, which would import everything a second time in a process of
    its own, start three more workers and a job runner: 7 seconds rather than 14.
    """
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*leashed(), *command, "mlflow.server.fastapi_app:app"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_health(process, address, log)
        yield address
    finally:
        end(process)


def _await_health(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"MLflow ended with status {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{address}/health", timeout=1.0).ok:
                # The first real request makes the database: seconds, on which no test should spend its patience.
                search = f"{address}/api/2.0/mlflow/experiments/search?max_results=1"
                requests.get(search, timeout=START_TIMEOUT).raise_for_status()
                return
        time.sleep(POLL)
    raise RuntimeError(f"MLflow did not answer within {START_TIMEOUT} s: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
