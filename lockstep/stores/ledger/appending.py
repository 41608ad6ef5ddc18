"""The one transaction of an append: entries, the nodes that they complete, the signed checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, insert, select

from lockstep.errors import ProofError
from lockstep.rules.checkpoint import Checkpoint, sign_checkpoint
from lockstep.rules.note import Signer
from lockstep.stores.ledger.entry import Entry, Event, decode, encode, micros
from lockstep.stores.ledger.persons import names, pseudonyms
from lockstep.stores.ledger.tables import CHECKPOINT, ENTRY, blob
from lockstep.stores.ledger.tree import extend, tree_size

SIGNED_LATE: Final = "ledger.signed_late"
FORGOTTEN: Final = "ledger.forgotten"
LOCKSTEP: Final = "machine:lockstep"  # who wrote what nobody asked for
LOOKED_UP: Final = 500  # event ids in one query


def append_events(
    connection: Connection, events: Sequence[Event], now: float, origin: str, signer: Signer | None, signed: int
) -> tuple[tuple[Entry, ...], bytes | None]:
    """The entries of `events`, those included whose event id was there already, and the new checkpoint.

    `signed` is the newest checkpoint's size, 0 without one; the caller holds the writer's lock.

    With a signer the new tree is signed; entries that were appended without one before are named by an entry first.
    """
    standing = _standing(connection, [event.event_id for event in events])
    new = {event.event_id: event for event in reversed(events) if event.event_id not in standing}
    ordered = [new[event_id] for event_id in dict.fromkeys(event.event_id for event in events) if event_id in new]
    note = None
    if ordered:
        size = tree_size(connection)
        if signer is not None:
            ordered = [*_signed_late(signed, size), *ordered]
        added, note = _insert(connection, size, ordered, now, origin, signer)
        standing |= added
    return tuple(standing[event.event_id] for event in events), note


def newest_checkpoint(connection: Connection) -> tuple[int, bytes | None]:
    """Size and note of the newest signed checkpoint, 0 and None when there is none."""
    newest = select(CHECKPOINT.c.size, CHECKPOINT.c.note).order_by(CHECKPOINT.c.size.desc()).limit(1)
    found = connection.execute(newest).one_or_none()
    return (0, None) if found is None else (int(found.size), blob(found.note))


def standing_ids(connection: Connection, event_ids: Sequence[str]) -> frozenset[str]:
    """Which of the event ids are there."""
    found: list[str] = []
    for start in range(0, len(event_ids), LOOKED_UP):
        ids = event_ids[start : start + LOOKED_UP]
        found += connection.execute(select(ENTRY.c.event_id).where(ENTRY.c.event_id.in_(ids))).scalars()
    return frozenset(found)


def _standing(connection: Connection, event_ids: Sequence[str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    known: Mapping[str, str] = {}
    for start in range(0, len(event_ids), LOOKED_UP):
        ids = event_ids[start : start + LOOKED_UP]
        standing = select(ENTRY.c.number, ENTRY.c.event_id, ENTRY.c.leaf).where(ENTRY.c.event_id.in_(ids))
        rows = connection.execute(standing).all()
        known = known or (names(connection) if rows else {})
        for row in rows:
            try:
                found[row.event_id] = decode(row.number, blob(row.leaf), known)
            except ValueError as error:
                raise ProofError(
                    f"the ledger is damaged: entry {row.number}: {error}", hint="run `lockstep ledger verify`"
                ) from error
    return found


def _signed_late(signed: int, size: int) -> list[Event]:
    """The mark on entries that stand unsigned so far, if there are any."""
    if signed >= size:
        return []
    body = {"first": signed, "last": size - 1, "reason": "appended while there was no key to sign with"}
    return [Event(f"{SIGNED_LATE}/{signed}-{size - 1}", SIGNED_LATE, "", LOCKSTEP, body)]


def _insert(
    connection: Connection, size: int, events: Sequence[Event], now: float, origin: str, signer: Signer | None
) -> tuple[dict[str, Entry], bytes | None]:
    standing = pseudonyms(connection, {event.actor for event in events})
    shown = {pseudonym: name for name, pseudonym in standing.items()}
    rows: list[dict[str, object]] = []
    leaves: list[bytes] = []
    entries: dict[str, Entry] = {}
    for number, event in enumerate(events, size):
        at = now if event.at is None else event.at
        leaf = encode(event, at, standing[event.actor])
        found_by = {"event_id": event.event_id, "at": micros(at), "kind": event.kind, "model": event.model}
        rows.append({"number": number, "leaf": leaf, **found_by})
        leaves.append(leaf)
        entries[event.event_id] = decode(number, leaf, shown)
    connection.execute(insert(ENTRY), rows)
    root = extend(connection, size, leaves)
    if signer is None:
        return entries, None
    note = sign_checkpoint(Checkpoint(origin, size + len(leaves), root), signer)
    connection.execute(insert(CHECKPOINT), {"size": size + len(leaves), "note": note})
    return entries, note
