"""What one alert comes to, inside a transaction of the inbox: it is kept with the intent that it starts or joins."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lockstep.agent import inbox, outbox
from lockstep.agent.inbox import Received, key_of
from lockstep.agent.notice import Notice, Receiver, of_intent
from lockstep.config import Config
from lockstep.operations.reasons import LONGEST
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import AGAIN, Decision, Join, Nothing, Pace, Start, Wish, decide
from lockstep.rules.alerts.intent import BY_ALERT, Action, Intent, State
from lockstep.rules.alerts.routing import Route, well_formed
from lockstep.rules.event_names import ALERT_RECEIVED

#: Intents of one model in the incident window; whoever says ever new things to notify of joins the newest.
MOST: Final = 50
#: What came to nothing, which an alert that still comes has tried once more.
TRIED_AGAIN: Final = (State.NOT_CONFIRMED, State.FAILED)


@dataclass(frozen=True)
class Taken:
    """`answer` is the intent's id, "" for none.

    `decision` is None for an alert that had been kept before, unless what came to nothing is tried again for it.
    """

    answer: str
    decision: Decision | None


class Taking:
    """`receivers` are told of new intents and of those that change."""

    def __init__(self, pace: Pace, receivers: Sequence[Receiver] = ()) -> None:
        self._pace = pace
        self._receivers = receivers

    def alert(self, connection: sqlite3.Connection, alert: Alert, way: Route, digest: str, at: float) -> Taken:
        """Keep an alert and what follows from it; `digest` is of the whole delivery, `at` when it came."""
        alert = as_kept(alert)
        known = inbox.known(connection, key_of(alert))
        tried = None if known is None else _to_try_again(connection, alert, known, at)
        if known is not None:
            inbox.see_again(connection, key_of(alert), at)
        if known is not None and tried is None:
            return Taken(known, None)
        # What is about no model is told once for each thing that it says.
        about = way.version if way.model else f"{alert.source}: {alert.title}"[: inbox.KEPT]
        wish = Wish(way.model, about, way.action, resolved=alert.status is Status.RESOLVED)
        past = inbox.past_intents(connection, way.model, at - self._pace.memory)
        decision = decide(wish, past, self._pace, at, inbox.released_at(connection, way.model))
        if known is not None and tried is not None and not _tries_again(decision, tried):
            return Taken(known, None)
        recent = [one for one in past if at - one.began <= self._pace.incident_window]
        if isinstance(decision, Start) and decision.action is Action.NOTIFY and len(recent) >= MOST:
            decision = Join(recent[0].id, recent[0].action, told="too many things are told of this one")
        reason = " ".join(f"{alert.source}: {alert.title or alert.id}".split())[:LONGEST]
        new = Intent(
            id=str(uuid.uuid4()),
            model=way.model,
            version="",
            cloud=way.cloud,
            action=way.action,
            state=State.ACCEPTED,
            reason=reason,
            actor=f"{BY_ALERT}{alert.source}",
            alerts=1 if tried is None or isinstance(decision, Start) else 0,
            began=at,
            told=way.told,
            asked=about,
        )
        settled = self._settle(connection, decision, new, at)
        if settled is not None and tried is not None:
            connection.execute("UPDATE alert SET intent = ? WHERE key = ?", (settled.id, key_of(alert)))
            return Taken(settled.id, decision)
        answer = settled.id if settled is not None else decision.intent if isinstance(decision, Nothing) else ""
        told = "; ".join(one for one in (way.told, decision.told) if one)
        kept = Received(
            key=key_of(alert),
            source=alert.source,
            id=alert.id,
            incident=alert.incident,
            status=alert.status.value,
            title=alert.title,
            severity=alert.severity,
            model=way.model,
            rule=way.rule,
            told=told,
            body=digest,
            intent=answer,
            since=alert.at,
            at=at,
        )
        inbox.keep_alert(connection, kept)
        data = {"intent": answer, "model": way.model, "source": alert.source, "status": alert.status.value}
        outbox.put(connection, Notice(ALERT_RECEIVED, reason, told, way.model, at, data=data), self._receivers)
        return Taken(answer, decision)

    def asked(self, connection: sqlite3.Connection, wish: Wish, reason: str, actor: str, at: float) -> Intent:
        """Keep what a person asks for."""
        decision = decide(wish, inbox.past_intents(connection, wish.model, at - self._pace.memory), self._pace, at)
        new = Intent(
            id=str(uuid.uuid4()),
            model=wish.model,
            version="",
            cloud="",
            action=wish.action,
            state=State.ACCEPTED,
            reason=reason,
            actor=actor,
            alerts=0,
            began=at,
            asked=wish.version,
            to=wish.to,
        )
        settled = self._settle(connection, decision, new, at)
        assert settled is not None
        return settled

    def _settle(self, connection: sqlite3.Connection, decision: Decision, new: Intent, at: float) -> Intent | None:
        """Carry a decision into the inbox; the intent as it is now, None where nothing is started or joined."""
        match decision:
            case Nothing():
                return None
            case Start(action, urgent, told, wished):
                intent = replace(new, action=action, urgent=urgent, told=told or new.told, wished=wished)
                inbox.add_intent(connection, intent)
            case Join(joined, action, again, urgent, told, wished):
                before = inbox.find_intent(connection, joined)
                assert before is not None
                intent = replace(
                    before,
                    action=action,
                    alerts=before.alerts + new.alerts,
                    urgent=before.urgent or urgent,
                    wished=wished,
                )
                if again:
                    intent = replace(intent, state=State.ACCEPTED, began=at, ended=0.0, told=told)
                inbox.put_intent(connection, intent)
                if not again and intent.action is before.action and intent.urgent == before.urgent:
                    return intent
        if intent.action is Action.NOTIFY and intent.open:
            intent = replace(intent, state=State.NOTIFIED, ended=at)
            inbox.put_intent(connection, intent)
        outbox.put(connection, of_intent(intent, at), self._receivers)
        return intent


def as_kept(alert: Alert) -> Alert:
    """The alert in characters that a database can hold."""
    return replace(
        alert,
        id=well_formed(alert.id),
        source=well_formed(alert.source),
        incident=well_formed(alert.incident),
        title=well_formed(alert.title),
        severity=well_formed(alert.severity),
    )


def is_sure(connection: sqlite3.Connection, answer: str) -> bool:
    """Whether alerts with that answer get it again for AGAIN seconds from now: what it tells of has not failed yet."""
    found = inbox.find_intent(connection, answer) if answer else None
    return found is None or found.state not in TRIED_AGAIN


def _to_try_again(connection: sqlite3.Connection, alert: Alert, known: str, at: float) -> Intent | None:
    """The intent of an alert that still fires a while after that came to nothing; None where there is none."""
    if alert.status is not Status.FIRING or inbox.known(connection, key_of(replace(alert, status=Status.RESOLVED))):
        return None
    found = inbox.find_intent(connection, known)
    if found is None or found.state not in TRIED_AGAIN:
        return None
    return found if abs(at - found.ended) >= AGAIN else None


def _tries_again(decision: Decision, tried: Intent) -> bool:
    if isinstance(decision, Nothing) or decision.action.strength < tried.action.strength:
        return False
    return isinstance(decision, Start) or decision.again


def clouds_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Every configured model with the clouds of its fleet."""
    return {name: config.fleets[model.fleet].clouds for name, model in config.models.items()}


def pace_of(config: Config) -> Pace:
    """How often a model may be rolled back by alerts, as configured."""
    given = config.agent
    return Pace(given.incident_window, given.cool_down, given.flapping_window, given.flapping_rollbacks)
