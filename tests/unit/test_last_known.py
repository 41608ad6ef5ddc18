"""What was last known survives as it was, and a file that is not ours is nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from lockstep.rules.state import DesiredState, ModelRecord, Version, VersionRecord
from lockstep.stores.last_known import MOST, Details, LastKnown, Remembered

V1, V2 = (Version("a/b", str(number), letter * 64, f"run{number}") for number, letter in ((1, "a"), (2, "b")))
RECORD = ModelRecord(
    DesiredState("a/b", V2, fallback=V1),
    (VersionRecord(V1, known_good="2026-11-20T10:00:00Z"), VersionRecord(V2, condemned="slow", verdict="pass")),
    {"champion": "2", "fallback": "1", "mine": "1"},
)


def test_it_is_read_as_it_was_kept(tmp_path: Path) -> None:
    store = LastKnown(tmp_path / "state")
    assert store.read("a/b") == Remembered()
    store.keep_details(V1, images={"aws": "repository@sha256:1"})
    store.keep("a/b", RECORD, 7)
    store.keep_details(V1, rows=({"x": 1.5, "y": ["a"]},))
    store.keep_details(V2, rows=())
    details = {
        V1.digest: Details({"aws": "repository@sha256:1"}, ({"x": 1.5, "y": ["a"]},)),
        V2.digest: Details(None, ()),
    }
    assert LastKnown(tmp_path / "state").read("a/b") == Remembered(RECORD, 7, details)
    assert store.details(V1) == details[V1.digest]
    assert store.read("a") == Remembered(), "another model"


def test_only_its_owner_may_read_it_and_it_is_written_only_when_it_changes(tmp_path: Path) -> None:
    store = LastKnown(tmp_path / "state")
    store.keep("a/b", RECORD, 7)
    path = store.path("a/b")
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.stat().st_ino
    store.keep("a/b", RECORD, 7)
    assert path.stat().st_ino == before
    store.keep("a/b", RECORD, 8)
    assert path.stat().st_ino != before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "lockstep.last-known/2"}', '{"format": "lockstep.last-known/1"}']
)
def test_a_file_that_is_damaged_or_of_another_release_is_nothing(tmp_path: Path, content: str) -> None:
    store = LastKnown(tmp_path)
    path = store.path("a/b")
    assert path is not None
    path.write_text(content)
    assert store.read("a/b") == Remembered()
    store.keep("a/b", RECORD, 1)
    assert store.read("a/b").record == RECORD


@pytest.mark.parametrize("key", ["format", "model", "upto", "record", "details"])
def test_a_file_with_something_else_in_it_is_nothing(tmp_path: Path, key: str) -> None:
    store = LastKnown(tmp_path)
    store.keep("a/b", RECORD, 1)
    path = store.path("a/b")
    assert path is not None
    body = json.loads(path.read_bytes())
    for wrong in ({**body, key: "x"}, {name: value for name, value in body.items() if name != key}):
        path.write_text(json.dumps(wrong))
        assert store.read("a/b") == Remembered()


def test_names_do_not_leave_the_folder_and_old_details_go(tmp_path: Path) -> None:
    store = LastKnown(tmp_path)
    for name in ("../../etc/x", "a" * 250, "é/ü"):
        path = store.path(name)
        assert path is not None
        assert path.parent == tmp_path
        assert len(path.name) <= 255
    for number in range(MOST + 5):
        store.keep_details(Version("m", str(number), f"{number:064x}"), rows=())
    kept = store.read("m").details
    assert list(kept) == [f"{number:064x}" for number in range(5, MOST + 5)]


def test_without_a_folder_nothing_is_remembered() -> None:
    store = LastKnown(None)
    store.keep("a/b", RECORD, 1)
    assert store.path("a/b") is None
    assert store.read("a/b") == Remembered()
