"""One intent carried out on a fleet: the rollback, or what became of it before the process that began it was killed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from lockstep.errors import LockstepError, RetryLaterError, SplitError
from lockstep.operations.fleet import Event, Fleet
from lockstep.operations.reasons import made_reason
from lockstep.operations.rollback import Rollback, rollback
from lockstep.rules.alerts.intent import Intent, State
from lockstep.rules.brought import brought_over, changed_clouds, other_slots
from lockstep.rules.deeds import Deed, Ending, mapping, read_deeds, text, texts
from lockstep.rules.state import Version

LOG: Final = logging.getLogger("lockstep.agent")


@dataclass(frozen=True)
class Outcome:
    """How an intent ended; `fields` are for whoever is told: see lockstep.rules.event_names."""

    state: State
    told: str
    version: str = ""
    moved: bool = False
    fields: Mapping[str, object] = field(default_factory=dict)


def fleet_for(fleet: Fleet, intent: Intent) -> Fleet:
    """The fleet with the intent in everything that it writes to the ledger: that ties the deed to it."""

    def say(event: Event) -> None:
        said = event.text.removeprefix(f"{intent.model}: ")
        LOG.info("%s: %s%s", intent.model, f"{event.cloud}: " if event.cloud else "", said)

    alert = {"id": intent.id, "at": _at(intent)}
    return replace(fleet, actor=intent.actor, via="agent", alert=alert, observer=say)


def _at(intent: Intent) -> str:
    return datetime.fromtimestamp(intent.began, UTC).isoformat()


def roll_back(fleet: Fleet, intent: Intent, *, begun: bool) -> Outcome:
    """Roll back for the intent, once: with `begun` the ledger is asked first how far it got.

    Raises RetryLaterError for what may succeed later.
    """
    fleet = fleet_for(fleet, intent)
    if begun:
        try:
            deed = find_deed(fleet, intent)
        except LockstepError as error:  # without knowing, it might go one version further
            raise RetryLaterError(f"how far it got is not known: {error.problem}", hint=error.hint) from error
        if deed is not None and deed.ended is not None:
            return _from_ledger(fleet.model, deed)
    try:
        done = rollback(
            fleet,
            to=intent.to or None,
            reason=made_reason(intent.reason),
            leaving=intent.version or intent.asked,
            asked=intent.began,
        )
    except SplitError as error:
        deed = find_deed_if_readable(fleet, intent)
        found = _from_ledger(fleet.model, deed) if deed is not None else Outcome(State.SPLIT, error.reason)
        return replace(found, state=State.SPLIT, told=error.reason, moved=True)
    except RetryLaterError:
        raise
    except LockstepError as error:
        return Outcome(State.FAILED, error.reason, intent.version)
    return _done(done)


def find_deed(fleet: Fleet, intent: Intent) -> Deed | None:
    """The newest rollback for the intent; raises LockstepError for a ledger that is unreadable."""
    deeds = read_deeds(fleet.ledger.entries(fleet.model, "rollback.", last=200))
    mine = [deed for deed in deeds if mapping(deed.body, "alert").get("id") == intent.id]
    return mine[-1] if mine else None


def find_deed_if_readable(fleet: Fleet, intent: Intent) -> Deed | None:
    """The same; None as well for a ledger that cannot be read."""
    try:
        return find_deed(fleet, intent)
    except LockstepError:
        return None


def _done(done: Rollback) -> Outcome:
    if done.needless:
        return Outcome(State.DONE, done.needless)
    # A cloud that could not follow before is brought over though what should serve was decided then.
    moved = bool(done.left or done.changed) or done.first is not None
    left = ", ".join(version.label for version in done.served)
    told = f"{done.target} serves on every cloud after {done.seconds:.1f} s"
    if done.first is not None:
        told += f": {done.first} was quicker"
    elif done.changed and not done.left:
        told += f": {brought_over(done.changed, [version.label for version in done.brought])}"
    elif not moved:
        told += ", as it did before"
    if done.owed:
        told += f"; MLflow will be told later: {'; '.join(done.owed)}"
    version = done.served[0].digest if done.served else ""
    fields = {
        **{"target": done.target.label, "target_digest": done.target.digest, "left": left},
        **{"seconds": round(done.seconds, 3), "split": {}},
    }
    return Outcome(State.DONE, told, version, moved, fields)


def _from_ledger(model: str, deed: Deed) -> Outcome:
    """What the ledger says of a rollback that has ended."""
    leaves = deed.body.get("leaves")
    first = leaves[0] if isinstance(leaves, list) and leaves and isinstance(leaves[0], Mapping) else {}
    split, seconds = mapping(deed.body, "split"), mapping(deed.body, "seconds")
    target, before = Version(model, deed.version, deed.digest), mapping(deed.body, "before")
    changed = changed_clouds(target, before, seconds) if before else ()
    slots = mapping(deed.body, "slots")
    brought = [mapping(slots, slot) for slot in other_slots(target, before, changed) if slot in slots]
    first = first or next(iter(brought), {})
    left = texts(deed.body, "left") or tuple(text(one, "version") for one in brought)
    fields: dict[str, object] = {
        **{"target": deed.version, "target_digest": deed.digest, "left": ", ".join(left)},
        **{"seconds": max((one for one in seconds.values() if isinstance(one, float | int)), default=0.0)},
        "split": dict(split),
    }
    digest = str(first.get("digest", ""))
    if split and seconds:
        return Outcome(State.SPLIT, deed.error or "some clouds could not follow", digest, True, fields)
    if deed.ending is Ending.DONE:
        told = f"version {deed.version} serves on every cloud (so the ledger says)"
        return Outcome(State.DONE, told, digest, bool(leaves or changed), fields)
    return Outcome(State.FAILED, deed.error or text(deed.body, "ending") or "it did not end", digest, False, fields)
