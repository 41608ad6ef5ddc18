"""What the desk means to do about an incident, and how far it got."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Action(StrEnum):
    """What an alert may start, from the mildest to the strongest; see `strength`."""

    NOTIFY = "notify"  # tell people
    HOLD = "hold"  # stop rollouts, change nothing that serves
    ROLLBACK_IF_CONFIRMED = "rollback-if-confirmed"  # after a fresh look that finds the trouble, too
    ROLLBACK = "rollback"

    @property
    def strength(self) -> int:
        """Its place from the mildest (0) to the strongest."""
        return tuple(Action).index(self)


class State(StrEnum):
    """Where an intent is."""

    ACCEPTED = "accepted"  # durable, not begun
    CONFIRMING = "confirming"  # the fresh look
    RUNNING = "running"  # the rollback, or the hold
    DONE = "done"  # every cloud was verified, or nothing was left to roll back
    SPLIT = "split"  # some clouds could not follow; reconciling goes on with them
    FAILED = "failed"  # refused or impossible; `told` says why
    NOT_CONFIRMED = "not-confirmed"  # the fresh look found nothing wrong
    HELD = "held"  # no rollback: rollouts are stopped
    NOTIFIED = "notified"  # people were told, nothing was changed


#: Nothing is to be done any more: whatever asks for more is an intent of its own.
ENDED: Final = frozenset({State.DONE, State.SPLIT, State.FAILED, State.NOT_CONFIRMED, State.HELD, State.NOTIFIED})


#: Before the source in the actor of an intent that an alert started; what a person asked has the person's name.
BY_ALERT: Final = "alert:"


@dataclass(frozen=True)
class Intent:
    """One incident of one version, for which alerts of any vendor, or a person, asked something.

    `version` is the digest of what is to be left, "" until it is known; `asked` is how the first alert, or the person,
    named it. `actor` and `reason` are of who asked for `action` first; the reason names who asked for less before.
    `to` names the version to go to, "" for the newest that is known to be good. `cloud` is where the trouble
    was seen, "" for anywhere: all clouds are taken back together all the same. `alerts` counts those that were folded
    into it, duplicates left out. `began` and `ended` are Unix seconds, `ended` 0.0 while it is open. `told` is what
    came of it, for people. `wished` is what alerts asked where flapping made a hold of it, None for what is done as
    asked. `urgent` says that a person is called, `moved` that a rollback was carried out for it.
    """

    id: str
    model: str
    version: str
    cloud: str
    action: Action
    state: State
    reason: str
    actor: str
    alerts: int
    began: float
    ended: float = 0.0
    told: str = ""
    asked: str = ""
    to: str = ""
    urgent: bool = False
    moved: bool = False
    wished: Action | None = None

    @property
    def open(self) -> bool:
        """Whether something is still to be done."""
        return self.state not in ENDED
