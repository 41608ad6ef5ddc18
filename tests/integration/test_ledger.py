"""The ledger: append-only, each event once, many writers at a time, durable."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lockstep.errors import LockstepError
from lockstep.stores.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from lockstep.stores.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    ledger.append(f"{sys.argv[2]}-{number}", "test.intent", "tumour", sys.argv[2], {"number": number})
    ledger.append(f"shared-{number}", "test.outcome", "tumour", sys.argv[2], {"number": number})
"""


def test_entries_come_back_in_order_by_model_and_kind(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "down" / "ledger.db")
    ledger.append("1", "rollback.intent", "tumour", "ann", {"version": "3", "nested": {"b": [1, None, True], "a": 0.5}})
    ledger.append("2", "rollback.outcome", "tumour", "ann", {})
    ledger.append("3", "rollback.intent", "churn", "bob", {})
    assert [entry.event_id for entry in ledger.entries()] == ["1", "2", "3"]
    assert [entry.event_id for entry in ledger.entries("tumour", "rollback.outcome")] == ["2"]
    assert [entry.event_id for entry in ledger.entries(last=2)] == ["2", "3"]
    (first, _) = Ledger(tmp_path / "deep" / "down" / "ledger.db").entries("tumour")
    assert first.body == {"version": "3", "nested": {"b": [1, None, True], "a": 0.5}}
    assert (first.actor, first.kind, first.number) == ("ann", "rollback.intent", 1)


def test_the_same_event_stands_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first = ledger.append("e", "rollback.intent", "tumour", "ann", {"try": 1})
    assert ledger.append("e", "rollback.outcome", "other", "bob", {"try": 2}) == first
    assert ledger.entries() == (first,)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE entry SET actor = 'nobody'", "DELETE FROM entry", "REPLACE INTO entry SELECT * FROM entry"],
)
def test_nothing_that_stands_can_be_changed(tmp_path: Path, statement: str) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    first = ledger.append("e", "rollback.intent", "tumour", "ann", {})
    with sqlite3.connect(tmp_path / "ledger.db") as connection, pytest.raises(sqlite3.Error, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert ledger.entries() == (first,)


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / "ledger.db") for _ in range(4)]

    def write(number: int) -> None:
        ledgers[number % 4].append(f"e{number // 2}", "test.intent", "tumour", "ann", {"number": number // 2})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(120)))
    entries = ledgers[0].entries()
    assert sorted(entry.event_id for entry in entries) == sorted(f"e{number}" for number in range(60))
    assert [entry.number for entry in entries] == sorted(entry.number for entry in entries)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path, count = tmp_path / "ledger.db", 40
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(count)],
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
    ids = [entry.event_id for entry in Ledger(path).entries()]
    wanted = [f"{name}-{number}" for name in ("ann", "bob", "shared") for number in range(count)]
    assert sorted(ids) == sorted(wanted)


def test_a_process_that_is_killed_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    script = WRITER + "\nprint('done', flush=True)\nsys.stdin.readline()\n"
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(path), "ann", "5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()
    while writer.stdout.readline() != "done\n":
        assert writer.poll() is None
    writer.kill()
    writer.communicate()
    assert len(Ledger(path).entries()) == 10


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "ledger.db"):
        with pytest.raises(LockstepError, match="cannot be opened") as caught:
            Ledger(path)
        assert str(path) in str(caught.value)
        assert "ledger:" in caught.value.hint


def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100)
    with pytest.raises(LockstepError, match=r"notes\.txt"):
        Ledger(path)
    assert path.read_text() == "these are my notes\n" * 100
