"""Cloud Monitoring's `GET /v3/projects/*/timeSeries` for the online prediction metrics of Vertex AI.

https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list. Without an aligner a point covers one
minute by the clock; the minute that is going on is shown as far as it has come, so that a client of a fast sandbox need
not wait for its end. With an aligner, periods are counted back from the interval's end.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.discovery import Discovery, document
from sandbox.gcp.errors import GoogleError, error_response, invalid, not_emulated, status_for_http
from sandbox.gcp.identity import Identity
from sandbox.gcp.permissions import Guard
from sandbox.gcp.samples import FINITE, GROWTH, Latencies, Samples, Second
from sandbox.gcp.vertex_names import JsonObject, time_text
from sandbox.web import Target
from sandbox.world import World

PREFIX: Final = "aiplatform.googleapis.com/prediction/online/"
METHOD: Final = "monitoring.projects.timeSeries.list"
PATH: Final = re.compile(r"/v3/projects/([^/]+)/timeSeries")
PERCENTILES: Final = {f"ALIGN_PERCENTILE_{n:02d}": float(n) for n in (99, 95, 50, 5)}
DELTAS: Final = {"ALIGN_NONE", "ALIGN_DELTA", "ALIGN_SUM"}
TERM: Final = re.compile(
    r'\s*((?:metric|resource)\.(?:type|labels?\.(?:"\w+"|\w+)))\s*(!=|=)\s*("(?:[^"\\]|\\.)*"|[^\s()"]+)\s*'
)


@dataclass(frozen=True)
class Series:
    """One time series: whose it is, its metric labels, and how to read its value from what happened in a period."""

    key: tuple[str, str]
    labels: Mapping[str, str]
    value: Callable[[Second], int | Latencies]


def _count(read: Callable[[Second], int]) -> Callable[[Second], int | Latencies]:
    return read


class MonitoringService:
    """Cloud Monitoring for one project."""

    cloud = "gcp"

    def __init__(
        self, world: World, identity: Identity, samples: Samples, project: str, location: str, guard: Guard
    ) -> None:
        self._world = world
        self._identity = identity
        self._samples = samples
        self._project = project
        self._location = location
        self._guard = guard
        self._discovery: Discovery = document("monitoring.v3")

    def identify(self, request: Request) -> Target:
        """`ListTimeSeries`, the only call."""
        known = request.method == "GET" and PATH.fullmatch(request.path)
        return Target("ListTimeSeries" if known else "unknown")

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """INTERNAL, what belongs to the fault's status, or RESOURCE_EXHAUSTED for a throttle."""
        if fault.kind == "throttle":
            return error_response("RESOURCE_EXHAUSTED", "Quota exceeded for monitoring.googleapis.com requests.")
        return error_response(status_for_http(fault.status), "Internal error encountered.", fault.status)

    def respond(self, request: Request, target: Target) -> Response:
        """Answer one request."""
        try:
            self._identity.check(request)
            self._guard.admit(target.operation, f"projects/{self._project}")
            if target.operation == "unknown":
                raise not_emulated(f"Cloud Monitoring {request.method} {request.path}")
            query = self._discovery.check_query(METHOD, request.args)
            answer = self._discovery.write("ListTimeSeriesResponse", self._list(query, request), enums_as_int=False)
            return Response(json.dumps(answer), 200, content_type="application/json; charset=UTF-8")
        except GoogleError as error:
            return error_response(error.status, error.message)

    def _list(self, query: Mapping[str, str], request: Request) -> JsonObject:
        terms = _terms(query.get("filter", ""))
        metric = next((value for name, sign, value in terms if (name, sign) == ("metric.type", "=")), None)
        if metric is None:
            raise invalid("The supplied filter does not specify a valid combination of metric and monitored resource.")
        if not metric.startswith(PREFIX):
            raise not_emulated(f"Cloud Monitoring metric {metric}")
        if any(name.startswith("secondaryAggregation") for name in query):
            raise not_emulated("a secondary aggregation")
        begin, end = self._interval(query)
        aligner = query.get("aggregation.perSeriesAligner", "ALIGN_NONE")
        is_latency = metric == PREFIX + "prediction_latencies"
        if aligner not in DELTAS and not (is_latency and aligner in PERCENTILES):
            raise not_emulated(f"{aligner} of {metric}")
        periods = self._periods(query, aligner, begin, end)
        reducer = query.get("aggregation.crossSeriesReducer", "REDUCE_NONE")
        if reducer not in ("REDUCE_NONE", "REDUCE_SUM") or (reducer == "REDUCE_SUM" and is_latency):
            raise not_emulated(f"{reducer} of {metric}")
        visible = min(time.time() - self._world.faults.lag("gcp"), end)
        found = []
        for series in self._series(metric.removeprefix(PREFIX)):
            labels = self._labels(metric, series)
            if all((labels.get(name) == value) == (sign == "=") for name, sign, value in terms):
                points = self._points(series, periods, visible)
                if points:
                    found.append((labels, points))
        if reducer == "REDUCE_SUM":
            found = _summed(found, request.args.getlist("aggregation.groupByFields"))
        page = int(query.get("pageToken") or 0)
        size = int(query.get("pageSize") or 100_000)
        shown = [_series_json(labels, points, aligner, is_latency) for labels, points in found[page : page + size]]
        if query.get("view") == "HEADERS":
            shown = [{k: v for k, v in series.items() if k != "points"} for series in shown]
        answer: JsonObject = {"timeSeries": shown} if shown else {}
        if page + size < len(found):
            answer["nextPageToken"] = str(page + size)
        return answer

    @staticmethod
    def _interval(query: Mapping[str, str]) -> tuple[float, float]:
        try:
            end = datetime.fromisoformat(query["interval.endTime"]).timestamp()
            begin = datetime.fromisoformat(query.get("interval.startTime", query["interval.endTime"])).timestamp()
        except (KeyError, ValueError):
            raise invalid("Field interval.endTime had an invalid value: an RFC 3339 timestamp is required.") from None
        if begin > end:
            raise invalid("Field interval had an invalid value: the start time must not be later than the end time.")
        return begin, end

    @staticmethod
    def _periods(query: Mapping[str, str], aligner: str, begin: float, end: float) -> list[tuple[float, float]]:
        """Periods (from, to), newest first."""
        if aligner == "ALIGN_NONE":
            last = math.floor(end / 60) * 60.0
            first = math.floor(begin / 60) * 60.0
            return [(at, at + 60.0) for at in _down(last, first, 60.0)]
        length = re.fullmatch(r"(\d+(?:\.\d+)?)s", query.get("aggregation.alignmentPeriod", ""))
        if length is None or float(length[1]) < 60:
            raise invalid("Field aggregation.alignmentPeriod had an invalid value: it must be at least 60 seconds.")
        period = float(length[1])
        return [(max(at - period, 0.0), at) for at in _down(end, begin, period) if at > begin]

    def _series(self, name: str) -> list[Series]:
        found = []
        for key in self._samples.series():
            own = {"deployed_model_id": key[1]}
            if name == "prediction_count":
                found.append(Series(key, own, _count(lambda s: s.predictions)))
            elif name == "error_count":
                found.append(Series(key, own, _count(lambda s: s.errors)))
            elif name == "response_count":
                everything = self._samples.between(key, 0.0, math.inf) or Second()
                for code in sorted(everything.codes):
                    read = _count(lambda s, code=code: s.codes[code])  # type: ignore[misc]
                    found.append(Series(key, {**own, "response_code": code}, read))
            elif name == "prediction_latencies":
                found.append(Series(key, {**own, "latency_type": "model"}, lambda s: s.model))
                found.append(Series(key, {**own, "latency_type": "overhead"}, lambda s: s.overhead))
            else:
                raise not_emulated(f"Cloud Monitoring metric {PREFIX}{name}")
        return found

    def _labels(self, metric: str, series: Series) -> dict[str, str]:
        return {
            "metric.type": metric,
            "resource.type": "aiplatform.googleapis.com/Endpoint",
            "resource.labels.resource_container": self._project,
            "resource.labels.location": self._location,
            "resource.labels.endpoint_id": series.key[0],
            **{f"metric.labels.{name}": value for name, value in series.labels.items()},
        }

    def _points(
        self, series: Series, periods: list[tuple[float, float]], visible: float
    ) -> list[tuple[float, float, int | Latencies]]:
        found = []
        for since, until in periods:
            happened = self._samples.between(series.key, math.floor(since), min(until, visible))
            if happened is not None:
                found.append((since, min(until, visible), series.value(happened)))
        return found


def _down(last: float, first: float, step: float) -> list[float]:
    if (last - first) / step > 100_000:
        raise invalid("The interval holds too many points.")
    return [last - n * step for n in range(int((last - first) // step) + 1)]


def _terms(text: str) -> list[tuple[str, str, str]]:
    found = []
    rest = text
    while rest.strip():
        term = TERM.match(rest)
        if term is None:
            raise not_emulated(f"the filter {text!r}")
        name = re.sub(r"\.labels?\.", ".labels.", term[1]).replace('"', "")
        found.append((name, term[2], term[3].strip('"')))
        rest = rest[term.end() :]
        joined = re.match(r"AND\b\s*", rest)
        rest = rest[joined.end() :] if joined else rest
        if re.match(r"(OR|NOT)\b|[()]", rest):
            raise not_emulated(f"the filter {text!r}")
    return found


Found = list[tuple[dict[str, str], list[tuple[float, float, int | Latencies]]]]


def _summed(found: Found, group_by: list[str]) -> Found:
    """Counts added up over the series that agree in the fields of `group_by`, per period."""
    names = [re.sub(r"\.labels?\.", ".labels.", name) for name in group_by]
    groups: dict[tuple[str, ...], tuple[dict[str, str], dict[tuple[float, float], int]]] = {}
    for labels, points in found:
        kept = {n: v for n, v in labels.items() if n in names or n.endswith(".type")}
        _, sums = groups.setdefault(tuple(labels.get(n, "") for n in names), (kept, {}))
        for since, until, value in points:
            assert isinstance(value, int)
            sums[since, until] = sums.get((since, until), 0) + value
    return [(kept, [(s, u, v) for (s, u), v in sorted(sums.items(), reverse=True)]) for kept, sums in groups.values()]


def _series_json(
    labels: dict[str, str], points: list[tuple[float, float, int | Latencies]], aligner: str, is_latency: bool
) -> JsonObject:
    def under(prefix: str) -> dict[str, str]:
        return {n.removeprefix(prefix): v for n, v in labels.items() if n.startswith(prefix)}

    gauge = aligner in PERCENTILES
    kind = "DOUBLE" if gauge else "DISTRIBUTION" if is_latency else "INT64"
    return {
        "metric": {"type": labels["metric.type"], "labels": under("metric.labels.")},
        "resource": {"type": labels["resource.type"], "labels": under("resource.labels.")},
        "metricKind": "GAUGE" if gauge else "DELTA",
        "valueType": kind,
        "unit": "ms" if is_latency else "1",
        "points": [
            {
                "interval": {"startTime": time_text(until if gauge else since), "endTime": time_text(until)},
                "value": _value(value, aligner),
            }
            for since, until, value in points
        ],
    }


def _value(value: int | Latencies, aligner: str) -> JsonObject:
    if isinstance(value, int):
        return {"int64Value": str(value)}
    if aligner in PERCENTILES:
        return {"doubleValue": value.percentile(PERCENTILES[aligner])}
    mean = value.total / value.count if value.count else 0.0
    counts: list[Any] = [str(value.buckets[n]) for n in range(max(value.buckets, default=-1) + 1)]
    return {
        "distributionValue": {
            "count": str(value.count),
            "mean": mean,
            "sumOfSquaredDeviation": max(0.0, value.squares - value.count * mean**2),
            "bucketOptions": {
                "exponentialBuckets": {"numFiniteBuckets": FINITE, "growthFactor": GROWTH, "scale": 1.0},
            },
            "bucketCounts": counts,
        }
    }
