"""From an authentic alert to the deed, exactly once: what is accepted is durable, and done after any kill."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lockstep.agent import inbox, outbox
from lockstep.agent.alert_rules import AlertRules
from lockstep.agent.familiar import Familiar, same_words
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Notice, Receiver
from lockstep.agent.notices import receivers as configured_receivers
from lockstep.agent.outbox import Outbox
from lockstep.agent.scribe import Scribe
from lockstep.agent.shared_fleets import Fleets
from lockstep.agent.taking import Taken, Taking, as_kept, clouds_of, is_sure, pace_of
from lockstep.agent.workers import Workers
from lockstep.config import Config
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.reasons import checked_reason
from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.deciding import Wish
from lockstep.rules.alerts.intent import Action, Intent
from lockstep.rules.alerts.routing import Route, route
from lockstep.stores.keys import load_keys
from lockstep.stores.ledger import open_ledger


@dataclass(frozen=True)
class Accepted:
    """What a delivery came to: the intents that its alerts started or joined, how many were new, how many known."""

    intents: tuple[str, ...]
    alerts: int
    duplicates: int


class Desk:
    """Takes alerts, decides, and carries out; `fleets` gives a model's fleet, opened before (by default as configured).

    `receivers` are told of intents and their ends (by default as configured), `ended` of the model whose intent has
    ended, and whether traffic was moved for it.
    """

    def __init__(
        self,
        config: Config,
        rules: AlertRules,
        *,
        fleets: Callable[[str], Fleet] | None = None,
        receivers: Sequence[Receiver] | None = None,
        ended: Callable[[str, bool], None] = lambda model, moved: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = config.agent
        self.config = config
        self.rules = rules
        self.pace = pace_of(config)
        self.fleet: Callable[[str], Fleet] = fleets or Fleets(config)
        self._rules = rules.as_rules()
        self._models = clouds_of(config)
        self._clock = clock
        self._receivers = tuple(configured_receivers(settings) if receivers is None else receivers)
        self._taking = Taking(self.pace, self._receivers)
        self._familiar = Familiar()
        self._database = GroupCommit(config.inbox, inbox.SCHEMA, self._committed)
        self._outbox = Outbox(self._database, self._receivers, clock)
        self._workers = Workers(
            self._database,
            self.fleet,
            self._receivers,
            self.pace,
            window=settings.confirm_window,
            patience=settings.confirm_patience,
            leading=self._lead,
            ended=ended,
            clock=clock,
        )
        ledger = open_ledger(config.ledger, load_keys(config.keys, config.ledger.origin))
        self._scribe = Scribe(
            self._database, ledger, settings.keep_days * 86400, urgent=lambda: bool(self._workers.running)
        )

    # -- taking in -------------------------------------------------------------------------------------------------

    def accept(self, source: str, alerts: Sequence[Alert], body: bytes, at: float) -> Accepted:
        """Keep the alerts of one authentic delivery, and what they start; durable on return, asks nothing of a network.

        Raises RetryLaterError, with nothing kept, while the inbox cannot be written or is behind: answer 503.
        """
        routed, digest = self._routed(alerts), hashlib.sha256(body).hexdigest()
        keys = [same_words(alert, way, digest) for alert, way in routed]
        known = self._familiar.answers(keys, at)
        if known is not None:
            return _known(known)
        return self._noted(keys, self._database.write(self._keeping(routed, digest, at)), at)

    async def accepted(self, alerts: Sequence[Alert], body: bytes, at: float) -> Accepted:
        """As `accept`, for a loop of asyncio, which goes on with others while the inbox is written."""
        routed, digest = self._routed(alerts), hashlib.sha256(body).hexdigest()
        keys = [same_words(alert, way, digest) for alert, way in routed]
        known = self._familiar.answers(keys, at)
        if known is not None:
            return _known(known)
        return self._noted(keys, await self._database.written(self._keeping(routed, digest, at)), at)

    def _routed(self, alerts: Sequence[Alert]) -> Sequence[tuple[Alert, Route]]:
        return [(as_kept(alert), route(alert, self._rules, self._models)) for alert in alerts]

    def _keeping(
        self, routed: Sequence[tuple[Alert, Route]], digest: str, at: float
    ) -> Callable[[sqlite3.Connection], Sequence[tuple[Taken, bool]]]:
        """What keeps the alerts: each as it was taken, and whether that is sure for a while."""

        def keep(connection: sqlite3.Connection) -> Sequence[tuple[Taken, bool]]:
            taken = [self._taking.alert(connection, alert, way, digest, at) for alert, way in routed]
            return [(one, not one.unsure and is_sure(connection, one.answer)) for one in taken]

        return keep

    def _noted(self, keys: Sequence[str], kept: Sequence[tuple[Taken, bool]], at: float) -> Accepted:
        """What was kept, and is durable now, comes to."""
        for key, (one, sure) in zip(keys, kept, strict=True):
            if sure:
                self._familiar.add(key, one.answer, at)
        duplicates = sum(one.decision is None for one, _ in kept)
        intents = dict.fromkeys(one.answer for one, _ in kept if one.answer)
        return Accepted(tuple(intents), len(kept) - duplicates, duplicates)

    def ask_rollback(self, model: str, to: str | None, reason: str, actor: str, leaving: str = "") -> Intent:
        """A person's rollback: kept as an alert's is, and begun at once, whatever cool-down says.

        `leaving` is the digest that the person saw serving. Raises NotFoundError for a model that is not configured,
        RefusedError for a reason that is none, RetryLaterError as `accept`.
        """
        self.config.model(model)
        reason = checked_reason(reason, needed=True)
        now = self._clock()
        wish = Wish(model, leaving, Action.ROLLBACK, person=True, to=to or "")

        return self._database.write(lambda connection: self._taking.asked(connection, wish, reason, actor, now))

    def tell_once(self, notice: Notice) -> None:
        """Have everyone told who wants it, of what the agent learns otherwise, such as an approval that is wanted.

        Told of again, by another process or after a restart, a notice of the same id comes to nothing. Raises
        RetryLaterError when the inbox cannot be written.
        """
        now = self._clock()

        def put(connection: sqlite3.Connection) -> None:
            if inbox.tell_first(connection, notice.id, now):
                outbox.put(connection, notice, self._receivers)

        self._database.write(put)

    def released(self, model: str, at: float) -> None:
        """A person released the model at that time, see `Taking.released`. May be told again and again."""
        with self._database.reading() as connection:
            if inbox.released_at(connection, model) >= at:
                return
        now = self._clock()
        self._database.write(lambda connection: self._taking.released(connection, model, at, now))

    # -- looking ---------------------------------------------------------------------------------------------------

    def intents(self, last: int = 50) -> tuple[Intent, ...]:
        """The newest intents, the newest first."""
        with self._database.reading() as connection:
            return inbox.newest_intents(connection, last)

    def intent(self, intent_id: str) -> Intent | None:
        """The intent of that id."""
        with self._database.reading() as connection:
            return inbox.find_intent(connection, intent_id)

    def backlog(self) -> Mapping[str, int]:
        """For metrics: `unrecorded_alerts`, `open_intents`, `waiting_notices`, `dead_letters`."""
        with self._database.reading() as connection:
            return inbox.backlog(connection)

    def problems(self) -> tuple[str, ...]:
        """Why the agent is not ready, in sentences; none when it is. Writes to the inbox, to see that it can."""
        found = [*([self._scribe.problem] if self._scribe.problem else []), *self._workers.problems]
        if not self._workers.alive:
            found.append("what is accepted is not carried out: restart the agent, which then does it")
        try:
            self._database.write(lambda connection: None, patience=2.0)
        except LockstepError as error:
            found.append(error.reason)
        return tuple(found)

    @property
    def leads(self) -> bool:
        """Whether this process carries out what is accepted; another one on the same inbox may."""
        return self._workers.leads

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to carry out, with what was accepted before a kill; returns at once."""
        self._workers.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Take up nothing more, and wait for what runs; what does not end in time goes on after the next start."""
        deadline = time.monotonic() + timeout
        self._workers.stop(timeout)
        self._scribe.stop(max(0.5, deadline - time.monotonic()))
        self._outbox.stop(max(0.5, deadline - time.monotonic()))
        self._database.close()

    def _lead(self) -> None:
        """One process records and tells: the one that carries out."""
        self._scribe.start()
        self._outbox.start()

    def _committed(self) -> None:
        self._workers.wake()
        self._scribe.wake()
        self._outbox.wake()


def _known(answers: Sequence[str]) -> Accepted:
    return Accepted(tuple(dict.fromkeys(answer for answer in answers if answer)), 0, len(answers))
