"""What others are told, over real HTTP on this machine: signed, tried again, put aside; nobody waits for another."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook as Checker
from standardwebhooks.webhooks import WebhookVerificationError

from lockstep.agent import inbox, outbox
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Notice, Receiver, of_question
from lockstep.agent.notices import receivers
from lockstep.agent.outbox import Outbox
from lockstep.agent.prefect_events import PrefectEvents
from lockstep.agent.webhooks import Webhook
from lockstep.agent_settings import AgentSettings, NotifySettings, WebhookSettings
from lockstep.errors import CloudRejectedError, RetryLaterError, UnreachableError
from lockstep.rules.event_names import ALERT_RECEIVED, ROLLBACK_COMPLETED
from lockstep.rules.waiting import Waiting

OLD, NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_b2xkZXItdGhhbi10aGUtb3RoZXItb25l"
NOTICE = Notice(
    *(ROLLBACK_COMPLETED, "churn: rolled back", "churn 7 serves", "churn", 1_700_000_000.0),
    data={"target": "7", "reason": "<b>ü</b>"},
)
SOON = 60.0


@dataclass
class Heard:
    """A server of this test: `answers` are its next statuses, 200 once they are used up."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= count, SOON), self.requests


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as found:
        yield found


@contextmanager
def listening() -> Iterator[Heard]:
    """The server, until the end of the block."""
    found = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status = found.answers.pop(0) if found.answers else 200
            with found.came:
                found.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                found.came.notify_all()
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"{found.url}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def webhook(url: str, *secrets: str, **rest: object) -> Webhook:
    given = {"url": url, "secrets": [SecretStr(one) for one in secrets or (NEW,)], **rest}
    return Webhook(WebhookSettings.model_validate(given))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[GroupCommit]:
    made = GroupCommit(tmp_path / "inbox.db", inbox.SCHEMA)
    yield made
    made.close()


# -- one receiver ------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_as_standard_webhooks_checks_it(heard: Heard) -> None:
    webhook(heard.url, OLD, NEW).send(NOTICE)
    path, headers, body = heard.requests[0]
    assert path in ("", "/")
    for secret in (OLD, NEW):  # both, while one is replaced by the other
        assert Checker(secret).verify(body, headers) == json.loads(body)
    content = json.loads(body)
    assert (content["type"], content["timestamp"]) == (ROLLBACK_COMPLETED, "2023-11-14T22:13:20Z")
    assert content["data"]["reason"] == "<b>ü</b>"
    with pytest.raises(WebhookVerificationError):
        Checker(NEW).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Checker(NEW).verify(body, {**headers, "webhook-timestamp": "1"})


def test_a_redirect_is_not_followed(heard: Heard) -> None:
    heard.answers = [302]
    with pytest.raises(RetryLaterError, match="302"):
        webhook(heard.url).send(NOTICE)
    assert len(heard.requests) == 1


def test_who_is_gone_is_not_asked_again(heard: Heard) -> None:
    heard.answers = [410]
    with pytest.raises(CloudRejectedError):
        webhook(heard.url).send(NOTICE)


def test_an_address_with_a_token_is_not_told_in_names(heard: Heard) -> None:
    found = webhook("https://hooks.example/T0KEN/secret")
    assert "T0KEN" not in found.name
    people = receivers(
        AgentSettings(notify=NotifySettings(addresses=(SecretStr("json://user:T0KEN@127.0.0.1:1/x"),))), {}
    )
    assert [one.name.startswith("people json ") and "T0KEN" not in one.name for one in people] == [True]


def test_prefect_takes_an_event_of_the_model(heard: Heard) -> None:
    PrefectEvents(f"{heard.url}/api", {"PREFECT_API_KEY": "key"}).send(NOTICE)
    path, headers, body = heard.requests[0]
    assert (path, headers["authorization"]) == ("/api/events", "Bearer key")
    (event,) = json.loads(body)
    assert (event["event"], event["id"]) == (ROLLBACK_COMPLETED, NOTICE.id)
    assert event["resource"]["prefect.resource.id"] == "lockstep.model.churn"
    assert event["payload"]["target"] == "7"


def test_prefect_is_told_of_an_approval_by_the_run_that_wants_it_or_else_by_the_agent(heard: Heard) -> None:
    asked = Waiting("q", "churn", "3", "c" * 64, "before-start", "May it?", (), 1.0, 2.0)
    prefect = PrefectEvents(heard.url, {})
    assert prefect.wants(of_question(asked))
    assert not prefect.wants(of_question(replace(asked, via="Prefect flow run deploy churn 3 (1)")))
    assert (
        of_question(asked).id
        == of_question(replace(asked, told=("more",))).id
        != of_question(replace(asked, id="r")).id
    )


def test_people_are_told_through_apprise_and_some_only_of_what_is_urgent(heard: Heard) -> None:
    address = SecretStr(heard.url.replace("http://", "json://"))
    settings = AgentSettings(notify=NotifySettings(addresses=(address,), urgent=(address,)))
    everything, on_call = receivers(settings, {})
    assert (everything.wants(NOTICE), on_call.wants(NOTICE)) == (True, False)
    assert not everything.wants(Notice(ALERT_RECEIVED, "", "", "churn", 1.0))
    urgent = Notice(*(NOTICE.event, NOTICE.title, NOTICE.text, "churn", 1.0), urgent=True)
    assert on_call.wants(urgent)
    on_call.send(urgent)
    content = json.loads(heard.requests[0][2])
    assert content["title"] == "[a person must look] churn: rolled back"
    assert content["message"] == "churn 7 serves"
    heard.answers = [500]
    with pytest.raises(RetryLaterError):
        on_call.send(urgent)


# -- the outbox --------------------------------------------------------------------------------------------------------


@dataclass
class Hanging:
    """A receiver that never answers until the test ends."""

    name: str = "hanging"
    over: threading.Event = field(default_factory=threading.Event)

    def wants(self, notice: Notice) -> bool:
        return True

    def send(self, notice: Notice) -> None:
        self.over.wait(SOON)
        raise UnreachableError("no answer")


def running(database: GroupCommit, *told: Receiver, backoff: tuple[float, ...] = (0.0, 0.0)) -> Outbox:
    made = Outbox(database, told, backoff=backoff)
    made.start()
    return made


def put(database: GroupCommit, notice: Notice, *told: Receiver) -> None:
    database.write(lambda connection: outbox.put(connection, notice, told))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def waiting(database: GroupCommit) -> int:
    with database.reading() as connection:
        return inbox.backlog(connection)["waiting_notices"]


def test_a_dead_receiver_keeps_nobody_waiting_and_what_fails_is_sent_again(database: GroupCommit, heard: Heard) -> None:
    hanging, hook = Hanging(), webhook(heard.url)
    heard.answers = [500, 503]
    put(database, NOTICE, hanging, hook)
    put(database, NOTICE, hook)  # once, whoever puts it in twice
    sending = running(database, hanging, hook)
    heard.wait(3)
    until(lambda: waiting(database) == 1)
    assert {headers["webhook-id"] for _, headers, _ in heard.requests} == {NOTICE.id}
    hanging.over.set()
    sending.stop(SOON)


def test_what_nothing_helps_is_put_aside_and_can_be_sent_again(database: GroupCommit, heard: Heard) -> None:
    hook = webhook(heard.url)
    heard.answers = [500, 500, 500]
    put(database, NOTICE, hook)
    sending = running(database, hook)
    until(lambda: waiting(database) == 0)
    with database.reading() as connection:
        (dead,) = outbox.dead_letters(connection)
    assert (dead.receiver, dead.attempts, dead.notice) == (hook.name, 3, NOTICE)
    assert dead.error.endswith("answered 500")
    assert database.write(lambda connection: outbox.send_again(connection, time.time())) == 1
    sending.wake()
    heard.wait(4)
    until(lambda: waiting(database) == 0)
    with database.reading() as connection:
        assert outbox.dead_letters(connection) == ()
    sending.stop(SOON)


def test_what_was_not_sent_before_a_kill_is_sent_after_it(database: GroupCommit, heard: Heard) -> None:
    hook = webhook(heard.url)
    put(database, NOTICE, hook)
    database.close()
    again = GroupCommit(database.path, inbox.SCHEMA)
    sending = running(again, hook)
    heard.wait(1)
    sending.stop(SOON)
    again.close()
