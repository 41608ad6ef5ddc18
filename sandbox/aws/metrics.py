"""CloudWatch's metric store, put in the place of moto's: indexed, with percentiles, and late when it is told to lag.

moto keeps one flat list, scans it for every period of every query and knows no percentile. Points are kept per
metric and minute, the grain at which SageMaker publishes.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from moto.cloudwatch import urls
from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue
from moto.cloudwatch.models import CloudWatchBackend, MetricDatum, MetricDatumBase, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from sandbox.aws.errors import not_implemented
from sandbox.aws.state import ACCOUNT, CLOUD, REGION
from sandbox.world import World

GRAIN: Final = 60
PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{0,10})?|100)")
SIMPLE: Final = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")
MAX_DATAPOINTS: Final = 1440

Dimensions = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One published value, or a statistic set; `at` is when it arrived (Unix seconds)."""

    at: float
    total: float
    low: float
    high: float
    times: float


class Key(NamedTuple):
    """A metric's identity; dimensions are sorted."""

    namespace: str
    name: str
    dimensions: Dimensions


def statistic(points: Sequence[Point], name: str) -> float | None:
    """One statistic (`Sum`, `p99`, …) over points; None for a percentile of statistic sets, which keep no values."""
    count, total = sum(p.times for p in points), math.fsum(p.total for p in points)
    if name in SIMPLE:
        return {
            "SampleCount": count,
            "Sum": total,
            "Average": total / count,
            "Minimum": min(p.low for p in points),
            "Maximum": max(p.high for p in points),
        }[name]
    match = PERCENTILE.fullmatch(name)
    if match is None:
        raise InvalidParameterValue(f"The value {name} for parameter Stat is not supported.")
    if any(p.low != p.high for p in points):
        return None
    rank, seen = float(match.group(1)) / 100.0 * count, 0.0
    ordered = sorted(points, key=lambda p: p.low)
    for point in ordered:
        seen += point.times
        if seen >= rank - 1e-9:
            return point.low
    return ordered[-1].low


class CloudWatch(CloudWatchBackend):
    """The backend that moto's CloudWatch front asks once `install()` has put it there."""

    def __init__(self, world: World) -> None:
        super().__init__(REGION, ACCOUNT)
        self._world = world
        self._series: dict[Key, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
        self._units: dict[Key, str] = {}
        self._guard = threading.Lock()

    def install(self) -> None:
        """Replace moto's backend of this account and region."""
        cloudwatch_backends[ACCOUNT][REGION] = self

    @property
    def url_paths(self) -> dict[str, Callable[..., Any]]:
        """Lead moto's CloudWatch paths to the answers below."""
        return {path.format(""): Answers.dispatch for path in urls.url_paths}

    def record(self, namespace: str, dimensions: Mapping[str, str], values: Mapping[str, tuple[float, str]]) -> None:
        """Add one value per metric name (value, unit), published now."""
        at = time.time()
        minute = int(at) // GRAIN * GRAIN
        ordered = tuple(sorted(dimensions.items()))
        with self._guard:
            for name, (value, unit) in values.items():
                key = Key(namespace, name, ordered)
                self._series[key][minute].append(Point(at, value, value, value, 1.0))
                self._units[key] = unit

    def put_metric_data(self, metric_namespace: str, metric_data: list[dict[str, Any]]) -> None:
        """PutMetricData: single values, values with counts, statistic sets."""
        for number, member in enumerate(metric_data, 1):
            self._validate_parameters_put_metric_data(member, number)
        for member in metric_data:
            at = _unix(member["Timestamp"]) if member.get("Timestamp") else time.time()
            dimensions = tuple(sorted((d["Name"], d["Value"]) for d in member.get("Dimensions") or ()))
            key = Key(metric_namespace, member["MetricName"], dimensions)
            with self._guard:
                self._series[key][int(at) // GRAIN * GRAIN].extend(_points(member, at))
                self._units[key] = member.get("Unit") or "None"

    def get_all_metrics(self) -> list[MetricDatumBase]:
        """One datum per metric: what ListMetrics shows."""
        with self._guard:
            return [
                MetricDatum(
                    key.namespace,
                    key.name,
                    0.0,
                    [{"Name": name, "Value": value} for name, value in key.dimensions],
                    datetime.fromtimestamp(max(minutes), UTC),
                    self._units[key],
                )
                for key, minutes in self._series.items()
                if minutes
            ]

    def periods(
        self, key: Key, start: float, end: float, period: int, unit: str | None
    ) -> list[tuple[datetime, list[Point]]]:
        """Visible points by period, oldest first. `start` is rounded down to the minute, as the service does."""
        if period < 1 or (period % GRAIN and period not in (1, 5, 10, 20, 30)):
            raise InvalidParameterValue(
                "The parameter Period must be a value in the set [ 1, 5, 10, 20, 30 ] or a multiple of 60."
            )
        if start >= end:
            raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
        begin = int(start) // GRAIN * GRAIN
        visible = time.time() - self._world.faults.lag(CLOUD)
        found: dict[int, list[Point]] = defaultdict(list)
        with self._guard:
            if key not in self._series or (unit and unit != self._units[key]):
                return []
            for minute, points in self._series[key].items():
                if begin <= minute < end:
                    bin_start = begin + (minute - begin) // period * period
                    found[bin_start] += [p for p in points if p.at <= visible]
        return [(datetime.fromtimestamp(at, UTC), found[at]) for at in sorted(found) if found[at]]


class Answers(CloudWatchResponse):
    """The three reads that moto answers differently, and the writes that it would only pretend to carry out."""

    def get_metric_statistics(self) -> ActionResult:
        """GetMetricStatistics, with ExtendedStatistics."""
        given = self._get_params()
        names, extended = given.get("Statistics") or [], given.get("ExtendedStatistics") or []
        if not names and not extended:
            raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
        key = _key(given)
        backend = _backend(self)
        period, start, end = int(given["Period"]), _unix(given["StartTime"]), _unix(given["EndTime"])
        if (end - start) / period > MAX_DATAPOINTS:
            raise InvalidParameterCombination(
                f"You have requested up to {int((end - start) / period)} datapoints, "
                f"which exceeds the limit of {MAX_DATAPOINTS}.",
            )
        datapoints = []
        for at, points in backend.periods(key, start, end, period, given.get("Unit")):
            point: dict[str, Any] = {"Timestamp": at, "Unit": backend._units[key]}
            point.update({name: statistic(points, name) for name in names})
            if extended:
                values = {name: statistic(points, name) for name in extended}
                point["ExtendedStatistics"] = {name: value for name, value in values.items() if value is not None}
            datapoints.append(point)
        return ActionResult({"Label": key.name, "Datapoints": datapoints})

    def get_metric_data(self) -> ActionResult:
        """GetMetricData for MetricStat queries; metric mathematics is not emulated."""
        given = self._get_params()
        start, end = _unix(given["StartTime"]), _unix(given["EndTime"])
        results = []
        for query in given.get("MetricDataQueries") or []:
            if "MetricStat" not in query:
                raise NotImplementedError("GetMetricData with Expression")
            stat = query["MetricStat"]
            rows = _backend(self).periods(_key(stat["Metric"]), start, end, int(stat["Period"]), stat.get("Unit"))
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
        """Alarms would never be evaluated, so none is accepted."""
        raise NotImplementedError("PutMetricAlarm")


def _backend(answers: Answers) -> CloudWatch:
    backend = answers.cloudwatch_backend
    if not isinstance(backend, CloudWatch):
        raise not_implemented(f"CloudWatch in region {answers.region}")
    return backend


def _key(metric: Mapping[str, Any]) -> Key:
    dimensions = tuple(sorted((d["Name"], d["Value"]) for d in metric.get("Dimensions") or ()))
    return Key(metric["Namespace"], metric["MetricName"], dimensions)


def _points(member: Mapping[str, Any], at: float) -> Iterable[Point]:
    if member.get("StatisticValues"):
        stats = {name: float(value) for name, value in member["StatisticValues"].items()}
        return [Point(at, stats["Sum"], stats["Minimum"], stats["Maximum"], stats["SampleCount"])]
    values = [float(value) for value in member.get("Values") or [member.get("Value", 0)]]
    counts = [float(count) for count in member.get("Counts") or [1] * len(values)]
    return [Point(at, value * count, value, value, count) for value, count in zip(values, counts, strict=True)]


def _unix(moment: datetime | float | str) -> float:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment)
