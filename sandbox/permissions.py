"""What callers may do: everything, less what the control address takes away.

Each cloud keeps a table of what its operations take to be allowed (`sandbox/*/permissions.py`) and asks here before it
answers one, in the place where the real service does: after it knows who is calling. What a cloud says of a caller's
permissions when it is asked follows from the same board.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from sandbox.faults import CLOUDS


class Permissions:
    """The board. All methods are thread-safe; names are compared without regard to case, `*` stands for anything."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._denied: dict[str, tuple[str, ...]] = dict.fromkeys(CLOUDS, ())

    def deny(self, cloud: str, denied: Sequence[str]) -> None:
        """Take these away from the callers of a cloud, and give everything else back."""
        with self._lock:
            self._denied[cloud] = tuple(denied)

    def table(self) -> dict[str, list[str]]:
        """What is taken away, by cloud."""
        with self._lock:
            return {cloud: list(denied) for cloud, denied in self._denied.items()}

    def all_granted(self, cloud: str) -> bool:
        """Whether nothing is taken away there, as nearly always."""
        return not self._denied[cloud]

    def grants(self, cloud: str, permission: str) -> bool:
        """Whether callers have it."""
        return not any(fnmatchcase(permission.lower(), denied.lower()) for denied in self._denied[cloud])

    def lacking(self, cloud: str, needed: Iterable[str]) -> str:
        """The first of those that are needed that callers do not have; "" when they have all."""
        return next((name for name in needed if not self.grants(cloud, name)), "")
