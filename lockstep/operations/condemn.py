"""Condemn a version, so that it is neither deployed nor rolled back to, and lift that again; both with a reason."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.errors import RefusedError
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note, record, refusals
from lockstep.operations.lease import writing
from lockstep.operations.owed import settle
from lockstep.operations.reasons import checked_reason
from lockstep.operations.remembering import earned_only
from lockstep.operations.unfinished import LOOK_BACK
from lockstep.rules.known_good import fallback_after_rollback
from lockstep.rules.state import CONDEMNED_TAG, FALLBACK, FleetState, ModelRecord, Version


@dataclass(frozen=True)
class Condemned:
    """What was done: `before` is why it was condemned already, "" if it was not; `fallback` is the one from now on."""

    version: Version
    before: str
    fallback: Version | None


def condemn(fleet: Fleet, version: Version, reason: str) -> Condemned:
    """Mark the version as one that must not serve; done twice it is done once, with the newer reason.

    One that was killed goes on, with the newer reason as well.
    Raises RefusedError for one that serves, or may: what serves is taken away by a rollback, which condemns it.
    """
    reason = checked_reason(reason, needed=True)
    with writing(fleet, "condemn", version):
        return _condemn(fleet, version, reason)


def _condemn(fleet: Fleet, version: Version, reason: str) -> Condemned:
    with refusals(fleet, "condemn", version, reason=reason):
        settle(fleet)
        known, _ = earned_only(fleet, fleet.registry.record(fleet.model))
        _refuse_serving(version, known, fleet.observe())
    old = known.desired.fallback
    fallback = old
    with record(fleet, "condemn", version, _begun(fleet, "condemn", version), reason=reason) as outcome:
        fleet.registry.tag(version, CONDEMNED_TAG, reason)
        if old is not None and old.digest == version.digest:
            fallback = _next(fleet, known, version)
        outcome.update(
            condemned={version.digest: reason}, reason=reason, fallback=fallback.digest if fallback else None
        )
    return Condemned(version, known.of(version).condemned, fallback)


def lift(fleet: Fleet, version: Version, reason: str) -> str:
    """Take back that the version is condemned; returns why it was, "" for one that was not.

    What it had earned before holds again: it may be the way back from now on.
    """
    reason = checked_reason(reason, needed=True)
    with writing(fleet, "lift", version):
        with refusals(fleet, "lift", version, reason=reason):
            settle(fleet)
            before = fleet.registry.record(fleet.model).of(version).condemned
        with record(fleet, "lift", version, _begun(fleet, "lift", version), reason=reason, was=before) as outcome:
            fleet.registry.untag(version, CONDEMNED_TAG)
            outcome.update(lifted=[version.digest], reason=reason)
    return before


def _begun(fleet: Fleet, operation: str, version: Version) -> str:
    """Event of the same about this version that was announced and never ended, "" for none.

    To be asked under the lease. Whatever else was begun and never ended about it is given up, and closed.
    """
    entries = fleet.ledger.entries(fleet.model, last=LOOK_BACK)
    ended = {str(entry.body.get("intent")) for entry in entries if entry.kind.endswith(".outcome")}
    left = {
        entry.event_id.removesuffix("/intent"): entry.kind.removesuffix(".intent")
        for entry in entries
        if entry.kind in ("condemn.intent", "lift.intent") and entry.body.get("digest") == version.digest
    }
    left = {event: what for event, what in left.items() if event not in ended}
    ours = [event for event, what in left.items() if what == operation][-1:]
    for event, what in left.items():
        if event not in ours:
            told = f"given up: a {operation} of the version was asked for before this had ended"
            body = {"version": version.label, "digest": version.digest, "intent": event, "error": told}
            note(fleet, f"{what}.outcome", body, f"{event}/outcome")
    return ours[0] if ours else ""


def _next(fleet: Fleet, known: ModelRecord, version: Version) -> Version | None:
    """Never a condemned fallback: the next that is known to be good, or none."""
    champion = known.desired.champion
    found = None if champion is None else fallback_after_rollback(known, champion, (version,))
    if found is None:
        delete_alias(fleet, FALLBACK)
    else:
        set_alias(fleet, found, FALLBACK)
    return found


def _refuse_serving(version: Version, known: ModelRecord, observed: FleetState) -> None:
    champion, challenger = known.desired.champion, known.desired.challenger
    slots = {cloud.cloud: cloud.slot(version.slot) for cloud in observed.clouds}
    where = sorted(name for name, slot in slots.items() if slot is not None and slot.weight > 0)
    if champion is not None and champion.digest == version.digest:
        told = "it is the champion"
    elif where:
        told = f"it takes traffic on {', '.join(where)}"
    elif challenger is not None and challenger.digest == version.digest and observed.unreachable:
        told = f"it is a canary that may take traffic on {', '.join(observed.unreachable)}"
    else:
        return
    raise RefusedError(
        f"{version} was not condemned, since it serves: {told}",
        hint=f"roll back instead, which condemns what it leaves: lockstep rollback {version.model} --reason REASON",
    )
