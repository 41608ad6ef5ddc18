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
class Counts:
    """What is known of one deployed model; `buckets` maps upper bounds in milliseconds to counts."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    total_ms: float = 0.0
    buckets: dict[float, int] = field(default_factory=dict)

    @property
    def latency_mean(self) -> float | None:
        """Mean latency in seconds."""
        return self.total_ms / self.timed / 1000 if self.timed else None

    @property
    def latency_p95(self) -> float | None:
        """Upper bound in seconds of the bucket that holds the 95th percentile; None without distributions."""
        seen, wanted = 0, math.ceil(0.95 * sum(self.buckets.values()))
        for bound, count in sorted(self.buckets.items()):
            seen += count
            if count and seen >= wanted:
                return bound / 1000 if math.isfinite(bound) else None
        return None


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
    """Merge `prediction_latencies`; of several kinds of latency only the total counts."""
    for one in series:
        labels = one.get("metric", {}).get("labels", {})
        if labels.get("latency_type", "total") != "total":
            continue
        entry = counts.setdefault(str(labels.get("deployed_model_id", "")), Counts())
        for point in one.get("points", ()):
            value = point["value"].get("distributionValue", {})
            number = int(value.get("count", 0))
            entry.timed += number
            entry.total_ms += number * float(value.get("mean", 0.0))
            per_bucket = [int(count) for count in value.get("bucketCounts", ())]
            for bound, count in zip(_bounds(value.get("bucketOptions", {}), len(per_bucket)), per_bucket, strict=True):
                entry.buckets[bound] = entry.buckets.get(bound, 0) + count


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
