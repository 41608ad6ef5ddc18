"""Alerts that the inbox held a moment ago: a storm repeats the same few, which then cost it no transaction.

Only what is durable is remembered, and only while nothing can come of it that the inbox would decide otherwise: an
alert that still comes has what failed tried once more, but AGAIN seconds after the failure at the earliest; and the
same words at the same time of its sender's are another occurrence no sooner than that after its end. What had not
failed, nor ended, when it was looked up is therefore sure for as long. What waits for the end of a cool-down is not
remembered.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from lockstep.agent.inbox import key_of
from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.deciding import AGAIN
from lockstep.rules.alerts.routing import Route

MOST: Final = 20_000


def same_words(alert: Alert, way: Route, digest: str) -> str:
    """A key of the same alert, about the same and asking the same, at the same time or else in the same delivery."""
    when = repr(alert.at) if alert.at else digest
    return "\0".join((key_of(alert), way.model, way.version, way.action.value, when))


class Familiar:
    """The answers of alerts by their keys. For any thread; at most so many, the oldest goes first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()  # when it was looked up, the intent's id
        self._lock = threading.Lock()

    def answers(self, keys: Sequence[str], at: float) -> tuple[str, ...] | None:
        """The intent of each alert that comes at that time; None unless all of them are known and sure."""
        with self._lock:
            found = [self._known.get(key) for key in keys]
        # A clock that was set back, or far ahead, makes nothing sure.
        sure = [one[1] for one in found if one is not None and 0.0 <= at - one[0] < AGAIN]
        return tuple(sure) if len(sure) == len(keys) else None

    def add(self, key: str, answer: str, at: float) -> None:
        """Remember an alert that is durable, and of whose intent it was seen after `at` that it had not failed."""
        with self._lock:
            self._known[key] = (at, answer)
            self._known.move_to_end(key)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
