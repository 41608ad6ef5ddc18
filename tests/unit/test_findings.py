"""What a verification amounts to."""

from __future__ import annotations

from lockstep.errors import DigestMismatchError, UnreachableError
from lockstep.rules.attestation import additions, differences
from lockstep.rules.findings import BYTES, RECORD, SEAL, SHOWN, Check, Finding, Verification
from lockstep.rules.state import Version

ONE, TWO = Version("tumour", "1", "a" * 64), Version("tumour", "2", "b" * 64)
FINE = Check(ONE, "aws", BYTES, Finding.OK)
NOT_HERE = Check(ONE, "gcp", BYTES, Finding.NOTHING, ("it is not replicated to this cloud",))
SILENT = Check(TWO, "gcp", SEAL, Finding.UNKNOWN, ("no answer",))
CHANGED = Check(TWO, "aws", BYTES, Finding.ALTERED, ("files/MLmodel has sha256 x, expected y", "files/z is missing"))


def test_nothing_to_look_at_is_no_difference() -> None:
    found = Verification("tumour", 1.0, (FINE, NOT_HERE))
    assert found.intact
    assert found.error is None


def test_a_difference_counts_more_than_a_silent_place() -> None:
    found = Verification("tumour", 1.0, (FINE, SILENT, CHANGED))
    assert not found.intact
    assert isinstance(found.error, DigestMismatchError)
    assert "version 2 (bbbbbbbbbbbb), aws: files/MLmodel has sha256 x, expected y" in str(found.error)
    assert "files/z is missing" in str(found.error)


def test_what_could_not_be_looked_at_is_not_taken_for_good() -> None:
    found = Verification("tumour", 1.0, (FINE, SILENT))
    assert not found.intact
    assert isinstance(found.error, UnreachableError)


def test_an_error_names_so_many_and_counts_the_rest() -> None:
    many = Check(ONE, "aws", BYTES, Finding.ALTERED, tuple(f"files/{n} is missing" for n in range(SHOWN + 5)))
    assert str(Verification("tumour", 1.0, (many,)).error).endswith("; and 5 more")


def test_the_table_has_places_beside_and_questions_below_each_other() -> None:
    stranger = Check(None, "aws", RECORD, Finding.ALTERED, ("slot x",))
    headings, rows = Verification("tumour", 0.5, (stranger, FINE, NOT_HERE, SILENT, CHANGED)).table()
    assert headings == ("version", "check", "aws", "gcp")
    assert rows == [
        ("(none)", "record", "ALTERED", ""),
        ("1 (aaaaaaaaaaaa)", "bytes", "ok", "-"),
        ("2 (bbbbbbbbbbbb)", "seal", "", "unknown"),
        ("2 (bbbbbbbbbbbb)", "bytes", "ALTERED", ""),
    ]


def test_the_document_says_the_same() -> None:
    document = Verification("tumour", 0.5, (CHANGED,)).document()
    assert (document["model"], document["sample"], document["intact"]) == ("tumour", "0.5", False)
    assert document["checks"] == [
        {
            "version": "2",
            "digest": "b" * 64,
            "where": "aws",
            "check": "bytes",
            "finding": "ALTERED",
            "told": list(CHANGED.told),
        }
    ]


def test_differences_name_what_was_written_and_nothing_else() -> None:
    assert differences("record", {"image": "a", "more": 1}, {"image": "a", "tag": ""}) == ()
    assert differences("record", {"image": "b"}, {"image": "a", "tag": "t"}) == (
        "record: image is 'b', not 'a'",
        "record: tag is none, not 't'",
    )
    assert additions("record", "variable", {"A": "1", "B": "2"}, {"A": "1"}) == ("record: variable B was added: '2'",)
