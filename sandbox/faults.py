"""What goes wrong next: a board of faults that every server of the sandbox asks before it answers.

A fault names a cloud, an operation (a glob such as `UpdateEndpoint*`, `*` for all) and a kind:

| kind       | what the client sees                                                            | ends after       |
|------------|---------------------------------------------------------------------------------|------------------|
| `fail`     | the vendor's own 500 (or `status`) answer                                        | `count` calls    |
| `throttle` | the vendor's own throttling answer                                               | `count` calls    |
| `hang`     | the connection stays open and silent, at most `delay` seconds (0: an hour)       | `count`/`seconds` |
| `slow`     | the answer comes `delay` seconds late                                            | `count`/`seconds` |
| `down`     | the connection is closed without an answer, control and data plane               | `seconds`        |
| `stale`    | reads show the state as it was when the fault was set                            | `seconds`        |
| `lag`      | metrics newer than `delay` seconds are not visible                               | `seconds`        |
| `ignore`   | a write is answered with success and not done                                    | `count` calls    |
| `revert`   | a long-running update ends and the old state is back, as if it had never been    | `count` calls    |
| `busy`     | the resource stays in its transitional state `delay` seconds longer              | `count` calls    |

`count` without `seconds` defaults to 1; `seconds` without `count` lasts for the time whatever the number of calls;
with neither, `down`, `stale`, `lag` last until cleared. `probability` (0..1) makes a fault hit at random, from the
sandbox's seed. A call that hangs is let go, without an answer, when its fault's `seconds` are over or it is taken off.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Final

CLOUDS: Final = ("aws", "azure", "gcp")
KINDS: Final = ("fail", "throttle", "hang", "slow", "down", "stale", "lag", "ignore", "revert", "busy")
LASTING: Final = ("down", "stale", "lag")
#: Conditions that are looked at, not calls that are hit.
STATES: Final = ("stale", "lag")
NEED_DELAY: Final = ("lag", "busy")


@dataclass(frozen=True)
class Fault:
    """One fault as it was asked for; see the module's docstring for the kinds."""

    cloud: str
    kind: str
    operation: str = "*"
    count: int | None = None
    seconds: float | None = None
    delay: float = 0.0
    status: int = 500
    probability: float = 1.0
    resource: str = "*"

    def __post_init__(self) -> None:
        if self.cloud not in CLOUDS:
            raise ValueError(f"cloud must be one of {', '.join(CLOUDS)}, not {self.cloud!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        for name in ("operation", "resource"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} is a pattern such as 'Update*', not {getattr(self, name)!r}")
        if self.count is not None and not (_is_whole(self.count) and self.count >= 1):
            raise ValueError(f"count is a number of calls >= 1, not {self.count!r}")
        if self.seconds is not None and not (_is_number(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds is a duration > 0, not {self.seconds!r}")
        if not _is_number(self.delay) or self.delay < 0:
            raise ValueError(f"delay is a number of seconds >= 0, not {self.delay!r}")
        if not _is_whole(self.status) or not 400 <= self.status <= 599:
            raise ValueError(f"status is an HTTP error's, 400 to 599, not {self.status!r}")
        if not _is_number(self.probability) or not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability is between 0 and 1, not {self.probability!r}")
        self._check_meaning()

    def _check_meaning(self) -> None:
        # A field that would do nothing is refused: a test that sets it would show less than its author thinks.
        if self.kind in STATES:
            for name in ("count", "resource", "probability"):
                if getattr(self, name) != self.__dataclass_fields__[name].default:
                    raise ValueError(
                        f"{self.kind} is a state of the whole cloud: it has no {name}, but may have seconds"
                    )
        if self.kind in NEED_DELAY and self.delay == 0:
            raise ValueError(f"{self.kind} needs a delay > 0, in seconds")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Hit:
    """A fault that hit a call; its effect is over at `until` (monotonic), or when `over` is set: it was taken off."""

    fault: Fault
    until: float
    over: threading.Event


@dataclass
class _Active:
    number: int
    fault: Fault
    since: float
    left: int | None

    @property
    def until(self) -> float:
        return math.inf if self.fault.seconds is None else self.since + self.fault.seconds


class Faults:
    """The board. All methods are thread-safe; times are `time.monotonic()` seconds."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._numbers = itertools.count(1)
        self._active: list[_Active] = []
        self._over: dict[int, threading.Event] = {}  # a fault that is used up may still hold calls
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> int:
        """Put a fault on the board; returns its number."""
        left = fault.count
        if left is None and fault.seconds is None and fault.kind not in LASTING:
            left = 1
        with self._lock:
            active = _Active(next(self._numbers), fault, time.monotonic(), left)
            self._active.append(active)
            self._over[active.number] = threading.Event()
            return active.number

    def clear(self, number: int | None = None) -> None:
        """Take one fault off the board, or all."""
        with self._lock:
            self._active = [a for a in self._active if number is not None and a.number != number]
            for gone in list(self._over) if number is None else [number]:
                if (over := self._over.pop(gone, None)) is not None:
                    over.set()

    def take(self, cloud: str, operation: str, kinds: tuple[str, ...], resource: str = "") -> Fault | None:
        """The first fault of one of `kinds` that hits this call, counted as used; None when nothing goes wrong."""
        hit = self.hit(cloud, operation, kinds, resource)
        return None if hit is None else hit.fault

    def hit(self, cloud: str, operation: str, kinds: tuple[str, ...], resource: str = "") -> Hit | None:
        """As `take`, with the end of the fault."""
        with self._lock:
            self._drop_expired()
            for active in self._active:
                fault = active.fault
                if fault.kind not in kinds or not self._matches(fault, cloud, operation, resource):
                    continue
                if fault.probability < 1.0 and self._random.random() >= fault.probability:
                    continue
                if active.left is not None:
                    active.left -= 1
                    if active.left == 0:
                        self._active.remove(active)
                return Hit(fault, active.until, self._over[active.number])
        return None

    def since(self, cloud: str, kind: str, operation: str = "*") -> float | None:
        """Monotonic time at which a lasting fault (`stale`, `lag`, `down`) began, or None; does not use it up."""
        with self._lock:
            self._drop_expired()
            for active in self._active:
                if active.fault.kind == kind and self._matches(active.fault, cloud, operation, ""):
                    return active.since
        return None

    def lag(self, cloud: str) -> float:
        """Seconds by which metrics of `cloud` are late now."""
        with self._lock:
            self._drop_expired()
            return max(
                (a.fault.delay for a in self._active if a.fault.kind == "lag" and a.fault.cloud == cloud), default=0.0
            )

    def table(self) -> list[dict[str, object]]:
        """The faults on the board, for the control address."""
        with self._lock:
            self._drop_expired()
            return [{"number": a.number, "left": a.left, **asdict(a.fault)} for a in self._active]

    @staticmethod
    def _matches(fault: Fault, cloud: str, operation: str, resource: str) -> bool:
        return (
            fault.cloud == cloud
            and (fault.operation == "*" or fnmatchcase(operation, fault.operation))
            and (fault.resource == "*" or fnmatchcase(resource, fault.resource))
        )

    def _drop_expired(self) -> None:
        now = time.monotonic()
        self._active = [a for a in self._active if now < a.until]
