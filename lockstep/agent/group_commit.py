"""SQLite that is on the disk before anybody is answered, at many writes a second: one fsync for all that wait.

One thread writes. What came in while it waited for the disk is written by the next transaction together, each piece of
work under a savepoint of its own: one that fails takes nothing of the others with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from pathlib import Path
from typing import Final, Generic, TypeVar

from lockstep.agent.schema import Schema
from lockstep.errors import BusyError, LockstepError, RetryLaterError
from lockstep.stores.private_files import FOLDER_MODE, MODE

T = TypeVar("T")
TOGETHER: Final = 256  # pieces of work in one transaction
WAITING: Final = 4096  # pieces that may wait; more are told to come later
LOCKED: Final = 2.0  # seconds that another process's transaction is waited for
PATIENCE: Final = 10.0  # seconds that a caller waits at most


class _Piece(Generic[T]):
    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()
        self.value: T | None = None
        self.failed: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        connection.execute("SAVEPOINT piece")
        try:
            self.value = self.work(connection)
            connection.execute("RELEASE piece")
        except BaseException as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise  # the database's trouble is everybody's
            connection.execute("ROLLBACK TO piece")
            connection.execute("RELEASE piece")
            self.failed = error

    def tell(self) -> None:
        if self.failed is not None:
            self.future.set_exception(self.failed)
        else:
            self.future.set_result(self.value)  # type: ignore[arg-type]  # set by run


class GroupCommit:
    """The database at `path`, made with `schema` if it is missing. `committed` is called after each transaction."""

    def __init__(self, path: Path, schema: Schema, committed: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._schema = schema
        self._committed = committed
        self._queue: queue.Queue[_Piece[object] | None] = queue.Queue(WAITING)
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def write(self, work: Callable[[sqlite3.Connection], T], patience: float = PATIENCE) -> T:
        """What `work` gives, once it is durable. It may be run again, so it touches nothing but the connection.

        Raises what `work` raises; BusyError when too much waits; RetryLaterError when the database cannot be written,
        and then nothing was.
        """
        future = self._begin(work)
        try:
            return future.result(patience)
        except WaitedTooLong:
            future.cancel()  # what is being written at this very moment is known again when it is sent again
            raise self._too_slow(patience) from None

    async def written(self, work: Callable[[sqlite3.Connection], T], patience: float = PATIENCE) -> T:
        """As `write`, for a loop of asyncio, which goes on with others meanwhile."""
        try:
            async with asyncio.timeout(patience):
                return await asyncio.wrap_future(self._begin(work))  # which is cancelled with it
        except TimeoutError:
            raise self._too_slow(patience) from None

    def _begin(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        piece = _Piece(work)
        self._start()
        try:
            self._queue.put_nowait(piece)  # type: ignore[arg-type]  # a queue of pieces of any value
        except queue.Full:
            raise BusyError(f"{self.path} is behind: {WAITING} writes wait", hint="send it again in a moment") from None
        return piece.future

    def _too_slow(self, patience: float) -> RetryLaterError:
        return RetryLaterError(
            f"{self.path} was not written within {patience:.0f} s", hint="look whether its disk answers"
        )

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, one thread at a time; raises RetryLaterError when it cannot be read."""
        with self._reading, self._explained():
            if self._reader is None:
                self._reader = self._open()
            yield self._reader

    def close(self) -> None:
        """Write what waits, and let the connections go."""
        with self._starting:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(PATIENCE)
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _start(self) -> None:
        with self._starting:
            if self._closed:
                raise RetryLaterError(f"{self.path} is being closed", hint="send it again in a moment")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
                self._thread.start()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, MODE))  # what is in it is nobody else's
        connection = sqlite3.connect(self.path, timeout=LOCKED, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._schema.apply(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (first := self._queue.get()) is not None:
            pieces = [first]
            ends = False
            with contextlib.suppress(queue.Empty):
                while len(pieces) < TOGETHER and not ends:
                    following = self._queue.get_nowait()
                    ends = following is None
                    pieces += [following] if following is not None else []
            wanted = [piece for piece in pieces if piece.future.set_running_or_notify_cancel()]
            try:
                with self._explained():
                    connection = connection or self._open()
                    _commit(connection, wanted)
            except LockstepError as error:
                if connection is not None:
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
                connection = None
                for piece in wanted:
                    piece.future.set_exception(error)
            else:
                for piece in wanted:
                    piece.tell()
                self._committed()
            if ends:
                break
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RetryLaterError(
                f"the inbox {self.path} cannot be used: {error}",
                hint="look for free space, its permissions, and who else has it open",
            ) from error


def _commit(connection: sqlite3.Connection, pieces: list[_Piece[object]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for piece in pieces:
            piece.run(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
