"""What was scored, kept for the metrics of online endpoints, and its aggregation into grains of a minute and more."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MINUTE: Final = 60.0
KEPT_MINUTES: Final = 24 * 60
NAMESPACE: Final = "microsoft.machinelearningservices/workspaces/onlineendpoints"
#: Metric (lower-case) -> (name, unit, dimensions, percentile or None).
METRICS: Final[Mapping[str, tuple[str, str, tuple[str, ...], float | None]]] = {
    "requestlatency": ("RequestLatency", "MilliSeconds", ("deployment",), None),
    "requestlatency_p50": ("RequestLatency_P50", "MilliSeconds", ("deployment",), 50.0),
    "requestlatency_p90": ("RequestLatency_P90", "MilliSeconds", ("deployment",), 90.0),
    "requestlatency_p95": ("RequestLatency_P95", "MilliSeconds", ("deployment",), 95.0),
    "requestlatency_p99": ("RequestLatency_P99", "MilliSeconds", ("deployment",), 99.0),
    "requestsperminute": (
        "RequestsPerMinute",
        "Count",
        ("deployment", "statusCode", "statusCodeClass", "modelStatusCode"),
        None,
    ),
}


class Sample(NamedTuple):
    """One answered request: Unix time of the answer, deployment, status codes (0: the model gave none), duration."""

    at: float
    deployment: str
    status: int
    model_status: int
    milliseconds: float

    def dimension(self, name: str) -> str:
        """Its value of a dimension, as Azure Monitor names it."""
        match name:
            case "deployment":
                return self.deployment
            case "statusCode":
                return str(self.status)
            case "statusCodeClass":
                return f"{self.status // 100}xx"
            case "modelStatusCode":
                return str(self.model_status) if self.model_status else "N/A"
        raise KeyError(name)


class Metrics:
    """Samples of every endpoint by minute. Recording is cheap; aggregation happens when somebody asks."""

    def __init__(self) -> None:
        self._minutes: dict[str, dict[int, list[Sample]]] = {}
        self._lock = threading.Lock()

    def record(self, endpoint: str, sample: Sample) -> None:
        """Keep one sample."""
        minute = int(sample.at // MINUTE)
        with self._lock:
            minutes = self._minutes.setdefault(endpoint.lower(), {})
            samples = minutes.get(minute)
            if samples is None:
                samples = minutes[minute] = []
                for old in [m for m in minutes if m < minute - KEPT_MINUTES]:
                    del minutes[old]
            samples.append(sample)

    def samples(self, endpoint: str, start: float, end: float, lag: float) -> list[Sample]:
        """Samples in [start, end) Unix seconds that Azure Monitor has got by now, `lag` seconds late."""
        end = min(end, time.time() - lag) if lag > 0 else end
        with self._lock:
            minutes = self._minutes.get(endpoint.lower(), {})
            wanted = [s for m, s in minutes.items() if start - MINUTE < m * MINUTE < end]
            found = [sample for samples in wanted for sample in samples]
        return [s for s in found if start <= s.at < end]


def grains(
    metric: str, samples: Iterable[Sample], start: float, end: float, interval: float
) -> list[tuple[float, dict[str, float]]]:
    """(grain's start in Unix seconds, its aggregates) for every grain that touches [start, end); {} where no samples.

    Latencies aggregate over requests. Counts are one value per minute, so that the average over longer grains is
    requests per minute.
    """
    _, unit, _, percentile = METRICS[metric]
    parts: dict[int, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(int(sample.at // interval), []).append(sample)
    rows = []
    for number in range(int(start // interval), math.ceil(end / interval)):
        inside = parts.get(number, [])
        values = [s.milliseconds for s in inside]
        if unit == "Count":
            minutes: dict[int, int] = {}
            for s in inside:
                minutes[int(s.at // MINUTE)] = minutes.get(int(s.at // MINUTE), 0) + 1
            values = [float(count) for count in minutes.values()]
        elif percentile is not None and values:
            values = [_percentile(values, percentile)]
        rows.append((number * interval, _aggregates(values)))
    return rows


def _aggregates(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    total = sum(values)
    return {
        "average": total / len(values),
        "minimum": min(values),
        "maximum": max(values),
        "total": total,
        "count": float(len(values)),
    }


def _percentile(values: list[float], percent: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100.0 * len(ordered)) - 1)]
