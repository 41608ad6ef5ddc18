"""Notices that wait for their receivers: durable, tried again with growing pauses, and put aside when nothing helps.

A receiver has a thread of its own, so one that is dead keeps neither the others waiting nor a rollback, which waits for
none of them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Notice, Receiver
from lockstep.errors import LockstepError, RetryLaterError, UnreachableError
from lockstep.rules.event_names import ALERT_RECEIVED

#: Seconds before the second, third … attempt; a notice is dead after the last.
BACKOFF: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0)
#: Notices that may wait for one receiver; beyond it the alerts themselves are left out, which the ledger holds.
MOST: Final = 2000
#: Longest pause of a lane whose receiver does not answer at all, and seconds after which its notices are given up.
UNREACHABLE: Final = 30.0
GIVEN_UP: Final = 86_400.0
IDLE: Final = 30.0  # seconds until a lane looks again although nobody woke it: another process may have put one in


@dataclass(frozen=True)
class DeadLetter:
    """A notice that could not be delivered; `number` is its place in the outbox."""

    number: int
    receiver: str
    event: str
    attempts: int
    error: str
    notice: Notice


def put(connection: sqlite3.Connection, notice: Notice, receivers: Sequence[Receiver]) -> None:
    """Keep a notice for everyone who wants it, once each."""
    for receiver in receivers:
        if not receiver.wants(notice) or (
            notice.event == ALERT_RECEIVED and _waiting(connection, receiver.name) > MOST
        ):
            continue
        connection.execute(
            "INSERT OR IGNORE INTO notice (receiver, id, event, body, made, due) VALUES (?, ?, ?, ?, ?, ?)",
            (receiver.name, notice.id, notice.event, notice.as_json(), notice.at, notice.at),
        )


def dead_letters(connection: sqlite3.Connection, last: int = 200) -> tuple[DeadLetter, ...]:
    """What could not be delivered, the newest first."""
    rows = connection.execute("SELECT * FROM notice WHERE dead = 1 ORDER BY number DESC LIMIT ?", (last,)).fetchall()
    return tuple(
        DeadLetter(
            row["number"], row["receiver"], row["event"], row["attempts"], row["error"], Notice.from_json(row["body"])
        )
        for row in rows
    )


def send_again(connection: sqlite3.Connection, now: float) -> int:
    """Have every dead letter tried from the beginning; how many there were."""
    return connection.execute(
        "UPDATE notice SET dead = 0, attempts = 0, due = ?, error = '' WHERE dead = 1", (now,)
    ).rowcount


def _waiting(connection: sqlite3.Connection, receiver: str) -> int:
    counted = connection.execute("SELECT count(*) FROM notice WHERE receiver = ? AND dead = 0", (receiver,)).fetchone()
    return int(counted[0])


class Outbox:
    """Delivers what waits in `database`, one thread a receiver."""

    def __init__(
        self,
        database: GroupCommit,
        receivers: Sequence[Receiver],
        clock: Callable[[], float] = time.time,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self.receivers = tuple(receivers)
        self._database = database
        self._clock = clock
        self._backoff = tuple(backoff)
        self._stopped = threading.Event()
        self._wakes = {receiver.name: threading.Event() for receiver in self.receivers}
        self._lanes: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to deliver, with what was left by the process before; called again, it begins what could not begin."""
        for receiver in self.receivers[len(self._lanes) :]:
            lane = threading.Thread(
                target=self._deliver, args=(receiver,), name=f"outbox: {receiver.name}", daemon=True
            )
            lane.start()
            self._lanes.append(lane)

    def wake(self) -> None:
        """Something may have been put in."""
        for wake in self._wakes.values():
            wake.set()

    def stop(self, timeout: float) -> None:
        """Stop; what is being sent is waited for that long, and else sent again after the next start."""
        self._stopped.set()
        self.wake()
        deadline = time.monotonic() + timeout
        for lane in self._lanes:
            lane.join(max(0.0, deadline - time.monotonic()))

    def _deliver(self, receiver: Receiver) -> None:
        wake = self._wakes[receiver.name]
        silent = 0
        while not self._stopped.is_set():
            wake.clear()
            try:
                pause = self._next(receiver)
                silent = 0
                if pause > 0:
                    wake.wait(pause)
            except UnreachableError:  # so it is with all that waits for it: no use in trying each
                silent += 1
                self._stopped.wait(min(UNREACHABLE, self._backoff[0] * 2.0 ** min(silent - 1, 10)))
            except LockstepError:  # the inbox is locked or its disk is full: whoever accepts alerts tells of that
                self._stopped.wait(5.0)

    def _next(self, receiver: Receiver) -> float:
        """Deliver what is due first; seconds until the next one is. Raises UnreachableError where nobody answers."""
        now = self._clock()
        with self._database.reading() as connection:
            # What is due later than any pause allows was put in before the clock was set back.
            row = connection.execute(
                "SELECT number, body, attempts, made, "
                "CASE WHEN attempts = 0 OR due > :now + :longest THEN min(due, :now) ELSE due END AS due "
                "FROM notice WHERE receiver = :receiver AND dead = 0 ORDER BY 5, number LIMIT 1",
                {"receiver": receiver.name, "now": now, "longest": max(self._backoff, default=0.0)},
            ).fetchone()
        if row is None:
            return IDLE
        if row["due"] > now:
            return min(IDLE, float(row["due"]) - now)
        number, attempts = int(row["number"]), int(row["attempts"]) + 1
        try:
            receiver.send(Notice.from_json(row["body"]))
        except Exception as error:  # a receiver's library may raise anything, and the lane goes on
            if isinstance(error, UnreachableError) and now - float(row["made"]) < GIVEN_UP:
                raise
            later = isinstance(error, RetryLaterError) or not isinstance(error, LockstepError)
            dead = not later or attempts > len(self._backoff)
            due = self._clock() + (0.0 if dead else self._backoff[attempts - 1])
            told = error.reason if isinstance(error, LockstepError) else f"{type(error).__name__}: {error}"
            self._database.write(
                lambda connection: connection.execute(
                    "UPDATE notice SET attempts = ?, due = ?, dead = ?, error = ? WHERE number = ?",
                    (attempts, due, int(dead), told[:500], number),
                )
            )
        else:
            self._database.write(
                lambda connection: connection.execute("DELETE FROM notice WHERE number = ?", (number,))
            )
        return 0.0
