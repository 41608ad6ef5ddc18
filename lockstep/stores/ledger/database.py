"""The database behind a ledger: SQLite in one file, or PostgreSQL; one writer at a time, durable at every commit.

A write begins with the writer's lock (SQLite's BEGIN IMMEDIATE, an advisory lock of PostgreSQL), so that no other
writer comes between what it reads and what it adds. Reads see one moment. Nothing is opened before it is needed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from lockstep.errors import LockstepError
from lockstep.stores.ledger.tables import complete, create

SLOW: Final = 1.0  # seconds that a server which is there does not take to refuse
WAIT: Final = 10  # seconds to wait for another writer
BRIEF: Final = 2  # seconds for what must not keep a rollback waiting
CONNECT: Final = 5  # seconds for PostgreSQL to answer at all
SILENCE: Final = 30.0  # seconds in which a server that did not answer is not asked again: a rollback has no time for it
#: Of this database's advisory locks the one that a ledger's writer holds; the digits spell "ledger".
WRITER_LOCK: Final = 0x6C6564676572
WRITER: Final = "ledger_writer"
#: Set here, as a role's default may be faster and less durable; a server that vanishes is noticed after CONNECT.
POSTGRES_OPTIONS: Final = "-c synchronous_commit=on -c lock_timeout={wait}s -c statement_timeout={most}s"
POSTGRES_NETWORK: Final = {
    "connect_timeout": CONNECT,
    "tcp_user_timeout": 1000 * CONNECT,
    "keepalives_idle": CONNECT,
    "keepalives_interval": 1,
    "keepalives_count": CONNECT,
    "application_name": "lockstep",
}


class Database:
    """Connections to one ledger's database; may be used from any thread.

    `address` is a path or a postgresql+psycopg:// address. `set_up` makes what is missing, within the first write.
    """

    def __init__(self, address: str | Path, password: str, set_up: Callable[[Connection], None]) -> None:
        self.path: Path | None = None
        if isinstance(address, Path) or "://" not in address:
            self.path = Path(address)
            url = URL.create("sqlite+pysqlite", database=str(self.path))
        else:
            url = make_url(address)
            url = url.set(password=password) if password else url
        #: For people: without the password.
        self.name = str(self.path) if self.path else url.render_as_string(hide_password=True)
        self._set_up = set_up
        self._engine = _sqlite(url, WAIT) if self.path else _postgres(url, WAIT, 3 * WAIT)
        self._brief = _sqlite(url, BRIEF) if self.path else _postgres(url, BRIEF, BRIEF)
        self._reader = self._engine
        if self.path is None:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writer = self._engine.execution_options(**{WRITER: True})
        self._lock = threading.RLock()
        self._ready: tuple[int, ...] | None = None
        self._silent: tuple[float, LockstepError] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one moment; raises LockstepError naming the database when it cannot be read.

        Looking makes no file: where there is none, a ledger without entries is seen.
        """
        with self._explained():
            if self._absent():
                with _nothing() as connection:
                    yield connection
                return
            self._prepare()
            with self._reader.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """The writer's connection; what is done with it is durable at the end, or undone by an exception."""
        with self._explained(), self._lock:
            self._prepare()
            with self._writer.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def brief(self, *, again: bool = False) -> Iterator[Connection]:
        """A connection for a single statement, which needs no lock of the writer's; waits BRIEF seconds for anything.

        Raises LockstepError when that does not do. `again` asks a server, too, that has just been silent.
        """
        if again:
            self._silent = None
        with self._explained():
            self._prepare()
            with self._brief.begin() as connection:
                yield connection

    def scrub(self) -> None:
        """Overwrite what deleted rows have left in the files."""
        with self._explained():
            if self.path is not None:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                return
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM person, person_salt")

    def close(self) -> None:
        """Let the connections go; the next use opens new ones."""
        self._engine.dispose()
        self._brief.dispose()
        self._ready = None

    def _prepare(self) -> None:
        """Open what is there now: after a fork, and after the file was put aside, old connections are another's."""
        if self._ready is not None and self._ready == self._identity():
            return
        with self._lock:
            # Connections of the parent process are left alone: closing them here would end its transactions.
            for engine in (self._engine, self._brief):
                engine.dispose(close=self._ready is None or self._ready[0] == os.getpid())
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._brief.begin() as connection:
                done = complete(connection)
            if not done:
                with self._writer.begin() as connection:
                    self._set_up(connection)
            self._ready = self._identity()

    def _absent(self) -> bool:
        if self.path is None:
            return False
        try:
            self.path.stat()
        except FileNotFoundError:
            return True
        return False

    def _identity(self) -> tuple[int, ...]:
        if self.path is None:
            return (os.getpid(),)
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (os.getpid(),)
        return (os.getpid(), status.st_dev, status.st_ino)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        if self._silent is not None and time.monotonic() < self._silent[0]:
            raise self._silent[1]
        began = time.monotonic()
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            failure = unusable(self.name, error)
            if self.path is None and time.monotonic() - began > SLOW and _without_answer(error):
                self._silent = (time.monotonic() + SILENCE, failure)
            raise failure from error


@contextlib.contextmanager
def _nothing() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            create(connection)
            yield connection
    finally:
        engine.dispose()


def _without_answer(error: Exception) -> bool:
    """Whether PostgreSQL said nothing: what it says carries a code."""
    return isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) is None


def unusable(name: str, error: Exception) -> LockstepError:
    """The error of a ledger that cannot be read or written."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    return LockstepError(
        f"the ledger {name} cannot be opened: {lines[0] if lines else type(cause).__name__}",
        hint="check that the database is up, its permissions and free space, or set `ledger:` in lockstep.yaml",
    )


def _sqlite(url: URL, wait: int) -> Engine:
    engine = create_engine(url, connect_args={"timeout": wait})

    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.isolation_level = None  # transactions begin where `begun` says, not where the driver guesses
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # fsync at every commit: an intent survives a power cut
        connection.execute("PRAGMA secure_delete = ON")  # who is forgotten leaves no bytes behind

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if WRITER in connection.get_execution_options() else "BEGIN")

    return engine


def _postgres(url: URL, wait: int, most: int) -> Engine:
    given = url.query.get("options", "")
    ours = POSTGRES_OPTIONS.format(wait=wait, most=most)
    options = f"{given if isinstance(given, str) else ' '.join(given)} {ours}".strip()
    url = url.difference_update_query(["options"])
    network = {**POSTGRES_NETWORK, "connect_timeout": min(CONNECT, wait), "options": options}
    engine = create_engine(url, pool_pre_ping=True, connect_args=network)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        if WRITER in connection.get_execution_options():
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (WRITER_LOCK,))

    return engine
