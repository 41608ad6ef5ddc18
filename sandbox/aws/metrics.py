"""CloudWatch's metric store, put in the place of moto's: indexed, with percentiles, and late when it is told to lag.

moto keeps one flat list, scans it for every period of every query and knows no percentile. Points are kept per
metric and minute, the grain at which SageMaker publishes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from moto.cloudwatch import urls
from moto.cloudwatch.exceptions import InvalidParameterValue
from moto.cloudwatch.models import CloudWatchBackend, MetricDatum, MetricDatumBase, cloudwatch_backends

from sandbox.aws.points import Key, Point, key_of
from sandbox.aws.state import ACCOUNT, CLOUD, REGION
from sandbox.world import World

GRAIN: Final = 60


class CloudWatch(CloudWatchBackend):
    """The backend that moto's CloudWatch front asks once `install()` has put it there, with our answers before it."""

    def __init__(self, world: World) -> None:
        super().__init__(REGION, ACCOUNT)
        self._world = world
        self._series: dict[Key, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
        self._units: dict[Key, str] = {}
        self._guard = threading.Lock()
        self._answer: Callable[..., Any] | None = None

    def install(self, answer: Callable[..., Any]) -> None:
        """Replace moto's backend of this account and region; `answer` is a moto front's `dispatch`."""
        self._answer = answer
        cloudwatch_backends[ACCOUNT][REGION] = self

    @property
    def url_paths(self) -> dict[str, Callable[..., Any]]:
        """Lead moto's CloudWatch paths to our answers."""
        if self._answer is None:
            return super().url_paths
        return {path.format(""): self._answer for path in urls.url_paths}

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
        received = time.time()
        for member in metric_data:
            at = unix(member["Timestamp"]) if member.get("Timestamp") else received
            key = key_of({**member, "Namespace": metric_namespace})
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

    def windows(self, key: Key, spans: Sequence[tuple[float, float]], unit: str | None) -> list[list[Point]]:
        """Visible points of each span [start, end), in Unix seconds, however it lies to the minute."""
        visible = time.time() - self._world.faults.lag(CLOUD)
        with self._guard:
            if key not in self._series or (unit and unit != self._units[key]):
                return [[] for _ in spans]
            minutes = self._series[key]
            return [
                [
                    point
                    for minute in range(int(start) // GRAIN * GRAIN, int(end) + 1, GRAIN)
                    for point in minutes.get(minute, ())
                    if start <= point.at < end and point.at <= visible
                ]
                for start, end in spans
            ]

    def unit(self, key: Key) -> str:
        """The unit that a metric was last published in."""
        with self._guard:
            return self._units[key]


def _points(member: Mapping[str, Any], at: float) -> Iterable[Point]:
    if member.get("StatisticValues"):
        stats = {name: float(value) for name, value in member["StatisticValues"].items()}
        return [Point(at, stats["Sum"], stats["Minimum"], stats["Maximum"], stats["SampleCount"])]
    values = [float(value) for value in member.get("Values") or [member.get("Value", 0)]]
    counts = [float(count) for count in member.get("Counts") or [1] * len(values)]
    return [Point(at, value * count, value, value, count) for value, count in zip(values, counts, strict=True)]


def unix(moment: datetime | float | str) -> float:
    """A request's moment in Unix seconds; one without a zone is in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment)
