"""What each deployed model answered, by the second: the samples behind Cloud Monitoring's metrics."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

KEPT_SECONDS: Final = 6 * 3600
#: upper bounds of the latency buckets in milliseconds: exponential, scale 1, growth factor sqrt(2), 32 finite buckets
GROWTH: Final = 2**0.5
FINITE: Final = 32
BOUNDS: Final = tuple(GROWTH**n for n in range(FINITE + 1))


@dataclass
class Latencies:
    """A distribution of milliseconds: moments and counts per bucket (underflow first, overflow last)."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, milliseconds: float) -> None:
        """Count one answer."""
        self.count += 1
        self.total += milliseconds
        self.squares += milliseconds**2
        self.buckets[bisect.bisect_right(BOUNDS, milliseconds)] += 1

    def merge(self, other: Latencies) -> None:
        """Add another distribution to this one."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.buckets.update(other.buckets)

    def percentile(self, percent: float) -> float:
        """Interpolated within the bucket that holds it, as an aligner does from a distribution."""
        rank, below = self.count * percent / 100, 0
        for bucket in sorted(self.buckets):
            count = self.buckets[bucket]
            if below + count >= rank:
                low = BOUNDS[bucket - 1] if bucket > 0 else 0.0
                high = BOUNDS[bucket] if bucket <= FINITE else low * GROWTH
                return low + (high - low) * (rank - below) / count
            below += count
        return 0.0


@dataclass
class Second:
    """What happened in one second, or over many once merged; `codes` counts answers by HTTP status class."""

    predictions: int = 0
    errors: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    model: Latencies = field(default_factory=Latencies)
    overhead: Latencies = field(default_factory=Latencies)

    def merge(self, other: Second) -> None:
        """Add another one to this one."""
        self.predictions += other.predictions
        self.errors += other.errors
        self.codes.update(other.codes)
        self.model.merge(other.model)
        self.overhead.merge(other.overhead)


class Samples:
    """Samples per (endpoint id, deployed model id)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[tuple[str, str], dict[int, Second]] = {}

    def add(self, endpoint_id: str, slot_id: str, status: int, model_ms: float, overhead_ms: float) -> None:
        """Record one answered prediction request."""
        second = int(time.time())
        with self._lock:
            series = self._seconds.setdefault((endpoint_id, slot_id), {})
            at = series.get(second)
            if at is None:
                at = series[second] = Second()
                for old in [t for t in series if t < second - KEPT_SECONDS][:100]:
                    del series[old]
            at.predictions += 1
            at.errors += status >= 400
            at.codes[str(status)] += 1
            at.model.add(model_ms)
            at.overhead.add(overhead_ms)

    def series(self) -> list[tuple[str, str]]:
        """Every (endpoint id, deployed model id) that was ever asked."""
        with self._lock:
            return sorted(self._seconds)

    def between(self, key: tuple[str, str], begin: float, end: float) -> Second | None:
        """Everything in begin <= t < end, merged; None when nothing happened."""
        merged: Second | None = None
        with self._lock:
            for second, sample in self._seconds.get(key, {}).items():
                if begin <= second < end:
                    merged = merged or Second()
                    merged.merge(sample)
        return merged
