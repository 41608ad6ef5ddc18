"""Deliveries that were taken in already, by the name that their vendor signed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

#: At most so many; the oldest goes first. Alerts have identifiers of their own by which the inbox knows them again.
_MOST: Final = 50_000


class Seen:
    """Remembers names for `keep` seconds. Safe for several threads at once."""

    def __init__(self, keep: float, most: int = _MOST) -> None:
        self._keep = keep
        self._most = most
        self._until: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return self._until.get(name, 0.0) > time.monotonic()

    def add(self, name: str) -> None:
        """Remember a name from now on."""
        now = time.monotonic()
        with self._lock:
            self._until[name] = now + self._keep
            self._until.move_to_end(name)
            while self._until and (len(self._until) > self._most or next(iter(self._until.values())) <= now):
                self._until.popitem(last=False)
