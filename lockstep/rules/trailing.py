"""Clouds that could not follow the newest decision, as the ledger tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.rules.deeds import Line, in_order, mapping
from lockstep.rules.moments import show_moment

#: What moves a model's traffic or brings it over: the newest of these tells which clouds are behind.
TELLS: Final = ("rollback.outcome", "canary_deploy.outcome", "reconcile.outcome")


@dataclass(frozen=True)
class Trailing:
    """Why a cloud is behind, `since` when, when it is tried again (Unix seconds), and what callers can do meanwhile.

    It is tried again where reconcile is scheduled; elsewhere by whoever runs `by_hand`.
    """

    cloud: str
    reason: str
    since: float
    next_try: float
    meanwhile: str = ""
    by_hand: str = "lockstep reconcile MODEL --wait 300"

    def told(self, now: float) -> str:
        """All of it in a sentence."""
        due = "was" if self.next_try < now else "is"
        text = (
            f"it could not follow at {show_moment(self.since)}: {self.reason}; where reconcile is scheduled the next "
            f"try {due} due at {show_moment(self.next_try)}, elsewhere nobody tries: {self.by_hand}"
        )
        return f"{text}; meanwhile {self.meanwhile}" if self.meanwhile else text


def read_trailing(lines: Sequence[Line], every: float) -> Mapping[str, Trailing]:
    """The clouds that the newest outcome names as split; `every` is how many seconds lie between two tries."""
    newest = next((line for line in reversed(in_order(lines)) if line.kind in TELLS), None)
    if newest is None:
        return {}
    told = newest.body.get("next_try")
    pause = float(told) if isinstance(told, int | float) and not isinstance(told, bool) else every
    return {
        cloud: Trailing(cloud, str(reason), newest.at, newest.at + pause)
        for cloud, reason in sorted(mapping(newest.body, "split").items())
    }
