"""What CloudWatch says about an alarm: reasons, their data, the message to SNS and the lines of the history.

The formats are those of the service's own messages: `Threshold Crossed: 1 out of the last 1 datapoints [3.0 (24/07/18
10:21:00)] was greater than the threshold (2.0) (minimum 1 datapoint for OK -> ALARM transition).`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.aws.alarm_evaluation import ALARM, COMPARISONS, UNKNOWN, Datapoint, Judged, Rule
from sandbox.aws.alarm_math import watched
from sandbox.aws.state import ACCOUNT

REGION_NAME: Final = "US East (N. Virginia)"
#: From this many datapoints on, a reason lists the newest after its sentence.
LISTED: Final = 5
STATISTICS: Final[Mapping[str, str]] = {
    "SampleCount": "SAMPLE_COUNT",
    "Average": "AVERAGE",
    "Sum": "SUM",
    "Minimum": "MINIMUM",
    "Maximum": "MAXIMUM",
}


def moment(at: datetime) -> str:
    """`2018-07-24T10:22:14.157+0000`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}+0000"


def reason(rule: Rule, judged: Judged, *, by_datapoints: bool) -> str:
    """StateReason; `by_datapoints` when the alarm says how many datapoints it takes (DatapointsToAlarm)."""
    if judged.state == UNKNOWN:
        return f"Insufficient Data: {_count(rule.periods, 'datapoint')} {_was(rule.periods)} unknown."
    filling = ""
    if judged.filled:
        treated = "Breaching" if rule.missing == "breaching" else "NonBreaching"
        missing = _count(judged.filled, "missing datapoint")
        filling = f" and {missing} {_was(judged.filled)} treated as [{treated}]"
    alarming = judged.state == ALARM
    crossing = [point for point in judged.datapoints if rule.breaches(point.value) == alarming]
    if not crossing:
        received = _count(len(judged.datapoints), "datapoint") if judged.datapoints else "no datapoints"
        verb = _was(len(judged.datapoints))
        return f"Threshold Crossed: {received} {verb} received for {_count(rule.periods, 'period')}{filling}."
    seen = _seen(crossing, len(judged.datapoints), by_datapoints)
    relation = COMPARISONS[rule.comparison][1]
    words = f"{_was(len(crossing))}{'' if alarming else ' not'} {relation} the threshold ({rule.threshold})"
    listed = "[" + ", ".join(_shown(point) for point in crossing[:LISTED]) + "]"
    if len(crossing) >= LISTED:
        crossed = "crossed the threshold" if alarming else "did not cross the threshold"
        text = f"Threshold Crossed: {seen} {words}. The most recent datapoints which {crossed}: {listed}{filling}"
    else:
        text = f"Threshold Crossed: {seen} {listed} {words}{filling}"
    if by_datapoints:
        least = rule.needed if alarming else rule.periods - rule.needed + 1
        course = "OK -> ALARM" if alarming else "ALARM -> OK"
        text += f" (minimum {_count(least, 'datapoint')} for {course} transition)"
    return text + "."


def reason_data(rule: Rule, judged: Judged, statistic: str | None, period: int, at: datetime) -> str:
    """StateReasonData: a JSON document as a string; an expression has no statistic."""
    document: dict[str, Any] = {"version": "1.0", "queryDate": moment(at)}
    if judged.datapoints:
        document["startDate"] = _at(judged.datapoints[-1])
    if statistic is not None:
        document["statistic"] = statistic
    document |= {
        "period": period,
        "recentDatapoints": [point.value for point in reversed(judged.datapoints)],
        "threshold": rule.threshold,
        "evaluatedDatapoints": [
            {"timestamp": _at(point), **_samples(point), "value": point.value} for point in judged.datapoints
        ],
    }
    return json.dumps(document, separators=(",", ":"))


def subject(name: str, state: str) -> str:
    """Subject of the notification, at most 100 characters as SNS wants it."""
    text = f'{state}: "{name}" in {REGION_NAME}'
    return text if len(text) <= 100 else text[:97] + "..."


def message(alarm: Mapping[str, Any], old_state: str) -> str:
    """The JSON that an alarm publishes, from what DescribeAlarms shows of it in its new state."""
    trigger: dict[str, Any] = {} if alarm.get("Metrics") else _metric(alarm)
    trigger |= {"Period": watched(alarm).period, "EvaluationPeriods": alarm["EvaluationPeriods"]}
    if "DatapointsToAlarm" in alarm:
        trigger["DatapointsToAlarm"] = alarm["DatapointsToAlarm"]
    trigger |= {
        "ComparisonOperator": alarm["ComparisonOperator"],
        "Threshold": alarm["Threshold"],
        "TreatMissingData": alarm.get("TreatMissingData", "missing"),
        "EvaluateLowSampleCountPercentile": alarm.get("EvaluateLowSampleCountPercentile", ""),
    }
    if alarm.get("Metrics"):
        trigger["Metrics"] = [_query(query) for query in alarm["Metrics"]]
    document = {
        "AlarmName": alarm["AlarmName"],
        "AlarmDescription": alarm.get("AlarmDescription"),
        "AWSAccountId": ACCOUNT,
        "AlarmConfigurationUpdatedTimestamp": moment(alarm["AlarmConfigurationUpdatedTimestamp"]),
        "NewStateValue": alarm["StateValue"],
        "NewStateReason": alarm["StateReason"],
        "StateChangeTime": moment(alarm["StateUpdatedTimestamp"]),
        "Region": REGION_NAME,
        "AlarmArn": alarm["AlarmArn"],
        "OldStateValue": old_state,
        "OKActions": alarm["OKActions"],
        "AlarmActions": alarm["AlarmActions"],
        "InsufficientDataActions": alarm["InsufficientDataActions"],
        "Trigger": trigger,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def state_in_history(alarm: Mapping[str, Any]) -> dict[str, Any]:
    """`oldState` or `newState` of a history item's data."""
    state: dict[str, Any] = {"stateValue": alarm["StateValue"], "stateReason": alarm["StateReason"]}
    if alarm.get("StateReasonData"):
        state["stateReasonData"] = json.loads(alarm["StateReasonData"])
    return state


def _metric(alarm: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"MetricName": alarm["MetricName"], "Namespace": alarm["Namespace"]}
    if alarm.get("ExtendedStatistic"):
        described |= {"StatisticType": "ExtendedStatistic", "ExtendedStatistic": alarm["ExtendedStatistic"]}
    else:
        described |= {"StatisticType": "Statistic", "Statistic": STATISTICS[alarm["Statistic"]]}
    return {**described, "Unit": alarm.get("Unit"), "Dimensions": _dimensions(alarm)}


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"Id": query["Id"], "ReturnData": query.get("ReturnData", True)}
    if query.get("Label"):
        described["Label"] = query["Label"]
    if query.get("Expression"):
        return {"Expression": query["Expression"], **described}
    stat = query["MetricStat"]
    metric = stat["Metric"]
    of = {"Dimensions": _dimensions(metric), "MetricName": metric["MetricName"], "Namespace": metric["Namespace"]}
    return {**described, "MetricStat": {"Metric": of, "Period": stat["Period"], "Stat": stat["Stat"]}}


def _dimensions(metric: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"value": d["Value"], "name": d["Name"]} for d in metric.get("Dimensions") or ()]


def _samples(point: Datapoint) -> dict[str, float]:
    return {} if point.samples is None else {"sampleCount": point.samples}


def _seen(crossing: Sequence[Datapoint], datapoints: int, by_datapoints: bool) -> str:
    if by_datapoints:
        return f"{len(crossing)} out of the last {datapoints} datapoints"
    return _count(len(crossing), "datapoint")


def _shown(point: Datapoint) -> str:
    return f"{point.value} ({datetime.fromtimestamp(point.at, UTC):%d/%m/%y %H:%M:%S})"


def _at(point: Datapoint) -> str:
    return moment(datetime.fromtimestamp(point.at, UTC))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
