"""What each vendor's documented body comes to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lockstep.agent.sources import AlertFormatError
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.sources.generic import FIRING, RESOLVED, status_of
from tests.deliveries import (
    GENUINE,
    MAPPING,
    NOW,
    TOKEN,
    Sent,
    by_generic,
    by_mlflow,
    by_pagerduty,
    by_token,
    changed,
    opened,
    vector,
)


def heard(sent: Sent) -> tuple[Alert, ...]:
    return sent.source().receive(sent.delivery()).alerts


def only(sent: Sent) -> Alert:
    (alert,) = heard(sent)
    return alert


def with_body(kind: str, body: bytes) -> Sent:
    return replace(GENUINE[kind], body=body)


@pytest.mark.parametrize("kind", GENUINE)
def test_every_documented_body_is_an_alert_of_its_source(kind: str) -> None:
    first, *_ = heard(GENUINE[kind])
    assert first.source == "here"
    assert first.id
    assert first.incident
    assert first.title
    assert first.status is Status.FIRING
    assert "tumour" in {first.title, *first.fields.values()}
    assert 1795160000 < first.at < 1795170000


def test_alertmanagers_entries_are_alerts_of_their_own() -> None:
    first, second = heard(GENUINE["alertmanager"])
    assert (first.status, first.severity) == (Status.FIRING, "critical")
    assert first.title == "tumour answers with errors"
    assert (first.fields["labels.model"], first.fields["labels.cloud"]) == ("tumour", "aws")
    assert first.at == pytest.approx(1795162502.145839)
    assert second.status is Status.RESOLVED
    assert first.incident != second.incident


def test_the_same_alert_has_the_same_id_and_its_next_time_another() -> None:
    body = json.loads(GENUINE["alertmanager"].body)
    again = only_ids(heard(with_body("alertmanager", json.dumps(body).encode())))
    assert again == only_ids(heard(GENUINE["alertmanager"]))
    body["alerts"][0]["startsAt"] = "2026-11-21T08:15:02Z"
    later = heard(with_body("alertmanager", json.dumps(body).encode()))
    assert later[0].id != again[0]
    assert later[0].incident == heard(GENUINE["alertmanager"])[0].incident


def only_ids(alerts: tuple[Alert, ...]) -> list[str]:
    return [alert.id for alert in alerts]


def test_grafana_tells_what_was_measured() -> None:
    alert = only(GENUINE["grafana"])
    assert alert.fields["values.b"] == "44.23943737541908"
    assert alert.fields["labels.cloud"] == "google"
    assert alert.fields["organisation"] == "1"


def test_an_endpoint_back_in_service_resolves_its_failure() -> None:
    failed = only(GENUINE["eventbridge"])
    assert (failed.fields["endpoint"], failed.fields["labels.lockstep-model"]) == ("tumour", "tumour")
    assert failed.text == "The container did not pass the ping health check."
    well = only(with_body("eventbridge", vector("eventbridge/endpoint-in-service.json")))
    assert (well.status, well.incident, well.at) == (Status.RESOLVED, failed.incident, 1795163889.05)


def test_an_endpoint_that_is_being_updated_is_no_alert() -> None:
    assert (
        heard(with_body("eventbridge", changed(GENUINE["eventbridge"].body, detail__EndpointStatus="UPDATING"))) == ()
    )


def test_eventbridge_delivers_alarms_too() -> None:
    alarm = only(with_body("eventbridge", vector("eventbridge/alarm.json")))
    assert (alarm.status, alarm.fields["dimensions.endpointname"]) == (Status.FIRING, "tumour")


def test_an_account_that_is_not_pinned_is_not_read() -> None:
    with pytest.raises(AlertFormatError, match="account"):
        heard(with_body("eventbridge", changed(GENUINE["eventbridge"].body, account="999999999999")))


def test_azures_dimensions_and_custom_properties_are_fields() -> None:
    alert = only(GENUINE["azure-monitor"])
    assert (alert.severity, alert.fields["labels.model"]) == ("Sev1", "tumour")
    assert alert.fields["dimensions.deployment"] == "blue"
    assert alert.fields["essentials.configurationitems"] == "tumour"
    over = changed(GENUINE["azure-monitor"].body, data__essentials__monitorCondition="Resolved")
    resolved = only(with_body("azure-monitor", over))
    assert (resolved.status, resolved.incident) == (Status.RESOLVED, alert.incident)
    assert resolved.id != alert.id


def test_azures_older_schemas_are_told_apart() -> None:
    with pytest.raises(AlertFormatError, match="common alert schema"):
        heard(with_body("azure-monitor", b'{"schemaId": "AzureMonitorMetricAlert", "data": {}}'))


def test_googles_incident_opens_and_closes() -> None:
    opened_ = only(GENUINE["google-monitoring"])
    assert (opened_.severity, opened_.at) == ("Critical", 1795162561.0)
    assert (opened_.fields["labels.model"], opened_.fields["resource.labels.endpoint_id"]) == ("tumour", "4711")
    closed = only(with_body("google-monitoring", changed(GENUINE["google-monitoring"].body, incident__state="closed")))
    assert (closed.status, closed.incident) == (Status.RESOLVED, opened_.incident)


def test_googles_test_message_is_no_alert() -> None:
    assert heard(with_body("google-monitoring", b'{"incident": {"incident_id": "12345"}, "version": "test"}')) == ()


@pytest.mark.parametrize(
    ("transition", "status", "severity"),
    [
        ("Triggered", Status.FIRING, "P1"),
        ("Re-Triggered", Status.FIRING, "P1"),
        ("Warn", Status.FIRING, "warning"),
        ("Recovered", Status.RESOLVED, "P1"),
    ],
)
def test_datadogs_transitions(transition: str, status: Status, severity: str) -> None:
    alert = only(with_body("datadog", changed(GENUINE["datadog"].body, transition=transition)))
    assert (alert.status, alert.severity) == (status, severity)
    assert (alert.fields["labels.model"], alert.fields["labels.version"]) == ("tumour", "7")


def test_a_monitor_without_data_is_no_alert() -> None:
    assert heard(with_body("datadog", changed(GENUINE["datadog"].body, transition="No Data"))) == ()


def test_pagerdutys_incident_is_resolved_and_other_events_say_nothing() -> None:
    alert = only(GENUINE["pagerduty"])
    assert (alert.severity, alert.fields["service"], alert.fields["key"]) == ("P1", "tumour", "tumour/7")
    body = vector("pagerduty/triggered.json")
    over = only(by_pagerduty(changed(body, event__event_type="incident.resolved", event__id="x")))
    assert (over.status, over.incident) == (Status.RESOLVED, alert.incident)
    assert heard(by_pagerduty(changed(body, event__event_type="incident.acknowledged"))) == ()
    again = only(by_pagerduty(changed(body, event__event_type="incident.reopened", event__id="y")))
    assert over.at == alert.at < again.at, "no firing that its end overtook"


def test_opsgenies_alert_is_closed_and_a_note_says_nothing() -> None:
    alert = only(GENUINE["opsgenie"])
    assert (alert.fields["labels.model"], alert.fields["labels.cloud"]) == ("tumour", "azure")
    closed = only(with_body("opsgenie", changed(GENUINE["opsgenie"].body, action="Close")))
    assert (closed.status, closed.incident) == (Status.RESOLVED, alert.incident)
    assert heard(with_body("opsgenie", changed(GENUINE["opsgenie"].body, action="AddNote"))) == ()


def test_a_cloud_event_says_the_same_in_its_three_modes() -> None:
    structured = only(GENUINE["cloudevents"])
    event = json.loads(vector("cloudevents/structured.json"))
    headers = {f"ce-{name}": value for name, value in event.items() if name not in ("data", "datacontenttype")}
    binary = replace(GENUINE["cloudevents"], body=json.dumps(event["data"]).encode()).with_header(
        "Content-Type", "application/json"
    )
    for name, value in headers.items():
        binary = binary.with_header(name, value)
    assert replace(only(binary), fields={}) == replace(structured, fields={})
    assert only(binary).fields["data.model"] == structured.fields["data.model"] == "tumour"
    batch = replace(GENUINE["cloudevents"], body=json.dumps([event]).encode()).with_header(
        "Content-Type", "application/cloudevents-batch+json"
    )
    assert only(batch) == structured


def test_cloud_events_of_resolved_types_and_of_no_type_that_counts() -> None:
    sent = replace(
        by_token("cloudevents", vector("cloudevents/batch.json")),
        settings={
            "kind": "cloudevents",
            "tokens": [TOKEN],
            "types": ["example.hospital.model.degraded"],
            "resolved_types": ["example.hospital.model.recovered"],
        },
    ).with_header("Content-Type", "application/cloudevents-batch+json")
    firing, over = heard(sent)
    assert (firing.status, over.status, over.fields["data.model"]) == (Status.FIRING, Status.RESOLVED, "churn")
    other = replace(sent, settings={"kind": "cloudevents", "tokens": [TOKEN], "types": ["something.else"]})
    assert heard(other) == ()


def test_percent_encoded_attributes_are_decoded() -> None:
    sent = by_token("cloudevents", b"{}")
    for name, value in {
        "specversion": "1.0",
        "id": "1",
        "type": "t",
        "source": "s",
        "subject": "Euro%20%E2%82%AC",
    }.items():
        sent = sent.with_header(f"ce-{name}", value)
    assert only(sent.with_header("Content-Type", "application/json")).fields["subject"] == "Euro €"


def test_the_handshake_of_cloud_events_allows_only_known_origins() -> None:
    source = opened(kind="cloudevents", tokens=[TOKEN], origins=["events.example.com"], rate=100)
    asked = {"webhook-request-origin": "events.example.com", "webhook-request-rate": "120"}
    assert source.handshake("OPTIONS", asked) == {
        "Allow": "OPTIONS, POST",
        "WebHook-Allowed-Origin": "events.example.com",
        "WebHook-Allowed-Rate": "100",
    }
    assert source.handshake("OPTIONS", {**asked, "webhook-request-rate": "9" * 400}) is not None
    assert source.handshake("OPTIONS", {"webhook-request-origin": "events.example.com.evil.example"}) is None
    assert source.handshake("OPTIONS", {}) is None
    assert source.handshake("GET", asked) is None
    assert opened(kind="alertmanager", tokens=[TOKEN]).handshake("OPTIONS", asked) is None


def test_mlflows_tag_that_is_deleted_resolves_what_its_setting_told() -> None:
    told = only(GENUINE["mlflow"])
    assert {name: told.fields[name] for name in ("model", "version", "key", "value")} == {
        "model": "tumour",
        "version": "7",
        "key": "quality",
        "value": "bad",
    }
    over = only(by_mlflow(vector("mlflow/tag-deleted.json")))
    assert (over.status, over.incident) == (Status.RESOLVED, told.incident)


def test_any_json_is_read_by_pointers_and_paths() -> None:
    first, second = heard(GENUINE["generic"])
    assert (first.incident, first.title, dict(first.fields)) == (
        "tumour",
        "tumour fails",
        {"model": "tumour", "cloud": "aws"},
    )
    assert (second.status, second.at) == (Status.RESOLVED, 1795162561.0)
    assert (first.trouble, second.trouble) == ("k-1", "k-2"), "of an incident that may hold several"


def test_a_sender_that_tells_no_time_is_known_by_the_one_that_it_signs() -> None:
    mapping = {name: place for name, place in MAPPING.items() if name != "at"}
    for signed in (NOW, NOW - 60.0):
        sent = by_generic(vector("generic/alarms.json"), at=signed)
        timed, untimed = heard(sent), heard(replace(sent, settings={**sent.settings, "mapping": mapping}))
        assert [one.at for one in untimed] == [signed, signed]
        assert [one.id for one in untimed] == [one.id for one in timed], "it is the same alert all the same"
        assert {one.at for one in timed} != {signed}


@given(st.text(max_size=20))
def test_a_status_is_over_by_known_words_alone(word: str) -> None:
    status, doubt = status_of(word)
    assert (status is Status.RESOLVED) == (word.lower() in RESOLVED)
    assert bool(doubt) == (word.lower() not in {*RESOLVED, *FIRING}), "an unknown one is a trouble, and is told of"


def test_words_of_a_status_can_be_added_and_given_another_meaning() -> None:
    for word in ("OK", "closed", "Resolved"):
        assert status_of(word, resolved=["done"]) == (Status.RESOLVED, ""), "those that are known hold still"
    assert status_of("Done", resolved=["done"]) == (Status.RESOLVED, "")
    assert status_of("closed", firing=["Closed"]) == (Status.FIRING, ""), "a door, say"
    assert status_of("open", resolved=["OPEN"]) == (Status.RESOLVED, "")
    assert len(status_of("w" * 1000)[1]) < 200


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"status": "s", "resolved": ["OK"], "firing": ["ok"]}, "ok cannot be both resolved and firing"),
        ({"resolved": ["done"]}, "words of a status need status"),
    ],
)
def test_words_of_a_status_that_make_no_sense_are_refused(words: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        opened(kind="generic", tokens=[TOKEN], mapping={"id": "id", "title": "title", **words})


def test_without_the_status_that_is_mapped_an_entry_is_not_taken_for_a_trouble() -> None:
    sent = by_token("generic", b'{"id": "1", "title": "t"}', mapping={"id": "id", "title": "title", "status": "state"})
    with pytest.raises(AlertFormatError, match="state"):
        heard(sent)
