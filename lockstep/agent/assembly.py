"""The agent's parts, put together: what the server's routes and its start and end work on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

from lockstep.agent.access import Access
from lockstep.agent.alert_rules import AlertRules
from lockstep.agent.desk import Desk
from lockstep.agent.notice import of_question
from lockstep.agent.refresher import Refresher
from lockstep.agent.sessions import Sessions
from lockstep.agent.shared_fleets import Fleets
from lockstep.agent.sources import Source, open_source
from lockstep.agent.telemetry import Telemetry
from lockstep.config import Config
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import held_and_released
from lockstep.operations.journal import keep_copies

LOG: Final = logging.getLogger("lockstep.agent")
CONFIRMATIONS: Final = 16  # that may wait
CONFIRM_SECONDS: Final = 10.0
INTENTS: Final = 200  # the newest, of which the metrics tell


class Agent:
    """All parts of one agent; `start` begins to look and to carry out, the server then lets alerts in."""

    def __init__(self, config: Config, rules: AlertRules) -> None:
        settings = config.agent
        self.config = config
        self.fleets = Fleets(config)
        self.desk = Desk(
            config, rules, fleets=self.fleets, ended=lambda model, moved: self.refresher.poke(model, moved=moved)
        )
        self.sources: Mapping[str, Source] = {name: open_source(name, source) for name, source in rules.sources.items()}
        self.access = Access(settings.tokens)
        self.sessions = Sessions(settings.session_hours * 3600.0)
        self.refresher = Refresher(
            self.fleets,
            self.fleets.models,
            tuple(self.fleets.clouds),
            every=settings.refresh_every,
            prove_every=settings.prove_every,
            plan_every=settings.plan_every,
            held=self._held,
            wanted=lambda question: self.desk.tell_once(of_question(question)),
        )
        self.telemetry = Telemetry(
            lambda: self.refresher.overview, lambda: self.desk.intents(INTENTS), self.desk.backlog
        )
        self.running = False
        self._looked: tuple[float, Mapping[str, str]] = (-1.0, {})
        self._background = ThreadPoolExecutor(1, thread_name_prefix="confirmations")
        self._waiting = BoundedSemaphore(CONFIRMATIONS)

    def start(self) -> None:
        """Begin to look, and to carry out what was accepted before the last end. Returns at once."""
        self.desk.start()
        self.refresher.start()
        self.running = True

    def stop(self, timeout: float = 10.0) -> None:
        """Carry out nothing new, and wait that long for what runs: what does not end goes on after the next start."""
        self.running = False
        until = time.monotonic() + timeout
        self.refresher.stop(min(2.0, timeout))
        self._background.shutdown(wait=False, cancel_futures=True)
        self.desk.stop(max(0.0, until - time.monotonic()))

    def catch_up(self) -> None:
        """Bring the clouds' copies of the ledger up to it; what that needs is imported and connected from then on.

        A rollback copies at its end, while alerts come in.
        """
        known: set[tuple[str, ...]] = set()
        for model in self.fleets.models:
            try:
                fleet = self.fleets(model)
            except LockstepError as error:
                LOG.warning("%s: %s", model, error.reason)
                continue
            clouds = tuple(cloud.name for cloud in fleet.clouds)
            if clouds not in known:
                known.add(clouds)
                keep_copies(fleet)

    def confirm(self, source: Source, url: str) -> None:
        """Fetch a subscription's confirmation, after the answer; one too many is dropped, and sent again by its sender.

        The source holds the address against its pinned host.
        """
        if not self._waiting.acquire(blocking=False):
            LOG.warning("source %s: too many subscriptions ask to be confirmed; this one must ask again", source.name)
            return
        self._background.submit(self._released, lambda: source.confirm(url, CONFIRM_SECONDS), source.name)

    def _released(self, call: Callable[[], None], name: str) -> None:
        try:
            call()
            LOG.info("source %s: the subscription is confirmed", name)
        except Exception as error:  # it is a sender's word by which this runs
            LOG.warning("source %s: the subscription is not confirmed: %s", name, error)
        finally:
            self._waiting.release()

    def _held(self, fleet: Fleet) -> str:
        """Why the model's rollouts are held, "" when they are not; raises LockstepError for a ledger not to be read."""
        found, released = held_and_released(fleet)
        if released:
            with contextlib.suppress(LockstepError):  # the inbox's trouble is told where it is written; the next look
                self.desk.released(fleet.model, released)
        return "" if found is None else str(found)

    def unready(self) -> Mapping[str, str]:
        """What is not as it must be to take alerts, by part; empty when all is. Looked at once a second at most."""
        at, known = self._looked
        if time.monotonic() - at < 1.0:
            return known
        found = self._look()
        self._looked = (time.monotonic(), found)
        return found

    def _look(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if not self.running:
            found["desk"] = "it is not running"
        elif problems := self.desk.problems():
            found["inbox"] = "; ".join(problems)
        if not self.refresher.warm:
            found["overview"] = "not every model was looked at yet"
        else:
            age = time.time() - self.refresher.overview.oldest
            limit = 60.0 + 10.0 * self.config.agent.refresh_every
            if self.config.models and age > limit:
                found["overview"] = f"a model was looked at {age:.0f} s ago; at most {limit:.0f} s are usual"
        return found
