"""What each version's endpoints counted over the last minutes, as lines to be plotted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lockstep.rules.measurement import SlotMetrics

KEPT: Final = 240  # looks
LONGEST: Final = timedelta(hours=2)  # that one beginning is counted from


@dataclass(frozen=True)
class Point:
    """From one look to the next, over all clouds: answers a minute, share that failed, p95 latency in seconds.

    `failed` and `latency` are None where nothing was answered, or a cloud says nothing.
    """

    at: float
    rate: float
    failed: float | None
    latency: float | None


@dataclass(frozen=True)
class Series:
    """One version's points, oldest first; `name` is what people call it."""

    name: str
    points: tuple[Point, ...]


class Tracker:
    """Looks at one model's metrics, counted since one beginning; a new one with each rollout and every two hours."""

    def __init__(self, since: datetime, about: object) -> None:
        """`about` is what the counts are of; see `fits`."""
        self.since = since
        self._about = about
        self._looks: deque[tuple[float, Mapping[tuple[str, str], SlotMetrics]]] = deque(maxlen=KEPT)

    def fits(self, about: object, now: datetime) -> bool:
        """Whether more looks belong here."""
        return self._about == about and now - self.since < LONGEST

    def add(self, at: datetime, metrics: Sequence[SlotMetrics]) -> None:
        """One look: counts since `since`, of the clouds that answered."""
        seen = {(slot.cloud, slot.slot): slot for slot in metrics}
        self._looks.append((at.timestamp(), seen))

    def series(self, names: Mapping[str, str]) -> tuple[Series, ...]:
        """A line for each slot in `names`, under the name that is given there."""
        return tuple(Series(name, self._points(slot)) for slot, name in names.items())

    def _points(self, slot: str) -> tuple[Point, ...]:
        points: list[Point] = []
        last: dict[str, SlotMetrics] = {}
        before = self.since.timestamp()
        for at, seen in self._looks:
            requests = errors = 0
            latencies: list[float] = []
            for (cloud, name), now in seen.items():
                if name != slot:
                    continue
                was = last.get(cloud)
                # A cloud that corrects its counts downwards has counted nothing.
                requests += max(0, now.requests - (was.requests if was else 0))
                errors += max(0, now.errors - (was.errors if was else 0))
                latencies += [now.latency_p95] if now.latency_p95 is not None else []
                last[cloud] = now
            minutes = max(at - before, 1e-3) / 60.0
            failed = min(1.0, errors / requests) if requests else None
            points.append(Point(at, requests / minutes, failed, max(latencies, default=None)))
            before = at
        return tuple(points)
