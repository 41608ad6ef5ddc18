"""Deliveries that are not from whom they say: none of them yields an alert, and none is told more than that."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lockstep.agent.authenticity.seen import Seen
from lockstep.agent.delivery import Before, UnprovedError
from lockstep.agent.sources import AlertFormatError, Delivery, ForgedError
from lockstep.agent.written_secrets import written_secrets
from tests.deliveries import (
    ADAPTER,
    GENUINE,
    MAPPING,
    NOW,
    OLD_SECRET,
    SECRET,
    TOKEN,
    Sent,
    base_64,
    by_generic,
    by_grafana,
    by_mlflow,
    by_pagerduty,
    by_token,
    hexadecimal,
    opened,
    vector,
)

SIGNED: dict[str, Callable[..., Sent]] = {
    "grafana": by_grafana,
    "pagerduty": by_pagerduty,
    "mlflow": by_mlflow,
    "generic": by_generic,
}
SIGNATURES = {
    "grafana": "X-Grafana-Alerting-Signature",
    "pagerduty": "X-PagerDuty-Signature",
    "mlflow": "X-MLflow-Signature",
    "generic": "X-Signature",
}
TIMES = {"grafana": "X-Grafana-Alerting-Timestamp", "mlflow": "X-MLflow-Timestamp", "generic": "X-Time"}


def refused(sent: Sent) -> str:
    with pytest.raises(ForgedError) as error:
        sent.source().receive(sent.delivery())
    assert TOKEN not in str(error.value)
    assert SECRET not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", GENUINE)
def test_a_delivery_without_any_proof_is_told_apart_from_one_with_a_wrong_one(kind: str) -> None:
    sent = replace(GENUINE[kind], headers={"Content-Type": "application/cloudevents+json"}, query="")
    with pytest.raises(UnprovedError) as error:
        sent.source().receive(sent.delivery())
    header = SIGNATURES.get(kind) or ("X-Api-Key" if kind == "eventbridge" else "Authorization")
    assert header.lower() in str(error.value), "it says where the proof should stand"
    wrong = replace(GENUINE[kind], headers={**sent.headers, header: "Bearer 1"}, query="")
    with pytest.raises(ForgedError) as forged:
        wrong.source().receive(wrong.delivery())
    assert not isinstance(forged.value, UnprovedError)


@pytest.mark.parametrize("kind", SIGNED)
def test_a_body_that_was_changed_is_forged(kind: str) -> None:
    refused(replace(GENUINE[kind], body=GENUINE[kind].body + b" "))


@pytest.mark.parametrize("kind", SIGNED)
def test_a_signature_cut_short_lengthened_or_of_another_secret_is_forged(kind: str) -> None:
    name, genuine = SIGNATURES[kind], GENUINE[kind]
    signature = genuine.headers[name]
    for wrong in (signature[:-1], signature[:-2], signature + "0", "", signature[::-1], signature[:-1] + "\u00e9"):
        refused(genuine.with_header(name, wrong))
    for place in range(len(signature) // 2, len(signature) - 2, 7):
        other = "1" if signature[place] == "0" else "0"
        refused(genuine.with_header(name, signature[:place] + other + signature[place + 1 :]))
    refused(SIGNED[kind](genuine.body, secret="another-secret-of-32-characters!"))


@pytest.mark.parametrize("kind", SIGNED)
def test_the_secret_that_is_being_replaced_is_believed(kind: str) -> None:
    sent = SIGNED[kind](GENUINE[kind].body, secret=OLD_SECRET)
    assert sent.source().receive(sent.delivery()).alerts


@pytest.mark.parametrize("kind", SIGNED)
def test_a_genuine_delivery_that_comes_late_or_early_is_refused(kind: str) -> None:
    for seconds in (-3700.0, 3700.0):
        assert "ago" in refused(replace(GENUINE[kind], at=NOW + seconds))


@pytest.mark.parametrize("kind", TIMES)
def test_the_time_is_signed_and_must_be_one(kind: str) -> None:
    for time in (str(int(NOW) + 1), "", "now", "-5", "1e9", "NaN", "９" * 10, "9" * 400):
        refused(GENUINE[kind].with_header(TIMES[kind], time.encode("utf-8").decode("latin-1")))
    refused(GENUINE[kind].without(TIMES[kind]))


@pytest.mark.parametrize("kind", SIGNED)
def test_what_was_taken_in_comes_to_nothing_when_it_is_replayed(kind: str) -> None:
    source, delivery = GENUINE[kind].source(), GENUINE[kind].delivery()
    first = source.receive(delivery)
    # Until it is durable the vendor's retry must still count: our first answer may have been a 503.
    assert source.receive(delivery).alerts == first.alerts
    source.settled(first, ["an-intent"])
    again = source.receive(delivery)
    assert (again.alerts, again.before) == ((), Before(("an-intent",), len(first.alerts)))


def test_deliveries_without_a_signed_name_are_not_remembered() -> None:
    source, delivery = GENUINE["alertmanager"].source(), GENUINE["alertmanager"].delivery()
    source.settled(source.receive(delivery))
    assert source.receive(delivery).alerts


def test_grafana_without_a_timestamp_header_signs_the_body_alone() -> None:
    body = vector("grafana/firing.json")
    settings = {"kind": "grafana", "secrets": [SECRET], "timestamp_header": None}
    sent = Sent(settings, body, {"X-Grafana-Alerting-Signature": hexadecimal(body)})
    assert sent.source().receive(sent.delivery()).alerts
    # Where the source asks for a time, a signature over the body alone is not enough.
    refused(
        replace(sent, settings={"kind": "grafana", "secrets": [SECRET]}).with_header(TIMES["grafana"], str(int(NOW)))
    )


def test_mlflows_identifier_cannot_swallow_the_time() -> None:
    body = vector("mlflow/tag-set.json")
    time = str(int(NOW))
    sent = by_mlflow(body).with_header("X-MLflow-Delivery-Id", f"a.{time}")
    refused(sent.with_header("X-MLflow-Signature", f"v1,{base_64(f'a.{time}.{time}.'.encode() + body)}"))
    refused(by_mlflow(body).with_header("X-MLflow-Signature", by_mlflow(body).headers["X-MLflow-Signature"][3:]))


def test_a_signature_of_another_source_is_of_no_use() -> None:
    other = replace(GENUINE["grafana"], settings={"kind": "grafana", "secrets": ["the-secret-of-another-grafana"]})
    refused(other)


def test_a_token_counts_only_where_it_belongs() -> None:
    genuine = GENUINE["alertmanager"]
    for header in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ", ""):
        refused(genuine.with_header("Authorization", header))
    refused(replace(genuine.without("Authorization"), query=f"token={TOKEN}"))
    refused(GENUINE["eventbridge"].with_header("X-Api-Key", "").with_header("Authorization", f"Bearer {TOKEN}"))
    lower = genuine.without("Authorization").with_header("authorization", f"bearer {TOKEN}")
    assert lower.source().receive(lower.delivery()).alerts


def test_headers_and_parameters_that_stand_twice_match_nothing() -> None:
    genuine = GENUINE["alertmanager"]
    raw = [(b"Authorization", f"Bearer {TOKEN}".encode()), (b"authorization", b"Bearer something-else")]
    for headers in (raw, raw[::-1], [raw[0], raw[0]]):
        twice = Delivery.of(headers, genuine.body, b"", "192.0.2.1", NOW)
        with pytest.raises(ForgedError):
            genuine.source().receive(twice)
    azure = GENUINE["azure-monitor"]
    refused(replace(azure, query=f"token={TOKEN}&token={TOKEN}"))
    refused(replace(azure, query="&".join(f"a{n}=1" for n in range(40)) + f"&token={TOKEN}"))


def test_basic_authentication_compares_user_and_password() -> None:
    def encoded(pair: str) -> str:
        return "Basic " + base64.b64encode(pair.encode()).decode()

    genuine = GENUINE["opsgenie"]
    for pair in (f"opsgenie:{SECRET}x", f"Opsgenie:{SECRET}", "opsgenie:", ":", f":{SECRET}", SECRET, ""):
        refused(genuine.with_header("Authorization", encoded(pair)))
    for header in ("Basic", "Basic ???", "Basic " + "=" * 9, encoded(f"opsgenie:{SECRET}")[:-3]):
        refused(genuine.with_header("Authorization", header))


def test_the_body_is_not_even_parsed_before_it_is_believed() -> None:
    for kind in SIGNED:
        refused(replace(GENUINE[kind], body=b"\xff{not json"))
    refused(replace(GENUINE["alertmanager"], body=b"{", headers={}))


@given(
    st.sampled_from(sorted(GENUINE)),
    st.binary(max_size=200),
    st.dictionaries(st.text(max_size=20), st.text(max_size=60), max_size=4),
)
def test_no_one_without_the_secret_gets_an_alert_in(kind: str, body: bytes, headers: dict[str, str]) -> None:
    names = list(GENUINE[kind].headers)
    raw = [(name.encode(), value.encode()) for name, value in zip(names, headers.values(), strict=False)]
    raw += [(name.encode(), value.encode()) for name, value in headers.items()]
    with pytest.raises(ForgedError):
        GENUINE[kind].source().receive(Delivery.of(raw, body, b"token=x", "192.0.2.1", NOW))


@given(st.binary(max_size=300))
def test_genuine_garbage_is_unreadable_and_nothing_worse(body: bytes) -> None:
    for sent in (by_grafana(body), by_pagerduty(body), by_mlflow(body), by_generic(body), by_token("datadog", body)):
        with pytest.raises(AlertFormatError):
            sent.source().receive(sent.delivery())


def test_a_source_that_anyone_could_be_is_not_configured() -> None:
    for settings in (
        {"kind": "alertmanager"},
        {"kind": "alertmanager", "tokens": []},
        {"kind": "alertmanager", "tokens": [""]},
        {"kind": "alertmanager", "tokens": ["short"]},
        {"kind": "grafana", "secrets": []},
        {"kind": "generic", "mapping": MAPPING},
        {"kind": "azure-monitor"},
        {"kind": "sns", "topics": []},
        {"kind": "sns", "topics": ["lockstep"]},
        {"kind": "sns", "topics": [f"arn:aws:sns:{r}:123456789012:x" for r in ("eu-west-1", "eu-west-2")]},
        {"kind": "google-pubsub", "audience": "a", "service_accounts": ["x@y"], "jwks": "http://keys.example/"},
        {"kind": "google-pubsub", "audience": "a", "service_accounts": []},
    ):
        with pytest.raises(ValidationError):
            ADAPTER.validate_python(settings)


def test_secrets_are_in_no_representation() -> None:
    for sent in GENUINE.values():
        settings = ADAPTER.validate_python(sent.settings)
        for text in (repr(settings), str(settings), settings.model_dump_json(), repr(sent.source().__dict__)):
            assert TOKEN not in text
            assert SECRET not in text
    with pytest.raises(ValidationError) as error:
        ADAPTER.validate_python({"kind": "grafana", "secrets": [SECRET], "secret": SECRET + "!"})
    assert all(SECRET not in found["msg"] for found in error.value.errors())  # what a configuration's error tells


def test_a_secret_written_out_is_found() -> None:
    raw = {
        "prom": {"kind": "alertmanager", "tokens": ["${PROM_TOKEN}", "in-the-clear"]},
        "ops": {"kind": "opsgenie", "basic": [{"user": "ops", "password": "in-the-clear"}]},
        "pd": {"kind": "pagerduty", "secrets": ["${A}"]},
    }
    assert list(written_secrets(raw)) == [("prom", "tokens", 1), ("ops", "basic", 0, "password")]


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen(keep=60.0, most=3)
    for name in "abcde":
        seen.add(name)
    assert [name for name in "abcde" if seen.find(name) is not None] == ["c", "d", "e"]
    forgetful = Seen(keep=0.0)
    forgetful.add("a")
    assert forgetful.find("a") is None


def test_opened_sources_know_their_kind() -> None:
    assert opened(kind="alertmanager", tokens=[TOKEN]).kind == "alertmanager"
