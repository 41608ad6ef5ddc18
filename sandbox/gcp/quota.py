"""Request quotas per minute, as Google counts them: a fixed number in any minute, then RESOURCE_EXHAUSTED."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from sandbox.gcp.errors import GoogleError

WINDOW: Final = 60.0


@dataclass(frozen=True)
class Limits:
    """Requests per minute: resource management, submissions of long-running operations, online predictions."""

    crud: int = 600
    submissions: int = 60
    predictions: int = 30_000


class Quota:
    """One sliding minute."""

    def __init__(self, metric: str, limit: int, location: str) -> None:
        self._metric = metric
        self._limit = limit
        self._location = location
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def spend(self) -> None:
        """Count one request; raises RESOURCE_EXHAUSTED beyond the limit, without counting it."""
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] <= now - WINDOW:
                self._times.popleft()
            if len(self._times) >= self._limit:
                raise GoogleError(
                    "RESOURCE_EXHAUSTED",
                    f"Quota exceeded for quota metric '{self._metric}' and limit '{self._metric} per minute per region'"
                    f" of service 'aiplatform.googleapis.com' in region '{self._location}' ({self._limit} per minute).",
                )
            self._times.append(now)
