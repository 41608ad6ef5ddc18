"""Incidents and their time to restore."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lockstep.rules.deeds import read_deeds
from lockstep.rules.incidents import Incident, read_incidents
from tests.unit.test_history import V1, V2, Book, all_to


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def rollback(
    book: Book, name: str, at: float, verified: dict[str, float], ended: float, within: str = "", **more: object
) -> None:
    inside: dict[str, object] = {**({"within": within} if within else {}), **more}
    subject = {"version": V1.label, "digest": V1.digest}
    book.write(f"{name}/intent", at, "rollback.intent", reason="alert 7", **subject, **inside)
    book.shift(at + 0.5, ended - 0.5, all_to(V1), verified, within=name)
    split = {cloud: "down" for cloud in ("aws", "azure") if cloud not in verified}
    book.write(
        f"{name}/outcome", ended, "rollback.outcome", intent=name, error="split" if split else "",
        seconds=dict.fromkeys(verified, 1.0), split=split, left=["2"], **subject, **inside,
    )  # fmt: skip


def only(book: Book) -> Incident:
    (incident,) = read_incidents(read_deeds(book.lines))
    return incident


def test_a_rollback_is_restored_when_its_last_cloud_was_read_back() -> None:
    book = Book()
    rollback(book, "r", 100, {"aws": 101, "azure": 103}, 110)
    incident = only(book)
    assert (incident.began, incident.restored, incident.seconds) == (100, 103, 3)
    assert incident.clouds == {"aws": 1.0, "azure": 3.0}
    assert (incident.reason, incident.target, incident.left) == ("alert 7", "1", "2")


def test_a_split_rollback_lasts_until_every_cloud_follows() -> None:
    book = Book()
    rollback(book, "r", 100, {"aws": 101}, 110)
    assert only(book).restored is None
    rollback(book, "s", 200, {"aws": 201, "azure": 205}, 210)
    incident = only(book)
    assert (incident.began, incident.restored) == (100, 205)
    assert incident.clouds == {"aws": 1.0, "azure": 105.0}, "aws was back by the first"


def test_a_monitors_rollback_counts_from_its_finding() -> None:
    book = Book()
    book.write("m/intent", 90, "monitor.intent", reasons=["errors above 5 %"])
    rollback(book, "r", 100, {"aws": 101, "azure": 102}, 110, within="m")
    book.write("m/outcome", 111, "monitor.outcome", intent="m", error="")
    assert only(book).seconds == 12


def test_an_incident_begins_when_its_alert_was_given() -> None:
    book = Book()
    rollback(book, "r", 100, {"aws": 101, "azure": 103}, 110, alert={"id": "7", "at": moment(60)})
    incident = only(book)
    assert (incident.began, incident.restored, incident.seconds) == (60, 103, 43)
    assert incident.clouds == {"aws": 41.0, "azure": 43.0}


@pytest.mark.parametrize("at", ["", "yesterday", "1970-01-01T00:01:00", moment(101), moment(100 - 90_000)])
def test_a_time_of_an_alert_that_cannot_be_right_is_not_believed(at: str) -> None:
    book = Book()
    rollback(book, "r", 100, {"aws": 101}, 110, alert={"id": "7", "at": at})
    assert only(book).began == 100


def test_a_canary_is_an_incident_only_when_it_was_judged_bad() -> None:
    book = Book()
    subject = {"version": V2.label, "digest": V2.digest}
    book.write("c/intent", 100, "canary_deploy.intent", **subject)
    book.write("v", 150, "verdict.outcome", decision="pass", within="c")
    book.write("c/outcome", 170, "canary_deploy.outcome", intent="c", error="the cloud said no", **subject)
    assert read_incidents(read_deeds(book.lines)) == ()
    book.write("d/intent", 200, "canary_deploy.intent", **subject)
    book.shift(210, 212, {"aws": {V1.slot: 75, V2.slot: 25}}, {"aws": 211}, within="d")
    book.write("w", 250, "verdict.outcome", decision="fail", within="d")
    book.shift(250.5, 253, all_to(V1, "aws"), {"aws": 252}, within="d")
    book.write("d/outcome", 260, "canary_deploy.outcome", intent="d", error="judged fail", **subject)
    incident = only(book)
    assert (incident.what, incident.began, incident.restored, incident.left) == ("canary taken back", 250, 252, "2")


def test_what_was_refused_is_no_incident() -> None:
    book = Book()
    book.write("x", 1, "rollback.refused", refused="it is condemned")
    assert read_incidents(read_deeds(book.lines)) == ()
