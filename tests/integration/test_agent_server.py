"""The agent over HTTP: who is let in, what a hook answers, and what attackers get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from lockstep.agent import inbox
from lockstep.agent.access import FREE
from lockstep.agent.connections import PromptProtocol
from lockstep.agent.headers import POLICY
from lockstep.agent.limits import Bounds
from lockstep.agent.server import listen
from lockstep.errors import ConfigError, RejectedError
from lockstep.operations.approving import Question
from lockstep.operations.canary import canary_deploy
from lockstep.operations.hold import find_hold, hold, release
from lockstep.rules.approval import Word
from lockstep.rules.event_names import APPROVAL_WANTED
from tests.integration.agents import (
    ALERTS,
    APPROVER,
    HOOK,
    OPERATOR,
    TIMEOUT,
    TOKENS,
    VIEWER,
    Running,
    running_agent,
)
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import ROLLOUT
from tests.integration.test_outbox import NEW, listening

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def agent(two_versions: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bounds = Bounds(body=100_000, seconds=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptProtocol, "head_seconds", 1.0)
        with running_agent(two_versions, tmp_path_factory.mktemp("agent"), bounds=bounds) as running:
            yield running


def alert(model: str, name: str = "Slow", number: int = 0, status: str = "firing") -> dict[str, object]:
    """A delivery of Alertmanager, version 4."""
    one = {
        "status": status,
        "labels": {"alertname": name, "model": model},
        "annotations": {"summary": "answers are slow"},
        "startsAt": f"2026-11-23T10:00:{number:02d}Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://169.254.169.254/latest/meta-data",
        "fingerprint": f"{number:016x}",
    }
    return {
        "version": "4",
        "groupKey": "{}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "lockstep",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://169.254.169.254/",
        "alerts": [one],
    }


def post(agent: Running, body: object, token: str = HOOK, source: str = "prometheus") -> requests.Response:
    return agent.ask("POST", f"/hooks/{source}", token, json=body)


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_genuine_alert_is_kept_before_it_is_answered(agent: Running) -> None:
    answer = post(agent, alert(agent.model, number=1))
    assert answer.status_code == 202, answer.text
    said = answer.json()
    assert said["alerts"] == 1
    (intent,) = said["intents"]
    again = post(agent, alert(agent.model, number=1)).json()
    assert (again["alerts"], again["duplicates"]) == (0, 1)
    told = agent.get(f"/api/intents/{intent}", VIEWER).json()
    assert (told["model"], told["action"]) == (agent.model, "notify")
    assert [one["id"] for one in agent.get("/api/intents", VIEWER).json()].count(intent) == 1


def test_what_is_not_genuine_gets_one_answer_whatever_is_wrong_with_it(agent: Running) -> None:
    body = alert(agent.model, number=2)
    answers = [post(agent, body, token) for token in ("", "wrong", HOOK + "x", HOOK[:-1], OPERATOR)]
    answers.append(agent.ask("POST", "/hooks/prometheus", headers={"Authorization": "Basic !!!"}, data=b"\xff"))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert HOOK not in answers[0].text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff\xfe", b'{"version":"3"}', b"[" * 50_000, b'{"a":' * 9_000, b"null", b"1e999"]
)
def test_what_is_genuine_and_unreadable_is_refused(agent: Running, body: bytes) -> None:
    answer = agent.ask("POST", "/hooks/prometheus", HOOK, data=body)
    assert answer.status_code in (400, 422), answer.text


def test_other_sources_methods_and_paths(agent: Running) -> None:
    assert post(agent, {}, source="nobody").status_code == 404
    assert agent.ask("POST", "/hooks/..%2f..%2fetc%2fpasswd", HOOK).status_code == 404
    assert agent.ask("POST", "/hooks/prometheus%0d%0aSet-Cookie:%20x=1", HOOK).headers.get("Set-Cookie") is None
    assert agent.ask("POST", "/hooks/prometheus/", HOOK).status_code == 404
    assert agent.get("/hooks/prometheus", HOOK).status_code == 405
    assert agent.ask("OPTIONS", "/hooks/prometheus").status_code == 404
    assert agent.ask("OPTIONS", "/hooks/nobody").status_code == 404


def test_nothing_that_an_alert_names_is_fetched(agent: Running) -> None:
    seen = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(1.0)
        port = trap.getsockname()[1]
        body = alert(agent.model, number=3)
        body["externalURL"] = f"http://127.0.0.1:{port}/"
        assert post(agent, body).status_code == 202
        try:
            trap.accept()
            seen.set()
        except TimeoutError:
            pass
    assert not seen.is_set()


# -- limits ------------------------------------------------------------------------------------------------------------


def raw(agent: Running, *parts: bytes) -> bytes:
    """Send bytes as they are, and give back all that comes until the connection is closed."""
    host = urlsplit(agent.base)
    with socket.create_connection((host.hostname, host.port), timeout=TIMEOUT) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found


HEAD = b"POST /hooks/prometheus HTTP/1.1\r\nHost: agent\r\n"


def test_a_huge_body_is_refused(agent: Running) -> None:
    assert agent.ask("POST", "/hooks/prometheus", HOOK, data=b"x" * 300_000).status_code == 413
    chunks = (b"x" * 10_000 for _ in range(40))
    assert agent.ask("POST", "/hooks/prometheus", HOOK, data=chunks).status_code == 413


def test_slow_senders_are_given_up(agent: Running) -> None:
    assert b" 408 " in raw(agent, HEAD + b"Content-Length: 100\r\n\r\n{")
    assert raw(agent, b"POST /hooks/prometheus HTTP/1.1\r\nX-Slow: ") == b""
    assert raw(agent) == b""
    host = urlsplit(agent.base)
    with socket.create_connection((host.hostname, host.port), timeout=TIMEOUT) as kept:
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok\n"):
            answer += kept.recv(65536)
        kept.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        with contextlib.suppress(ConnectionResetError):
            assert kept.recv(65536) == b""


def test_what_is_no_http_is_refused(agent: Running) -> None:
    assert raw(agent, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b" 400 " in raw(agent, HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")
    assert b" 400 " in raw(agent, HEAD + b"X: " + b"a" * 70_000)
    answer = raw(agent, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1] in (b"303", b"400")


def test_one_place_that_floods_is_told_to_wait(two_versions: Deployed, tmp_path: Path) -> None:
    with running_agent(two_versions, tmp_path, bounds=Bounds(rate=0.01, burst=3), prove_every=0) as flooded:
        answers = [post(flooded, alert(flooded.model, number=number)) for number in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1


# -- people and programs -----------------------------------------------------------------------------------------------


def test_roles_may_do_what_is_theirs(agent: Running) -> None:
    assert agent.get("/api/overview", VIEWER).status_code == 200
    asked = {"model": "no-such-model", "reason": "a test"}
    for token, status in (("", 401), ("wrong", 401), (VIEWER, 403), (OPERATOR, 404), (APPROVER, 404)):
        answer = agent.ask("POST", "/api/rollbacks", token, json=asked)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "hint"})
    for path in ("/api/overview", "/api/intents", "/api/intents/x", "/metrics"):
        assert agent.get(path).status_code == 401
        assert agent.get(path).headers["WWW-Authenticate"].startswith("Bearer")
    assert agent.get("/healthz").text == "ok\n"
    assert agent.get("/readyz").json() == {"ready": True, "problems": {}}


def test_the_overview_says_what_serves_and_that_it_was_proved(agent: Running, deployed: Deployed) -> None:
    found = agent.get("/api/overview", VIEWER).json()["models"][agent.model]
    assert found["champion"] == {"version": deployed.v2.label, "digest": deployed.v2.digest}
    assert set(found["clouds"]) == set(deployed.clouds)
    for cloud in found["clouds"].values():
        serving = [(slot["digest"], slot["weight"]) for slot in cloud["slots"] if slot["weight"]]
        assert serving == [(deployed.v2.digest, 100)]
        assert (cloud["proved"], cloud["fallback_warm"], cloud["problem"]) == ("verified", True, "")
    assert found["way_back"]["digest"] == deployed.v1.digest


def test_metrics_tell_of_alerts_and_intents(agent: Running) -> None:
    post(agent, alert(agent.model, number=4))
    post(agent, {}, "wrong")
    text = agent.get("/metrics", VIEWER).text
    assert 'lockstep_alerts_total{result="new",source="prometheus"}' in text
    assert 'lockstep_deliveries_total{result="forged",source="prometheus"}' in text
    assert f'lockstep_clouds_out_of_step{{model="{agent.model}"}} 0.0' in text
    assert 'lockstep_intents{state="notified"}' in text or 'lockstep_intents{state="accepted"}' in text
    for name in ("lockstep_overview_age_seconds", "lockstep_dead_letters", "lockstep_rollback_seconds"):
        assert name in text


def test_a_rollback_over_the_api_is_done_on_every_cloud(agent: Running, deployed: Deployed) -> None:
    asked = {"model": agent.model, "reason": "answers are wrong", "leaving": deployed.v2.digest}
    answer = agent.ask("POST", "/api/rollbacks", OPERATOR, json=asked)
    assert answer.status_code == 202, answer.text
    found = ended(agent, answer.json()["id"])
    assert found["state"] == "done", found
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    again = ended(agent, agent.ask("POST", "/api/rollbacks", OPERATOR, json=asked).json()["id"])
    assert deployed.answers() == deployed.everywhere(deployed.v1), again  # what was to be left is left already


def test_after_a_rollback_by_an_alert_the_digest_is_verified_at_once(deployed: Deployed, tmp_path: Path) -> None:
    rule = {"when": {"alertname": "Slow"}, "model": "{model}", "action": "rollback"}
    with running_agent(deployed, tmp_path, {**ALERTS, "rules": [rule]}, refresh_every=3600.0) as agent:
        (intent,) = post(agent, alert(agent.model)).json()["intents"]
        assert ended(agent, intent)["state"] == "done"
        v1 = {"version": deployed.v1.label, "digest": deployed.v1.digest}
        for _ in range(600):  # no look comes by itself
            found = agent.get("/api/overview", VIEWER).json()["models"][agent.model]
            if found["champion"] == v1 and all(one["proved"] == "verified" for one in found["clouds"].values()):
                return
            threading.Event().wait(0.1)
    raise AssertionError(found)


def test_a_cloud_that_could_not_follow_is_shown_with_its_reason(agent: Running, deployed: Deployed) -> None:
    with deployed.control.during("gcp", "down"):
        asked = {"model": agent.model, "reason": "answers are wrong"}
        found = ended(agent, agent.ask("POST", "/api/rollbacks", OPERATOR, json=asked).json()["id"])
        assert found["state"] == "split", found
        shown = overview(agent, "SPLIT")
        assert "it could not follow" in shown["clouds"]["gcp"]["split"]
        assert "the next try is due at " in shown["clouds"]["gcp"]["split"]
        page = agent.signed_in(VIEWER).get(f"{agent.base}/", timeout=TIMEOUT).text
        assert "<strong>SPLIT</strong>: it could not follow" in page
        assert f'lockstep_clouds_out_of_step{{model="{agent.model}"}} 1.0' in agent.get("/metrics", VIEWER).text
    deployed.restore()
    assert overview(agent, "in step")["champion"]["digest"] == deployed.v2.digest


def overview(agent: Running, state: str) -> Any:
    """The model as the overview shows it, once it is in that state."""
    pause = threading.Event()
    for _ in range(600):
        found = agent.get("/api/overview", VIEWER).json()["models"][agent.model]
        if found["state"] == state:
            return found
        pause.wait(0.1)
    raise AssertionError(f"{agent.model} is not {state}: {found}")


def ended(agent: Running, intent: str) -> dict[str, object]:
    """The intent once it has ended."""
    pause = threading.Event()
    for _ in range(600):
        found: dict[str, object] = agent.get(f"/api/intents/{intent}", VIEWER).json()
        if not found["open"]:
            return found
        pause.wait(0.1)
    raise AssertionError(f"the intent has not ended: {found}")


# -- the page ----------------------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers(agent: Running) -> None:
    for path in ("/", "/sign-in", "/api/overview", "/nothing", "/hooks/nobody", "/static/page.css"):
        headers = agent.get(path).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")
        assert "server" not in headers


def test_nobody_sees_the_page_without_signing_in(agent: Running) -> None:
    for path in ("/", f"/models/{agent.model}", "/intents", f"/models/{agent.model}/rollback"):
        answer = agent.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/sign-in?next={path}")
    part = agent.get("/parts/models", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["HX-Redirect"]) == (401, "/sign-in")
    assert agent.get("/", headers={"Cookie": "lockstep_session=guessed"}).status_code == 303
    evil = agent.get("/sign-in?next=//evil.example/%22%3E%3Cscript%3E")
    assert "evil.example" not in evil.text


def test_the_session_is_a_cookie_that_no_script_and_no_other_site_gets(agent: Running) -> None:
    answer = agent.ask("POST", "/sign-in", data={"token": VIEWER, "next": "/intents"}, headers={"Origin": agent.base})
    assert answer.headers["Location"] == "/intents"
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age="))
    assert VIEWER not in cookie
    session = agent.signed_in(VIEWER)
    csrf = csrf_of(session.get(f"{agent.base}/", timeout=TIMEOUT))
    session.post(f"{agent.base}/sign-out", {"csrf": csrf}, timeout=TIMEOUT)
    assert session.get(f"{agent.base}/", timeout=TIMEOUT).url.endswith("/sign-in?next=/")


def test_another_sites_page_cannot_press_the_button(agent: Running, deployed: Deployed) -> None:
    session = agent.signed_in(OPERATOR)
    page = f"{agent.base}/models/{agent.model}/rollback"
    csrf = csrf_of(session.get(page, timeout=TIMEOUT))
    assert csrf
    form = {"reason": "pressed", "csrf": csrf}
    other = agent.signed_in(OPERATOR)
    refused = [
        session.post(page, form, headers={"Origin": "https://evil.example"}, timeout=TIMEOUT),
        session.post(page, form, headers={"Origin": "null"}, timeout=TIMEOUT),
        session.post(page, form, headers={"Origin": None, "Referer": "https://evil.example/"}, timeout=TIMEOUT),
        session.post(page, form, headers={"Origin": None}, timeout=TIMEOUT),
        session.post(page, form, headers={"Sec-Fetch-Site": "cross-site"}, timeout=TIMEOUT),
        session.post(page, {**form, "csrf": ""}, timeout=TIMEOUT),
        session.post(page, {**form, "csrf": csrf[:-1]}, timeout=TIMEOUT),
        other.post(page, form, timeout=TIMEOUT),
        session.post(page, json=form, timeout=TIMEOUT),
        session.post(page, files={"reason": "pressed", "csrf": csrf}, timeout=TIMEOUT),
    ]
    assert {answer.status_code for answer in refused} == {403}
    assert session.get(page, timeout=TIMEOUT).status_code == 200  # looking at it does nothing
    viewer = agent.signed_in(VIEWER)
    assert viewer.get(page, timeout=TIMEOUT).status_code == 403
    mine = csrf_of(viewer.get(f"{agent.base}/", timeout=TIMEOUT))
    assert viewer.post(page, {**form, "csrf": mine}, timeout=TIMEOUT).status_code == 403
    with_no_reason = session.post(page, {**form, "reason": " "}, timeout=TIMEOUT)
    assert (with_no_reason.status_code, "the reason is empty" in with_no_reason.text) == (422, True)
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_a_plan_that_was_not_shown_is_not_begun(agent: Running, deployed: Deployed) -> None:
    session = agent.signed_in(OPERATOR)
    page = f"{agent.base}/models/{agent.model}"
    plan = session.get(f"{page}/plan", timeout=TIMEOUT).text
    assert f'name="leaving" value="{deployed.v2.digest}"' in plan
    assert f'name="shown" value="{deployed.v1.digest}:{deployed.v2.digest}"' in plan
    csrf = csrf_of(session.get(f"{page}/rollback", timeout=TIMEOUT))
    form = {"csrf": csrf, "reason": "pressed", "leaving": deployed.v2.digest}
    intents = [one["id"] for one in agent.get("/api/intents", VIEWER).json()]
    for shown in ("", f"{deployed.v1.digest}:{deployed.v1.digest}", f"{deployed.v2.digest}:{deployed.v1.digest}"):
        answer = session.post(f"{page}/rollback", {**form, "shown": shown}, timeout=TIMEOUT, allow_redirects=False)
        assert answer.status_code == 409
        assert "not the one that you were shown" in answer.text
        assert f'name="shown" value="{deployed.v1.digest}:{deployed.v2.digest}"' in answer.text, "the new one"
        assert ">pressed</textarea>" in answer.text
    assert [one["id"] for one in agent.get("/api/intents", VIEWER).json()] == intents
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_a_hold_is_shown_and_released_by_an_approver_alone(agent: Running, deployed: Deployed) -> None:
    hold(deployed.fleet, "a test holds it")
    page = f"{agent.base}/models/{agent.model}"
    try:
        for token, status in ((OPERATOR, 403), (APPROVER, 303)):
            session = agent.signed_in(token)
            csrf = csrf_of(session.get(f"{agent.base}/", timeout=TIMEOUT))
            form = {"csrf": csrf, "reason": "it is settled"}
            answer = session.post(f"{page}/release", form, timeout=TIMEOUT, allow_redirects=False)
            assert answer.status_code == status
            assert (find_hold(deployed.fleet) is None) == (status == 303)
    finally:
        release(deployed.fleet, "the test is over")
    newest = deployed.fleet.ledger.entries(agent.model, "hold.released", last=1)[0]
    assert (newest.actor, newest.body["reason"]) == ("anna", "it is settled")
    assert counted_since(agent, newest.at) == newest.at, "rollbacks before it hold the model no more"


def counted_since(agent: Running, at: float) -> float:
    """Since when the agent counts the model's rollbacks, once it has seen what was done at that time."""
    pause, found = threading.Event(), 0.0
    for _ in range(600):
        with agent.agent.desk._database.reading() as connection:
            found = inbox.released_at(connection, agent.model)
        if found >= at:
            break
        pause.wait(0.1)
    return found


def test_an_approval_that_is_wanted_is_shown_and_told_once(deployed: Deployed, tmp_path: Path) -> None:
    rollout = {**ROLLOUT, "approval": "before-start", "approval_seconds": 600}
    link, answered = "https://prefect.example/runs/flow-run/1", threading.Event()
    fleet = replace(deployed.changed(fleets__default__rollout=rollout), link=link, via="Prefect flow run 1")

    def ask(question: Question) -> Word:
        assert answered.wait(TIMEOUT)
        return Word(False, "Ada", "not today")

    def approvals(agent: Running, count: int) -> list[dict[str, object]]:
        """Those of the overview, once there are so many: it is looked at anew every second."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            found = agent.get("/api/overview", VIEWER).json()["models"][agent.model]["approvals"]
            if len(found) == count:
                return list(found)
            assert time.monotonic() < deadline, found

    with listening() as heard, ThreadPoolExecutor(1) as pool:
        told = {"url": heard.url, "secrets": [NEW], "events": ["lockstep.approval.*"]}
        rollout_of_v3 = pool.submit(canary_deploy, fleet, deployed.v3, approver=ask)
        try:
            with running_agent(deployed, tmp_path, prove_every=0, webhooks=[told]) as agent:
                (shown,) = approvals(agent, 1)
                heard.wait(1)
                page = agent.signed_in(VIEWER).get(f"{agent.base}/models/{agent.model}", timeout=TIMEOUT).text
                assert f'href="{link}"' in page
            with running_agent(deployed, tmp_path, prove_every=0, webhooks=[told]) as agent:
                assert approvals(agent, 1) == [shown]
                assert agent.agent.desk.backlog()["waiting_notices"] == 0, "it was told before"
                answered.set()
                assert approvals(agent, 0) == []
        finally:
            answered.set()
        assert isinstance(rollout_of_v3.exception(TIMEOUT), RejectedError)
    content = json.loads(heard.requests[0][2])
    assert len(heard.requests) == 1
    assert content["type"] == APPROVAL_WANTED
    data = content["data"]
    assert (data["model"], data["version"], data["gate"]) == (deployed.model, deployed.v3.label, "before-start")
    assert (data["until"], data["link"]) == (shown["until"], link)
    assert link in data["text"]
    assert "May Lockstep start the rollout of" in data["text"]


def csrf_of(answer: requests.Response) -> str:
    """The token against forged forms that a page holds."""
    return answer.text.partition('name="csrf" value="')[2].partition('"')[0]


def test_guessing_tokens_is_stopped(two_versions: Deployed, tmp_path: Path) -> None:
    with running_agent(two_versions, tmp_path, prove_every=0) as guessed:
        statuses = [
            guessed.get(
                "/api/overview", f"guess-{number}", headers={"X-Forwarded-For": f"10.0.0.{number}"}
            ).status_code  # which is believed of no one but a proxy that is configured
            for number in range(FREE + 2)
        ]
        assert statuses == [401] * FREE + [429] * 2
        locked = guessed.ask("POST", "/sign-in", data={"token": OPERATOR}, headers={"Origin": guessed.base})
        assert locked.status_code == 429
        assert int(locked.headers["Retry-After"]) >= 1
        assert guessed.get("/healthz").status_code == 200
        assert post(guessed, alert(guessed.model)).status_code == 202  # alerts still come in


def test_html_in_an_alert_is_shown_as_text(agent: Running) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    body = alert(agent.model, number=5)
    body["alerts"][0]["labels"]["job"] = evil  # type: ignore[index]
    body["alerts"][0]["annotations"]["summary"] = evil  # type: ignore[index]
    assert post(agent, body).status_code == 202
    session = agent.signed_in(VIEWER)
    for path in ("/", "/intents", f"/models/{agent.model}", "/parts/models", f"/models/{evil}", f"/intents/{evil}"):
        text = session.get(agent.base + path, timeout=TIMEOUT).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


# -- the command -------------------------------------------------------------------------------------------------------


def test_no_answer_waits_for_an_acknowledgement_of_its_first_half() -> None:
    """asyncio sends small writes at once on what it knows to be TCP."""

    async def accepted() -> int:
        delays: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ours = writer.get_extra_info("socket")
            delays.set_result(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                return await delays
            finally:
                writer.close()

    assert asyncio.run(accepted()) != 0


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            listen("127.0.0.1", port)
    assert str(refused.value) == f"the agent cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "--port" in refused.value.hint


def test_a_file_of_alerts_that_was_chosen_must_be_there(two_versions: Deployed, tmp_path: Path) -> None:
    settings = {"port": 0, "alerts": str(tmp_path / "alarms.yaml"), "inbox": str(tmp_path / "inbox.db")}
    config = two_versions.configured(tmp_path / "lockstep.yaml", agent=settings)
    ended = lockstep("agent", config=config)
    assert ended.status == 3
    assert "alarms.yaml cannot be read" in ended.err.replace("\n", " ")
    assert "agent.alerts" in ended.err


def test_only_the_agent_needs_its_tokens(two_versions: Deployed, tmp_path: Path) -> None:
    tokens = {"alice": {"role": "operator", "token": "${TOKEN_OF_NOBODY}"}}
    config = two_versions.configured(tmp_path / "lockstep.yaml", agent={"port": 0, "tokens": tokens})
    ended = lockstep("agent", config=config)
    assert (ended.status, "TOKEN_OF_NOBODY is not set" in ended.err.replace("\n", " ")) == (3, True)
    planned = lockstep("rollback", two_versions.model, "--dry-run", config=config)
    assert "TOKEN_OF_NOBODY" not in planned.out + planned.err
    assert planned.status == 0


def test_the_command_answers_and_ends_by_a_signal(two_versions: Deployed, tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(ALERTS))
    settings = {
        "port": 0,
        "tokens": TOKENS,
        "alerts": str(tmp_path / "alerts.yaml"),
        "inbox": str(tmp_path / "inbox.db"),
    }
    config = two_versions.configured(tmp_path / "lockstep.yaml", agent=settings, state=str(tmp_path / "state"))
    command = [sys.executable, "-m", "lockstep.cli", "--config", str(config), "agent", "--json"]
    environment = {**os.environ, "HOOK_TOKEN": HOOK}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("}"):
                    break
            said = json.loads("".join(lines))
            assert requests.get(f"{said['address']}/healthz", timeout=TIMEOUT).text == "ok\n"
            assert said["sources"] == ["prometheus"]
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert process.returncode == 0, told
    assert HOOK not in told
