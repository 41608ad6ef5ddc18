"""A metric's identity and published values, and the statistics over them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from moto.cloudwatch.exceptions import InvalidParameterValue

PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{0,10})?|100)")
SIMPLE: Final = ("SampleCount", "Sum", "Average", "Minimum", "Maximum")

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


def key_of(metric: Mapping[str, Any]) -> Key:
    """The identity in a request's Namespace, MetricName and Dimensions."""
    dimensions = tuple(sorted((d["Name"], d["Value"]) for d in metric.get("Dimensions") or ()))
    return Key(metric["Namespace"], metric["MetricName"], dimensions)
