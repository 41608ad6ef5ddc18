"""Two ways to be known, of which one is enough: a shared token while a provider's tokens are being introduced, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lockstep.agent.delivery import Delivery, ForgedError


class Verifier(Protocol):
    """One scheme of authenticity."""

    def verify(self, delivery: Delivery) -> str:
        """The delivery's own name where its vendor signs one, else ""; raises ForgedError or UnreachableError."""


@dataclass(frozen=True)
class Either:
    """Accepts what one of the verifiers accepts; the last one's error is raised."""

    verifiers: Sequence[Verifier]

    def verify(self, delivery: Delivery) -> str:
        """The delivery's own name as the first verifier that accepts it gives it."""
        *others, last = self.verifiers
        for verifier in others:
            try:
                return verifier.verify(delivery)
            except ForgedError:
                continue
        return last.verify(delivery)
