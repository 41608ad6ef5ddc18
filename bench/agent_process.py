"""A `lockstep agent` in a process of its own, and alerts for it as Grafana signs them."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import requests
import yaml

from demo.processes import Server, Servers, free_port

SOURCE: Final = "grafana"
SECRET: Final = "GRAFANA_SECRET"  # noqa: S105 - the variable that holds it
TOKEN: Final = "BENCH_TOKEN"  # noqa: S105
#: What a benchmark switches off, which would keep its later rounds from being carried out at all.
NO_REST: Final[Mapping[str, object]] = {"incident_window": 0.001, "cool_down": 0.0, "flapping_rollbacks": 1_000_000}


@dataclass(frozen=True)
class Alerts:
    """Bodies and signatures of alerts of one source; every one that is made is another incident."""

    secret: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def body(self, model: str, title: str = "ModelIsWrong", status: str = "firing") -> bytes:
        """One alert about a model, as Grafana's webhook sends it."""
        number = next(self._numbers)
        now = datetime.now(UTC).isoformat()
        labels = {"alertname": title, "model": model, "severity": "critical"}
        one = {
            **{"status": status, "labels": labels, "annotations": {"summary": f"{model} answers wrongly"}},
            **{"startsAt": now, "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else now},
            **{"fingerprint": f"{number:016x}", "generatorURL": "", "silenceURL": "", "values": {"B": 0.4}},
        }
        return json.dumps(
            {
                **{"receiver": "lockstep", "status": status, "orgId": 1, "alerts": [one], "version": "1"},
                **{"groupLabels": labels, "commonLabels": labels, "commonAnnotations": {}},
                **{"externalURL": "", "groupKey": f"{{}}:{{number={number}}}", "truncatedAlerts": 0},
                **{"title": f"[{status.upper()}:1] {title}", "state": "alerting", "message": ""},
            }
        ).encode()

    def signed(self, body: bytes, *, secret: str = "") -> dict[str, str]:
        """Headers that make a body Grafana's."""
        now = str(int(time.time()))
        signature = hmac.new((secret or self.secret).encode(), f"{now}:".encode() + body, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "X-Grafana-Alerting-Timestamp": now,
            "X-Grafana-Alerting-Signature": signature,
        }


@dataclass
class RunningAgent:
    """The process with its address."""

    server: Server
    address: str
    token: str
    alerts: Alerts

    def post(self, body: bytes) -> Mapping[str, Any]:
        """Send a signed alert; the answer's document. Raises for another answer than 202."""
        url = f"{self.address}/hooks/{SOURCE}"
        answer = requests.post(url, data=body, headers=self.alerts.signed(body), timeout=30)
        assert answer.status_code == 202, f"{answer.status_code}: {answer.text[:500]}"
        return dict(answer.json())

    def intent(self, intent_id: str) -> Mapping[str, Any]:
        """What the agent says of an intent."""
        answer = requests.get(
            f"{self.address}/api/intents/{intent_id}", headers={"Authorization": f"Bearer {self.token}"}, timeout=30
        )
        answer.raise_for_status()
        return dict(answer.json())

    def await_end(self, intent_id: str, timeout: float = 120.0) -> Mapping[str, Any]:
        """Poll until the intent has ended."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.intent(intent_id)
            if found["ended"]:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"intent {intent_id} is {found['state']} after {timeout:.0f} s")
            time.sleep(0.02)


def configure(folder: Path, name: str, alerts: Alerts, **settings: object) -> Path:
    """lockstep.yaml in `folder` with an agent's settings, as `<name>.yaml`; its one rule rolls every model back."""
    data = yaml.safe_load((folder / "lockstep.yaml").read_text(encoding="utf-8"))
    rules = {
        "sources": {SOURCE: {"kind": "grafana", "secrets": [f"${{{SECRET}}}"]}},
        "rules": [{"name": "roll back", "model": "{labels.model}", "action": "rollback"}],
    }
    (folder / f"{name}-alerts.yaml").write_text(yaml.safe_dump(rules, sort_keys=False), encoding="utf-8")
    data["agent"] = {
        **{"port": free_port(), "alerts": f"{name}-alerts.yaml", "inbox": f"{name}-inbox.db"},
        **{"tokens": {"bench": {"role": "operator", "token": f"${{{TOKEN}}}"}}},
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


@contextmanager
def running_agent(
    servers: Servers, folder: Path, name: str, environment: Mapping[str, str], **settings: object
) -> Iterator[RunningAgent]:
    """An agent that is ready; stopped at the end."""
    alerts, token = Alerts(), secrets.token_hex(24)
    path = configure(folder, name, alerts, **settings)
    port = yaml.safe_load(path.read_text(encoding="utf-8"))["agent"]["port"]
    given = {**environment, "LOCKSTEP_CONFIG": str(path), SECRET: alerts.secret, TOKEN: token}
    server = servers.spawn(name, ["-m", "lockstep.cli", "--config", str(path), "agent"], given)
    address = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return requests.get(f"{address}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    try:
        server.await_ready(ready)
        yield RunningAgent(server, address, token, alerts)
    finally:
        server.stop()
