"""What was meant and what came of it: an append-only record in SQLite, durable before the deed.

One line an event; the same event id appended twice stands once, so that a step may be run again. Triggers refuse
UPDATE, DELETE and REPLACE. A ledger that cannot be opened raises LockstepError with the path; see
`operations/journal.py` for what an operation does then.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rfc8785

from lockstep.errors import LockstepError

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    actor TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS entry_by_model ON entry (model, number);
CREATE TRIGGER IF NOT EXISTS entry_no_update BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_no_delete BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER IF NOT EXISTS entry_no_replace BEFORE INSERT ON entry
WHEN EXISTS (SELECT 1 FROM entry WHERE event_id = NEW.event_id OR number = NEW.number)
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
WAIT: Final = 10.0  # seconds to wait for another writer


@dataclass(frozen=True)
class Entry:
    """One line: `kind` is `<operation>.intent` or `.outcome`, `at` Unix seconds, `body` plain JSON values."""

    number: int
    event_id: str
    at: float
    kind: str
    model: str
    actor: str
    body: Mapping[str, object]


class Ledger:
    """The ledger in one SQLite file; methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        with self._connection() as connection:
            connection.executescript(SCHEMA)

    def append(self, event_id: str, kind: str, model: str, actor: str, body: Mapping[str, object]) -> Entry:
        """Append one event and wait until it is on the disk; an event id that is there already is returned as it is."""
        with self._lock, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            # No other writer comes between this look and the insert: the transaction holds the file from its beginning.
            row = connection.execute("SELECT * FROM entry WHERE event_id = ?", (event_id,)).fetchone()
            if row is None:
                row = connection.execute(
                    "INSERT INTO entry (event_id, at, kind, model, actor, body) VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
                    (event_id, time.time(), kind, model, actor, rfc8785.dumps(dict(body))),  # type: ignore[arg-type]
                ).fetchone()
            connection.execute("COMMIT")
        return _entry(row)

    def entries(self, model: str | None = None, kind: str | None = None, last: int = 1000) -> tuple[Entry, ...]:
        """The newest `last` entries, oldest first, optionally of one model and of kinds that start with `kind`."""
        with self._lock, self._connection() as connection:
            rows = connection.execute(
                "SELECT * FROM entry WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR kind LIKE ?2 || '%') "
                "ORDER BY number DESC LIMIT ?3",
                (model, kind, last),
            ).fetchall()
        return tuple(_entry(row) for row in reversed(rows))

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")  # fsync at every commit: intent survives a power cut
                yield connection
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error


def _unusable(path: Path, error: Exception) -> LockstepError:
    return LockstepError(
        f"the ledger {path} cannot be opened: {error}",
        hint="check the folder's permissions and free space, or set `ledger:` in lockstep.yaml",
    )


def _entry(row: tuple[int, str, float, str, str, str, bytes]) -> Entry:
    number, event_id, at, kind, model, actor, body = row
    return Entry(number, event_id, at, kind, model, actor, json.loads(body))
