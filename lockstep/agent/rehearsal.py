"""What a sample of an alert would come to now: read without proof of who sent it, decided on a copy, nothing done."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockstep.agent import inbox
from lockstep.agent.alert_rules import AlertRules
from lockstep.agent.delivery import Delivery
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.inbox import Received
from lockstep.agent.sources import SourceSettings, read_unproved
from lockstep.agent.taking import TRIED_AGAIN, Taking, as_kept, clouds_of, is_made_to_wait, pace_of, received
from lockstep.config import Config
from lockstep.errors import NotFoundError, RefusedError
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import AGAIN, Decision, Join, Nothing, Start
from lockstep.rules.alerts.intent import Action, Intent
from lockstep.rules.alerts.occurrence import turned
from lockstep.rules.alerts.routing import Route, route


class Unset(Mapping[str, str]):
    """The environment, with something in the place of what is not set: a rehearsal proves nothing by secrets."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __getitem__(self, name: str) -> str:
        return self._environment.get(name) or "0" * 32

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)


@dataclass(frozen=True)
class Rehearsed:
    """One alert of the sample: where it leads, what would be decided, and the intent that it would start or join.

    `taken` says what the agent has of the alert already, "" for nothing.
    """

    alert: Alert
    route: Route
    decision: Decision | None
    intent: Intent | None
    taken: str = ""

    @property
    def action(self) -> Action | None:
        """What would be done for this alert; None where nothing would, or what another one has asked for already."""
        match self.decision:
            case Start(action=action) | Join(action=action, raises=True):
                return action
            case _:
                return None

    @property
    def told(self) -> str:
        """What would be done for this alert, in a sentence."""
        intent, decision = self.intent, self.decision
        if decision is None:
            return f"nothing: {self.taken or 'the same alert stands in this sample before'}"
        if intent is None or isinstance(decision, Nothing):
            return f"nothing: {decision.told}"
        does = _does(intent)
        if isinstance(decision, Start):
            what = f"{does}: a new intent"
        elif decision.raises:
            what = f"{does}: raises intent {intent.id}, which asked for less"
        else:
            what = f"nothing more: it joins intent {intent.id} ({intent.state.value}): {does}"
        why = "; ".join(text for text in (decision.told or self.route.told, self.taken) if text)
        return f"{what}{f'; {why}' if why else ''}{' (a person is called)' if decision.urgent else ''}"


def _does(intent: Intent) -> str:
    what = f"{intent.action.value} {intent.model}".strip()
    if intent.action.strength < Action.ROLLBACK_IF_CONFIRMED.strength:
        return what
    return f"{what}, version {intent.asked}" if intent.asked else f"{what}, whatever serves"


def rehearse(
    config: Config, rules: AlertRules, alerts: tuple[Alert, ...], now: float, body: bytes = b""
) -> tuple[Rehearsed, ...]:
    """What the alerts, which came in `body`, would come to if they came now.

    The inbox is looked at, where there is one, and not touched.
    """
    taking, models, given = Taking(pace_of(config)), clouds_of(config), rules.as_rules()
    digest = hashlib.sha256(body).hexdigest()
    routed = [(alert, route(alert, given, models)) for alert in alerts]
    ones = [received(as_kept(alert), way, digest, now) for alert, way in routed]
    found: list[Rehearsed] = []
    connection = _copy(config, now, ones)
    try:
        kept = {row["key"] for row in connection.execute("SELECT key FROM alert")}
        for one, (alert, way) in zip(ones, routed, strict=True):
            before = inbox.known(connection, one)
            taken = taking.alert(connection, alert, way, digest, now)
            after = inbox.known(connection, one)
            known = before is not None and before.key in kept and after is not None and after.key == before.key
            had = _had(connection, before, once_more=taken.decision is not None) if before and known else ""
            found.append(Rehearsed(alert, way, taken.decision, inbox.find_intent(connection, taken.answer), had))
    finally:
        connection.close()
    return tuple(found)


def _had(connection: sqlite3.Connection, one: Received, *, once_more: bool) -> str:
    """What the agent has of an alert, for people."""
    intent = inbox.find_intent(connection, one.intent)
    told = f"the agent has taken this alert already{f' (intent {intent.id}, {intent.state.value})' if intent else ''}"
    end = inbox.newest_other(connection, one)
    if once_more:
        return f"{told}, and tries once more"
    if end is not None and turned(one.heard, end.heard):
        return f"{told}, and that it was {end.status} since"
    if intent is not None and one.status == Status.FIRING.value:
        if is_made_to_wait(one.action, intent):
            return f"{told}; while it still comes it is tried once more after the cool-down"
        if intent.state in TRIED_AGAIN:
            return f"{told}; while it still comes that is tried once more, {AGAIN:.0f} s later at the earliest"
    return f"{told}; another id would make it a new one"


def read_sample(rules: AlertRules, source: str, body: bytes) -> tuple[Alert, ...]:
    """The alerts in a body as `source` sends it, "" for the one source that can read it.

    Raises NotFoundError for a source that there is not, and RefusedError when none, or several, can read it.
    """
    if source and source not in rules.sources:
        known = ", ".join(sorted(rules.sources)) or "none"
        raise NotFoundError(f"there is no source {source!r} (there: {known})", hint="see sources: in alerts.yaml")
    delivery = Delivery(_headers(body), body, {}, "", time.time())
    if source:
        return read_unproved(source, _ageless(rules, source), delivery).alerts
    told: dict[str, str] = {}
    read: dict[str, tuple[Alert, ...]] = {}
    for name in rules.sources:
        try:
            read[name] = read_unproved(name, _ageless(rules, name), delivery).alerts
        except RefusedError as error:
            told[name] = error.problem
    with_alerts = {name: alerts for name, alerts in read.items() if alerts} or read
    if len(with_alerts) != 1:
        why = f"{', '.join(with_alerts)} can read it" if with_alerts else "; ".join(told.values()) or "there is none"
        raise RefusedError(f"which source would send this is not clear: {why}", hint="name it: --source NAME")
    return next(iter(with_alerts.values()))


def _ageless(rules: AlertRules, name: str) -> SourceSettings:
    settings = rules.sources[name]
    return settings.model_copy(update={"window": math.inf}) if "window" in type(settings).model_fields else settings


def _headers(body: bytes) -> Mapping[str, str]:
    """As a CloudEvent's mode of delivery is told by its content type."""
    try:
        document = json.loads(body)
    except ValueError:
        return {"content-type": "application/json"}
    if isinstance(document, list):
        return {"content-type": "application/cloudevents-batch+json"}
    return {"content-type": "application/cloudevents+json" if "specversion" in document else "application/json"}


def _copy(config: Config, now: float, ones: Sequence[Received]) -> sqlite3.Connection:
    """A database in memory with the intents that matter still, and what the inbox has of those alerts."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    inbox.SCHEMA.apply(connection)
    if config.inbox.exists():
        real = GroupCommit(config.inbox, inbox.SCHEMA)
        try:
            with real.reading() as reader:
                intents = [
                    one
                    for model in ("", *config.models)
                    for one in inbox.past_intents(reader, model, now - pace_of(config).memory)
                ]
                released = {model: inbox.released_at(reader, model) for model in config.models}
                looked = [look(reader, one) for one in ones for look in (inbox.known, inbox.newest_other)]
                heard = {one.key: one for one in looked if one is not None}
                answers = [inbox.find_intent(reader, one.intent) for one in heard.values()]
        finally:
            real.close()
        for alert in heard.values():
            inbox.keep_alert(connection, alert)
        there = {one.id for one in intents}
        older = {one.id: one for one in answers if one is not None and one.id not in there}
        for intent in (*older.values(), *reversed(intents)):
            inbox.add_intent(connection, intent)
        for model, at in released.items():
            inbox.put_released(connection, model, at)
    return connection
