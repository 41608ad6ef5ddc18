"""What one alert comes to, inside a transaction of the inbox: it is kept with the intent that it starts or joins."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lockstep.agent import inbox, outbox
from lockstep.agent.inbox import Received
from lockstep.agent.notice import Notice, Receiver, of_intent
from lockstep.config import Config
from lockstep.operations.reasons import LONGEST
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import AGAIN, Decision, Join, Nothing, Pace, Start, Wish, decide
from lockstep.rules.alerts.intent import BY_ALERT, Action, Intent, State
from lockstep.rules.alerts.occurrence import is_over, recurs, turned
from lockstep.rules.alerts.routing import Route, well_formed
from lockstep.rules.event_names import ALERT_RECEIVED

#: Intents of one model in the incident window; whoever says ever new things to notify of joins the newest.
MOST: Final = 50
#: Seconds by which a sender's clock may be ahead of ours; a time beyond tells nothing, and would hide all that follow.
AHEAD: Final = 86_400.0
#: What came to nothing, which an alert that still comes has tried once more.
TRIED_AGAIN: Final = (State.NOT_CONFIRMED, State.FAILED)


@dataclass(frozen=True)
class Taken:
    """`answer` is the intent's id, "" for none.

    `decision` is None for an alert that had been kept before, unless what came to nothing is tried again for it.
    `unsure` says that the next one like it may be another occurrence, or be what a cool-down has made wait.
    """

    answer: str
    decision: Decision | None
    unsure: bool = False


class Taking:
    """`receivers` are told of new intents and of those that change."""

    def __init__(self, pace: Pace, receivers: Sequence[Receiver] = ()) -> None:
        self._pace = pace
        self._receivers = receivers

    def alert(self, connection: sqlite3.Connection, alert: Alert, way: Route, digest: str, at: float) -> Taken:
        """Keep an alert and what follows from it; `digest` is of the whole delivery, `at` when it came."""
        one = received(as_kept(alert), way, digest, at)
        known, other = inbox.known(connection, one), inbox.newest_other(connection, one)
        between, ends = None if other is None else other.heard, alert.status is Status.RESOLVED
        # An end starts nothing, so that one too many is better than one that is taken for the last one again.
        late = 0.0 if ends else max(self._pace.incident_window, AGAIN)
        louder = known is not None and not ends and _asks_more(one, known)
        if known is not None and not louder and not recurs(one.heard, known.heard, between, late):
            return self._once_more(connection, one, known, turned(known.heard, between))
        overtaken = (known is None or louder) and is_over(one.heard, between)
        decision = self._decided(connection, one, resolved=overtaken or ends)
        settled = self._settle(connection, decision, _intent_of(one), at)
        answer = settled.id if settled is not None else decision.intent if isinstance(decision, Nothing) else ""
        told = "; ".join(text for text in (way.told, decision.told) if text)
        inbox.keep_alert(connection, replace(one, intent=answer, told=told))
        data = {"intent": answer, "model": way.model, "source": one.source, "status": one.status}
        outbox.put(connection, Notice(ALERT_RECEIVED, _reason(one), told, way.model, at, data=data), self._receivers)
        unsure = not one.since if ends else settled is not None and is_made_to_wait(one.action, settled)
        return Taken(answer, decision, unsure=unsure)

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

    def released(self, connection: sqlite3.Connection, model: str, released: float, at: float) -> None:
        """A person released the model, as is known since `at`: its rollbacks are counted anew.

        Alerts that came since the release and were answered by what had ended before are decided anew as well.
        """
        if released <= inbox.released_at(connection, model):
            return
        inbox.put_released(connection, model, released)
        for one in inbox.answered_by_past(connection, model, released):
            end = inbox.newest_other(connection, one)
            if end is not None and turned(one.heard, end.heard):
                continue
            anew = replace(one, told="")
            settled = self._settle(connection, self._decided(connection, anew), _intent_of(anew), at)
            if settled is not None:
                inbox.answer_by(connection, one.key, settled, at)

    def _once_more(self, connection: sqlite3.Connection, one: Received, known: Received, over: bool) -> Taken:
        """What an alert that is known comes to: it has what failed, found nothing, or had to wait tried once more."""
        inbox.see_again(connection, known.key, one.since, one.at)
        ends = one.status == Status.RESOLVED.value
        if over or ends or one.action is Action.NOTIFY:
            return Taken(known.intent, None, unsure=over or (ends and not one.since))
        found = inbox.find_intent(connection, known.intent)
        waits = found is not None and is_made_to_wait(known.action, found)
        nothing = Taken(known.intent, None, unsure=waits)
        if found is None or not (waits or found.state in TRIED_AGAIN) or abs(one.at - found.ended) < AGAIN:
            return nothing
        decision = self._decided(connection, one)
        if isinstance(decision, Nothing) or decision.action.strength < one.action.strength:
            return nothing
        if isinstance(decision, Join) and not _came_after(found, inbox.find_intent(connection, decision.intent)):
            return nothing
        settled = self._settle(connection, decision, _intent_of(one), one.at)
        assert settled is not None
        inbox.answer_by(connection, known.key, settled, one.at)
        return Taken(settled.id, decision)

    def _decided(self, connection: sqlite3.Connection, one: Received, *, resolved: bool = False) -> Decision:
        wish = Wish(one.model, _about(one), one.action, resolved=resolved)
        past = inbox.past_intents(connection, one.model, one.at - self._pace.memory)
        decision = decide(wish, past, self._pace, one.at, inbox.released_at(connection, one.model))
        if isinstance(decision, Start) and decision.action is Action.NOTIFY:
            told = [known for known in past if known.state is State.NOTIFIED]
            if sum(one.at - known.began <= self._pace.incident_window for known in told) >= MOST:
                return Join(told[0].id, told[0].action, told="too many things are told of this one")
        return decision

    def _settle(self, connection: sqlite3.Connection, decision: Decision, new: Intent, at: float) -> Intent | None:
        """Carry a decision into the inbox; the intent as it is now, None where nothing is started or joined."""
        match decision:
            case Nothing():
                return None
            case Start(action, urgent, told, wished):
                intent = replace(new, action=action, urgent=urgent, told=told or new.told, wished=wished)
                inbox.add_intent(connection, intent)
            case Join(joined):
                before = inbox.find_intent(connection, joined)
                assert before is not None
                intent = _joined(before, decision, new)
                inbox.put_intent(connection, intent)
                if not decision.raises and intent.urgent == before.urgent:
                    return intent
        if intent.action is Action.NOTIFY and intent.open:
            intent = replace(intent, state=State.NOTIFIED, ended=at)
            inbox.put_intent(connection, intent)
        outbox.put(connection, of_intent(intent, at), self._receivers)
        return intent


def _asks_more(one: Received, known: Received) -> bool:
    """Whether an alert came back graver than it was, so that another rule is about it now, which asks for more.

    A rule that says more than it did makes nothing of an old alert. An older Lockstep did not keep what was asked for.
    """
    graver = one.action.strength > known.action.strength and one.rule != known.rule
    return graver and known.version is not None


def is_made_to_wait(wished: Action, found: Intent) -> bool:
    """Whether people were told instead of what an alert wished, since the model had just been rolled back."""
    return found.state is State.NOTIFIED and wished.strength > Action.NOTIFY.strength


def _came_after(found: Intent, other: Intent | None) -> bool:
    """Whether something was begun for another alert since: that is of the same incident, and one rollback is enough."""
    return other is not None and other.began > found.ended


def received(alert: Alert, way: Route, digest: str, at: float) -> Received:
    """The alert as it is kept, without what comes of it."""
    return Received(
        key=inbox.row_key(alert, way, digest, at),
        known_by=inbox.key_of(alert),
        trouble=inbox.trouble_of(alert),
        source=alert.source,
        id=alert.id,
        incident=alert.incident,
        status=alert.status.value,
        title=alert.title,
        severity=alert.severity,
        model=way.model,
        version=way.version,
        cloud=way.cloud,
        action=way.action,
        rule=way.rule,
        told=way.told,
        body=digest,
        intent="",
        since=alert.at if alert.at <= at + AHEAD else 0.0,
        at=at,
    )


def _intent_of(one: Received) -> Intent:
    """The intent that the alert starts, or that tells what it asks of one that it joins."""
    return Intent(
        id=str(uuid.uuid4()),
        model=one.model,
        version="",
        cloud=one.cloud,
        action=one.action,
        state=State.ACCEPTED,
        reason=_reason(one),
        actor=f"{BY_ALERT}{one.source}",
        alerts=1,
        began=one.at,
        told=one.told,
        asked=_about(one),
    )


def _about(one: Received) -> str:
    """The version as it is named; what is about no model is told once for each thing that it says."""
    return one.version or "" if one.model else f"{one.source}: {one.title}"[: inbox.KEPT]


def _reason(one: Received) -> str:
    return " ".join(f"{one.source}: {one.title or one.id}".split())[:LONGEST]


def _joined(before: Intent, join: Join, new: Intent) -> Intent:
    """The intent with what joins it; who raises it has asked for what is done, and the first is named still."""
    intent = replace(before, alerts=before.alerts + new.alerts, urgent=before.urgent or join.urgent)
    if not before.open:
        return intent
    intent = replace(intent, action=join.action, wished=join.wished, told=join.told or before.told)
    if not join.raises:
        return intent
    first = f" (first: {before.reason[: LONGEST // 2]})"
    reason = f"{new.reason[: LONGEST - len(first)]}{first}"
    return replace(intent, actor=new.actor, reason=reason, asked=before.asked or new.asked)


def as_kept(alert: Alert) -> Alert:
    """The alert in characters that a database can hold."""
    return replace(
        alert,
        id=well_formed(alert.id),
        source=well_formed(alert.source),
        incident=well_formed(alert.incident),
        title=well_formed(alert.title),
        severity=well_formed(alert.severity),
        trouble=well_formed(alert.trouble),
    )


def is_sure(connection: sqlite3.Connection, answer: str) -> bool:
    """Whether alerts with that answer get it again for AGAIN seconds from now: what it tells of has not failed yet."""
    found = inbox.find_intent(connection, answer) if answer else None
    return found is None or found.state not in TRIED_AGAIN


def clouds_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Every configured model with the clouds of its fleet."""
    return {name: config.fleets[model.fleet].clouds for name, model in config.models.items()}


def pace_of(config: Config) -> Pace:
    """How often a model may be rolled back by alerts, as configured."""
    given = config.agent
    return Pace(given.incident_window, given.cool_down, given.flapping_window, given.flapping_rollbacks)
