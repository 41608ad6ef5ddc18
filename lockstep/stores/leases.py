"""Leases in the ledger's database: one row a model, each change a single compare-and-set statement.

No clock of the database or of another machine is looked at, and nothing waits longer than `Database.brief` does.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Final

from sqlalchemy import RowMapping, select, text, update

from lockstep.rules.lease import Lease, Process
from lockstep.stores.ledger.database import Database
from lockstep.stores.ledger.tables import LEASE
from lockstep.stores.processes import this_process

#: SQLite and PostgreSQL both speak it. It gives the row as it is now if, and only if, it was ours to change.
TAKE: Final = text(
    "INSERT INTO lease (model, fence, holder, operation, urgent, version, digest, host, pid, place, started, since, "
    "beat) VALUES (:model, :fence, :holder, :operation, :urgent, :version, :digest, :host, :pid, :place, :started, "
    ":since, :beat) ON CONFLICT (model) DO UPDATE SET fence = excluded.fence, holder = excluded.holder, "
    "operation = excluded.operation, urgent = excluded.urgent, version = excluded.version, digest = excluded.digest, "
    "host = excluded.host, pid = excluded.pid, place = excluded.place, started = excluded.started, "
    "since = excluded.since, beat = excluded.beat "
    "WHERE lease.fence = :seen_fence AND lease.holder = :seen_holder AND lease.beat = :seen_beat RETURNING fence"
)


class Leases:
    """The leases in a database; for any thread and process. Every method raises LockstepError when it cannot be used.

    What is compared when a lease changes hands is what the caller has seen: nobody is pushed aside unseen.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, model: str) -> Lease | None:
        """The model's lease, held or given back; None before anybody took it."""
        with self._database.brief() as connection:
            row = connection.execute(select(LEASE).where(LEASE.c.model == model)).mappings().first()
        return None if row is None else _lease(row)

    def take(
        self, present: Lease | None, model: str, operation: str, *, urgent: bool, version: str = "", digest: str = ""
    ) -> Lease | None:
        """The lease of this process's, with the next fence; None when `present` is no longer what stands there."""
        fence = present.fence + 1 if present else 1
        holder, process = uuid.uuid4().hex, this_process()
        ours = Lease(model, fence, holder, operation, urgent, version, digest, process, time.time())
        return ours if self._put(ours, present) else None

    def put_back(self, ours: Lease, present: Lease | None) -> bool:
        """Put a lease of this process's into a database that has forgotten it; False when `present` has changed."""
        return self._put(ours, present)

    def beat(self, ours: Lease) -> Lease | None:
        """Show that the holder lives, and what it is about; None when the lease is no longer held by it."""
        later = replace(ours, beat=ours.beat + 1)
        changed = self._change(ours, {"beat": later.beat, "version": later.version, "digest": later.digest})
        return later if changed else None

    def release(self, ours: Lease) -> bool:
        """Give it back; who held it is forgotten, its fence stays. False when it was no longer held."""
        return self._change(ours, {"holder": "", "host": "", "pid": 0, "place": "", "started": ""})

    def _put(self, ours: Lease, present: Lease | None) -> bool:
        seen = (present.fence, present.holder, present.beat) if present else (-1, "", -1)
        values = {**_row(ours), **dict(zip(("seen_fence", "seen_holder", "seen_beat"), seen, strict=True))}
        with self._database.brief() as connection:
            return bool(connection.execute(TAKE, values).all())

    def _change(self, ours: Lease, values: dict[str, str | int]) -> bool:
        mine = (LEASE.c.model == ours.model) & (LEASE.c.fence == ours.fence) & (LEASE.c.holder == ours.holder)
        # A holder's beats go on asking a database that is silent: somebody must find out when it is back.
        with self._database.brief(again=True) as connection:
            return connection.execute(update(LEASE).where(mine).values(**values)).rowcount == 1


def _row(lease: Lease) -> dict[str, str | int | float | bool]:
    process = lease.process
    return {
        "model": lease.model,
        "fence": lease.fence,
        "holder": lease.holder,
        "operation": lease.operation,
        "urgent": lease.urgent,
        "version": lease.version,
        "digest": lease.digest,
        "host": process.host,
        "pid": process.pid,
        "place": process.place,
        "started": process.started,
        "since": lease.since,
        "beat": lease.beat,
    }


def _lease(row: RowMapping) -> Lease:
    return Lease(
        row["model"],
        row["fence"],
        row["holder"],
        row["operation"],
        bool(row["urgent"]),
        row["version"],
        row["digest"],
        Process(row["host"], row["pid"], row["place"], row["started"]),
        row["since"],
        row["beat"],
    )
