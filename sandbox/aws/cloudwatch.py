"""CloudWatch as it is asked: what moto's front leaves to others or would answer differently."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from moto.cloudwatch.exceptions import InvalidParameterCombination
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult, EmptyResult

from sandbox.aws.alarm_evaluation import COMPARISONS, TREATMENTS
from sandbox.aws.alarm_math import watched
from sandbox.aws.alarms import Alarms
from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.metrics import CloudWatch, unix
from sandbox.aws.points import PERCENTILE, key_of, statistic
from sandbox.aws.shapes import check, refuse_unsupported, service
from sandbox.aws.state import ACCOUNT, CLOUD, REGION, Document
from sandbox.world import World

MAX_DATAPOINTS: Final = 1440
DAY: Final = 86_400
PAGE: Final = 50
TOPIC: Final = f"arn:aws:sns:{REGION}:{ACCOUNT}:"
NEEDED: Final = ("EvaluationPeriods", "Threshold", "ComparisonOperator")
OF_A_METRIC: Final = ("MetricName", "Namespace", "Period")
#: What an alarm on an expression has in its Metrics instead.
OF_METRICS: Final = (*OF_A_METRIC, "Statistic", "ExtendedStatistic", "Dimensions", "Unit")
UNSUPPORTED: Final = (
    "ThresholdMetricId",
    "EvaluationWindow",
    "WarmUpConfiguration",
    "EvaluationCriteria",
    "EvaluationInterval",
    "ActionConfiguration",
)


class Answers(CloudWatchResponse):
    """Metrics and alarms; `answers()` makes the class that knows the sandbox's."""

    world: World
    alarms: Alarms

    def get_metric_statistics(self) -> ActionResult:
        """GetMetricStatistics, with ExtendedStatistics."""
        given = self._get_params()
        names, extended = given.get("Statistics") or [], given.get("ExtendedStatistics") or []
        if not names and not extended:
            raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
        key = key_of(given)
        backend = _backend(self)
        period, start, end = int(given["Period"]), unix(given["StartTime"]), unix(given["EndTime"])
        if (end - start) / period > MAX_DATAPOINTS:
            raise InvalidParameterCombination(
                f"You have requested up to {int((end - start) / period)} datapoints, "
                f"which exceeds the limit of {MAX_DATAPOINTS}.",
            )
        datapoints = []
        for at, points in backend.periods(key, start, end, period, given.get("Unit")):
            point: dict[str, Any] = {"Timestamp": at, "Unit": backend.unit(key)}
            point.update({name: statistic(points, name) for name in names})
            if extended:
                values = {name: statistic(points, name) for name in extended}
                point["ExtendedStatistics"] = {name: value for name, value in values.items() if value is not None}
            datapoints.append(point)
        return ActionResult({"Label": key.name, "Datapoints": datapoints})

    def get_metric_data(self) -> ActionResult:
        """GetMetricData for MetricStat queries; metric mathematics is not emulated."""
        given = self._get_params()
        start, end = unix(given["StartTime"]), unix(given["EndTime"])
        results = []
        for query in given.get("MetricDataQueries") or []:
            if "MetricStat" not in query:
                raise NotImplementedError("GetMetricData with Expression")
            stat = query["MetricStat"]
            rows = _backend(self).periods(key_of(stat["Metric"]), start, end, int(stat["Period"]), stat.get("Unit"))
            pairs = [(at, statistic(points, stat["Stat"])) for at, points in rows]
            pairs = [pair for pair in pairs if pair[1] is not None]
            if given.get("ScanBy") != "TimestampAscending":
                pairs.reverse()
            if query.get("ReturnData", True) in (True, "true"):
                results.append(
                    {
                        "Id": query["Id"],
                        "Label": query.get("Label") or stat["Metric"]["MetricName"],
                        "Timestamps": [at for at, _ in pairs],
                        "Values": [value for _, value in pairs],
                        "StatusCode": "Complete",
                    }
                )
        return ActionResult({"MetricDataResults": results})

    def put_metric_alarm(self) -> ActionResult:
        """PutMetricAlarm on a metric or an expression."""
        given = self._checked("PutMetricAlarm")
        refuse_unsupported(given, UNSUPPORTED, "PutMetricAlarm")
        _check_alarm(given)
        settings = {name: value for name, value in given.items() if name != "Tags" and value is not None}
        settings["Threshold"] = float(settings["Threshold"])
        if not self._ignored("PutMetricAlarm", given["AlarmName"]):
            self.alarms.put(settings)
            arn = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{given['AlarmName']}"
            if given.get("Tags"):
                _backend(self).tagger.tag_resource(arn, given["Tags"])
        return EmptyResult()

    def describe_alarms(self) -> ActionResult:
        """DescribeAlarms of metric alarms: by names, prefix, state or action."""
        given = self._checked("DescribeAlarms")
        refuse_unsupported(given, ("ChildrenOfAlarmName", "ParentsOfAlarmName"), "DescribeAlarms")
        names, prefix = given.get("AlarmNames"), given.get("AlarmNamePrefix")
        if names and prefix:
            raise AwsError("InvalidParameterCombination", "AlarmNames and AlarmNamePrefix may not be given together")
        wanted = [
            alarm
            for alarm in self.alarms.all()
            if (not names or alarm["AlarmName"] in names)
            and alarm["AlarmName"].startswith(prefix or "")
            and given.get("StateValue") in (None, alarm["StateValue"])
            and (not given.get("ActionPrefix") or any(a.startswith(given["ActionPrefix"]) for a in _actions(alarm)))
        ]
        if given.get("AlarmTypes") and "MetricAlarm" not in given["AlarmTypes"]:
            wanted = []
        return _page("MetricAlarms", wanted, given, {"CompositeAlarms": []})

    def describe_alarms_for_metric(self) -> ActionResult:
        """DescribeAlarmsForMetric."""
        given = self._checked("DescribeAlarmsForMetric")
        asked = {name: given[name] for name in ("Statistic", "ExtendedStatistic", "Period", "Unit") if given.get(name)}
        found = [
            alarm
            for alarm in self.alarms.all()
            if alarm.get("MetricName")
            and key_of(alarm) == key_of(given)
            and all(alarm.get(name) == value for name, value in asked.items())
        ]
        return ActionResult({"MetricAlarms": found})

    def delete_alarms(self) -> ActionResult:
        """DeleteAlarms: all of them or none."""
        names = self._checked("DeleteAlarms")["AlarmNames"]
        if not self._ignored("DeleteAlarms", *names):
            self.alarms.delete(names)
        return EmptyResult()

    def set_alarm_state(self) -> ActionResult:
        """SetAlarmState."""
        given = self._checked("SetAlarmState")
        data = given.get("StateReasonData") or ""
        try:
            json.loads(data or "{}")
        except ValueError as error:
            raise AwsError("InvalidFormat", "StateReasonData is not valid JSON") from error
        if not self._ignored("SetAlarmState", given["AlarmName"]):
            self.alarms.set_state(given["AlarmName"], given["StateValue"], given["StateReason"], data)
        return EmptyResult()

    def enable_alarm_actions(self) -> ActionResult:
        """EnableAlarmActions."""
        self.alarms.switch(self._checked("EnableAlarmActions")["AlarmNames"], True)
        return EmptyResult()

    def disable_alarm_actions(self) -> ActionResult:
        """DisableAlarmActions."""
        self.alarms.switch(self._checked("DisableAlarmActions")["AlarmNames"], False)
        return EmptyResult()

    def describe_alarm_history(self) -> ActionResult:
        """DescribeAlarmHistory, the newest first unless asked otherwise."""
        given = self._checked("DescribeAlarmHistory")
        refuse_unsupported(given, ("AlarmContributorId",), "DescribeAlarmHistory")
        start = unix(given["StartDate"]) if given.get("StartDate") else float("-inf")
        end = unix(given["EndDate"]) if given.get("EndDate") else float("inf")
        items = [
            item
            for item in self.alarms.history()
            if given.get("AlarmName") in (None, item["AlarmName"])
            and given.get("HistoryItemType") in (None, item["HistoryItemType"])
            and start <= item["Timestamp"].timestamp() <= end
        ]
        if given.get("ScanBy") != "TimestampAscending":
            items.reverse()
        return _page("AlarmHistoryItems", items, given)

    def put_composite_alarm(self) -> ActionResult:
        """PutCompositeAlarm is not emulated."""
        raise not_implemented("PutCompositeAlarm")

    def _checked(self, operation: str) -> dict[str, Any]:
        given: dict[str, Any] = dict(self._get_params())
        check(service("cloudwatch"), operation, given, "ValidationError")
        return given

    def _ignored(self, operation: str, *names: str) -> bool:
        return any(self.world.faults.take(CLOUD, operation, ("ignore",), name) is not None for name in names)


def answers(world: World, alarms: Alarms) -> Callable[..., Any]:
    """What moto's dispatcher calls for a request to CloudWatch."""

    class Bound(Answers):
        pass

    Bound.world, Bound.alarms = world, alarms
    return Bound.dispatch


def _backend(answers: Answers) -> CloudWatch:
    backend = answers.cloudwatch_backend
    if not isinstance(backend, CloudWatch):
        raise not_implemented(f"CloudWatch in region {answers.region}")
    return backend


def _actions(alarm: Document) -> list[str]:
    return [*alarm["OKActions"], *alarm["AlarmActions"], *alarm["InsufficientDataActions"]]


def _page(name: str, items: Sequence[Document], given: Mapping[str, Any], more: Mapping[str, Any] = {}) -> ActionResult:
    first = int(given.get("NextToken") or 0)
    last = first + int(given.get("MaxRecords") or PAGE)
    answer: dict[str, Any] = {name: list(items[first:last]), **more}
    if last < len(items):
        answer["NextToken"] = str(last)
    return ActionResult(answer)


def _check_alarm(given: Mapping[str, Any]) -> None:
    """The rules for a metric alarm that the service description does not hold; raises AwsError."""
    for name in (*NEEDED, *(() if given.get("Metrics") else OF_A_METRIC)):
        if given.get(name) is None:
            raise _wrong(f"The parameter {name} is required")
    if given.get("Metrics"):
        for name in OF_METRICS:
            if given.get(name) is not None:
                raise _wrong(f"The parameter {name} may not be given beside Metrics")
    elif bool(given.get("Statistic")) == bool(given.get("ExtendedStatistic")):
        raise _wrong("Must specify either Statistic or ExtendedStatistic")
    if given.get("ExtendedStatistic") and not PERCENTILE.fullmatch(given["ExtendedStatistic"]):
        raise _wrong(f"The value {given['ExtendedStatistic']} for parameter ExtendedStatistic is not supported.")
    if given["ComparisonOperator"] not in COMPARISONS:
        raise not_implemented(f"PutMetricAlarm with {given['ComparisonOperator']}: there is no anomaly detection")
    period, periods = watched(given).period, given["EvaluationPeriods"]
    if period not in (10, 20, 30) and period % 60:
        raise _wrong("Period must be 10, 20, 30, or a multiple of 60")
    if period * periods > (7 * DAY if period >= 3600 else DAY):
        span = "seven days" if period >= 3600 else "a day"
        raise _wrong(f"Metrics cannot be checked across more than {span} (EvaluationPeriods * Period)")
    if (given.get("DatapointsToAlarm") or 1) > periods:
        raise _wrong("DatapointsToAlarm must be less than or equal to EvaluationPeriods")
    for name, allowed in (
        ("TreatMissingData", TREATMENTS),
        ("EvaluateLowSampleCountPercentile", ("evaluate", "ignore")),
    ):
        if given.get(name) and given[name] not in allowed:
            raise _wrong(f"Invalid value '{given[name]}' for {name}: one of {', '.join(allowed)}")
    for name in ("OKActions", "AlarmActions", "InsufficientDataActions"):
        for action in given.get(name) or ():
            if not action.startswith("arn:"):
                raise _wrong(f"Invalid arn syntax: {action}")
            if not action.startswith(TOPIC):
                raise not_implemented(f"alarm action {action} (only topics of SNS in this account and region)")


def _wrong(message: str) -> AwsError:
    return AwsError("ValidationError", message)
