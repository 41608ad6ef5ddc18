"""What the clouds were asked, in order: the sandbox's own record, by its own clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Call:
    """One request, or one change that the cloud made (`operation` then starts with `event:`).

    `at` is Unix time in seconds, `seconds` the duration, `detail` a short text (a resource, a traffic split).
    """

    cloud: str
    operation: str
    resource: str
    status: int
    at: float
    seconds: float
    detail: str = ""


class Calls:
    """Thread-safe log of the last `limit` calls. Scoring requests are counted, not kept one by one."""

    def __init__(self, limit: int = 50_000) -> None:
        self._calls: deque[Call] = deque(maxlen=limit)
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        """Append one record."""
        with self._lock:
            self._calls.append(call)

    def event(self, cloud: str, name: str, resource: str, began: float, detail: str = "") -> None:
        """Record a change that a cloud finished now and began at `began` (Unix seconds): a traffic switch, say."""
        now = time.time()
        self.add(Call(cloud, f"event:{name}", resource, 0, began, now - began, detail))

    def table(self, cloud: str | None = None, since: float = 0.0) -> list[dict[str, object]]:
        """Calls as dictionaries, oldest first."""
        with self._lock:
            return [asdict(c) for c in self._calls if (cloud is None or c.cloud == cloud) and c.at >= since]
