"""How long each cloud takes for what it does not do at once.

`real` holds durations from the vendors' documentation, from recordings and from field reports; where no vendor
publishes one (a SageMaker weight flip, a Vertex traffic split) it is an assumption and marked so. `demo` keeps the
order of the clouds and fits into a few minutes. `instant` has no delay beyond the work itself; only what is repeated
(an alarm's evaluation, a retried delivery) keeps a rhythm, of a second or less.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Final

SPEEDS: Final = ("instant", "demo", "real")

#: operation -> seconds at (instant, demo, real)
SECONDS: Final[Mapping[str, tuple[float, float, float]]] = {
    "aws.endpoint.create": (0.0, 1.0, 300.0),
    "aws.endpoint.update": (0.0, 1.0, 300.0),
    "aws.endpoint.weights": (0.0, 0.5, 15.0),  # assumed: no duration is published
    "aws.endpoint.delete": (0.0, 0.2, 30.0),
    "aws.capture.flush": (0.0, 1.0, 120.0),  # "a couple of minutes"
    "aws.alarm.minute": (1.0, 5.0, 60.0),  # how long a minute of an alarm's period lasts; it is evaluated as often
    "aws.sns.retry": (0.5, 2.0, 20.0),  # the delay before a retry by the default delivery policy; others in proportion
    "azure.endpoint.create": (0.0, 0.5, 90.0),
    "azure.endpoint.traffic": (0.0, 0.6, 20.0),
    "azure.endpoint.delete": (0.0, 0.3, 60.0),
    "azure.deployment.create": (0.0, 1.2, 540.0),
    "azure.deployment.update": (0.0, 0.6, 120.0),
    "azure.deployment.delete": (0.0, 0.3, 60.0),
    "azure.capture.flush": (0.0, 1.0, 120.0),  # assumed: no duration is published
    "gcp.model.upload": (0.0, 0.2, 30.0),
    "gcp.endpoint.create": (0.0, 0.2, 15.0),
    "gcp.endpoint.deploy": (0.0, 1.5, 720.0),
    "gcp.endpoint.undeploy": (0.0, 0.3, 60.0),
    "gcp.endpoint.traffic": (0.0, 0.2, 5.0),  # assumed: no duration is published
    "gcp.capture.flush": (0.0, 1.0, 60.0),  # assumed: no duration is published
    "gcp.endpoint.delete": (0.0, 0.1, 10.0),
}


class Delays:
    """Thread-safe table of the delays in force: the chosen speed, with single ones changed at run time."""

    def __init__(self, speed: str = "instant") -> None:
        if speed not in SPEEDS:
            raise ValueError(f"speed must be one of {', '.join(SPEEDS)}, not {speed!r}")
        self.speed: Final = speed
        column = SPEEDS.index(speed)
        self._seconds = {operation: row[column] for operation, row in SECONDS.items()}
        self._lock = threading.Lock()

    def seconds(self, operation: str) -> float:
        """Seconds that `operation` (a key of `SECONDS`) takes now; an unknown operation is a programming error."""
        with self._lock:
            return self._seconds[operation]

    def change(self, changes: Mapping[str, float]) -> None:
        """Set single delays; raises ValueError for an unknown operation or a negative number, changing nothing."""
        unknown = sorted(set(changes) - set(SECONDS))
        if unknown:
            raise ValueError(f"unknown operation {unknown[0]!r}; known: {', '.join(sorted(SECONDS))}")
        for operation, seconds in changes.items():
            if not math.isfinite(seconds) or seconds < 0:
                raise ValueError(f"{operation}: a delay is a number of seconds >= 0, not {seconds!r}")
        with self._lock:
            self._seconds.update(changes)

    def table(self) -> dict[str, float]:
        """A copy of all delays now in force."""
        with self._lock:
            return dict(self._seconds)
