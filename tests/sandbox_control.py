"""A running sandbox and its control address, for tests, benchmarks and scripts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from tests.ending import end

TIMEOUT = 30.0


@dataclass(frozen=True)
class Control:
    """Client of the control address; see `sandbox/control.py` for what each call means."""

    url: str

    def fault(self, cloud: str, kind: str, **rest: object) -> int:
        return int(self._ask("POST", "/faults", {"cloud": cloud, "kind": kind, **rest})["number"])

    def clear(self, number: int | None = None) -> None:
        self._ask("DELETE", "/faults" if number is None else f"/faults/{number}")

    @contextlib.contextmanager
    def during(self, cloud: str, kind: str, **rest: object) -> Iterator[None]:
        number = self.fault(cloud, kind, **rest)
        try:
            yield
        finally:
            self.clear(number)

    def delays(self, changes: Mapping[str, float]) -> dict[str, float]:
        return dict(self._ask("PUT", "/delays", dict(changes)))

    @contextlib.contextmanager
    def denying(self, cloud: str, *permissions: str) -> Iterator[None]:
        """Callers of a cloud go without these permissions while it lasts."""
        self._ask("PUT", "/permissions", {"cloud": cloud, "denied": permissions})
        try:
            yield
        finally:
            self._ask("PUT", "/permissions", {"cloud": cloud, "denied": []})

    def calls(self, cloud: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        wanted = f"&cloud={cloud}" if cloud else ""
        return list(self._ask("GET", f"/calls?since={since}{wanted}"))

    def corrupt(self, cloud: str, key: str, offset: int = 0) -> str:
        return str(self._ask("POST", "/corrupt", {"cloud": cloud, "key": key, "offset": offset})["corrupted"])

    def evict(self, cloud: str, endpoint: str, slot: str) -> str:
        return str(self._ask("POST", "/evict", {"cloud": cloud, "endpoint": endpoint, "slot": slot})["evicted"])

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        answer = requests.request(method, self.url + path, json=body, timeout=TIMEOUT)
        if not answer.ok:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()


@dataclass(frozen=True)
class RunningSandbox:
    """`settings["aws" | "azure" | "gcp"]` is what that cloud's servers printed."""

    settings: dict[str, Any]
    control: Control
    pid: int


@contextlib.contextmanager
def running_sandbox(*arguments: str) -> Iterator[RunningSandbox]:
    """Start `python -m sandbox --json ARGUMENTS` and stop it, by its id, on every way out."""
    command = [sys.executable, "-m", "sandbox", "--json", "--parent", str(os.getpid()), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sandbox ended with status {process.wait()} before it was ready")
        settings = json.loads(line)
        yield RunningSandbox(settings, Control(settings["control"]), process.pid)
    finally:
        end(process)
