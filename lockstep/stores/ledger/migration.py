"""A ledger of the layout without a tree: its lines are appended to the tree with their old times, marked migrated."""

from __future__ import annotations

import json
from typing import Final

from sqlalchemy import Connection, inspect, text

from lockstep.errors import LockstepError
from lockstep.stores.ledger.entry import Event
from lockstep.stores.ledger.tables import COLUMNS, ENTRY, create

OLD_COLUMNS: Final = {"number", "event_id", "at", "kind", "model", "actor", "body"}
OLD_TRIGGERS: Final = ("entry_no_update", "entry_no_delete", "entry_no_replace")


def set_up(connection: Connection, name: str) -> tuple[Event, ...]:
    """Make the tables that are missing; gives the lines of the layout without a tree, if that is what was there.

    Raises LockstepError, with nothing changed, when the database is another program's.
    """
    inspector = inspect(connection)
    columns = {column["name"] for column in inspector.get_columns(ENTRY.name)} if inspector.has_table("entry") else None
    lines: tuple[Event, ...] = ()
    if columns == OLD_COLUMNS and connection.dialect.name == "sqlite":
        lines = _take_lines(connection)
    elif columns is not None and columns != COLUMNS:
        raise LockstepError(
            f"the ledger {name} cannot be opened: it holds another program's table `entry`",
            hint="name a database of its own at `ledger:` in lockstep.yaml",
        )
    create(connection)
    return lines


def _take_lines(connection: Connection) -> tuple[Event, ...]:
    """The old lines in their order; their table is gone at the end of the transaction that appends them."""
    rows = connection.execute(text("SELECT event_id, at, kind, model, actor, body FROM entry ORDER BY number")).all()
    for trigger in OLD_TRIGGERS:
        connection.execute(text(f"DROP TRIGGER IF EXISTS {trigger}"))
    connection.execute(text("DROP TABLE entry"))
    return tuple(
        Event(row.event_id, row.kind, row.model, row.actor, json.loads(row.body), at=row.at, migrated=True)
        for row in rows
    )
