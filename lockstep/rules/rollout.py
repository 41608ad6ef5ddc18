"""The stages of a canary: where it goes first, how much it gets, and what follows from a verdict.

A canary starts on one cloud alone, the first in the fleet's order (usually the cheapest), with the smallest step; then
every step is taken on all clouds together. It moves on only on PASS. FAIL takes it back everywhere. INCONCLUSIVE keeps
it where it is until patience ends, and then takes it back: silence is not success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lockstep.errors import RefusedError
from lockstep.rules.judge import Decision
from lockstep.rules.traffic import TrafficSplit


class Move(StrEnum):
    """What to do next."""

    WAIT = "wait"  # stay at this stage and keep watching
    ADVANCE = "advance"  # go to the next stage, or promote after the last
    TAKE_BACK = "take back"  # all traffic to the stable slot, everywhere


@dataclass(frozen=True)
class Stage:
    """Per cents of traffic for the canary by cloud, and a short title for people."""

    title: str
    per_cent: Mapping[str, int]

    def splits(self, stable: str, canary: str) -> dict[str, TrafficSplit]:
        """The traffic of every cloud at this stage."""
        return {cloud: TrafficSplit.canary(stable, canary, share) for cloud, share in self.per_cent.items()}


def plan_stages(clouds: Sequence[str], steps: Sequence[int]) -> tuple[Stage, ...]:
    """All stages of a rollout over `clouds` (in rollout order) with `steps` in per cent, rising, the last one 100."""
    if not clouds:
        raise RefusedError("a rollout needs at least one cloud")
    if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1 or steps[-1] != 100:
        raise RefusedError(
            f"rollout steps must rise from at least 1 to 100 per cent, not {list(steps)}",
            hint="give whole per cents such as 5,25,50,100",
        )
    first = steps[0]
    stages = [Stage(f"{step} %", dict.fromkeys(clouds, step)) for step in steps]
    if len(clouds) > 1 and first < 100:
        scout = {cloud: first if cloud == clouds[0] else 0 for cloud in clouds}
        stages.insert(0, Stage(f"{first} % on {clouds[0]}", scout))
    return tuple(stages)


def advance(decision: Decision, waited: float, step_seconds: float, patience: float) -> Move:
    """The next move after `waited` seconds at a stage.

    A stage lasts at least `step_seconds`, so that slow harm has time to show, and at most `patience`.
    """
    if decision is Decision.FAIL:
        return Move.TAKE_BACK
    if decision is Decision.PASS and waited >= step_seconds:
        return Move.ADVANCE
    if decision is Decision.INCONCLUSIVE and waited >= patience:
        return Move.TAKE_BACK
    return Move.WAIT
