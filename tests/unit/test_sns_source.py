"""SNS's messages: what the pinned host signed of the pinned topics is believed, and nothing that resembles it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.agent.authenticity.fetching import NotThereError
from lockstep.agent.sources import AlertFormatError, Delivery, ForgedError, Said, Source, open_source, read_unproved
from lockstep.errors import ConfigError, UnreachableError
from lockstep.rules.alerts.alert import Status
from tests.deliveries import ADAPTER, NOW, vector

TOPIC = "arn:aws:sns:eu-central-1:123456789012:lockstep"
HOST = "sns.eu-central-1.amazonaws.com"
CERTIFICATE = f"https://{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
SUBSCRIBE = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
AT = datetime.fromtimestamp(NOW, UTC)


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024 if name == "weak" else 2048)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate(
    name: str = "sns.amazonaws.com", signer: str = "self", public: str = "sns", days: tuple[int, int] = (-1, 30)
) -> x509.Certificate:
    """A certificate for the key `public`, signed by itself or by the authority `signer`."""
    issuer = named(name) if signer == "self" else named(signer)
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(issuer)
        .public_key(key(public).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT + timedelta(days=days[0]))
        .not_valid_after(AT + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                key(public if signer == "self" else signer).public_key()
            ),
            critical=False,
        )
        .sign(key(public if signer == "self" else signer), hashes.SHA256())
    )


def authority(name: str) -> x509.Certificate:
    public = key(name).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT - timedelta(days=10))
        .not_valid_after(AT + timedelta(days=300))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key(name), hashes.SHA256())
    )


def pem(*chain: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)


@dataclass
class Web:
    """What the pinned host would answer, and what it was asked."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False

    def fetching(self, ca_file: str | None) -> object:
        assert ca_file is None
        return self.fetch

    def fetch(self, address: str, timeout: float) -> bytes:
        self.asked.append(address)
        if self.down:
            raise UnreachableError("no answer")
        if address not in self.bodies:
            raise NotThereError("404")
        return self.bodies[address]


@pytest.fixture
def web() -> Web:
    return Web({CERTIFICATE: pem(certificate()), SUBSCRIBE: b"<ok/>"})


def source(web: Web, **more: object) -> Source:
    validated = ADAPTER.validate_python({"kind": "sns", "topics": [TOPIC], **more})
    return open_source("here", validated, lambda ca_file: web.fetch)


def message(kind: str = "Notification", version: str = "1", signer: str = "sns", **values: object) -> dict[str, object]:
    """A message of SNS, signed after `values` were put in; the vector's alarm by default."""
    document: dict[str, object] = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Timestamp": "2026-11-20T08:16:36.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
    }
    if kind == "Notification":
        document |= {"Subject": "ALARM: tumour-errors", "Message": vector("sns/alarm.json").decode()}
    else:
        document |= {"Message": "You have chosen to subscribe.", "SubscribeURL": SUBSCRIBE, "Token": "abc"}
    document |= values
    signed = {
        "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    }.get(kind, ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"))
    content = "".join(f"{name}\n{document[name]}\n" for name in signed if document.get(name) is not None)
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
    signature = key(signer).sign(content.encode(), padding.PKCS1v15(), algorithm)
    return {**document, "Signature": base64.b64encode(signature).decode()}


def receive(opened: Source, document: Mapping[str, object], at: float = NOW) -> Said:
    # The headers that SNS sends name the type and topic once more, unsigned: they must not count.
    headers = [(b"x-amz-sns-message-type", b"Notification"), (b"x-amz-sns-topic-arn", TOPIC.encode())]
    return opened.receive(Delivery.of(headers, json.dumps(document).encode(), b"", "192.0.2.1", at))


def refused(web: Web, document: Mapping[str, object], at: float = NOW, **more: object) -> str:
    with pytest.raises(ForgedError) as error:
        receive(source(web, **more), document, at)
    return str(error.value)


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_alarm_that_is_signed_is_believed(web: Web, version: str) -> None:
    (alert,) = receive(source(web), message(version=version)).alerts
    assert (alert.status, alert.title) == (Status.FIRING, "tumour-errors")
    assert alert.fields["dimensions.endpointname"] == "tumour"
    assert alert.fields["dimensions.variantname"] == "blue"
    assert alert.incident.endswith(":alarm:tumour-errors")
    assert web.asked == [CERTIFICATE]


def test_the_certificate_is_fetched_once(web: Web) -> None:
    opened = source(web)
    for name in "abc":
        receive(opened, message(MessageId=name))
    web.down = True
    assert receive(opened, message(MessageId="d")).alerts
    assert web.asked == [CERTIFICATE]


def test_a_message_without_a_subject_is_signed_without_it(web: Web) -> None:
    assert receive(source(web), message(Subject=None)).alerts
    document = message()
    del document["Subject"]
    assert "wrong" in refused(web, document)


@pytest.mark.parametrize("name", ["sns/composite.json", "sns/metric-math.json", "eventbridge/endpoint-failed.json"])
def test_other_alarms_and_events_over_a_topic(web: Web, name: str) -> None:
    (alert,) = receive(source(web), message(Message=vector(name).decode())).alerts
    assert alert.title
    if name == "sns/metric-math.json":
        assert alert.fields["dimensions.endpointname"] == "tumour"


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", '{"AlarmName": "x"}', "{" * 9999, '{"a":1,"a":2}'])
def test_a_genuine_message_that_is_no_alarm_is_unreadable(web: Web, text: str) -> None:
    with pytest.raises(AlertFormatError):
        receive(source(web), message(Message=text))


def test_an_alarm_without_data_is_no_alert(web: Web) -> None:
    alarm = {**json.loads(vector("sns/alarm.json")), "NewStateValue": "INSUFFICIENT_DATA"}
    assert receive(source(web), message(Message=json.dumps(alarm))).alerts == ()


def test_a_replay_comes_to_nothing_and_an_old_message_is_refused(web: Web) -> None:
    opened = source(web)
    first = receive(opened, message())
    assert receive(opened, message()).alerts == first.alerts
    opened.settled(first)
    assert receive(opened, message()).alerts == ()
    assert "ago" in refused(web, message(), at=NOW + 2 * 3600)
    assert "ago" in refused(web, message(Timestamp="soon"))


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Signature"])
def test_every_signed_part_counts(web: Web, name: str) -> None:
    values: tuple[object, ...] = ("changed", "", None, 5, [], {"a": 1})
    for value in values:
        refused(web, {**message(), name: value})
    document = message()
    del document[name]
    refused(web, document)


def test_a_topic_of_another_account_is_refused_before_anything_is_fetched(web: Web) -> None:
    for topic in (TOPIC.replace("123456789012", "999999999999"), TOPIC + "x", TOPIC.upper()):
        assert "topic" in refused(web, message(TopicArn=topic))
    assert web.asked == []


HOSTILE = [
    "http://" + CERTIFICATE.removeprefix("https://"),
    CERTIFICATE.replace(HOST, "evil.example"),
    CERTIFICATE.replace(HOST, f"{HOST}.evil.example"),
    CERTIFICATE.replace(HOST, f"evil.{HOST}"),
    CERTIFICATE.replace(HOST, "sns.us-east-1.amazonaws.com"),
    CERTIFICATE.replace(HOST, f"{HOST}@evil.example"),
    CERTIFICATE.replace(HOST, f"evil.example@{HOST}"),
    CERTIFICATE.replace(HOST, f"{HOST}:8443"),
    CERTIFICATE.replace(HOST, f"{HOST}\\@evil.example"),
    CERTIFICATE.replace(HOST, f"{HOST}%2eevil.example"),
    CERTIFICATE.replace(HOST, f"evil.example#{HOST}"),
    CERTIFICATE.replace(HOST, f"evil.example?{HOST}"),
    CERTIFICATE.replace(HOST, HOST.upper()),
    CERTIFICATE.replace(HOST, HOST.replace("sns", "ѕns")),
    CERTIFICATE.replace("https://", "https:///"),
    CERTIFICATE.replace("https", "HTTPS"),
    " " + CERTIFICATE,
    CERTIFICATE + "\n",
    CERTIFICATE + "?x",
    CERTIFICATE + "#x",
    CERTIFICATE.replace("/Simple", "/../Simple"),
    CERTIFICATE.replace("/Simple", "/uploads/Simple"),
    CERTIFICATE.replace(".pem", ".txt"),
    f"https://{HOST}/SimpleNotificationService-.pem",
    f"https://{HOST}",
    "",
    None,
    5,
]


@pytest.mark.parametrize("address", HOSTILE)
def test_a_certificate_from_elsewhere_is_not_fetched(web: Web, address: object) -> None:
    web.bodies[str(address)] = pem(certificate(public="evil"))
    refused(web, message(SigningCertURL=address, signer="evil"))
    assert web.asked == []


@pytest.mark.parametrize("address", [str(one).replace(CERTIFICATE, SUBSCRIBE) for one in HOSTILE[:18]])
def test_a_confirmation_elsewhere_is_neither_offered_nor_fetched(web: Web, address: str) -> None:
    hostile = address.replace(
        "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem", SUBSCRIBE.partition(HOST)[2]
    )
    assert "confirmation" in refused(web, message("SubscriptionConfirmation", SubscribeURL=hostile))
    with pytest.raises(ForgedError):
        source(web).confirm(hostile, 3.0)
    assert hostile not in web.asked


@pytest.mark.parametrize(
    "query",
    [
        "Action=DeleteTopic&TopicArn={topic}",
        "Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-central-1:999999999999:lockstep&Token=abc",
        "Action=ConfirmSubscription&Action=DeleteTopic&TopicArn={topic}",
        "Action=ConfirmSubscription&TopicArn={topic}&TopicArn=arn:aws:sns:eu-central-1:999999999999:x",
        "Action=ConfirmSubscription",
        "",
    ],
)
def test_a_confirmation_does_nothing_else(web: Web, query: str) -> None:
    address = f"https://{HOST}/?{query.format(topic=TOPIC)}"
    refused(web, message("SubscriptionConfirmation", SubscribeURL=address))


def test_a_subscription_is_confirmed_at_the_pinned_host(web: Web) -> None:
    opened = source(web)
    said = receive(opened, message("SubscriptionConfirmation"))
    assert (said.alerts, said.confirm) == ((), SUBSCRIBE)
    opened.confirm(said.confirm, 3.0)
    assert web.asked[-1] == SUBSCRIBE
    web.down = True
    with pytest.raises(UnreachableError):
        opened.confirm(said.confirm, 3.0)


def test_an_unsubscription_is_not_undone_by_itself(web: Web) -> None:
    said = receive(source(web), message("UnsubscribeConfirmation"))
    assert (said.alerts, said.confirm) == ((), "")


def test_a_confirmation_must_be_signed(web: Web) -> None:
    document = message("SubscriptionConfirmation", signer="evil")
    assert "wrong" in refused(web, document)
    # Signed as a notification, it must not pass as a confirmation.
    refused(web, {**message(), "Type": "SubscriptionConfirmation", "SubscribeURL": SUBSCRIBE, "Token": "abc"})


def test_versions_of_signatures_can_be_pinned(web: Web) -> None:
    assert "version" in refused(web, message(version="1"), versions=["2"])
    assert receive(source(web, versions=["2"]), message(version="2")).alerts
    assert "wrong" in refused(web, {**message(version="2"), "SignatureVersion": "1"})
    for version in ("3", 1, None):
        assert "version" in refused(web, {**message(), "SignatureVersion": version})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (lambda: pem(certificate(days=(-30, -1))), "not valid"),
        (lambda: pem(certificate(days=(1, 30))), "not valid"),
        (lambda: pem(certificate(name="sns.evil.example")), "another name"),
        (lambda: pem(certificate(public="weak")), "2048"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (lambda: b"<html>", "no certificate"),
        (lambda: pem(certificate(public="evil")), "wrong"),
    ],
)
def test_a_certificate_that_is_not_sns_own_is_refused(web: Web, body: object, why: str) -> None:
    assert callable(body)
    web.bodies[CERTIFICATE] = body()
    assert why in refused(web, message())


def test_a_certificate_that_is_not_there_is_no_reason_to_try_again(web: Web) -> None:
    web.bodies.clear()
    assert "no such certificate" in refused(web, message())


def test_a_host_that_does_not_answer_is_and_a_flood_asks_it_only_so_often(web: Web) -> None:
    web.down = True
    opened = source(web)
    for number in range(50):
        address = CERTIFICATE.replace("0123", f"{number:04}")
        with pytest.raises(UnreachableError):
            receive(opened, message(SigningCertURL=address))
    assert len(web.asked) <= 12


def test_the_chain_is_followed_to_the_configured_authority(web: Web, tmp_path: Path) -> None:
    for name in ("root", "other"):
        (tmp_path / f"{name}.pem").write_bytes(pem(authority(name)))
    web.bodies[CERTIFICATE] = pem(certificate(signer="root"))
    assert receive(source(web, signing_ca_file=str(tmp_path / "root.pem")), message()).alerts
    assert "authority" in refused(web, message(), signing_ca_file=str(tmp_path / "other.pem"))
    web.bodies[CERTIFICATE] = pem(certificate())
    assert "authority" in refused(web, message(), signing_ca_file=str(tmp_path / "root.pem"))


def test_authorities_that_cannot_be_read_are_told_at_the_start(web: Web, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="signing_ca_file"):
        source(web, signing_ca_file=str(tmp_path / "none.pem"))


def test_a_key_of_another_kind_is_refused(web: Web) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(named("sns.amazonaws.com"))
        .issuer_name(named("sns.amazonaws.com"))
        .public_key(elliptic.public_key())
        .serial_number(5)
        .not_valid_before(AT - timedelta(days=1))
        .not_valid_after(AT + timedelta(days=1))
        .sign(elliptic, hashes.SHA256())
    )
    web.bodies[CERTIFICATE] = pem(made)
    assert "RSA" in refused(web, message())


def test_the_pinned_host_is_that_of_the_topics_region() -> None:
    for topic, host in {
        TOPIC: HOST,
        "arn:aws-cn:sns:cn-north-1:123456789012:x": "sns.cn-north-1.amazonaws.com.cn",
        "arn:aws-us-gov:sns:us-gov-west-1:123456789012:x": "sns.us-gov-west-1.amazonaws.com",
    }.items():
        assert ADAPTER.validate_python({"kind": "sns", "topics": [topic]}).pinned_host == host  # type: ignore[union-attr]


@given(st.dictionaries(st.sampled_from(list(message())), st.none() | st.text(max_size=20) | st.integers(), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_message_that_was_touched_yields_an_alert(web: Web, values: dict[str, object]) -> None:
    genuine = message()
    touched = {**genuine, **values}
    signed = {name: value for name, value in touched.items() if name not in ("SignatureVersion", "SigningCertURL")}
    if signed == {name: genuine[name] for name in signed}:
        return
    refused(web, touched)


def test_a_sample_is_read_with_what_is_around_it_and_without() -> None:
    settings = ADAPTER.validate_python({"kind": "sns", "topics": [TOPIC]})
    for body in (json.dumps(message()).encode(), vector("sns/alarm.json")):
        said = read_unproved("here", settings, Delivery({}, body, {}, "", NOW))
        assert [alert.title for alert in said.alerts] == ["tumour-errors"]
