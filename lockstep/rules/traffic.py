"""Traffic between the slots of one endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.errors import RefusedError


@dataclass(frozen=True)
class TrafficSplit:
    """Whole per cents by slot, in slot order; they sum to 100 and zeros are left out."""

    weights: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        if any(weight <= 0 or weight > 100 for _, weight in self.weights):
            raise RefusedError(f"traffic weights must be between 1 and 100 per cent: {self}")
        if sum(weight for _, weight in self.weights) != 100:
            raise RefusedError(f"traffic weights must sum to 100 per cent: {self}")
        if list(self.weights) != sorted(dict(self.weights).items()):
            raise RefusedError(f"traffic weights must name each slot once, in order: {self}")

    @classmethod
    def of(cls, weights: Mapping[str, int]) -> TrafficSplit:
        """From a mapping; slots at 0 are dropped."""
        return cls(tuple(sorted((slot, weight) for slot, weight in weights.items() if weight != 0)))

    @classmethod
    def all_to(cls, slot: str) -> TrafficSplit:
        """Everything to one slot."""
        return cls(((slot, 100),))

    @classmethod
    def canary(cls, stable: str, canary: str, per_cent: int) -> TrafficSplit:
        """`per_cent` (0..100) to the canary, the rest to the stable slot."""
        return cls.of({stable: 100 - per_cent, canary: per_cent})

    def weight(self, slot: str) -> int:
        """Per cent of `slot`; 0 for one that is not named."""
        return dict(self.weights).get(slot, 0)

    def __str__(self) -> str:
        return ", ".join(f"{slot} {weight} %" for slot, weight in self.weights) or "no traffic"
