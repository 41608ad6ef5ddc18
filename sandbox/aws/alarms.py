"""CloudWatch's metric alarms: kept, evaluated, and told to their actions when their state changes.

An alarm is the document that DescribeAlarms shows of it, replaced as a whole and never changed in place. Each is
evaluated once a minute (one with a period below a minute: once a period), over periods that end then. The speed says
how long such a minute lasts (`aws.alarm.minute`); the periods are shortened alike, and so is how far back they reach: a
value put with a timestamp of minutes ago is seen only where a minute lasts one.

While the cloud is `down` for DescribeAlarms nothing is evaluated; metrics that `lag` are missing to alarms too.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.aws import alarm_texts
from sandbox.aws.alarm_evaluation import ALARM, OK, SPARE, UNKNOWN, Datapoint, Rule, judge
from sandbox.aws.alarm_math import Watched, watched
from sandbox.aws.errors import AwsError
from sandbox.aws.metrics import CloudWatch
from sandbox.aws.points import statistic
from sandbox.aws.state import ACCOUNT, CLOUD, REGION, Document, now
from sandbox.world import World

#: A period is looked at this long after its end: a value that was on its way then is in it.
GRACE: Final = 0.05
#: At most so long between two looks at the clock, for delays may be changed meanwhile.
NAP: Final = 1.0
SHORTEST: Final = 0.1
MINUTE: Final = 60
HISTORY: Final = 10_000
ACTIONS: Final[Mapping[str, str]] = {OK: "OKActions", ALARM: "AlarmActions", UNKNOWN: "InsufficientDataActions"}

#: Publishes (topic's ARN, subject, message) or raises KeyError when there is no such topic.
Publish = Callable[[str, str, str], None]


class Alarms:
    """All alarms of the account. Every method is thread-safe."""

    def __init__(self, world: World, metrics: CloudWatch, publish: Publish) -> None:
        self._world = world
        self._metrics = metrics
        self._publish = publish
        self._table: dict[str, Document] = {}
        self._frozen: dict[str, Document] = {}
        self._history: deque[Document] = deque(maxlen=HISTORY)
        self._evaluated: dict[str, tuple[datetime, float]] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None

    def put(self, given: Mapping[str, Any]) -> None:
        """Make an alarm, or replace its settings and keep its state; it is evaluated at once."""
        at, name = now(), given["AlarmName"]
        with self._lock:
            before = self._table.get(name)
            state = {
                "StateValue": UNKNOWN,
                "StateReason": "Unchecked: Initial alarm creation",
                "StateUpdatedTimestamp": at,
                "StateTransitionedTimestamp": at,
            }
            if before is not None:
                kept = (*state, "StateReasonData")
                state = {field: before[field] for field in kept if field in before}
            self._table[name] = {
                "ActionsEnabled": True,
                "OKActions": [],
                "AlarmActions": [],
                "InsufficientDataActions": [],
                **({} if given.get("Metrics") else {"Dimensions": []}),
                **given,
                "AlarmArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}",
                "AlarmConfigurationUpdatedTimestamp": at,
                **state,
            }
            kind, done = ("Create", "created") if before is None else ("Update", "updated")
            settings = {field[0].lower() + field[1:]: value for field, value in given.items()}
            data = {"version": "1.0", "type": kind, f"{done}Alarm": settings}
            self._remember(name, "ConfigurationUpdate", f'Alarm "{name}" {done}', data)
            if self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
        self._wake.set()

    def all(self) -> list[Document]:
        """Every alarm as DescribeAlarms shows it, by name; as it was, while reads are stale."""
        with self._lock:
            stale = self._world.faults.since(CLOUD, "stale", "DescribeAlarms") is not None
            table = self._frozen if stale else self._table
            return [table[name] for name in sorted(table)]

    def freeze(self) -> None:
        """Remember what stale reads show."""
        with self._lock:
            self._frozen = dict(self._table)

    def history(self) -> list[Document]:
        """What happened to alarms that are or were here, oldest first."""
        with self._lock:
            return list(self._history)

    def delete(self, names: Iterable[str]) -> None:
        """Delete all of them or, when one is unknown, none."""
        with self._lock:
            for name in dict.fromkeys(self._known(names)):
                del self._table[name]
                self._evaluated.pop(name, None)
                data = {"version": "1.0", "type": "Delete", "deletedAlarm": {"alarmName": name}}
                self._remember(name, "ConfigurationUpdate", f'Alarm "{name}" deleted', data)

    def switch(self, names: Iterable[str], enabled: bool) -> None:
        """Let alarms act, or only change their states."""
        with self._lock:
            for name in self._known(names):
                self._table[name] = {**self._table[name], "ActionsEnabled": enabled}

    def set_state(self, name: str, state: str, reason: str, data: str = "") -> None:
        """Put an alarm into a state by hand, with its actions; the next evaluation may take it out again."""
        with self._lock:
            (name,) = self._known([name])
            changed = self._change(self._table[name], state, reason, data)
        self._act(*changed)

    def stop(self) -> None:
        """End the evaluation."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended:
            pause = self._evaluate_due()
            self._wake.wait(pause)
            self._wake.clear()

    def _evaluate_due(self) -> float | None:
        """Evaluate what is due; returns how long nothing will be, None for as long as there are no alarms."""
        if self._world.faults.since(CLOUD, "down", "DescribeAlarms") is not None:
            return SHORTEST
        minute = max(self._world.delays.seconds("aws.alarm.minute"), SHORTEST)
        with self._lock:
            alarms = list(self._table.values())
        pause: float | None = None
        for alarm in alarms:
            period = watched(alarm).period
            step = minute * min(period, MINUTE) / MINUTE
            tick = math.floor((time.time() - GRACE) / step) * step
            turn = (alarm["AlarmConfigurationUpdatedTimestamp"], tick)
            if self._evaluated.get(alarm["AlarmName"]) != turn:
                self._evaluated[alarm["AlarmName"]] = turn
                self._evaluate(alarm, tick, period * minute / MINUTE)
            left = tick + step + GRACE - time.time()
            pause = min(left, pause if pause is not None else NAP)
        return pause if pause is None else max(pause, 0.0)

    def _evaluate(self, alarm: Document, end: float, width: float) -> None:
        """Evaluate one alarm over periods of `width` seconds, the newest of which ended at `end`."""
        rule, what = rule_of(alarm), watched(alarm)
        spans = [(end - (age + 1) * width, end - age * width) for age in range(rule.periods + SPARE)]
        latest = self._latest(what, spans)
        newest = next((point for point in latest if point is not None), None)
        if newest is not None and newest.samples is not None and newest.samples < _samples_needed(alarm):
            return
        judged = judge(rule, latest)
        if judged is None:
            return
        with self._lock:
            current = self._table.get(alarm["AlarmName"], {})
            configured = "AlarmConfigurationUpdatedTimestamp"
            if current.get(configured) != alarm[configured] or current["StateValue"] == judged.state:
                return
            reason = alarm_texts.reason(rule, judged, by_datapoints="DatapointsToAlarm" in alarm)
            statistic_of = what.single.statistic if what.single is not None else None
            data = alarm_texts.reason_data(rule, judged, statistic_of, what.period, now())
            changed = self._change(current, judged.state, reason, data)
        self._act(*changed)

    def _latest(self, what: Watched, spans: Sequence[tuple[float, float]]) -> list[Datapoint | None]:
        """The datapoint of each span."""
        groups = {name: self._metrics.windows(one.key, spans, one.unit) for name, one in what.series.items()}
        latest: list[Datapoint | None] = []
        for number, (start, _) in enumerate(spans):
            points = {name: group[number] for name, group in groups.items()}
            known = {
                name: statistic(there, what.series[name].statistic) if there else None for name, there in points.items()
            }
            value = what.value(known)
            samples = None if what.single is None else sum(point.times for point in points[what.result])
            latest.append(None if value is None else Datapoint(start, value, samples))
        return latest

    def _change(self, alarm: Document, state: str, reason: str, data: str) -> tuple[Document, str]:
        """Put the new state into the table; returns the alarm as it is now, and the state that it left."""
        at, old = now(), alarm["StateValue"]
        changed = {**alarm, "StateValue": state, "StateReason": reason, "StateUpdatedTimestamp": at}
        changed["StateReasonData"] = data
        if not data:
            del changed["StateReasonData"]
        if state != old:
            changed["StateTransitionedTimestamp"] = at
            course = {
                "version": "1.0",
                "oldState": alarm_texts.state_in_history(alarm),
                "newState": alarm_texts.state_in_history(changed),
            }
            self._remember(alarm["AlarmName"], "StateUpdate", f"Alarm updated from {old} to {state}", course)
            self._world.calls.event(CLOUD, "alarm", alarm["AlarmName"], at.timestamp(), f"{old} -> {state}")
        self._table[alarm["AlarmName"]] = changed
        return changed, old

    def _act(self, alarm: Document, old: str) -> None:
        if alarm["StateValue"] == old or not alarm["ActionsEnabled"]:
            return
        subject = alarm_texts.subject(alarm["AlarmName"], alarm["StateValue"])
        message = alarm_texts.message(alarm, old)
        for action in alarm[ACTIONS[alarm["StateValue"]]]:
            data = {
                "actionState": "Succeeded",
                "notificationResource": action,
                "stateUpdateTimestamp": int(alarm["StateUpdatedTimestamp"].timestamp() * 1000),
                "publishedMessage": json.dumps({"default": message}),
            }
            summary = f"Successfully executed action {action}"
            try:
                self._publish(action, subject, message)
            except KeyError:
                data |= {"actionState": "Failed", "error": "Resource not found"}
                summary = f'Failed to execute action {action}. Received error: "Resource not found"'
            with self._lock:
                self._remember(alarm["AlarmName"], "Action", summary, data)

    def _known(self, names: Iterable[str]) -> list[str]:
        listed = list(names)
        for name in listed:
            if name not in self._table:
                raise AwsError("ResourceNotFound", f"Unknown alarm: {name}", 404)
        return listed

    def _remember(self, name: str, kind: str, summary: str, data: Mapping[str, Any]) -> None:
        self._history.append(
            {
                "AlarmName": name,
                "AlarmType": "MetricAlarm",
                "Timestamp": datetime.now(UTC),
                "HistoryItemType": kind,
                "HistorySummary": summary,
                "HistoryData": json.dumps(data, separators=(",", ":")),
            }
        )


def rule_of(alarm: Mapping[str, Any]) -> Rule:
    """The rule in an alarm's settings."""
    periods = alarm["EvaluationPeriods"]
    return Rule(
        alarm["ComparisonOperator"],
        float(alarm["Threshold"]),
        periods,
        alarm.get("DatapointsToAlarm", periods),
        alarm.get("TreatMissingData", "missing"),
    )


def _samples_needed(alarm: Mapping[str, Any]) -> float:
    """Below how many values a percentile does not change the state, with EvaluateLowSampleCountPercentile: ignore."""
    if alarm.get("EvaluateLowSampleCountPercentile") != "ignore" or "ExtendedStatistic" not in alarm:
        return 0.0
    share = float(alarm["ExtendedStatistic"][1:]) / 100.0
    tail = min(share, 1.0 - share)
    return 10.0 / tail if tail > 0 else 0.0
