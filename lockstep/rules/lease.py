"""Who may change what a model serves: one writer at a time, and the newest fence wins.

- A lease that nobody holds, or whose holder is dead, may be taken; every taking raises the fence by one, for ever.
- What is urgent (a rollback) takes it at once from what is not. Two urgent ones do not race: the second JOINS the
  first, that is, it waits for its end. Everybody else is refused while the holder lives.
- A holder shows that it lives by a beat that it raises every BEAT seconds. Whoever sees none for LIFE seconds of its
  own clock, which no other machine's clock enters, takes it for dead; a process that is known to be gone is dead at
  once.
- A holder that was only slow finds another's fence in its place, and stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BEAT: Final = 1.0  # seconds between two signs of life
LIFE: Final = 4.0  # seconds without any after which a holder is taken for dead


@dataclass(frozen=True)
class Process:
    """A process of some machine. Where `place` is the same, `pid` and `started` name the same process; "": unknown."""

    host: str
    pid: int
    place: str = ""
    started: str = ""


@dataclass(frozen=True)
class Lease:
    """One model's lease as it stands: `holder` is an id of this one taking, empty where it was given back.

    `fence` is the number of takings; `version` and `digest` are what the operation is about, empty while it does not
    know; `since` is Unix seconds, for people alone; `beat` counts signs of life.
    """

    model: str
    fence: int
    holder: str
    operation: str
    urgent: bool
    version: str
    digest: str
    process: Process
    since: float
    beat: int = 0


class Life(StrEnum):
    """What can be said of a lease's holder."""

    ALIVE = "alive"  # it was seen to beat
    UNKNOWN = "unknown"
    DEAD = "dead"


class Claim(StrEnum):
    """What somebody who wants the lease does."""

    TAKE = "take"
    WAIT = "wait"  # and look again: whether the holder lives will show
    JOIN = "join"  # wait for the holder's end, however long it lives: it does what is wanted
    REFUSE = "refuse"


class Standing(StrEnum):
    """What has become of a lease that was taken."""

    OURS = "ours"
    LOST = "lost"  # somebody else took it
    PUT_BACK = "put back"  # the database was put back to an older state; nobody urgent has come since


@dataclass(frozen=True)
class Sight:
    """A lease as a waiter has watched it: without a beat since `since`, seconds of its own clock.

    `moved` says that it was seen to beat before.
    """

    lease: Lease
    since: float
    moved: bool = False


def watch(before: Sight | None, lease: Lease, now: float) -> Sight:
    """What is known after another look at `now`, seconds of a clock that only goes forward."""
    if before is None or (before.lease.fence, before.lease.holder) != (lease.fence, lease.holder):
        return Sight(lease, now)
    if before.lease.beat != lease.beat:
        return Sight(lease, now, moved=True)
    return before


def life(sight: Sight, now: float, *, gone: bool) -> Life:
    """Whether the holder lives; `gone` says that its process is known to have ended."""
    if gone or now - sight.since >= LIFE:
        return Life.DEAD
    return Life.ALIVE if sight.moved else Life.UNKNOWN


def claim(present: Lease | None, holder: Life, *, urgent: bool) -> Claim:
    """What to do about the present lease; `holder` says whether its holder lives."""
    if present is None or not present.holder or holder is Life.DEAD:
        return Claim.TAKE
    if urgent:
        return Claim.JOIN if present.urgent else Claim.TAKE
    return Claim.REFUSE if holder is Life.ALIVE else Claim.WAIT


def standing(present: Lease | None, ours: Lease) -> Standing:
    """What has become of `ours`, by what stands there now."""
    if present is None:
        return Standing.PUT_BACK
    if (present.fence, present.holder) == (ours.fence, ours.holder):
        return Standing.OURS
    if present.fence >= ours.fence:
        return Standing.LOST
    return Standing.LOST if present.holder and present.urgent and not ours.urgent else Standing.PUT_BACK
