"""What runs that waited in a queue still mean, after nobody had carried any out for a while; decided without I/O.

- A run that waited for longer than GRACE is superseded when a newer one of the same deployment with the same parameters
  is due as well: that one does all that it would have done, and sees what is so now. So of thirty looks that a schedule
  saved up one is carried out.
- A rollback is never dropped so alone: the newest of each kind is always left. But one that waited for longer leaves
  what served when it was asked for, and nothing else: what came since, its sender has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: Seconds that a run may wait in an ordinary way: for its turn, for a server that starts again.
GRACE: Final = 60.0


@dataclass(frozen=True)
class Due:
    """A run that is due: `deployment` is "" for one of none, `expected` when it should have begun (Unix seconds)."""

    id: str
    deployment: str
    parameters: Mapping[str, object]
    expected: float

    @property
    def does(self) -> tuple[str, str]:
        """The same for runs that do the same."""
        return self.deployment, json.dumps(self.parameters, sort_keys=True, default=str)


def superseded(runs: Sequence[Due], now: float) -> Mapping[str, str]:
    """Ids of the runs that a newer one makes needless, each with the newest one's id."""
    newest: dict[tuple[str, str], Due] = {}
    for run in sorted(runs, key=lambda one: (one.expected, one.id)):
        newest[run.does] = run
    return {
        run.id: newest[run.does].id
        for run in runs
        if run.deployment and run.id != newest[run.does].id and waited(run.expected, now)
    }


def waited(expected: float, now: float) -> bool:
    """Whether a run waited for longer than is usual."""
    return now - expected > GRACE


def asked_at(seconds: float | None, now: float) -> float:
    """When a rollback was asked for, as far as that matters: 0.0 for one that began about when it should.

    It waited for `seconds`, as whoever kept it waiting counts, and began just now, by the clock of `now`. So two clocks
    are not compared, of which one may be minutes ahead.
    """
    return now - seconds if seconds is not None and waited(0.0, seconds) else 0.0
