"""How a switch over all clouds ended. No joint commit exists over several clouds, so SPLIT is a state of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """Where a switch got to."""

    DONE = "done"  # every cloud was read back on the target
    SPLIT = "split"  # some clouds follow, some could not
    NOWHERE = "nowhere"  # no cloud follows


@dataclass(frozen=True)
class SwitchResult:
    """Seconds until each cloud was verified on the target, and why the others are not there."""

    seconds: Mapping[str, float]
    reasons: Mapping[str, str]

    @property
    def ending(self) -> Ending:
        """DONE when no cloud is missing, NOWHERE when all are."""
        if not self.reasons:
            return Ending.DONE
        return Ending.SPLIT if self.seconds else Ending.NOWHERE

    def explain(self) -> str:
        """One sentence a cloud that did not follow."""
        return "; ".join(f"{cloud}: {reason}" for cloud, reason in sorted(self.reasons.items()))
