"""How long a rollback would take on a cloud, by what it took there before."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.rules.deeds import Line, in_order, mapping

NEWEST: Final = 9  # times that count: clouds change their pace


@dataclass(frozen=True)
class Expected:
    """Seconds until a cloud serves the target, of which a `cold` one deploys it first, and why so many."""

    cloud: str
    cold: bool
    seconds: float
    why: str

    def __str__(self) -> str:
        state = "cold, must be deployed first" if self.cold else "warm"
        return f"{self.cloud}: {state}; about {self.seconds:.0f} s ({self.why})"


def expect(cloud: str, lines: Sequence[Line], *, cold: bool, flip: float, deploy: float) -> Expected:
    """What to expect of a cloud; `flip` and `deploy` are its usual seconds, for what the ledger tells nothing of."""
    seconds, why = _usual(cloud, lines, "shift.outcome", "flip", flip)
    if not cold:
        return Expected(cloud, False, seconds, why)
    more, how = _usual(cloud, lines, "prepare.outcome", "deployment", deploy)
    return Expected(cloud, True, seconds + more, f"{how}, {why}")


def _usual(cloud: str, lines: Sequence[Line], kind: str, what: str, otherwise: float) -> tuple[float, str]:
    told = [mapping(line.body, "seconds").get(cloud) for line in in_order(lines) if line.kind == kind]
    times = [float(one) for one in told if isinstance(one, int | float)][-NEWEST:]
    if not times:
        return otherwise, f"a {what} usually takes {otherwise:.0f} s there"
    of = f"median of the last {len(times)}" if len(times) > 1 else "as the last one"
    return statistics.median(times), f"{what} {statistics.median(times):.1f} s, {of}"
