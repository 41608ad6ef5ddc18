"""What Azure Monitor counted for each deployment, minute by minute."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lockstep.rules.measurement import SlotMetrics

if TYPE_CHECKING:
    from lockstep.clouds.azureml.access import Access

NAMESPACE: Final = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"
REQUESTS: Final = "RequestsPerMinute"
LATENCY: Final = "RequestLatency"
LATENCY_P95: Final = "RequestLatency_P95"
MINUTE: Final = timedelta(minutes=1)
SERIES_LIMIT: Final = 1000


@dataclass
class _Count:
    requests: float = 0.0
    errors: float = 0.0
    per_minute: dict[datetime, float] = field(default_factory=lambda: defaultdict(float))
    mean: dict[datetime, float] = field(default_factory=dict)
    p95: dict[datetime, float] = field(default_factory=dict)


class Metrics:
    """Reads one region's metrics."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._client: Any = None

    def measure(self, endpoint: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        """Counts per slot over the whole minutes that touch the period."""
        start, end = _minute(since), _minute(until + MINUTE - timedelta(microseconds=1))
        counts: defaultdict[str, _Count] = defaultdict(_Count)
        by_status = "deployment eq '*' and statusCode eq '*' and modelStatusCode eq '*'"
        for slot, labels, minute, value in self._read(endpoint, [REQUESTS], by_status, start, end):
            count = counts[slot]
            count.requests += value
            count.per_minute[minute] += value
            if is_error(labels.get("statuscode", ""), labels.get("modelstatuscode", "")):
                count.errors += value
        if counts:
            for slot, labels, minute, value in self._read(
                endpoint, [LATENCY, LATENCY_P95], "deployment eq '*'", start, end
            ):
                target = counts[slot].p95 if labels["metric"] == LATENCY_P95 else counts[slot].mean
                target[minute] = value
        return tuple(
            SlotMetrics(
                cloud=self._access.name,
                slot=slot,
                requests=round(count.requests),
                errors=round(count.errors),
                latency_mean=_seconds(count.mean, count.per_minute),
                latency_p95=_seconds(count.p95, count.per_minute),
            )
            for slot, count in sorted(counts.items())
        )

    def _read(
        self, endpoint: str, names: list[str], dimensions: str, start: datetime, end: datetime
    ) -> Iterable[tuple[str, dict[str, str], datetime, float]]:
        settings = self._access.settings
        results = self._connected().query_resources(
            resource_ids=[f"{settings.workspace_path}/onlineEndpoints/{endpoint}"],
            metric_namespace=NAMESPACE,
            metric_names=names,
            timespan=(start, end),
            granularity=MINUTE,
            aggregations=["Average"],
            filter=dimensions,
            max_results=SERIES_LIMIT,
        )
        for result in results:
            for metric in result.metrics:
                for series in metric.timeseries:
                    labels = {str(k).lower(): str(v) for k, v in series.metadata_values.items()}
                    labels["metric"] = metric.name
                    for point in series.data:
                        if point.average is not None and start <= point.timestamp < end:
                            yield labels.get("deployment", ""), labels, point.timestamp, point.average

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                from azure.monitor.querymetrics import MetricsClient

                self._client = MetricsClient(
                    self._access.settings.metrics_address,
                    self._access.credential(),
                    **self._access.transport_options(),
                )
            return self._client


def is_error(status: str, model_status: str) -> bool:
    """Whether a request with these status codes failed on the serving side.

    424 is how Azure passes on any bad answer of the model: one that calls the caller's input wrong is no failure.
    """
    if status == "424":
        return not model_status.startswith("4")
    return status == "408" or status.startswith("5")


def _minute(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(second=0, microsecond=0)


def _seconds(values: dict[datetime, float], weights: dict[datetime, float]) -> float | None:
    """Milliseconds by minute, averaged by how many requests each minute had, in seconds; None without any."""
    weighted = [(value, weights.get(minute, 0.0) or 1.0) for minute, value in values.items()]
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total / 1000.0 if total else None
