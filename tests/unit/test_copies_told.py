"""What the command line says of copies: contradictions before what could not be reached."""

from __future__ import annotations

import pytest

from lockstep.clouds.archive import Protection
from lockstep.commands.copies import checks_as_json, reports_as_json, show_checks, show_reports, status_of
from lockstep.errors import ForkError, UnreachableError
from lockstep.operations.comparison import CopyCheck
from lockstep.operations.copies import CopyReport

KEPT = Protection(True, "S3 Object Lock")
OPEN = Protection(False, "not write-once: nothing is enforced here")
GOOD = CopyCheck("aws", "s3://b/ledger", KEPT, 7, 3)
BAD = CopyCheck("gcp", "gs://b/ledger", OPEN, 7, 3, 4, ("entry 4 is another one",))
LOST = CopyCheck("azure", error=UnreachableError("no answer", cloud="azure", hint="try again"))
NONE = CopyCheck("none")


def test_a_contradiction_weighs_more_than_a_cloud_that_is_away() -> None:
    assert status_of([GOOD, NONE]) == 0
    assert status_of([GOOD, LOST]) == 5
    assert status_of([LOST, BAD]) == 3
    assert status_of([CopyReport("aws", error=ForkError("history was rewritten", cloud="aws"))]) == 3
    assert status_of([]) == 0


def test_what_a_store_does_not_enforce_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_checks([GOOD, BAD, LOST, NONE])
    shown = capsys.readouterr()
    words = " ".join(shown.out.split())
    assert "not write-once" in words
    assert "keeps no copy" in words
    assert "gcp: entry 4 is another one" in shown.err
    assert "azure: no answer (try again)" in shown.err
    found = {one["cloud"]: (one["write_once"], one["holds"], one["first_bad"]) for one in checks_as_json([GOOD, BAD])}
    assert found == {"aws": (True, True, None), "gcp": (False, False, 4)}


def test_reports_say_what_was_added(capsys: pytest.CaptureFixture[str]) -> None:
    reports = [
        CopyReport("aws", "s3://b/ledger", 5, 7, 3, KEPT),
        CopyReport("azure", "https://b/ledger", 7, 7, 0, OPEN),
        CopyReport("gcp"),
    ]
    show_reports(reports)
    words = " ".join(capsys.readouterr().out.split())
    assert "7, 2 of them new" in words
    assert "7, as before" in words
    assert [(one["entries"], one["write_once"]) for one in reports_as_json(reports)] == [
        (7, True),
        (7, False),
        (None, False),
    ]
