"""A ledger entry as rules see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    number: int
    event_id: str
    at: float
    kind: str
    body: Mapping[str, object]
    actor: str = "ann"
    late: bool = False
