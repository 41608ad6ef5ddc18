"""Whether an alert whose key is known is that alert once more, or the same thing at another time.

Vendors repeat an alert while it fires, and deliver it again when they did not have our answer, perhaps after its end.
Only what fires after its end was told can be another occurrence, and an end only after it fired again:

- By the sender's own times where both have one: another occurrence has a later one than the one that is known, and no
  earlier one than what came in between.
- Without times: other words, or the same ones later than a delivery would be late. That one has the same words.

No I/O and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """An alert as it came: `since` by its sender's clock, 0.0 if not told; `body` is the delivery's digest."""

    since: float
    body: str
    at: float


def recurs(now: Heard, known: Heard, between: Heard | None, late: float) -> bool:
    """Whether it is another occurrence than the newest that is `known`.

    `between` is the newest of the other status: the end of what fired, or what fired after an end; None for none. The
    same words may be `late` by so many seconds.
    """
    if not turned(known, between) or between is None:
        return False
    if now.since and known.since:
        return now.since > known.since and now.since >= between.since
    return now.body != known.body or now.at - between.at > late


def turned(known: Heard, between: Heard | None) -> bool:
    """Whether the other status was told after it, or was told of a later time, however late it came itself."""
    return between is not None and (between.at >= known.at or 0.0 < known.since <= between.since)


def is_over(now: Heard, end: Heard | None) -> bool:
    """Whether an alert that was never seen had ended, by its sender's times, when it came: it was overtaken."""
    return end is not None and 0.0 < now.since <= end.since
