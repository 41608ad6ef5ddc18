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
    """Why a cloud is behind, `since` when, when it is tried again (Unix seconds), and what callers can do meanwhile."""

    cloud: str
    reason: str
    since: float
    next_try: float
    meanwhile: str = ""

    def told(self, now: float) -> str:
        """All of it in a sentence."""
        when = "the next try was due at" if self.next_try < now else "the next try is due at"
        text = f"it could not follow at {show_moment(self.since)}: {self.reason}; {when} {show_moment(self.next_try)}"
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
