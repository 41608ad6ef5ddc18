"""A real Prefect server of this session, as one process with a database of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.processes import leashed
from tests.ending import end

READY_WITHIN = 120.0


@dataclass(frozen=True)
class PrefectServer:
    """`environment` is what a process needs to speak to it, and nothing of the user's own Prefect."""

    api: str
    environment: dict[str, str]
    folder: Path


@contextlib.contextmanager
def running_prefect(folder: Path, database: str = "") -> Iterator[PrefectServer]:
    """Start the server that `prefect server start` starts, and stop it, by its id, on every way out.

    `database` is the address of its database, a file in `folder` when left out.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": api,
        "PREFECT_API_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_CLIENT_METRICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--app-dir", str(folder)]
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [*leashed(), *command], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        _wait(api, process, folder / "server.log")
        yield PrefectServer(api, environment, folder)
    finally:
        end(process)
        log.close()


def _wait(api: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the Prefect server ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{api}/health", timeout=2).ok:
                return
        time.sleep(0.2)  # a server that starts offers nothing to wait on
    raise RuntimeError(f"the Prefect server was not ready within {READY_WITHIN:.0f} s: {log.read_text()[-2000:]}")
