"""Which intents are carried out, and in which threads: one a model, while this process leads.

Of several agents on one inbox one carries out; the others accept, and take over when it is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lockstep.agent import inbox
from lockstep.agent.group_commit import GroupCommit
from lockstep.errors import LockstepError
from lockstep.rules.alerts.intent import Intent

LOG: Final = logging.getLogger("lockstep.agent")
MOST: Final = 16  # models that are worked on at once
LOOK: Final = 1.0  # seconds until the inbox is looked at although nobody said that something came


class Dispatcher:
    """Gives each open intent to a thread of its model.

    `carry_out` brings one to its end, and raises LockstepError only when that cannot be kept. `seen` is told of every
    open intent, again and again, also of those that are carried out already. `leading` is called once this process
    leads.
    """

    def __init__(
        self,
        database: GroupCommit,
        carry_out: Callable[[Intent], None],
        *,
        seen: Callable[[Intent], None],
        leading: Callable[[], None],
    ) -> None:
        self.leads = False
        self.stopped = threading.Event()
        self._database = database
        self._carry_out = carry_out
        self._seen = seen
        self._leading = leading
        self._came = threading.Event()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Thread] = {}
        self._problems: dict[str, str] = {}
        self._lead: int | None = None
        self._dispatcher = threading.Thread(target=self._dispatch, name="desk", daemon=True)

    def start(self) -> None:
        """Begin, with what was accepted before."""
        self._dispatcher.start()

    def wake(self) -> None:
        """Something may have come."""
        self._came.set()

    @property
    def running(self) -> tuple[str, ...]:
        """Models that are worked on."""
        with self._lock:
            return tuple(self._busy)

    @property
    def alive(self) -> bool:
        """Whether what is accepted is looked at, here or as soon as this process leads."""
        return self._dispatcher.is_alive()

    @property
    def problems(self) -> tuple[str, ...]:
        """Why models' intents stay open, in a sentence each; nothing is told of what a locked inbox holds up."""
        with self._lock:
            return tuple(self._problems.values())

    def stop(self, timeout: float) -> None:
        """Take nothing more up; what runs is waited for, and goes on after the next start if it does not end."""
        self.stopped.set()
        self._came.set()
        deadline = time.monotonic() + timeout
        with self._lock:
            threads = list(self._busy.values())
        for thread in [self._dispatcher, *threads]:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._lead is not None and not self.running:
            os.close(self._lead)
            self._lead = None

    def _dispatch(self) -> None:
        while not self.stopped.is_set() and not self._take_lead():
            self.stopped.wait(LOOK)  # a lock of the file system, which tells nobody when it is free
        if self.stopped.is_set():
            return
        self.leads = True
        told = False
        while not self.stopped.is_set():
            self._came.clear()
            try:
                with self._database.reading() as connection:
                    waiting = inbox.open_intents(connection)
                for intent in waiting:
                    self._give(intent)
                if not told:
                    self._leading()
                    told = True
            except LockstepError as error:
                LOG.warning("what was accepted cannot be read: %s", error.reason)
            except Exception:  # no thread to be had, say: nobody else would take up what comes later
                LOG.exception("what was accepted cannot be taken up")
                self.stopped.wait(LOOK)
            self._came.wait(LOOK)

    def _give(self, intent: Intent) -> None:
        self._seen(intent)
        with self._lock:
            if intent.model in self._busy or len(self._busy) >= MOST:
                return
            name = f"desk: {intent.model}"
            thread = threading.Thread(target=self._work, args=(intent.model,), name=name, daemon=True)
            self._busy[intent.model] = thread
        try:
            thread.start()
        except BaseException:
            with self._lock:
                del self._busy[intent.model]
            raise

    def _take_lead(self) -> bool:
        path = Path(f"{self._database.path}.lead")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            LOG.warning("%s cannot be opened: %s", path, error)
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lead = descriptor
        return True

    def _work(self, model: str) -> None:
        try:
            while not self.stopped.is_set():
                with self._database.reading() as connection:
                    mine = [one for one in inbox.open_intents(connection) if one.model == model]
                if not mine:
                    self._told(model, "")
                    break
                self._carry_out(mine[0])
        except LockstepError as error:  # the inbox: what was done is found in the ledger when it can be written again
            LOG.warning("%s: what came of an intent cannot be kept: %s", model, error.reason)
            self.stopped.wait(LOOK)
        except Exception as error:  # one that nobody thought of would come again at once, without an end
            if self._told(model, f"{model}: what came of an intent cannot be kept: {type(error).__name__}: {error}"):
                LOG.exception("%s: what came of an intent cannot be kept", model)
            self.stopped.wait(LOOK)
        finally:
            with self._lock:
                del self._busy[model]
            self._came.set()

    def _told(self, model: str, problem: str) -> bool:
        """Keep the model's problem, "" for none; whether it is another one than before."""
        with self._lock:
            before = self._problems.pop(model, "")
            if problem:
                self._problems[model] = problem
        return problem != before
