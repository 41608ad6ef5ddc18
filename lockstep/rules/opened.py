"""Operations of which the ledger knows no end: which of them run, which did not end, and which may be either.

- One that works under a lease runs as long as it holds it: once its fence is not the lease's it does not.
- Any other runs as long as its process does, as far as this machine can know (`process` in its intent).
- What a later rollout, rollback or reconciling brought to a good end is no longer open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from lockstep.rules.deeds import Line, mapping, named, text

#: Operations after which every cloud is where it should be, whatever was left half done before.
SETTLES: Final = ("rollback.outcome", "canary_deploy.outcome", "reconcile.outcome")


class Fate(StrEnum):
    """What is known of an operation without an outcome."""

    RUNNING = "running"
    UNFINISHED = "unfinished"
    BEGUN = "begun"  # on another machine, say: it runs, or was killed


@dataclass(frozen=True)
class Held:
    """The model's lease as far as is known: `fence` is 0 while nobody holds it; whether its holder runs, or is gone."""

    fence: int = 0
    runs: bool = False
    gone: bool = False


def opened(lines: Sequence[Line], told: Collection[str] = ()) -> tuple[Line, ...]:
    """Intents of a model's newest entries that nothing has closed, but for operations `told` elsewhere."""
    closed = {text(line.body, "intent") for line in lines if line.kind.endswith(".outcome")}
    settled = {text(line.body, "intent") for line in lines if line.kind in SETTLES and not line.body.get("error")}
    began = [place for place, line in enumerate(lines) if line.event_id.removesuffix("/intent") in settled]
    return tuple(
        line
        for line in lines[max(began, default=-1) + 1 :]
        if line.kind.endswith(".intent")
        and line.kind.removesuffix(".intent") not in told
        # A step is named by its operation; a rollback decides by itself.
        and ("within" not in line.body or line.kind == "rollback.intent")
        and line.event_id.removesuffix("/intent") not in closed
    )


def fate(line: Line, held: Held, lives: Callable[[Mapping[str, object]], bool | None]) -> Fate:
    """What is known of an open intent; `lives` tells of the process that it names, None for what it cannot know."""
    fence = line.body.get("fence")
    if isinstance(fence, int):
        if fence != held.fence or held.gone:
            return Fate.UNFINISHED
        return Fate.RUNNING if held.runs else Fate.BEGUN
    alive = lives(mapping(line.body, "process"))
    if alive is None:
        return Fate.BEGUN
    return Fate.RUNNING if alive else Fate.UNFINISHED


def describe(line: Line) -> str:
    """An open intent for people: what, by whom, since when."""
    what = named(line.kind.removesuffix(".intent"), text(line.body, "version"))
    return f"{what} by {line.actor}, begun {datetime.fromtimestamp(line.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
