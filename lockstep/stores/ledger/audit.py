"""Recompute a ledger from its first entry to its last, and name what does not fit by index and event id.

Leaves are hashed anew and compared with the stored leaf hashes, subtrees with the stored nodes, the root at every
checkpoint's size with that checkpoint, whose signature is checked. Whoever changes an entry must change its leaf hash;
whoever changes that, all nodes above it; whoever changes those cannot sign the root that follows. Only a history that
is signed anew with the real key passes, and that is what the checkpoints kept elsewhere (`held`) are for: each is a
size and a root that this ledger must have. Since every root is computed from the same leaves, that all signed roots
agree is the consistency of each checkpoint with the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import BigInteger, Connection, func, literal, select

from lockstep.errors import LockstepError, ProofError
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.merkle import EMPTY_ROOT, completed_nodes, leaf_hash, root
from lockstep.rules.note import Verifier
from lockstep.stores.ledger.appending import FORGOTTEN, SIGNED_LATE
from lockstep.stores.ledger.entry import decode, micros
from lockstep.stores.ledger.persons import PSEUDONYM, forged_names
from lockstep.stores.ledger.tables import CHECKPOINT, ENTRY, NODE, PERSON, blob, foreign_objects
from lockstep.stores.ledger.tree import read_range, reader, tree_size

PAGE: Final = 4096  # entries held at a time
MOST: Final = 20  # flaws after which the rest is not looked for


@dataclass(frozen=True)
class Flaw:
    """Something that does not fit: the index of the entry (-1: none), its event id where it can be told, and what."""

    index: int
    event_id: str
    what: str

    def __str__(self) -> str:
        if self.index < 0:
            return self.what
        return f"entry {self.index}{f' ({self.event_id})' if self.event_id else ''}: {self.what}"


@dataclass(frozen=True)
class Audit:
    """The state of a ledger: entries, root, the newest checkpoint that holds, what does not fit, what to know."""

    size: int
    root: bytes
    checkpoint: Checkpoint | None
    checkpoints: int
    flaws: tuple[Flaw, ...]
    notes: tuple[str, ...]

    @property
    def first(self) -> Flaw | None:
        """The flaw at the lowest index; those of no entry come last."""
        return min(self.flaws, key=lambda flaw: (flaw.index < 0, flaw.index), default=None)

    def raise_if_bad(self) -> None:
        """Raise ProofError naming the first bad entry."""
        if self.first is not None:
            more = f" (and {len(self.flaws) - 1} more)" if len(self.flaws) > 1 else ""
            raise ProofError(
                f"the ledger does not hold: {self.first}{more}",
                hint="keep the database as it is for the investigation; the clouds' copies hold what was signed",
            )


def audit(connection: Connection, origin: str, verifiers: Sequence[Verifier], held: Mapping[str, bytes]) -> Audit:
    """See the module; `held` are signed checkpoints by where they are kept."""
    return _Auditor(connection, origin, tuple(verifiers), held).run()


@dataclass
class _Row:
    number: int
    event_id: str
    at: int
    kind: str
    model: str
    leaf: bytes


@dataclass
class _Auditor:
    connection: Connection
    origin: str
    verifiers: tuple[Verifier, ...]
    held: Mapping[str, bytes]
    flaws: list[Flaw] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    edge: dict[tuple[int, int], bytes] = field(default_factory=dict)  # the complete subtrees that make up the tree
    signed: int = 0  # entries under the newest checkpoint that holds
    newest: Checkpoint | None = None
    checkpoints: int = 0
    rooted: bool = True  # until a root differs: all that follow would
    size: int = 0
    persons: set[str] = field(default_factory=set)  # pseudonyms that entries hold
    forgotten: set[str] = field(default_factory=set)
    migrated: int = 0

    def run(self) -> Audit:
        total = tree_size(self.connection)
        elsewhere = self._open_held()
        for start in range(0, total, PAGE):
            self._page(start, min(start + PAGE, total), elsewhere)
            if len(self.flaws) >= MOST:
                self.notes.append(f"entries from {self.size} on were not looked at: too much does not fit")
                break
        else:
            self._look_behind(total, elsewhere)
        if self.migrated:
            self.notes.append(f"{self.migrated} entries come from a ledger without a tree; nothing signed them before")
        size_root = root(self.size, reader(self.edge)) if self.size else EMPTY_ROOT
        return Audit(self.size, size_root, self.newest, self.checkpoints, tuple(self.flaws[:MOST]), tuple(self.notes))

    def _page(self, start: int, stop: int, elsewhere: Mapping[int, Sequence[tuple[str, Checkpoint]]]) -> None:
        rows = self._rows(start, stop)
        notes = self._checkpoints(start, stop)
        stored = {}
        for level in range(stop.bit_length()):
            found = read_range(self.connection, level, start >> level, stop >> level)
            stored.update({(level, index): value for index, value in found.items()})
        for number in range(start, stop):
            self._entry(number, rows.get(number), stored)
            for checkpoint in self._opened(number + 1, notes.get(number + 1)):
                self._compare(checkpoint, f"the signed checkpoint of {number + 1} entries", rows, own=True)
            for place, checkpoint in elsewhere.get(number + 1, ()):
                self._compare(checkpoint, f"the checkpoint of {number + 1} entries in {place}", rows)
            if len(self.flaws) >= MOST:
                return

    def _entry(self, number: int, row: _Row | None, stored: Mapping[tuple[int, int], bytes]) -> None:
        kept = stored.get((0, number))
        event_id = ""
        if row is None:
            self._flaw(number, "", "it is missing")
            value = kept or EMPTY_ROOT
        else:
            event_id = row.event_id
            value = leaf_hash(row.leaf)
            self._content(row)
            if kept != value:
                what = "it is not in the tree" if kept is None else "its bytes are not those that were appended"
                self._flaw(number, event_id, what)
                # On with what the tree says, so that one edited entry is not told of again at every node above it.
                value = kept if kept is not None and len(kept) == len(value) else value
        for level, index, node in completed_nodes(number, value, reader(self.edge)):
            if level and stored.get((level, index)) != node:
                first, last = index << level, ((index + 1) << level) - 1
                self._flaw(number, event_id, f"the tree's node over the entries {first} to {last} was altered")
            self.edge[level, index] = node
            for child in (2 * index, 2 * index + 1):
                self.edge.pop((level - 1, child), None)
        self.size = number + 1

    def _content(self, row: _Row) -> None:
        try:
            entry = decode(row.number, row.leaf)
        except ValueError as error:
            self._flaw(row.number, row.event_id, f"it cannot be read: {error}")
            return
        told = (row.event_id, row.at, row.kind, row.model)
        if told != (entry.event_id, micros(entry.at), entry.kind, entry.model):
            self._flaw(row.number, entry.event_id, "the columns that it is found by were changed")
        if PSEUDONYM.fullmatch(entry.actor):
            self.persons.add(entry.actor)
        listed = entry.body.get("persons")
        if entry.kind == FORGOTTEN and isinstance(listed, list):
            self.forgotten.update(map(str, listed))
        if entry.migrated:
            self.migrated += 1
        if entry.unvouched:
            self.notes.append(
                f"entry {row.number} waited in the spool without a signature by the ledger's key: whoever may write "
                "there could have put it in"
            )
        if entry.kind == SIGNED_LATE:
            self.notes.append(
                f"entries {entry.body.get('first')} to {entry.body.get('last')} were appended without a key and signed "
                f"later, by entry {row.number}"
            )

    def _opened(self, size: int, note: bytes | None) -> Iterable[Checkpoint]:
        """The checkpoint of that size, if there is one and its signature holds."""
        if note is None:
            return
        self.checkpoints += 1
        try:
            checkpoint = open_checkpoint(note, self.origin, self.verifiers)
            if checkpoint.size != size:
                raise ProofError(f"it is of {checkpoint.size} entries")
        except LockstepError as error:
            self._flaw(size - 1, "", f"the checkpoint of {size} entries does not hold: {error}")
            return
        yield checkpoint

    def _compare(self, checkpoint: Checkpoint, what: str, rows: Mapping[int, _Row], *, own: bool = False) -> None:
        computed = root(checkpoint.size, reader(self.edge))
        if computed == checkpoint.root:
            if own:
                self.signed, self.newest = checkpoint.size, checkpoint
            return
        if self.rooted:
            row = rows.get(self.signed)
            among = f" (or another of the entries {self.signed} to {checkpoint.size - 1})"
            self._flaw(
                self.signed,
                row.event_id if row else "",
                f"it was changed, put in, moved or signed anew{among if checkpoint.size - self.signed > 1 else ''}: "
                f"{what} has the root {checkpoint.root.hex()[:16]}…, the entries {computed.hex()[:16]}…",
            )
        self.rooted = False

    def _look_behind(self, total: int, elsewhere: Mapping[int, Sequence[tuple[str, Checkpoint]]]) -> None:
        """What is there beyond the last entry, and entries that nothing signs."""
        beyond = select(NODE.c.level).where(NODE.c.idx == literal(total, BigInteger).op(">>")(NODE.c.level)).limit(1)
        nodes = int(self.connection.execute(select(func.count()).select_from(NODE)).scalar_one())
        expected = 2 * total - total.bit_count()
        if self.connection.execute(beyond).first() is not None:
            self._flaw(total, "", f"it is missing: the tree has nodes of more than the {total} entries")
        elif nodes > expected:
            self._flaw(-1, "", f"the tree of {total} entries has {nodes} nodes, not {expected}")
        self._look_beside()
        beyond = select(func.max(CHECKPOINT.c.size)).where(CHECKPOINT.c.size > total)
        largest = self.connection.execute(beyond).scalar()
        if largest is not None:
            self._flaw(total, "", f"it is missing: {largest} entries were signed, {total} are there")
        for size in sorted(size for size in elsewhere if size > total):
            for place, _ in elsewhere[size]:
                self._flaw(
                    total,
                    "",
                    f"it is missing: the database was put back to an older state or cut; {place} holds a signed "
                    f"checkpoint of {size} entries, the ledger has {total}",
                )
        if self.rooted and self.signed < total:
            unsigned = f"entries {self.signed} to {total - 1} are under no signed checkpoint"
            if self.verifiers or self.checkpoints:
                event_id = self.connection.execute(
                    select(ENTRY.c.event_id).where(ENTRY.c.number == self.signed)
                ).scalar()
                self._flaw(
                    self.signed,
                    event_id or "",
                    f"{unsigned}: appended without the key (the next entry that is written with it signs and marks "
                    "them), or by somebody else",
                )
            else:
                self.notes.append(f"{unsigned}: there is no key; make one with `lockstep keys create`")

    def _look_beside(self) -> None:
        """Rows that no entry's number leads to, what acts on the tables unseen, and who the persons are."""
        stray = select(ENTRY.c.number, ENTRY.c.event_id).where(ENTRY.c.number < 0).limit(MOST)
        for number, event_id in self.connection.execute(stray):
            self._flaw(-1, "", f"an entry {event_id!r} stands outside of the tree, under the number {number}")
        for size in self.connection.execute(select(CHECKPOINT.c.size).where(CHECKPOINT.c.size < 1)).scalars():
            self._flaw(-1, "", f"there is a checkpoint of {size} entries")
        for told in foreign_objects(self.connection):
            self._flaw(-1, "", told)
        for pseudonym in forged_names(self.connection):
            self._flaw(-1, "", f"the name of {pseudonym} was altered: it does not stand for who is written there")
        known = set(self.connection.execute(select(PERSON.c.pseudonym)).scalars())
        for pseudonym in sorted(self.persons - self.forgotten - known):
            self._flaw(-1, "", f"the name of {pseudonym} is gone, and no entry says that it was to be forgotten")

    def _open_held(self) -> Mapping[int, Sequence[tuple[str, Checkpoint]]]:
        found: dict[int, list[tuple[str, Checkpoint]]] = {}
        for place, note in self.held.items():
            try:
                checkpoint = open_checkpoint(note, self.origin, self.verifiers)
            except LockstepError as error:
                self._flaw(-1, "", f"the checkpoint in {place} does not hold: {error}")
                continue
            found.setdefault(checkpoint.size, []).append((place, checkpoint))
        return found

    def _rows(self, start: int, stop: int) -> Mapping[int, _Row]:
        query = select(ENTRY).where(ENTRY.c.number >= start, ENTRY.c.number < stop)
        return {
            row.number: _Row(row.number, str(row.event_id), row.at, row.kind, row.model, blob(row.leaf))
            for row in self.connection.execute(query)
        }

    def _checkpoints(self, start: int, stop: int) -> Mapping[int, bytes]:
        query = select(CHECKPOINT.c.size, CHECKPOINT.c.note).where(CHECKPOINT.c.size > start, CHECKPOINT.c.size <= stop)
        return {size: blob(note) for size, note in self.connection.execute(query)}

    def _flaw(self, index: int, event_id: str, what: str) -> None:
        self.flaws.append(Flaw(index, event_id, what))
