"""The demo's servers as real processes: the sandbox, MLflow and Prefect. None outlives the demo."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import requests

START_TIMEOUT: Final = 150.0
QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONWARNINGS": "ignore",
}
#: Runs a command that the kernel kills when the demo dies, however it dies (Linux).
LEASH: Final = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]):\n"
    "    sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


def leashed() -> list[str]:
    """What to put in front of a command so that it dies with this process, however this process dies."""
    return [sys.executable, "-c", LEASH, str(os.getpid())]


class StartError(Exception):
    """A server did not start; the text is one line that says why and where its log lies."""


class Server:
    """One process with its log; `stop()` ends it and whatever it started."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*leashed(), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name == "sandbox" else stream,
                stderr=stream,
                env={**os.environ, **QUIET, **environment},
                start_new_session=True,
            )

    def await_ready(self, ready: Callable[[], bool]) -> None:
        """Poll `ready` until it holds; raises StartError when the process ends or time is up."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.raise_if_ended()
            if ready():
                return
            time.sleep(0.05)
        raise StartError(f"{self.name} did not answer within {START_TIMEOUT:.0f} s; see {self.log}")

    def raise_if_ended(self) -> None:
        """Raise StartError with the log's last line when the process is gone."""
        if self.process.poll() is not None:
            raise StartError(
                f"{self.name} ended with status {self.process.returncode}: {self.last_line()} (see {self.log})"
            )

    def last_line(self) -> str:
        """The newest line of its log."""
        return (self.log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]

    def stop(self) -> None:
        """SIGTERM to the process and its group, SIGKILL after ten seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            try:
                self.process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError):  # what the process started and left behind in its group
            os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Start all three at once, yield when they are being started, stop all on every way out."""
    servers = Servers(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


class Servers:
    """Sandbox, MLflow and Prefect with their addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mlflow_url = f"http://127.0.0.1:{free_port()}"
        self.prefect_url = f"http://127.0.0.1:{free_port()}"
        self.sandbox: dict[str, Any] = {}
        self._servers: list[Server] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find them."""
        return {
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "LOCKSTEP_CONFIG": str(self.folder / "lockstep.yaml"),
        }

    def start(self) -> None:
        """Start the processes; returns at once."""
        self.spawn("sandbox", ["-m", "sandbox", "--json", "--speed", "demo"], {})
        data = self.folder / "mlflow"
        data.mkdir()
        # MLflow's application without its command, which would start three more workers and a job runner.
        self.spawn(
            "mlflow",
            [
                "-m",
                "uvicorn",
                "--host",
                "127.0.0.1",
                "--port",
                _port(self.mlflow_url),
                "--log-level",
                "warning",
                "mlflow.server.fastapi_app:app",
            ],
            {
                "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{data / 'mlflow.db'}",
                "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
                "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
                "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(data / "artifacts"),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        )
        # Prefect's application without its command, which imports everything in two processes.
        self.spawn(
            "prefect",
            [
                *("-m", "uvicorn", "--factory", "--host", "127.0.0.1", "--port", _port(self.prefect_url)),
                *("--log-level", "warning", "prefect.server.api.server:create_app"),
            ],
            self.environment,
        )

    def spawn(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Server:
        """Start `python ARGUMENTS` on the demo's leash."""
        # Not from the current folder (-P), which may hold a demo/ or sandbox/ of its own.
        server = Server(name, [sys.executable, "-P", *arguments], self.folder, environment)
        self._servers.append(server)
        return server

    def await_sandbox(self) -> Mapping[str, Any]:
        """The sandbox's settings, when all its addresses answer."""
        server = self._named("sandbox")
        stream = server.process.stdout
        line = stream.readline() if stream is not None else b""
        if not line:
            server.process.wait()
            server.raise_if_ended()
        self.sandbox = json.loads(line)
        return self.sandbox

    def await_mlflow(self) -> None:
        """Return when MLflow answers."""
        self._named("mlflow").await_ready(lambda: answers(f"{self.mlflow_url}/health"))

    def await_prefect(self) -> None:
        """Return when Prefect answers."""
        self._named("prefect").await_ready(lambda: answers(f"{self.prefect_url}/api/health"))

    def stop(self) -> None:
        """End them all, the newest first."""
        for server in reversed(self._servers):
            server.stop()

    def _named(self, name: str) -> Server:
        return next(server for server in self._servers if server.name == name)


def answers(url: str) -> bool:
    """Whether GET `url` answers with success now."""
    try:
        return requests.get(url, timeout=1.0).ok
    except requests.RequestException:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _port(url: str) -> str:
    return url.rpartition(":")[2]
