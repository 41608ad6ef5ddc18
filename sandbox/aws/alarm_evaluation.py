"""What an alarm's state is, from its last datapoints: pure, by the rules in CloudWatch's documentation.

Over the last `periods` + 2 datapoints (the evaluation range), of which some may be missing:

- as many as `periods` are there: the newest `periods` of them decide, whatever is missing between them;
- fewer: all that are there decide, and as few missing ones as are needed are filled in as `missing` says:
  `breaching` and `notBreaching` count as such; with `missing` nothing at all is INSUFFICIENT_DATA; with `ignore`
  the state is kept. When all that is there breaches, and its oldest is as old as the datapoints to alarm, waiting
  would tell no more: the alarm goes off with fewer of them (`missing`), or keeps its state (`ignore`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
OK: Final = "OK"
ALARM: Final = "ALARM"
UNKNOWN: Final = "INSUFFICIENT_DATA"
#: Datapoints beyond the evaluation periods that are looked at when some are missing.
SPARE: Final = 2
TREATMENTS: Final = ("breaching", "notBreaching", "ignore", "missing")
COMPARISONS: Final[Mapping[str, tuple[Callable[[float, float], bool], str]]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}


@dataclass(frozen=True)
class Rule:
    """When an alarm goes off: `needed` of `periods` datapoints beyond the threshold."""

    comparison: str
    threshold: float
    periods: int
    needed: int
    missing: str

    def breaches(self, value: float) -> bool:
        """Whether a datapoint is beyond the threshold."""
        return COMPARISONS[self.comparison][0](value, self.threshold)


@dataclass(frozen=True)
class Datapoint:
    """One period's value; `at` is when the period began (Unix seconds).

    `samples` is how many values it is a statistic of, None for an expression's.
    """

    at: float
    value: float
    samples: float | None = None


@dataclass(frozen=True)
class Judged:
    """A state with what it was decided by: the datapoints, newest first, and how many missing ones were filled in."""

    state: State
    datapoints: tuple[Datapoint, ...] = ()
    filled: int = 0


def judge(rule: Rule, latest: Sequence[Datapoint | None]) -> Judged | None:
    """The state that the evaluation range (newest first, None where a period has no data) leads to.

    None when the alarm keeps the state that it has.
    """
    there = [(age, point) for age, point in enumerate(latest, 1) if point is not None]
    deciding = tuple(point for _, point in there[: rule.periods])
    breaching = sum(rule.breaches(point.value) for point in deciding)
    filled = rule.periods - len(deciding)
    if not filled or rule.missing in ("breaching", "notBreaching"):
        breaching += filled if rule.missing == "breaching" else 0
        return Judged(ALARM if breaching >= rule.needed else OK, deciding, filled)
    if breaching >= rule.needed:
        return Judged(ALARM, deciding)
    if there and breaching < len(deciding):
        return Judged(OK, deciding)
    if rule.missing == "ignore":
        return None
    if not there:
        return Judged(UNKNOWN)
    return Judged(ALARM if there[-1][0] >= rule.needed else OK, deciding)
