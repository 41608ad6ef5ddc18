"""Cloud Monitoring's time series of an endpoint, counted per deployed model; no I/O.

Metrics are named at https://cloud.google.com/monitoring/api/metrics_gcp under `aiplatform.googleapis.com`; all are
DELTA metrics of one minute, visible minutes late. Latencies are distributions in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

PREFIX: Final = "aiplatform.googleapis.com/prediction/online"
RESPONSES: Final = f"{PREFIX}/response_count"
LATENCIES: Final = f"{PREFIX}/prediction_latencies"


@dataclass
class Distribution:
    """Milliseconds: how many, their sum, and counts by bucket (lower bound, upper bound)."""

    count: int = 0
    total: float = 0.0
    buckets: dict[tuple[float, float], int] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Mean in milliseconds."""
        return self.total / self.count if self.count else None

    @property
    def p95(self) -> float | None:
        """95th percentile in milliseconds, interpolated within its bucket; None without buckets."""
        below, rank = 0, 0.95 * sum(self.buckets.values())
        for (low, high), count in sorted(self.buckets.items()):
            if count and below + count >= rank:
                return low + (high - low) * (rank - below) / count if math.isfinite(high) else low
            below += count
        return None

    def add(self, other: Distribution) -> None:
        """Count what another one counted, too."""
        self.count += other.count
        self.total += other.total
        for bucket, number in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + number


@dataclass
class Counts:
    """What is known of one deployed model; latencies by the service's `latency_type`."""

    requests: int = 0
    errors: int = 0
    latencies: dict[str, Distribution] = field(default_factory=dict)

    @property
    def latency_mean(self) -> float | None:
        """Mean latency in seconds: the total, or the model's and the overhead's together."""
        parts = [self.latencies["total"]] if "total" in self.latencies else list(self.latencies.values())
        means = [part.mean for part in parts if part.mean is not None]
        return sum(means) / 1000 if means else None

    @property
    def latency_p95(self) -> float | None:
        """95th percentile in seconds, of the total or else of the model alone: percentiles cannot be added."""
        chosen = self.latencies.get("total") or self.latencies.get("model")
        found = chosen.p95 if chosen is not None else None
        return found / 1000 if found is not None else None


def by_slot(counts: Mapping[str, Counts], slots: Mapping[str, str]) -> dict[str, Counts]:
    """What is known of each slot, from that of deployed models and the slots that these are or were.

    A slot that was removed and deployed again is two deployed models, and both may have answered within the time asked
    for: the one without new requests must not hide the other. Deployed models of no known slot are left out.
    """
    found: dict[str, Counts] = {}
    for deployed, one in counts.items():
        if deployed not in slots:
            continue
        entry = found.setdefault(slots[deployed], Counts())
        entry.requests += one.requests
        entry.errors += one.errors
        for kind, latencies in one.latencies.items():
            entry.latencies.setdefault(kind, Distribution()).add(latencies)
    return found


def series_filter(metric: str, endpoint_id: str, location: str) -> str:
    """Monitoring filter for one metric of one endpoint."""
    return (
        f'metric.type = "{metric}" AND resource.type = "aiplatform.googleapis.com/Endpoint" '
        f'AND resource.labels.endpoint_id = "{endpoint_id}" AND resource.labels.location = "{location}"'
    )


def add_responses(series: Iterable[Mapping[str, Any]], counts: dict[str, Counts]) -> None:
    """Sum `response_count`: every answer is a request, those with a 5xx code are errors."""
    for one in series:
        labels = one.get("metric", {}).get("labels", {})
        number = sum(int(point["value"].get("int64Value", 0)) for point in one.get("points", ()))
        entry = counts.setdefault(str(labels.get("deployed_model_id", "")), Counts())
        entry.requests += number
        if str(labels.get("response_code", "")).startswith("5"):
            entry.errors += number


def add_latencies(series: Iterable[Mapping[str, Any]], counts: dict[str, Counts]) -> None:
    """Merge `prediction_latencies`, each kind of latency by itself."""
    for one in series:
        labels = one.get("metric", {}).get("labels", {})
        entry = counts.setdefault(str(labels.get("deployed_model_id", "")), Counts())
        merged = entry.latencies.setdefault(str(labels.get("latency_type", "total")), Distribution())
        for point in one.get("points", ()):
            value = point["value"].get("distributionValue", {})
            number = int(value.get("count", 0))
            merged.count += number
            merged.total += number * float(value.get("mean", 0.0))
            per_bucket = [int(count) for count in value.get("bucketCounts", ())]
            bounds = _bounds(value.get("bucketOptions", {}), len(per_bucket))
            for low, high, count in zip([0.0, *bounds], bounds, per_bucket, strict=False):
                merged.buckets[low, high] = merged.buckets.get((low, high), 0) + count


def _bounds(options: Mapping[str, Any], length: int) -> Sequence[float]:
    """Upper bound of each bucket, underflow first; the last bucket of all has none."""
    if "exponentialBuckets" in options:
        form = options["exponentialBuckets"]
        count, scale, growth = int(form["numFiniteBuckets"]), float(form["scale"]), float(form["growthFactor"])
        bounds = [scale * growth**n for n in range(count + 1)]
    elif "linearBuckets" in options:
        form = options["linearBuckets"]
        count, width, offset = int(form["numFiniteBuckets"]), float(form["width"]), float(form.get("offset", 0.0))
        bounds = [offset + width * n for n in range(count + 1)]
    else:
        bounds = [float(bound) for bound in options.get("explicitBuckets", {}).get("bounds", ())]
    return [*bounds, *[math.inf] * length][:length]
