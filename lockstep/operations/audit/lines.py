"""Entries read from their exact bytes, as a report's folder holds them: with pseudonyms, never with names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

FORMAT: Final = "lockstep/entry/v1"


@dataclass(frozen=True)
class LeafLine:
    """One entry; `at` is Unix seconds, `number` its index in the ledger."""

    number: int
    event_id: str
    at: float
    kind: str
    model: str
    actor: str
    body: Mapping[str, object]
    late: bool = False
    unvouched: bool = False


def read_leaf(number: int, leaf: bytes) -> LeafLine:
    """The entry in a leaf's bytes; raises ValueError for anything else."""
    try:
        content = json.loads(leaf)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        at = datetime.fromisoformat(content["at"])
        if at.tzinfo is None:
            raise ValueError("its time has no zone")
        return LeafLine(
            number,
            str(content["event_id"]),
            at.timestamp(),
            str(content["kind"]),
            str(content["model"]),
            str(content["actor"]),
            dict(content["body"]),
            content.get("late") is True,
            content.get("unvouched") is True,
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no entry of a ledger: {error!r}") from error
