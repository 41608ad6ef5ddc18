"""The ledger in SQLite and in PostgreSQL: append-only, each event once, many writers at a time, durable, signed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from lockstep.errors import LockstepError, NotFoundError, ProofError
from lockstep.rules.checkpoint import open_checkpoint
from lockstep.rules.merkle import leaf_hash, root
from lockstep.rules.tlog_proof import verify_proof
from lockstep.stores.ledger import Event, Ledger
from tests.ledger_places import CHILD, ORIGIN, SIGNER, Place, fill

WRITER = (
    CHILD
    + """
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[5])):
    ledger.append(f"{sys.argv[4]}-{number}", "test.intent", "tumour", sys.argv[4], {"number": number})
    ledger.append(f"shared-{number}", "test.outcome", "tumour", sys.argv[4], {"number": number})
"""
)


def test_entries_come_back_in_order_by_model_and_kind(place: Place) -> None:
    ledger = place.open()
    ledger.append("1", "rollback.intent", "tumour", "ann", {"version": "3", "nested": {"b": [1, None, True], "a": 0.5}})
    ledger.append("2", "rollback.outcome", "tumour", "ann", {})
    ledger.append("3", "rollback.intent", "churn", "bob", {})
    assert [entry.event_id for entry in ledger.entries()] == ["1", "2", "3"]
    assert [entry.event_id for entry in ledger.entries("tumour", "rollback.outcome")] == ["2"]
    assert [entry.event_id for entry in ledger.entries(kind="rollback_")] == []
    assert [entry.event_id for entry in ledger.entries(last=2)] == ["2", "3"]
    (first, _) = place.open().entries("tumour")
    assert first.body == {"version": "3", "nested": {"b": [1, None, True], "a": 0.5}}
    assert (first.actor, first.kind, first.number) == ("ann", "rollback.intent", 0)
    assert (ledger.size, ledger.entry(2).model) == (3, "churn")
    with pytest.raises(NotFoundError, match="3 entries"):
        ledger.entry(3)


def test_entries_of_a_time_and_of_a_cloud(place: Place) -> None:
    ledger = place.open()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    bodies: list[dict[str, object]] = [{"after": {"aws": {"v1": 100}}}, {"cloud": "azure"}, {"clouds": ["gcp", "aws"]}]
    ledger.append_batch(
        [
            Event(f"e{number}", "shift", "tumour", "ann", body, at=(start + timedelta(hours=number)).timestamp())
            for number, body in enumerate(bodies)
        ]
    )
    assert [entry.number for entry in ledger.entries(since=start + timedelta(hours=1))] == [1, 2]
    assert [entry.number for entry in ledger.entries(until=start + timedelta(hours=1))] == [0]
    assert [entry.number for entry in ledger.entries(cloud="aws")] == [0, 2]
    assert [entry.number for entry in ledger.entries(cloud="aws", last=1)] == [2]
    assert [entry.number for entry in ledger.entries(cloud="azure")] == [1]
    assert ledger.entries(cloud="v2") == ()


def test_the_same_event_stands_once(place: Place) -> None:
    ledger = place.open()
    first = ledger.append("e", "rollback.intent", "tumour", "ann", {"try": 1})
    assert ledger.append("e", "rollback.outcome", "other", "bob", {"try": 2}) == first
    again = ledger.append_batch([Event("e", "x", "", "bob"), Event("f", "x", "", "bob"), Event("f", "y", "", "bob")])
    assert [entry.number for entry in again] == [0, 1, 1]
    assert ledger.entries() == (first, again[1])


CHANGES = (
    "UPDATE entry SET kind = 'nothing'",
    "DELETE FROM entry",
    "UPDATE node SET hash = hash",
    "DELETE FROM node",
    "UPDATE checkpoint SET note = note",
    "DELETE FROM checkpoint",
)
REPLACES = tuple(f"REPLACE INTO {table} SELECT * FROM {table}" for table in ("entry", "node", "checkpoint"))
TRUNCATES = tuple(f"TRUNCATE {table}" for table in ("entry", "node", "checkpoint"))
UPSERT = "INSERT INTO entry SELECT * FROM entry WHERE true ON CONFLICT (number) DO UPDATE SET kind = 'nothing'"


def test_nothing_that_stands_can_be_changed(place: Place) -> None:
    ledger = place.open()
    entries = fill(ledger, 3)
    for statement in (*CHANGES, UPSERT, *(REPLACES if place.sqlite else TRUNCATES)):
        with pytest.raises(DBAPIError, match="append-only"):
            place.execute(statement)
    assert ledger.entries() == entries
    assert ledger.verify().flaws == ()


def test_every_append_is_signed_and_every_entry_proved(place: Place) -> None:
    ledger = place.open()
    for number in range(9):
        ledger.append(f"e{number}", "test.intent", "tumour", "ann", {})
        note = ledger.checkpoint()
        assert note is not None
        checkpoint = open_checkpoint(note, ORIGIN, [SIGNER.verifier])
        assert (checkpoint.size, checkpoint.root) == (number + 1, root(number + 1, ledger.read_node))
    assert ledger.checkpoint(4) != ledger.checkpoint(5) != ledger.checkpoint(9) == ledger.checkpoint()
    for number in range(9):
        index, checkpoint = verify_proof(ledger.proof(number), ledger.leaf(number), ORIGIN, [SIGNER.verifier])
        assert (index, checkpoint.size) == (number, 9)
        assert ledger.read_node(0, number) == leaf_hash(ledger.leaf(number))
        with pytest.raises(ProofError):
            verify_proof(ledger.proof(number), ledger.leaf((number + 1) % 9), ORIGIN, [SIGNER.verifier])
    audit = ledger.verify()
    assert (audit.size, audit.checkpoints, audit.flaws, audit.notes) == (9, 9, (), ())
    with pytest.raises(NotFoundError, match="no signed checkpoint"):
        ledger.proof(9)
    with pytest.raises(ProofError, match="missing"):
        ledger.read_node(4, 0)


def test_what_is_appended_without_a_key_is_signed_later_and_marked(place: Place) -> None:
    unsigned = place.open(signer=None)
    fill(unsigned, 3)
    assert unsigned.checkpoint() is None
    (flaw,) = unsigned.verify().flaws
    assert (flaw.index, flaw.event_id) == (0, "e0")
    assert "without the key" in flaw.what
    ledger = place.open()
    assert fill(ledger, 2, start=3)[0].number == 4
    mark = ledger.entry(3)
    assert (mark.kind, mark.body["first"], mark.body["last"]) == ("ledger.signed_late", 0, 2)
    audit = ledger.verify()
    assert audit.flaws == ()
    assert "entries 0 to 2 were appended without a key" in audit.notes[0]
    assert verify_proof(ledger.proof(1), ledger.leaf(1), ORIGIN, [SIGNER.verifier])


def test_a_ledger_without_any_key_works_and_says_so(place: Place) -> None:
    ledger = Ledger(place.database, spool=place.spool)
    fill(ledger, 2)
    audit = ledger.verify()
    assert audit.flaws == ()
    assert "lockstep keys create" in audit.notes[0]
    with pytest.raises(NotFoundError) as caught:
        ledger.proof(0)
    assert "lockstep keys create" in caught.value.hint


def test_persons_stand_as_pseudonyms_and_can_be_forgotten(place: Place, tmp_path: Path) -> None:
    ledger = place.open()
    name = "Ann Müller-Lüdenscheidt"
    ledger.append("1", "rollback.intent", "tumour", name, {})
    ledger.append("2", "rollback.intent", "tumour", "schedule:every-five-minutes", {})
    ledger.append("3", "rollback.outcome", "tumour", name, {})
    assert [entry.actor for entry in ledger.entries()] == [name, "schedule:every-five-minutes", name]
    assert not any(name.encode() in ledger.leaf(number) for number in range(3))
    assert ledger.forget("Bob", "Bob") == ()
    (pseudonym,) = ledger.forget(name, name)
    assert pseudonym.startswith("person:")
    assert [entry.actor for entry in ledger.entries()] == [
        pseudonym, "schedule:every-five-minutes", pseudonym, "machine:lockstep"
    ]  # fmt: skip
    assert ledger.entry(3).body == {"persons": [pseudonym]}
    assert ledger.verify().flaws == ()
    assert ledger.append("4", "x", "", name, {}).actor == name
    assert pseudonym.encode() not in ledger.leaf(4)
    ledger.forget(name, "machine:test")
    assert not any(name.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_body_that_is_too_large_is_cut_with_its_digest(place: Place) -> None:
    ledger = place.open()
    entry = ledger.append("1", "x", "tumour", "ann", {"reason": "r", "log": "ü" * 100_000, "list": ["a"] * 10})
    assert len(ledger.leaf(0)) < 65_536
    assert entry.body["reason"] == "r"
    assert str(entry.body["cut"]).count("sha256") == 1
    assert ledger.append("2", "x", "tumour", "ann", {f"key {number}": "v" for number in range(10_000)}).number == 1
    assert ledger.append("3", "x" * 100_000, "m" * 100_000, "a" * 100_000, {}).number == 2
    assert all(len(ledger.leaf(number)) < 65_536 for number in range(3))
    assert ledger.verify().flaws == ()


def test_any_body_is_written(place: Place) -> None:
    ledger = place.open()
    body = {"when": datetime(2026, 1, 1, tzinfo=UTC), "nan": float("nan"), "big": 2**70, "half": "\ud800", "nul": "\0"}
    entry = ledger.append("1\0", "x\0", "t\0", "a\0", {**body, "set": {"b", "a"}, "tuple": (1, Path("p"))})
    assert entry.number == 0
    assert entry.body["set"] == ["a", "b"]
    assert (ledger.entries(), ledger.verify().flaws) == ((entry,), ())


def test_many_threads_write_at_once(place: Place) -> None:
    ledgers = [place.open() for _ in range(4)]

    def write(number: int) -> None:
        ledgers[number % 4].append(f"e{number // 2}", "test.intent", "tumour", "ann", {"number": number // 2})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(120)))
    entries = ledgers[0].entries()
    assert sorted(entry.event_id for entry in entries) == sorted(f"e{number}" for number in range(60))
    assert [entry.number for entry in entries] == list(range(60))
    assert ledgers[0].verify().flaws == ()
    # On a disk that is slow for seconds one may wait too long for its turn, and goes by the spool.
    assert not [told for ledger in ledgers for told in ledger.problems if "database is locked" not in told]


def test_two_processes_write_at_once(place: Place) -> None:
    count = 40
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *place.arguments, name, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("ann", "bob")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    ledger = place.open()
    ids = [entry.event_id for entry in ledger.entries()]
    wanted = [f"{name}-{number}" for name in ("ann", "bob", "shared") for number in range(count)]
    assert sorted(ids) == sorted(wanted)
    assert ledger.verify().flaws == ()


def test_a_file_that_was_put_aside_is_not_written_to(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    fill(ledger, 2)
    for path in tmp_path.glob("ledger.db*"):
        path.rename(tmp_path / f"aside-{path.name}")
    assert ledger.append("new", "x", "", "ann", {}).number == 0
    with sqlite3.connect(tmp_path / "aside-ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM entry").fetchone() == (2,)
    connection.close()


def test_a_path_that_cannot_be_opened_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "ledger.db"):
        ledger = Ledger(path)
        with pytest.raises(LockstepError, match="cannot be opened") as caught:
            ledger.entries()
        assert str(path) in str(caught.value)
        assert "ledger:" in caught.value.hint


def test_a_server_that_is_down_is_named_without_its_password(tmp_path: Path) -> None:
    address = "postgresql+psycopg://ledger@127.0.0.1:1/none"
    ledger = Ledger(address, spool=tmp_path / "spool", password="s3cret")
    with pytest.raises(LockstepError, match=r"127\.0\.0\.1") as caught:
        ledger.entries()
    assert "s3cret" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100)
    ledger = Ledger(path)
    with pytest.raises(LockstepError, match=r"notes\.txt"):
        ledger.entries()
    with pytest.raises(LockstepError, match=r"notes\.txt"):
        ledger.append("e", "register.intent", "tumour", "ann", {}, spool=False)
    assert path.read_text() == "these are my notes\n" * 100


def test_another_programs_database_is_left_alone(place: Place) -> None:
    place.execute("CREATE TABLE entry (number INTEGER, text TEXT)")
    with pytest.raises(LockstepError, match="another program"):
        place.open().entries()
    place.execute("INSERT INTO entry VALUES (1, 'still mine')")


def test_a_ledger_of_the_layout_without_a_tree_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE entry (
                number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
                kind TEXT NOT NULL, model TEXT NOT NULL, actor TEXT NOT NULL, body BLOB NOT NULL
            );
            CREATE INDEX entry_by_model ON entry (model, number);
            CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
            CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
            """
        )
        old = [(f"e{number}", 1_700_000_000.25 + number, "rollback.intent", "tumour", "ann") for number in range(5)]
        connection.executemany("INSERT INTO entry VALUES (NULL, ?, ?, ?, ?, ?, CAST('{\"n\":1}' AS BLOB))", old)
    connection.close()
    ledger = Place(str(path), tmp_path / "spool").open()
    entries = ledger.entries()
    assert [(one.event_id, one.at, one.kind, one.model, one.actor) for one in entries] == old
    assert [one.number for one in entries] == list(range(5))
    assert all(one.migrated and one.body == {"n": 1} for one in entries)
    assert b'"migrated":true' in ledger.leaf(4)
    assert not ledger.append("new", "x", "", "ann", {}).migrated
    assert ledger.verify().flaws == ()
    assert len(Ledger(path).entries()) == 6
    with pytest.raises(DBAPIError, match="append-only"):
        Place(str(path), tmp_path / "spool").execute("DELETE FROM entry")
