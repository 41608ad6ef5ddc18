"""Brings what the inbox holds into the ledger: a line for each genuine alert, and one for what came of each intent.

In batches of one transaction, apart from everything urgent. The event ids follow from what is recorded, so a line is
there once however often the process was killed in between.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

from lockstep.agent import inbox
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.inbox import Received
from lockstep.errors import LockstepError
from lockstep.rules.alerts.intent import Intent
from lockstep.rules.alerts.log import ANSWERED, RECEIVED
from lockstep.stores.ledger import Event, Ledger

LOG: Final = logging.getLogger("lockstep.agent")
BATCH: Final = 200
GATHERED: Final = 0.2  # seconds in which alerts gather for one transaction
STANDS_BACK: Final = 30.0  # seconds at most that lines wait for an urgent operation, which writes the ledger, too
IDLE: Final = 5.0
PRUNED_EVERY: Final = 3600.0


class Scribe:
    """One thread; `urgent` says that an operation is running whose entries come first."""

    def __init__(
        self, database: GroupCommit, ledger: Ledger, keep: float, urgent: Callable[[], bool] = lambda: False
    ) -> None:
        self.problem = ""
        self._database = database
        self._ledger = ledger
        self._keep = keep
        self._urgent = urgent
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scribe", daemon=True)
        self._pruned = 0.0

    def start(self) -> None:
        """Begin, with what was left by the process before; once, however often it is called."""
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        """Something may have come."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Record what is there, and end."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = 0.0
        while True:
            if not self._stopped.is_set():
                self._wake.wait(pause or IDLE)
                self._wake.clear()
                self._stand_back()
            try:
                while self.record():
                    pass
                self._prune()
                self.problem, pause = "", 0.0
            except LockstepError as error:
                if error.reason != self.problem:
                    LOG.warning("alerts are not in the ledger yet: %s", error.reason)
                self.problem, pause = error.reason, IDLE
            except Exception as error:  # one that nobody thought of: without this thread nothing would be recorded
                problem = f"alerts are not in the ledger yet: {type(error).__name__}: {error}"
                if problem != self.problem:
                    LOG.exception("alerts are not in the ledger yet")
                self.problem, pause = problem, IDLE
            if self._stopped.is_set():
                return

    def _stand_back(self) -> None:
        until = time.monotonic() + STANDS_BACK
        self._stopped.wait(GATHERED)
        while self._urgent() and time.monotonic() < until and not self._stopped.wait(GATHERED):
            pass

    def record(self) -> bool:
        """Record one batch; whether more may be waiting. Raises LockstepError while ledger or inbox cannot be used."""
        with self._database.reading() as connection:
            alerts = inbox.unrecorded(connection, BATCH)
            intents = inbox.unrecorded_intents(connection, BATCH)
        if not alerts and not intents:
            return False
        self._ledger.append_batch([*map(line_of, alerts), *map(answer_of, intents)], spool=False)

        def mark(connection: sqlite3.Connection) -> None:
            inbox.mark_recorded(connection, [one.key for one in alerts])
            inbox.mark_answered(connection, intents)

        self._database.write(mark)
        return len(alerts) == BATCH or len(intents) == BATCH

    def _prune(self) -> None:
        now = time.time()
        if now - self._pruned >= PRUNED_EVERY:
            self._database.write(lambda connection: inbox.prune(connection, now - self._keep))
            self._pruned = now


def line_of(one: Received) -> Event:
    """An alert's line, under no model: `lockstep alerts log` finds it by what it is about.

    One that was answered anew, since it still fires, say, has another line with what came of it then.
    """
    body = {
        **{"source": one.source, "id": one.id, "incident": one.incident, "status": one.status, "title": one.title},
        **{"severity": one.severity, "about": one.model, "rule": one.rule, "digest": one.body, "answer": one.intent},
        **({"told": one.told} if one.told else {}),
    }
    event = f"alert/{one.key}/{one.intent}" if one.again else f"alert/{one.key}"
    return Event(event, RECEIVED, "", f"alert:{one.source}", body, at=one.again or one.at)


def answer_of(intent: Intent) -> Event:
    """The line of an intent that has ended."""
    body = {
        **{"answer": intent.id, "action": intent.action.value, "state": intent.state.value, "told": intent.told},
        **{"reason": intent.reason, "alerts": intent.alerts, "digest": intent.version, "rolled_back": intent.moved},
    }
    event = f"{intent.id}/answered/{round(intent.ended * 1000)}"
    return Event(event, ANSWERED, intent.model, intent.actor, body, at=intent.ended)
