"""What the agent accepted, kept in one SQLite file: alerts, intents, and what others are still to be told.

Everything here works on a connection inside a transaction of `GroupCommit`, so that an alert, the intent that it starts
and the notices of it are there together or not at all.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from lockstep.agent.schema import Column, Schema
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.alerts.occurrence import Heard
from lockstep.rules.alerts.routing import Route

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS alert (
    key TEXT PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, incident TEXT NOT NULL, status TEXT NOT NULL,
    title TEXT NOT NULL, severity TEXT NOT NULL, model TEXT NOT NULL, rule TEXT NOT NULL, told TEXT NOT NULL,
    body TEXT NOT NULL, intent TEXT NOT NULL, since REAL NOT NULL, at REAL NOT NULL,
    recorded INTEGER NOT NULL DEFAULT 0, seen REAL NOT NULL DEFAULT 0, known_by TEXT NOT NULL DEFAULT '',
    trouble TEXT NOT NULL DEFAULT '', version TEXT, cloud TEXT NOT NULL DEFAULT '',
    action TEXT NOT NULL DEFAULT 'notify', again REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
DROP INDEX IF EXISTS alert_by_time;
CREATE INDEX IF NOT EXISTS alert_by_sight ON alert (max(at, seen));
CREATE INDEX IF NOT EXISTS alert_known ON alert (known_by, at);
CREATE INDEX IF NOT EXISTS alert_of_trouble ON alert (trouble, status, since, at);
CREATE INDEX IF NOT EXISTS alert_unrecorded ON alert (at) WHERE recorded = 0;
CREATE TABLE IF NOT EXISTS intent (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, version TEXT NOT NULL,
    cloud TEXT NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
    alerts INTEGER NOT NULL, began REAL NOT NULL, ended REAL NOT NULL, told TEXT NOT NULL, asked TEXT NOT NULL,
    going_to TEXT NOT NULL, urgent INTEGER NOT NULL, moved INTEGER NOT NULL, recorded REAL NOT NULL DEFAULT 0,
    wished TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS intent_by_model ON intent (model, number);
CREATE INDEX IF NOT EXISTS intent_open ON intent (number) WHERE ended = 0;
CREATE INDEX IF NOT EXISTS intent_unrecorded ON intent (number) WHERE ended != 0 AND recorded != ended;
CREATE TABLE IF NOT EXISTS notice (
    number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, id TEXT NOT NULL, event TEXT NOT NULL,
    body TEXT NOT NULL, made REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', UNIQUE (receiver, id)
);
CREATE INDEX IF NOT EXISTS notice_due ON notice (receiver, dead, due);
CREATE TABLE IF NOT EXISTS released (model TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""
SCHEMA: Final = Schema(
    _TABLES,
    (
        Column("alert", "seen", "REAL NOT NULL DEFAULT 0"),
        Column("alert", "known_by", "TEXT NOT NULL DEFAULT ''"),
        Column("alert", "trouble", "TEXT NOT NULL DEFAULT ''"),
        Column("alert", "version", "TEXT"),
        Column("alert", "cloud", "TEXT NOT NULL DEFAULT ''"),
        Column("alert", "action", "TEXT NOT NULL DEFAULT 'notify'"),
        Column("alert", "again", "REAL NOT NULL DEFAULT 0"),
        Column("intent", "wished", "TEXT NOT NULL DEFAULT ''"),
    ),
)
COLUMNS: Final = (
    *("id", "model", "version", "cloud", "action", "state", "reason", "actor", "alerts"),
    *("began", "ended", "told", "asked", "going_to", "urgent", "moved", "wished"),
)
#: Seconds after which it is written down once more that an alert still comes.
SEEN_EVERY: Final = 3600.0
#: Characters of an alert's own texts that are kept; the digest of the whole body is.
KEPT: Final = 300


OTHER: Final = (
    "SELECT * FROM alert WHERE {same} AND status = ? AND (model = ? OR model = '' OR ? = '')"
    " AND (version IS NULL OR version = ? OR version = '' OR ? = '') ORDER BY since DESC, at DESC LIMIT 1"
)


@dataclass(frozen=True)
class Received:
    """An alert as it was kept. `body` is the digest of the delivery, `at` when it came, `intent` "" for none.

    `known_by` is the same for each occurrence of it, `key` is its own; `trouble` it shares with its end. `version` is
    as it names it, None in a row of an older Lockstep. `again` is when it was answered anew, 0.0 for never.
    """

    key: str
    known_by: str
    trouble: str
    source: str
    id: str
    incident: str
    status: str
    title: str
    severity: str
    model: str
    version: str | None
    cloud: str
    action: Action
    rule: str
    told: str
    body: str
    intent: str
    since: float
    at: float
    again: float = 0.0

    @property
    def heard(self) -> Heard:
        """When, and with which words."""
        return Heard(self.since, self.body, self.at)


def key_of(alert: Alert) -> str:
    """By which a delivery that comes again is known, with what the alert is about."""
    return _digest(alert.source, alert.id, alert.status.value)


def trouble_of(alert: Alert) -> str:
    """What an alert and its end have in common."""
    return _digest(alert.source, alert.trouble or alert.incident)


def row_key(alert: Alert, way: Route, digest: str, at: float) -> str:
    """Of this occurrence alone."""
    return _digest(key_of(alert), way.model, way.version, repr(alert.at), digest, repr(at))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(str(len(part)) + ":" + part for part in parts).encode()).hexdigest()


def known(connection: sqlite3.Connection, one: Received) -> Received | None:
    """The newest occurrence of an alert that is there already; None for one that is new."""
    row = connection.execute(
        "SELECT * FROM alert WHERE (known_by = ? OR key = ?) AND model = ? AND (version IS NULL OR version = ?)"
        " ORDER BY at DESC LIMIT 1",
        (one.known_by, one.known_by, one.model, one.version),
    ).fetchone()
    return None if row is None else _received(row)


def newest_other(connection: sqlite3.Connection, one: Received) -> Received | None:
    """The newest end of what fires, or the newest that fired of what has ended; an end may name less than its alert.

    An older Lockstep kept no `trouble`: there the vendor's incident is what both have in common.
    """
    other = next(status.value for status in Status if status.value != one.status)
    about = (one.model, one.model, one.version, one.version)
    row = connection.execute(OTHER.format(same="trouble = ?"), (one.trouble, other, *about)).fetchone()
    if row is None:
        older = OTHER.format(same="trouble = '' AND source = ? AND incident = ?")
        row = connection.execute(older, (one.source, one.incident[:KEPT], other, *about)).fetchone()
    return None if row is None else _received(row)


def answered_by_past(connection: sqlite3.Connection, model: str, released: float) -> tuple[Received, ...]:
    """Alerts after a model's release that a hold, or a rollback, of before answered; the oldest first."""
    rows = connection.execute(
        "SELECT alert.* FROM alert JOIN intent ON intent.id = alert.intent WHERE max(alert.at, alert.seen) > ?"
        " AND alert.at > ? AND alert.model = ? AND alert.status = ? AND alert.action != ?"
        " AND (intent.state = ? OR intent.moved = 1) AND intent.ended > 0 AND intent.ended <= ? ORDER BY alert.at",
        (released, released, model, Status.FIRING.value, Action.NOTIFY.value, State.HELD.value, released),
    ).fetchall()
    return tuple(_received(row) for row in rows)


def answer_by(connection: sqlite3.Connection, key: str, intent: Intent, at: float) -> None:
    """The alert is answered by another intent from now on, which is a line of its own in the ledger."""
    connection.execute(
        "UPDATE alert SET intent = ?, told = ?, again = ?, recorded = 0 WHERE key = ?",
        (intent.id, intent.told, at, key),
    )


def see_again(connection: sqlite3.Connection, key: str, since: float, at: float) -> None:
    """The alert came once more: as long as it does it is not forgotten, or its next repetition would be a new one.

    The newest time of its sender's is its own from now on.
    """
    connection.execute(
        "UPDATE alert SET seen = max(seen, ?), since = max(since, ?)"
        " WHERE key = ? AND (max(at, seen) <= ? OR since < ?)",
        (at, since, key, at - SEEN_EVERY, since),
    )


def keep_alert(connection: sqlite3.Connection, one: Received) -> None:
    """Add an alert that is new."""
    cut = replace(
        one, id=one.id[:KEPT], incident=one.incident[:KEPT], title=one.title[:KEPT], severity=one.severity[:KEPT]
    )
    names = [part.name for part in fields(Received)]
    marks = ", ".join("?" for _ in names)
    row = tuple(getattr(cut, name) for name in names)
    connection.execute(f"INSERT INTO alert ({', '.join(names)}) VALUES ({marks})", row)  # noqa: S608 - constants


def unrecorded(connection: sqlite3.Connection, most: int) -> tuple[Received, ...]:
    """Alerts that are not in the ledger yet, the oldest first."""
    rows = connection.execute("SELECT * FROM alert WHERE recorded = 0 ORDER BY at LIMIT ?", (most,)).fetchall()
    return tuple(_received(row) for row in rows)


def mark_recorded(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    """They stand in the ledger."""
    connection.executemany("UPDATE alert SET recorded = 1 WHERE key = ?", [(key,) for key in keys])


def unrecorded_intents(connection: sqlite3.Connection, most: int) -> tuple[Intent, ...]:
    """Intents whose end is not in the ledger yet, the oldest first."""
    rows = connection.execute(
        "SELECT * FROM intent WHERE ended != 0 AND recorded != ended ORDER BY number LIMIT ?", (most,)
    ).fetchall()
    return tuple(_intent(row) for row in rows)


def mark_answered(connection: sqlite3.Connection, intents: Sequence[Intent]) -> None:
    """That end of theirs stands in the ledger."""
    connection.executemany("UPDATE intent SET recorded = ? WHERE id = ?", [(one.ended, one.id) for one in intents])


def add_intent(connection: sqlite3.Connection, intent: Intent) -> None:
    """A new intent."""
    marks = ", ".join("?" for _ in COLUMNS)
    connection.execute(f"INSERT INTO intent ({', '.join(COLUMNS)}) VALUES ({marks})", _row(intent))  # noqa: S608 - constants


def put_intent(connection: sqlite3.Connection, intent: Intent) -> None:
    """An intent as it is now."""
    changes = ", ".join(f"{name} = ?" for name in COLUMNS)
    connection.execute(f"UPDATE intent SET {changes} WHERE id = ?", (*_row(intent), intent.id))  # noqa: S608 - constants


def find_intent(connection: sqlite3.Connection, intent_id: str) -> Intent | None:
    """The intent of that id."""
    row = connection.execute("SELECT * FROM intent WHERE id = ?", (intent_id,)).fetchone()
    return None if row is None else _intent(row)


def newest_intents(connection: sqlite3.Connection, last: int) -> tuple[Intent, ...]:
    """The newest, the newest first."""
    rows = connection.execute("SELECT * FROM intent ORDER BY number DESC LIMIT ?", (last,)).fetchall()
    return tuple(_intent(row) for row in rows)


def past_intents(connection: sqlite3.Connection, model: str, since: float) -> tuple[Intent, ...]:
    """Those of a model that are open, or ended at `since` or later; the newest first.

    Of what changed nothing the newest 200 at most: a storm of it hides no rollback.
    """
    rows = connection.execute(
        "SELECT * FROM intent WHERE model = :model AND (ended = 0 OR (ended >= :since AND (moved = 1 OR number >="
        " (SELECT min(number) FROM (SELECT number FROM intent WHERE model = :model ORDER BY number DESC LIMIT 200)))))"
        " ORDER BY number DESC",
        {"model": model, "since": since},
    ).fetchall()
    return tuple(_intent(row) for row in rows)


def released_at(connection: sqlite3.Connection, model: str) -> float:
    """When a person released the model last, as far as the agent has seen; 0.0 for never."""
    found = connection.execute("SELECT at FROM released WHERE model = ?", (model,)).fetchone()
    return 0.0 if found is None else float(found["at"])


def put_released(connection: sqlite3.Connection, model: str, at: float) -> None:
    """A person released the model."""
    connection.execute("INSERT OR REPLACE INTO released (model, at) VALUES (?, ?)", (model, at))


def open_intents(connection: sqlite3.Connection) -> tuple[Intent, ...]:
    """Those that are still to be carried out, the oldest first."""
    rows = connection.execute("SELECT * FROM intent WHERE ended = 0 ORDER BY number").fetchall()
    return tuple(_intent(row) for row in rows)


def tell_first(connection: sqlite3.Connection, notice_id: str, at: float) -> bool:
    """Whether the notice of that id was never told of before; it has been from now on."""
    done = connection.execute("INSERT OR IGNORE INTO told (id, at) VALUES (?, ?)", (notice_id, at))
    return done.rowcount == 1


def prune(connection: sqlite3.Connection, before: float) -> None:
    """Forget what was done before that time; what the ledger or a receiver still waits for stays.

    An alert that keeps coming stays as well, however long ago it came first.
    """
    connection.execute("DELETE FROM alert WHERE max(at, seen) < ? AND recorded = 1", (before,))
    connection.execute("DELETE FROM intent WHERE ended != 0 AND ended < ? AND recorded = ended", (before,))
    connection.execute("DELETE FROM notice WHERE made < ?", (before,))
    connection.execute("DELETE FROM told WHERE at < ?", (before,))


def backlog(connection: sqlite3.Connection) -> Mapping[str, int]:
    """How many alerts wait for the ledger, intents for their end, notices for receivers; how many of those are dead."""
    asked = {
        "unrecorded_alerts": "SELECT count(*) FROM alert WHERE recorded = 0",
        "open_intents": "SELECT count(*) FROM intent WHERE ended = 0",
        "waiting_notices": "SELECT count(*) FROM notice WHERE dead = 0",
        "dead_letters": "SELECT count(*) FROM notice WHERE dead = 1",
    }
    return {name: int(connection.execute(query).fetchone()[0]) for name, query in asked.items()}


def _received(row: sqlite3.Row) -> Received:
    kept = {part.name: row[part.name] for part in fields(Received)}
    return Received(**{**kept, "action": Action(row["action"])})


def _row(intent: Intent) -> tuple[object, ...]:
    return (
        *(intent.id, intent.model, intent.version, intent.cloud, intent.action.value, intent.state.value),
        *(intent.reason, intent.actor, intent.alerts, intent.began, intent.ended, intent.told, intent.asked),
        *(intent.to, int(intent.urgent), int(intent.moved), intent.wished.value if intent.wished else ""),
    )


def _intent(row: sqlite3.Row) -> Intent:
    return Intent(
        *(row["id"], row["model"], row["version"], row["cloud"], Action(row["action"]), State(row["state"])),
        *(row["reason"], row["actor"], row["alerts"], row["began"], row["ended"], row["told"], row["asked"]),
        *(row["going_to"], bool(row["urgent"]), bool(row["moved"])),
        wished=Action(row["wished"]) if row["wished"] else None,
    )
