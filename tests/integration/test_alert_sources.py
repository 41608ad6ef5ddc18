"""Sources against the sandbox's own CloudWatch and SNS, and what is fetched over TLS, by configuration only."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from lockstep.agent.authenticity.fetching import Kept, NotThereError, over_tls
from lockstep.agent.sources import Delivery, ForgedError, Said, Source, open_source
from lockstep.errors import UnreachableError
from lockstep.rules.alerts.alert import Status
from tests.contract.aws_account import Account
from tests.contract.sns_receiver import Received, Receiver, receiving
from tests.deliveries import ADAPTER, OLD_SECRET, SECRET, opened
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="module")
def account(sandbox: RunningSandbox) -> Iterator[Account]:
    account = Account(sandbox.settings["aws"])
    yield account
    account.clean()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def topic(account: Account) -> Iterator[str]:
    sns = account.client("sns")
    made: str = sns.create_topic(Name=account.name("topic"))["TopicArn"]
    yield made
    sns.delete_topic(TopicArn=made)


def sns_source(account: Account, topic: str, **more: Any) -> Source:
    settings = {
        "kind": "sns",
        "topics": [topic],
        "host": account.settings["sns_certificate_host"],
        "ca_file": account.settings["ca_file"],
        "timeout": 30.0,
        **more,
    }
    return open_source("alarms", ADAPTER.validate_python(settings))


def heard(source: Source, received: Received) -> Said:
    headers = [(name.encode(), value.encode()) for name, value in received.headers.items()]
    return source.receive(Delivery.of(headers, received.body, b"", "127.0.0.1", time.time()))


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_alarm_of_the_sandbox_reaches_a_source(
    sandbox: RunningSandbox, account: Account, receiver: Receiver, topic: str, version: str
) -> None:
    sns, cloudwatch, path = account.client("sns"), account.client("cloudwatch"), f"/{account.name('hook')}"
    sns.set_topic_attributes(TopicArn=topic, AttributeName="SignatureVersion", AttributeValue=version)
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=receiver.url + path)
    source = sns_source(account, topic, versions=[version], signing_ca_file=account.settings["ca_file"])
    asked = heard(source, receiver.wait(path, "SubscriptionConfirmation")[0])
    assert asked.alerts == ()
    source.confirm(asked.confirm, 30.0)
    name = account.name("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace=name,
        MetricName="errors",
        Dimensions=[{"Name": "EndpointName", "Value": "tumour"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=2.0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    try:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="the test says so")
        told = receiver.wait(path, "Notification")[0]
    finally:
        cloudwatch.delete_alarms(AlarmNames=[name])
    (alert,) = heard(source, told).alerts
    assert (alert.status, alert.title, alert.text) == (Status.FIRING, name, "the test says so")
    assert alert.fields["dimensions.endpointname"] == "tumour"
    elsewhere = sns_source(account, topic.rpartition(":")[0] + ":another")
    with pytest.raises(ForgedError, match="topic"):
        heard(elsewhere, told)
    other_host = sns_source(account, topic, host="sns.eu-central-1.amazonaws.com", ca_file=None)
    with pytest.raises(ForgedError, match="pinned host"):
        heard(other_host, told)


def test_what_mlflow_itself_sends_is_believed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.webhooks.delivery import test_webhook

    # Else MLflow sends to public hosts and over TLS only.
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    event = WebhookEvent(WebhookEntity.MODEL_VERSION_TAG, WebhookAction.SET)
    webhook = Webhook("1", "lockstep", receiver.url + "/mlflow", [event], 0, 0, secret=SECRET)
    sent = test_webhook(webhook, event)
    assert sent.success, sent.error_message
    (received,) = receiver.wait("/mlflow")
    source = opened(kind="mlflow", secrets=[OLD_SECRET, SECRET])
    (alert,) = heard(source, received).alerts
    assert (alert.fields["entity"], alert.fields["action"]) == ("model_version_tag", "set")
    with pytest.raises(ForgedError, match="wrong"):
        heard(opened(kind="mlflow", secrets=[OLD_SECRET]), received)


class Answers(http.server.BaseHTTPRequestHandler):
    """A server of keys that behaves badly on some paths."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        match self.path:
            case "/keys":
                self._say(200, b"the keys")
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/keys")
                self.end_headers()
            case "/huge":
                self._say(200, b"x" * 400_000)
            case "/drops":
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"x")
            case "/trickle":
                self._trickle()
            case "/failing":
                self._say(503, b"")
            case _:
                self._say(404, b"")

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3000000")
        self.end_headers()
        for _ in range(300):
            try:
                self.wfile.write(b"x" * 100)
                self.wfile.flush()
            except OSError:
                return
            threading.Event().wait(0.05)

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output."""


@contextmanager
def serving(authority: trustme.CA, name: str) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Answers,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope="module")
def server(authority: trustme.CA) -> Iterator[tuple[str, list[str]]]:
    with serving(authority, "127.0.0.1") as started:
        yield started


def test_keys_are_fetched_from_a_trusted_server_only(server: tuple[str, list[str]], ca_file: str) -> None:
    address, asked = server
    assert over_tls(ca_file)(f"{address}/keys", 30.0) == b"the keys"
    before = len(asked)
    with pytest.raises(UnreachableError, match="SSLError"):
        over_tls(None)(f"{address}/keys", 30.0)
    assert len(asked) == before


def test_a_certificate_for_another_name_is_not_trusted(authority: trustme.CA, ca_file: str) -> None:
    with serving(authority, "keys.example") as (address, asked):
        with pytest.raises(UnreachableError):
            over_tls(ca_file)(f"{address}/keys", 30.0)
        assert asked == []


@pytest.mark.parametrize("path", ["/moved", "/huge", "/drops", "/trickle", "/failing"])
def test_bad_answers_are_no_keys(server: tuple[str, list[str]], ca_file: str, path: str) -> None:
    address, asked = server
    del asked[:]
    with pytest.raises(UnreachableError) as error:
        over_tls(ca_file)(address + path, 1.0 if path == "/trickle" else 30.0)
    assert not isinstance(error.value, NotThereError)
    assert asked == [path]


def test_what_is_not_there_and_who_is_not_there_are_two_things(server: tuple[str, list[str]], ca_file: str) -> None:
    address, _ = server
    with pytest.raises(NotThereError):
        over_tls(ca_file)(f"{address}/none?token=secret", 30.0)
    with pytest.raises(UnreachableError) as error:
        over_tls(ca_file)("https://127.0.0.1:1/keys?token=secret", 30.0)
    assert not isinstance(error.value, NotThereError)
    assert "secret" not in str(error.value)


def test_threads_that_ask_at_the_same_time_fetch_once(server: tuple[str, list[str]], ca_file: str) -> None:
    address, asked = server
    del asked[:]
    kept = Kept(over_tls(ca_file), 30.0, keep=600.0)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(kept.get(f"{address}/keys"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [b"the keys"] * 8
    assert asked == ["/keys"]
