"""What the agent's doors answer, over an agent that was not started: one shape for what is wrong, whatever is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lockstep.agent.alert_rules import parse_alert_rules
from lockstep.agent.app import create_app
from lockstep.agent.assembly import Agent
from lockstep.config import load
from tests.deliveries import GENUINE, MAPPING, SECRET, TOKEN, Sent, by_generic
from tests.unit.test_alert_rehearsal import AMAZON

OPERATOR, VIEWER = "olga-" + "o" * 30, "vera-" + "v" * 30
SOURCES = {
    "am": {"kind": "alertmanager", "tokens": ["${TOKEN}"]},
    "watch": {**by_generic(b"").settings, "secrets": ["${SECRET}"]},
    "plain": {"kind": "generic", "tokens": ["${TOKEN}"], "mapping": MAPPING},
}
RULES = [{"model": "{model}", "action": "notify"}]


class Doors:
    """The application of an agent, asked one request after the other on a loop of its own."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(create_app(agent), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://agent")

    def ask(self, method: str, path: str, token: str = "", **given: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **given.pop("headers", {})}
        return self._loop.run_until_complete(self._client.request(method, path, headers=headers, **given))

    def post(self, source: str, sent: Sent) -> httpx.Response:
        return self.ask("POST", f"/hooks/{source}", content=sent.body, headers=dict(sent.headers))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()
        self.agent.stop(0.1)


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    tokens = {"olga": {"role": "operator", "token": OPERATOR}, "vera": {"role": "viewer", "token": VIEWER}}
    data = {
        "mlflow": {"tracking_uri": "http://127.0.0.1:1"},
        "ledger": "ledger.db",
        "keys": {"folder": "keys"},
        "clouds": {"aws": {**AMAZON, "image": "acme"}},
        "fleets": {"default": {"clouds": ["aws"]}},
        "models": {"tumour": {}},
        "agent": {"tokens": tokens},
    }
    (tmp_path / "lockstep.yaml").write_text(yaml.safe_dump(data))
    text = yaml.safe_dump({"sources": SOURCES, "rules": RULES})
    rules = parse_alert_rules(text, "alerts.yaml", {"TOKEN": TOKEN, "SECRET": SECRET})
    made = Doors(Agent(load(tmp_path / "lockstep.yaml"), rules))
    yield made
    made.close()


def told(answer: httpx.Response) -> str:
    """What the answer says is wrong; it has the one shape of all that was not done."""
    found = answer.json()
    assert set(found) == {"error", "hint"}
    return str(found["error"])


# -- people and programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"json": {"model": "tumour"}}, "reason: it is missing"),
        ({"json": {}}, "model: it is missing (and 1 more)"),
        ({"json": {"model": "tumour", "reason": "r", "form": 1}}, "form: there is no such key"),
        ({"json": {"model": "tumour", "reason": 1}}, "reason: a text is expected"),
        ({"json": [1]}, "the body is no object of JSON"),
        ({"data": {"model": "tumour", "reason": "r"}}, "the body is no object of JSON"),
        ({"content": b""}, "the body is missing"),
        (
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            "the body is not JSON: Expecting property name enclosed in double quotes",
        ),
        ({"json": {"model": "tumour", "reason": " "}}, "the reason is empty"),
        ({"json": {"model": "none", "reason": "r"}}, "model 'none' is not in the configuration (there: tumour)"),
    ],
)
def test_a_rollback_that_is_asked_for_wrongly_is_told_in_our_words(
    doors: Doors, given: dict[str, Any], error: str
) -> None:
    answer = doors.ask("POST", "/api/rollbacks", OPERATOR, **given)
    assert answer.status_code in (404, 422)
    assert told(answer) == error
    assert answer.json()["hint"]


@pytest.mark.parametrize("body", [b"\xff", b"[" * 50_000 + b"]" * 50_000, b"1" * 6_000])
def test_a_body_that_nobody_can_read_is_told_as_that(doors: Doors, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = doors.ask("POST", "/api/rollbacks", OPERATOR, content=body, headers=headers)
    assert (answer.status_code, told(answer)) == (400, "the body cannot be read")


def test_who_asks_is_looked_at_before_what_is_asked(doors: Doors) -> None:
    for token, status in (("", 401), ("wrong", 401), (VIEWER, 403)):
        answer = doors.ask("POST", "/api/rollbacks", token, json={"modle": "tumour"})
        assert (answer.status_code, "modle" in told(answer)) == (status, False)
    assert told(doors.ask("GET", "/api/intents?last=0", VIEWER)).startswith("last: ")


def test_missing_and_wrong_tokens_are_counted_apart(doors: Doors) -> None:
    for headers in ({}, {"Authorization": f"Bearer {VIEWER}x"}, {"Authorization": f"Basic {VIEWER}"}):
        assert doors.ask("GET", "/api/overview", headers=headers).status_code == 401
    form = {"Origin": "http://agent", "Content-Type": "application/x-www-form-urlencoded"}
    assert doors.ask("POST", "/sign-in", content=b"token=", headers=form).status_code == 401
    doors.ask("POST", "/hooks/am", content=b"{}")
    doors.ask("POST", "/hooks/am", "wrong", content=b"{}")
    text = doors.ask("GET", "/metrics", VIEWER).text
    assert 'lockstep_sign_ins_total{result="missing"} 2.0' in text
    assert 'lockstep_sign_ins_total{result="wrong"} 2.0' in text
    assert 'lockstep_deliveries_total{result="unproved",source="am"} 1.0' in text
    assert 'lockstep_deliveries_total{result="forged",source="am"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("GET", "/hooks/am", 405, "send POST"),
        ("PUT", "/hooks/am", 405, "send POST"),
        ("POST", "/hooks/am/", 404, "leave the / at its end out"),
        ("POST", "/hooks", 404, "the source NAME of alerts.yaml posts to /hooks/NAME"),
        ("POST", "/hooks/nobody", 404, "the agent's log says more"),
        ("POST", "/hooks/am", 401, "the agent's log says more"),
        ("OPTIONS", "/hooks/am", 404, "a source of kind cloudevents has one"),
        ("GET", "/nothing", 404, "/openapi.json lists what there is"),
        ("GET", "/metrics/", 404, "leave the / at its end out"),
        ("DELETE", "/api/rollbacks", 405, "send POST"),
    ],
)
def test_a_wrong_door_says_where_the_right_one_is(doors: Doors, method: str, path: str, status: int, hint: str) -> None:
    answer = doors.ask(method, path)
    assert answer.status_code == status
    assert told(answer)
    assert answer.json()["hint"].startswith(hint)


def test_a_browser_gets_a_page_and_a_probe_may_ask_for_the_head_alone(doors: Doors) -> None:
    page = doors.ask("GET", "/nothing", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, "there is nothing at this address" in page.text) == (404, True)
    assert page.headers["Content-Type"].startswith("text/html")
    assert doors.ask("HEAD", "/healthz").status_code == 200
    assert doors.ask("HEAD", "/readyz").status_code == 503, "it was not started"


def test_the_document_names_one_shape_for_all_that_was_not_done(doors: Doors) -> None:
    document = doors.ask("GET", "/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    shape = answer["content"]["application/json"]["schema"]
                    assert shape == {"$ref": "#/components/schemas/Problem"}, (method, path, status)


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_signed_delivery_that_is_sent_again_is_answered_as_the_first_was(doors: Doors) -> None:
    sent = by_generic(GENUINE["generic"].body, at=time.time())
    first, again = doors.post("watch", sent), doors.post("watch", sent)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["intents"]
    assert first.json()["alerts"] == 2
    assert again.json() == {"intents": first.json()["intents"], "alerts": 0, "duplicates": 2}


def test_each_source_that_is_refused_is_named_with_its_reason(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lockstep.agent.hooks"):
        for _ in range(5):
            doors.ask("POST", "/hooks/am", "wrong", content=b"{}")
            doors.ask("POST", "/hooks/plain", content=b"{}")
            doors.ask("POST", "/hooks/watch", content=b"{}", headers={"X-Signature": "sha256=" + "0" * 64})
            doors.ask("POST", "/hooks/prometeus", TOKEN, content=b"{}")
    assert [record.getMessage().removeprefix("a delivery was refused: ") for record in caplog.records] == [
        "source am: the token or password is wrong (from 127.0.0.1)",
        "source plain: the token or password is missing: nothing in the header authorization (from 127.0.0.1)",
        "source watch: the time that should be signed, in the header x-time, is missing (from 127.0.0.1)",
        "there is no such source: 'prometeus' (there: am, plain, watch) (from 127.0.0.1)",
    ]


def test_a_status_that_is_no_known_word_is_taken_in_and_told(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"alarms": [{"key": "1", "state": "Wobbly", "what": "it wobbles"}]}).encode()
    with caplog.at_level(logging.WARNING, "lockstep.agent.hooks"):
        assert doors.ask("POST", "/hooks/plain", TOKEN, content=body).json()["alerts"] == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("an alert was taken in, but source plain: its status 'wobbly' is no word that is known")


def test_a_fault_of_ours_has_the_same_shape_and_is_logged(
    doors: Doors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(doors.agent.desk, "accepted", broken)
    monkeypatch.setattr(doors.agent.desk, "intents", broken)
    for answer in (doors.post("am", GENUINE["alertmanager"]), doors.ask("GET", "/api/intents", VIEWER)):
        assert (answer.status_code, told(answer)) == (500, "the agent failed at this by itself")
        assert "a fault of ours" not in answer.text
    assert "a delivery to am failed" in caplog.text


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_that(doors: Doors, body: bytes) -> None:
    answer = doors.ask("POST", "/hooks/am", TOKEN, content=body)
    assert (answer.status_code, told(answer)) == (422, "source am: the body is empty")
    assert answer.json()["hint"] == "it takes bodies of kind alertmanager: try one with lockstep alerts test FILE"
