"""Deliveries that were taken in already, by the name that their vendor signed, and the intents that they came to."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

#: At most so many; the oldest goes first. Alerts have identifiers of their own by which the inbox knows them again.
_MOST: Final = 50_000


class Seen:
    """Remembers names for `keep` seconds. Safe for several threads at once."""

    def __init__(self, keep: float, most: int = _MOST) -> None:
        self._keep = keep
        self._most = most
        self._until: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: str) -> tuple[str, ...] | None:
        """The intents that the delivery of that name came to; None for one that is not remembered."""
        with self._lock:
            until, intents = self._until.get(name, (0.0, ()))
        return intents if until > time.monotonic() else None

    def add(self, name: str, intents: Sequence[str] = ()) -> None:
        """Remember a name from now on."""
        now = time.monotonic()
        kept = tuple(map(sys.intern, intents))  # thousands of deliveries come to the same few
        with self._lock:
            self._until[name] = (now + self._keep, kept)
            self._until.move_to_end(name)
            while self._until and (len(self._until) > self._most or next(iter(self._until.values()))[0] <= now):
                self._until.popitem(last=False)
