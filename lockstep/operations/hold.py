"""Hold a model: no rollout begins, and one that runs is taken back at its next look, until somebody releases it.

A hold stands in the ledger alone. It stops rollouts and nothing else: rollbacks and reconciling go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.operations.reasons import checked_reason
from lockstep.rules.deeds import text
from lockstep.stores.ledger import Entry

PLACED, RELEASED = "hold.placed", "hold.released"


@dataclass(frozen=True)
class Hold:
    """A hold that is in force: why, by whom, since when (Unix seconds); `was` is the one that it took the place of."""

    reason: str
    actor: str
    since: float
    was: Hold | None = None

    def __str__(self) -> str:
        return f"held since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%d %H:%M} UTC by {self.actor}: {self.reason}"


def find_hold(fleet: Fleet) -> Hold | None:
    """The hold in force, None without one; raises LockstepError for a ledger that cannot be read."""
    return held_and_released(fleet)[0]


def held_and_released(fleet: Fleet) -> tuple[Hold | None, float]:
    """The hold in force, and when the model was released (Unix seconds) if that was the last, else 0.0."""
    newest = next(iter(fleet.ledger.entries(fleet.model, "hold.", last=1)), None)
    if newest is None:
        return None, 0.0
    return (_hold(newest), 0.0) if newest.kind == PLACED else (None, newest.at)


def hold(fleet: Fleet, reason: str, event: str = "") -> Hold:
    """Hold the model; one that is held already stays so, with the newer reason. With an `event` it is done once.

    Raises LockstepError when the hold would not be in force: without the ledger's key what waits decides nothing.
    """
    reason = checked_reason(reason, needed=True)
    try:
        was = find_hold(fleet)
    except LockstepError:  # a hold waits in the spool while the ledger cannot be read
        was = None
    return replace(_hold(_write(fleet, PLACED, reason, "is not held", event)), was=was)


def release(fleet: Fleet, reason: str) -> Hold | None:
    """Let rollouts begin again; returns the hold that was in force, None if there was none.

    Raises LockstepError when it would stay in force, as `hold` does.
    """
    reason = checked_reason(reason, needed=True)
    before = find_hold(fleet)
    if before is not None:
        _write(fleet, RELEASED, reason, "is not released")
    return before


def refuse_held(fleet: Fleet) -> None:
    """Raise RefusedError while the model is held."""
    found = find_hold(fleet)
    if found is not None:
        raise held_error(fleet.model, found)


def raise_if_held(fleet: Fleet) -> None:
    """The same for a rollout that runs: a ledger that cannot be read tells nothing."""
    try:
        found = find_hold(fleet)
    except LockstepError as error:
        fleet.say(f"whether {fleet.model} is held is not known: {error.problem}")
        return
    if found is not None:
        raise held_error(fleet.model, found)


def held_error(model: str, found: Hold) -> RefusedError:
    """Why no rollout goes on."""
    return RefusedError(f"{model} is {found}", hint=f"when that is settled: lockstep release {model} --reason REASON")


def _write(fleet: Fleet, kind: str, reason: str, without: str, event: str = "") -> Entry:
    try:
        return note(fleet, kind, {"reason": reason, **_asked(fleet)}, event, must_count=True)
    except LockstepError as error:
        if fleet.ledger.vouches:
            raise LockstepError(f"{fleet.model} {without}: {error.problem}", hint=error.hint) from error
        raise LockstepError(
            f"{fleet.model} {without}: {error.problem}; and without the ledger's private key, which cannot be read, an "
            "entry that waits decides nothing",
            hint="put the key back (`lockstep keys show`) or let the ledger be written again, then give the same "
            "command; rollbacks go on without either",
        ) from error


def _asked(fleet: Fleet) -> dict[str, object]:
    return {**({"via": fleet.via} if fleet.via else {}), **({"alert": dict(fleet.alert)} if fleet.alert else {})}


def _hold(entry: Entry) -> Hold:
    return Hold(text(entry.body, "reason"), entry.actor, entry.at)
