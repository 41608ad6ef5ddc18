"""The tables of an SQLite file, also of one that an older Lockstep made: what it lacks is added where it is opened."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One that came later than its table. `declared` has a default, which rows of before have."""

    table: str
    name: str
    declared: str


@dataclass(frozen=True)
class Schema:
    """`script` makes what is missing and is run at each opening; it may name what `later` adds to a file of before."""

    script: str
    later: Sequence[Column] = ()

    def apply(self, connection: sqlite3.Connection) -> None:
        """Make or complete the tables, on a connection in autocommit mode; others may open the same file meanwhile."""
        if _missing(connection, self.later):
            connection.execute("BEGIN IMMEDIATE")
            try:
                for one in _missing(connection, self.later):  # nobody else has added it meanwhile
                    connection.execute(f"ALTER TABLE {one.table} ADD COLUMN {one.name} {one.declared}")
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        connection.executescript(self.script)


def _missing(connection: sqlite3.Connection, wanted: Sequence[Column]) -> list[Column]:
    """Columns that tables which are there do not have."""
    missing: list[Column] = []
    for one in wanted:
        there = {str(row[0]) for row in connection.execute("SELECT name FROM pragma_table_info(?)", (one.table,))}
        if there and one.name not in there:
            missing.append(one)
    return missing
