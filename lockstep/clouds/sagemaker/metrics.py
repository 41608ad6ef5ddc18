"""Counts per variant from CloudWatch's `AWS/SageMaker`: one-minute grain, minutes late."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lockstep.errors import RefusedError
from lockstep.rules.measurement import SlotMetrics

#: Answer key -> metric, statistic. Latency is in microseconds.
COUNTS: Final = {
    "requests": ("Invocations", "Sum"),
    "server": ("Invocation5XXErrors", "Sum"),
    "caller": ("Invocation4XXErrors", "Sum"),
    "model": ("InvocationModelErrors", "Sum"),
    "latency": ("ModelLatency", "Sum"),
    "latencies": ("ModelLatency", "SampleCount"),
}
TAIL: Final = ("ModelLatency", "p95")
MICROSECONDS: Final = 1e6
MAX_DATAPOINTS: Final = 100_800


def measure_slots(
    cloudwatch: Any, cloud: str, endpoint: str, slots: Iterable[str], since: datetime, until: datetime
) -> tuple[SlotMetrics, ...]:
    """Counts of each slot between two aware times; slots in the order given."""
    if since >= until:
        raise RefusedError(f"metrics of {endpoint} cannot be read from {since} until {until}", cloud=cloud)
    named = tuple(slots)
    queries = tuple(_queries(endpoint, named, since, until))
    values: dict[str, list[float]] = defaultdict(list)
    if queries:
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=list(queries),
            StartTime=since,
            EndTime=until,
            PaginationConfig={"PageSize": MAX_DATAPOINTS},
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                values[result["Id"]] += result["Values"]
    return tuple(_slot(cloud, slot, number, values) for number, slot in enumerate(named))


def _slot(cloud: str, slot: str, number: int, values: dict[str, list[float]]) -> SlotMetrics:
    total = {key: math.fsum(values[f"{key}{number}"]) for key in COUNTS}
    tail: Sequence[float] = values[f"tail{number}"]
    return SlotMetrics(
        cloud=cloud,
        slot=slot,
        requests=round(total["requests"]),
        # InvocationModelErrors counts 4xx answers of the container too, and time-outs, which 5XX does not.
        errors=round(max(total["server"], total["model"] - total["caller"])),
        latency_mean=total["latency"] / total["latencies"] / MICROSECONDS if total["latencies"] else None,
        # A window may touch two bins of its own length: percentiles cannot be added, so the worse one is told.
        latency_p95=max(tail) / MICROSECONDS if tail else None,
    )


def _queries(endpoint: str, slots: Sequence[str], since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    grain = _grain(since)
    whole = math.ceil((until - since).total_seconds() / grain + 1) * grain
    for number, slot in enumerate(slots):
        for key, (metric, statistic) in COUNTS.items():
            yield _query(f"{key}{number}", endpoint, slot, metric, statistic, grain)
        yield _query(f"tail{number}", endpoint, slot, *TAIL, whole)


def _query(name: str, endpoint: str, slot: str, metric: str, statistic: str, period: int) -> dict[str, Any]:
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": slot}]
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions},
            "Period": period,
            "Stat": statistic,
        },
    }


def _grain(since: datetime) -> int:
    """Finest period, in seconds, at which CloudWatch still keeps points of that age."""
    age = datetime.now(UTC) - since
    if age < timedelta(days=15):
        return 60
    return 300 if age < timedelta(days=63) else 3600
