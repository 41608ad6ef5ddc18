"""A running agent over the deployed fleet, for tests of what it serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests
import yaml

from lockstep.agent.alert_rules import parse_alert_rules
from lockstep.agent.assembly import Agent
from lockstep.agent.limits import Bounds
from lockstep.agent.server import Server
from lockstep.config import parse
from tests.integration.deployed import Deployed

VIEWER: Final = "vera-" + "v" * 30
OPERATOR: Final = "olga-" + "o" * 30
APPROVER: Final = "anna-" + "a" * 30
HOOK: Final = "hook-" + "h" * 30
TIMEOUT: Final = 60.0
TOKENS: Final = {
    "vera": {"role": "viewer", "token": VIEWER},
    "olga": {"role": "operator", "token": OPERATOR},
    "anna": {"role": "approver", "token": APPROVER},
}
ALERTS: Final = {
    "sources": {"prometheus": {"kind": "alertmanager", "tokens": ["${HOOK_TOKEN}"]}},
    "rules": [{"when": {"alertname": "Slow"}, "model": "{model}", "action": "notify"}],
}


@dataclass(frozen=True)
class Running:
    """An agent that answers; `model` is the one that is deployed."""

    agent: Agent
    base: str
    model: str
    folder: Path

    def get(self, path: str, token: str = "", **given: object) -> requests.Response:
        """GET, with a bearer token if there is one; follows no redirect."""
        return self.ask("GET", path, token, **given)

    def ask(self, method: str, path: str, token: str = "", **given: object) -> requests.Response:
        """Any request."""
        asked: Mapping[str, object] = {"timeout": TIMEOUT, "allow_redirects": False, **given}
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **dict(asked.get("headers", {}))}  # type: ignore[call-overload]
        rest = {key: value for key, value in asked.items() if key != "headers"}
        return requests.request(method, self.base + path, headers=headers, **rest)  # type: ignore[arg-type]

    def signed_in(self, token: str) -> requests.Session:
        """A browser's session of that person, whose requests carry the origin as forms do."""
        session = requests.Session()
        session.headers["Origin"] = self.base
        answer = session.post(
            self.base + "/sign-in", {"token": token, "next": "/"}, timeout=TIMEOUT, allow_redirects=False
        )
        assert answer.status_code == 303, answer.text
        return session


@contextlib.contextmanager
def running_agent(
    made: Deployed,
    folder: Path,
    alerts: Mapping[str, object] = ALERTS,
    bounds: Bounds | None = None,
    **settings: object,
) -> Iterator[Running]:
    """An agent on a free port, its inbox in `folder`, ready; stopped after the block."""
    agent = {"port": 0, "tokens": TOKENS, "inbox": str(folder / "inbox.db"), "refresh_every": 1.0, **settings}
    text = made.changed_text(agent=agent, state=str(folder / "state"))
    (folder / "lockstep.yaml").write_text(text)
    config = parse(text, "lockstep.yaml", {})
    rules = parse_alert_rules(yaml.safe_dump(dict(alerts)), "alerts.yaml", {"HOOK_TOKEN": HOOK})
    server = Server(Agent(config, rules), bounds)
    server.start()
    try:
        assert server.agent.refresher.wait_until_warm(TIMEOUT)
        yield Running(server.agent, server.address, made.model, folder)
    finally:
        server.stop()
