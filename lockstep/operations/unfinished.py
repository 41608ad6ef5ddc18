"""A rollback that was announced and never closed: its process was killed, or the machine was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.rules.deeds import mapping
from lockstep.rules.state import Version
from lockstep.stores.ledger import Entry

#: Entries about what should serve: only what the newest of them began is still wanted.
MOVES: Final = ("rollback.intent", "rollback.outcome", "canary_deploy.intent", "canary_deploy.outcome")
LOOK_BACK: Final = 200  # entries; a rollout leaves several a step


@dataclass(frozen=True)
class Begun:
    """What its intent says.

    `event` is what it goes on under in the ledger, `left` the versions to leave behind, `at` Unix seconds. `before` is
    the traffic by cloud when it began.
    """

    event: str
    target: Version
    left: tuple[Version, ...]
    reason: str = ""
    actor: str = ""
    at: float = 0.0
    before: Mapping[str, object] = field(default_factory=dict)

    def leaving(self, also: Sequence[Version]) -> tuple[Version, ...]:
        """The versions to leave behind: those that the intent names first, never the target."""
        named = {version.digest: version for version in (*self.left, *also) if version.digest != self.target.digest}
        return tuple(named.values())


def unfinished(fleet: Fleet) -> Begun | None:
    """The open rollback to go on with, None when there is none. A ledger that cannot be read holds no rollback up."""
    try:
        return find_open(fleet.model, fleet.ledger.entries(fleet.model, last=LOOK_BACK))
    except LockstepError as error:
        fleet.say(f"whether a rollback was left unfinished is not known: {error.reason}")
        return None


def go_on(fleet: Fleet, begun: Begun, target: Version) -> bool:
    """Whether a rollback to `target` goes on with the one that was begun; one that led elsewhere is closed.

    To be asked under the lease: without one the process that began it may live.
    """
    since = f"{datetime.fromtimestamp(begun.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if target.digest == begun.target.digest:
        fleet.say(f"going on with the rollback to {target} that {begun.actor} began {since} and that never ended")
        return True
    fleet.say(f"the rollback to {begun.target}, begun {since} by {begun.actor}, is given up for {target}")
    why = f"given up: a rollback to version {target.label} was asked for before this one had ended"
    subject = {"version": begun.target.label, "digest": begun.target.digest}
    body = {**subject, "ending": "given up", "intent": begun.event, "error": why}
    note(fleet, "rollback.outcome", body, f"{begun.event}/outcome")
    return False


def find_open(model: str, entries: Sequence[Entry]) -> Begun | None:
    """The newest move of a model's traffic, if it is a rollback that was announced and not closed."""
    ended = {str(entry.body.get("intent")) for entry in entries if entry.kind.endswith(".outcome")}
    moves = [entry for entry in entries if entry.kind in MOVES]
    if not moves or moves[-1].kind != "rollback.intent":
        return None
    intent = moves[-1]
    event = intent.event_id.removesuffix("/intent")
    target = _version(model, intent.body)
    if event in ended or target is None:
        return None
    leaves = intent.body.get("leaves")
    left = [_version(model, one) for one in leaves if isinstance(one, Mapping)] if isinstance(leaves, list) else []
    reason = str(intent.body.get("reason") or "")
    leaving, before = tuple(version for version in left if version), mapping(intent.body, "before")
    return Begun(event, target, leaving, reason, intent.actor, intent.at, before)


def _version(model: str, body: Mapping[str, object]) -> Version | None:
    label, digest = body.get("version"), body.get("digest")
    return Version(model, label, digest) if isinstance(label, str) and isinstance(digest, str) else None
