"""Whatever is in a body: an alert, or AlertFormatError; bounded, printable, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.reading import (
    MAX_ALERTS,
    MAX_DEPTH,
    MAX_FIELD,
    MAX_FIELDS,
    MAX_ID,
    MAX_NAME,
    MAX_SEVERITY,
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    labels,
    moment,
    parse,
    seconds,
    text,
)
from lockstep.rules.alerts.sources import (
    alertmanager,
    azure_monitor,
    cloudevents,
    cloudwatch,
    datadog,
    eventbridge,
    generic,
    google_monitoring,
    google_pubsub,
    grafana,
    mlflow,
    opsgenie,
    pagerduty,
)
from tests.deliveries import VECTORS

MAPPED = generic.Mapped(id="id", title="a.b", alerts="/alarms", fields={"Model": "labels/model", "x": "/0/~1"})
READERS: dict[str, Callable[[object, str], tuple[Alert, ...]]] = {
    "alertmanager": alertmanager.read,
    "azure-monitor": azure_monitor.read,
    "cloudevents": cloudevents.read,
    "datadog": datadog.read,
    "eventbridge": eventbridge.read,
    "generic": partial(generic.read, where=MAPPED),
    "google-monitoring": google_monitoring.read,
    "google-pubsub": google_pubsub.read,
    "grafana": grafana.read,
    "mlflow": mlflow.read,
    "opsgenie": opsgenie.read,
    "pagerduty": pagerduty.read,
    "sns": cloudwatch.read,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def bodies(kind: str) -> list[object]:
    return [json.loads(path.read_bytes()) for path in sorted((VECTORS / kind).glob("*.json"))]


def places(document: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    if isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, (*path, index))
    return found


def read(kind: str, document: object) -> tuple[Alert, ...]:
    try:
        return READERS[kind](document, "here")
    except AlertFormatError:
        return ()


def check(alert: Alert) -> None:
    assert 0 < len(alert.id) <= MAX_ID
    assert 0 < len(alert.incident) <= MAX_ID
    assert len(alert.title) <= MAX_TITLE
    assert len(alert.text) <= MAX_TEXT
    assert len(alert.severity) <= MAX_SEVERITY
    assert 0 <= alert.at < 253402300800
    assert len(alert.fields) <= MAX_FIELDS
    for name, value in alert.fields.items():
        assert name == name.lower()
        assert len(name) <= MAX_NAME
        assert len(value) <= MAX_FIELD
    for told in (alert.id, alert.incident, alert.title, alert.text, *alert.fields, *alert.fields.values()):
        told.encode()
        assert "\x00" not in told


@pytest.mark.parametrize("kind", READERS)
@given(document=JSON)
@settings(max_examples=15)
def test_any_json_is_read_or_refused(kind: str, document: object) -> None:
    for alert in read(kind, document):
        check(alert)


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@settings(max_examples=30)
def test_a_documented_body_with_anything_in_one_place_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    document = data.draw(st.sampled_from(bodies(kind)))
    path = data.draw(st.sampled_from(places(document)))
    other = data.draw(JSON | st.sampled_from(["\ud800", "\x00", 10**39, -1, "x" * 600, "0" * 5000]))
    copy = json.loads(json.dumps(document))
    part = copy
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = other
    for alert in read(kind, copy):
        check(alert)


@given(st.binary(max_size=300) | JSON.map(lambda document: json.dumps(document).encode()))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        parse(body, "the body")
    except AlertFormatError:
        return


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=10), st.text(max_size=30), max_size=3))
def test_any_request_holds_a_cloud_event_or_is_refused(body: bytes, headers: dict[str, str]) -> None:
    for more in ({}, {"ce-specversion": "1.0"}, {"content-type": "application/cloudevents+json"}):
        try:
            found = cloudevents.read(cloudevents.document({**headers, **more}, body), "here")
        except AlertFormatError:
            continue
        for alert in found:
            check(alert)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
        b"{} {}",
        b"{'a': 1}",
    ],
)
def test_bodies_that_parsers_disagree_about_are_refused(body: bytes) -> None:
    with pytest.raises(AlertFormatError, match="the body"):
        parse(body, "the body")


def test_depth_is_bounded_and_no_less_than_promised() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "the body") is not None


def test_a_delivery_holds_so_many_alerts_and_no_more() -> None:
    body = json.loads((VECTORS / "alertmanager" / "firing.json").read_bytes())
    body["alerts"] = body["alerts"][:1] * MAX_ALERTS
    assert len(alertmanager.read(body, "here")) == MAX_ALERTS
    body["alerts"].append(body["alerts"][0])
    with pytest.raises(AlertFormatError, match=f"more than the {MAX_ALERTS}"):
        alertmanager.read(body, "here")


def test_long_texts_are_cut_with_a_mark() -> None:
    assert text("x" * 100, 10) == "x" * 9 + "…"
    assert text("a\x00b\ud800c\x1b[31m\n", 20) == "a�b�c�[31m"
    assert text("a\r\nBcc: x@y\u202e\u2028b\n", MAX_TITLE) == "a Bcc: x@y� b"
    assert text("first\r\nsecond\u2066", MAX_TEXT) == "first\r\nsecond�"
    assert (text(True), text(1.5), text(None), text([]), text({})) == ("true", "1.5", "", "", "")


def test_names_are_lower_case_and_dotted() -> None:
    assert labels({"A": {"B": 1, "C": [1, "x"], "D": [{"e": 1}], "F": None}}) == {"a.b": "1", "a.c": "1, x"}
    assert len(labels({str(n): n for n in range(10_000)})) == MAX_FIELDS


@given(st.lists(st.text(max_size=400), min_size=1, max_size=4), st.lists(st.text(max_size=400), min_size=1, max_size=4))
def test_other_parts_make_another_identifier(one: list[str], other: list[str]) -> None:
    assert (identity(*one) == identity(*other)) == (one == other)
    assert len(identity(*one)) <= MAX_ID


def test_an_identifier_that_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(AlertFormatError, match="more than"):
        alertmanager.read({"version": "4", "alerts": [{"status": "firing", "fingerprint": "f" * 600}]}, "here")


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        ("2026-11-20T08:16:01Z", 1795162561.0),
        ("2026-11-20T09:16:01+01:00", 1795162561.0),
        ("2026-11-20T08:16:01.000000000Z", 1795162561.0),
        ("2026-11-20T08:16:01.000+0000", 1795162561.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("9999-12-31T23:59:59-23:59", None),
        ("yesterday", 0.0),
        (1795162561, 0.0),
        (None, 0.0),
    ],
)
def test_moments(given: object, read_as: float | None) -> None:
    if read_as is None:
        assert moment(given) >= 0
    else:
        assert moment(given) == read_as


def test_numbers_of_seconds() -> None:
    assert (seconds(1795162561), seconds("1795162561000", 1000.0)) == (1795162561.0, 1795162561.0)
    assert (seconds("nan"), seconds(-1), seconds(True), seconds("x"), seconds(10**400), seconds("1e400")) == (0.0,) * 6
