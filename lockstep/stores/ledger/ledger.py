"""The ledger as the operations use it: append, read, prove. What cannot be written waits in the spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Join, Select, and_, func, select

from lockstep.errors import LockstepError, NotFoundError, ProofError
from lockstep.rules.deeds import UNVOUCHED
from lockstep.rules.merkle import NodeReader, inclusion_proof, leaf_hash
from lockstep.rules.note import Signer, Verifier
from lockstep.rules.tiles import WIDTH, TileName, encode_entries, tile_hashes
from lockstep.rules.tlog_proof import make_proof
from lockstep.stores.ledger.appending import FORGOTTEN, LOCKSTEP, append_events, newest_checkpoint, standing_ids
from lockstep.stores.ledger.audit import Audit, audit
from lockstep.stores.ledger.database import Database
from lockstep.stores.ledger.entry import Entry, Event, decode, micros, text
from lockstep.stores.ledger.migration import set_up
from lockstep.stores.ledger.newest import NewestCheckpoint
from lockstep.stores.ledger.persons import forget, names
from lockstep.stores.ledger.settings import DEFAULT_ORIGIN
from lockstep.stores.ledger.spool import Spool, waiting_entries
from lockstep.stores.ledger.tables import CHECKPOINT, ENTRY, NODE, blob
from lockstep.stores.ledger.tree import read_nodes, reader, tree_size, with_nodes

SLOW: Final = 1.0  # seconds after which a failed attempt is not repeated at once
PAUSE: Final = 30.0  # seconds without another attempt then: a rollback has better things to wait for
PAGE: Final = 500  # entries read at a time


class Ledger:
    """An append-only record in SQLite (a path) or PostgreSQL (postgresql+psycopg://…); for any thread and process.

    Making one opens nothing and never fails. With a `signer` every append is signed; `verifiers` are the keys that
    signatures are believed from. `spool` is the folder for entries that cannot be written, beside the file if not given
    (which it must be for PostgreSQL). What a person should know is in `problems`.
    """

    def __init__(
        self,
        database: Path | str,
        *,
        origin: str = DEFAULT_ORIGIN,
        signer: Signer | None = None,
        verifiers: Sequence[Verifier] = (),
        spool: Path | None = None,
        password: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = Database(database, password, self._set_up)
        path = self._database.path
        if spool is None:
            if path is None:
                raise ValueError("a ledger in PostgreSQL needs a folder for its spool")
            spool = path.with_name(f"{path.name}.spool")
        self.origin = origin
        self.verifiers = tuple(dict.fromkeys((*verifiers, *([signer.verifier] if signer else []))))
        self._signer = signer
        self._spool = Spool(spool, self._database.name, signer, self.verifiers)
        self._newest = NewestCheckpoint(spool.with_name(f"{spool.name.removesuffix('.spool')}.checkpoint"))
        self._clock = clock
        self._lock = threading.Lock()
        self._problems: dict[str, None] = {}
        self._altered: dict[str, None] = {}
        self._pause: tuple[float, LockstepError] | None = None

    @property
    def name(self) -> str:
        """Path or address of the database, without a password."""
        return self._database.name

    @property
    def database(self) -> Database:
        """Where it lies; leases lie there as well."""
        return self._database

    @property
    def vouches(self) -> bool:
        """Whether what it keeps in the spool counts while it waits and later: signed, or no ledger with keys at all."""
        return self._signer is not None or not self.verifiers

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong without stopping anything, each once, oldest first."""
        return tuple(self._problems)

    def condition(self) -> tuple[str, ...]:
        """What is not as it should be now, in sentences: entries that wait, that nobody signed, an older database.

        A look and no proof, which is `verify`. Raises nothing: a ledger that cannot be read is in a sentence too.
        """
        told = waiting_entries(self._spool)
        try:
            contradictions = self.contradictions()
            with self._database.reading() as connection:
                signed, _ = newest_checkpoint(connection)
                size = tree_size(connection)
        except LockstepError as error:
            return (*told, error.reason)
        told += [f"{contradiction}: run `lockstep ledger verify`" for contradiction in contradictions]
        if signed < size:
            told.append(
                f"entries {signed} to {size - 1} are unsigned: the next one that is written with the ledger's key "
                "signs them (`lockstep keys show`)"
            )
        return tuple(told)

    @property
    def altered(self) -> tuple[str, ...]:
        """Entries that were read so far and whose bytes are not those in the tree, in a sentence each."""
        return tuple(self._altered)

    def contradictions(self) -> tuple[str, ...]:
        """What no untouched ledger shows, in sentences: altered entries, missing ones, a database put back or lost.

        A look and no proof, which is `verify`: of the bytes, those of entries that were read so far. Raises
        LockstepError when the ledger cannot be read.
        """
        told = list(self._altered)
        seen = self._newest.read()
        with self._database.reading() as connection:
            signed, newest = newest_checkpoint(connection)
            size = tree_size(connection)
            there = int(connection.execute(select(func.count()).where(ENTRY.c.number >= 0)).scalar_one())
            contradiction = self._newest.contradiction(connection, newest, seen)
        if there < size:
            told.append(f"of {size} entries of the ledger {self.name} {size - there} are missing")
        if signed > size:
            told.append(f"{signed} entries of the ledger {self.name} were signed, {size} are there")
        if contradiction:
            told.append(contradiction)
        return tuple(told)

    # -- writing ---------------------------------------------------------------------------------------------------

    def append(
        self, event_id: str, kind: str, model: str, actor: str, body: Mapping[str, object], *, spool: bool = True
    ) -> Entry:
        """Append one event and wait until it is on the disk; an event id that is there already is returned as it is.

        When the ledger cannot be written the event is kept in the spool (`number` -1) and appended, marked late, before
        the next one that can be. Raises LockstepError only if `spool` is off, or if the spool cannot be written either.
        """
        return self.append_batch([Event(event_id, kind, model, actor, body)], spool=spool)[0]

    def append_batch(self, events: Sequence[Event], *, spool: bool = True) -> tuple[Entry, ...]:
        """The same for several events, which stand together or not at all."""
        now = self._clock()
        dated = [_writable(event, now) for event in events]
        try:
            return self._write(dated)
        except LockstepError as error:
            if not spool:
                raise
            return self._keep(dated, error)

    def forget(self, name: str, actor: str) -> tuple[str, ...]:
        """Erase a person's name; entries keep the pseudonyms, which are returned (none: nobody of that name)."""
        with self._lock, self._database.writing() as connection:
            forgotten = forget(connection, name)
            if forgotten:
                by = LOCKSTEP if actor == name else actor
                event = Event(f"{FORGOTTEN}/{'/'.join(forgotten)}", FORGOTTEN, "", by, {"persons": list(forgotten)})
                signed, _ = newest_checkpoint(connection)
                append_events(connection, [event], self._clock(), self.origin, self._signer, signed)
        self._database.scrub()
        return forgotten

    def close(self) -> None:
        """Let the connections go; the ledger may be used again."""
        self._database.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of entries."""
        with self._database.reading() as connection:
            return tree_size(connection)

    def entries(
        self,
        model: str | None = None,
        kind: str | None = None,
        last: int = 1000,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        cloud: str | None = None,
        waiting: bool = True,
        unvouched: bool = False,
    ) -> tuple[Entry, ...]:
        """The newest `last` entries that fit, oldest first.

        Of one model; of kinds that start with `kind`; that happened at `since` or later and before `until`; whose body
        names a cloud. What waits in the spool is among them with a negative number (unless `waiting` is off), as the
        next append would put it: last. So a hold stands although the ledger could not be written, and where enough
        waits a ledger that cannot be read is not missed.

        Entries that nobody vouches for are left out, since anybody may have put them in, and entries are read to decide
        by; with `unvouched` those that were appended are there, for what shows or checks everything.
        """
        kept = [
            entry
            for entry in (self._spool.entries() if waiting else ())  # first: what is appended meanwhile is in both
            if (model is None or entry.model == model)
            and (kind is None or entry.kind.startswith(kind))
            and (since is None or entry.at >= since.timestamp())
            and (until is None or entry.at < until.timestamp())
            and (cloud is None or names_cloud(entry.body, cloud))
        ]
        try:
            with self._database.reading() as connection:
                # Before any is cut off: one that stands already is not the newest, wherever its repetition waits.
                there = standing_ids(connection, [entry.event_id for entry in kept])
                kept = _newest([entry for entry in kept if entry.event_id not in there], last)
                found = self._standing(connection, model, kind, last - len(kept), since, until, cloud, unvouched)
        except ProofError:
            raise
        except LockstepError:
            if len(kept) < last:
                raise
            return tuple(_newest(kept, last))
        return (*found, *kept)

    def _standing(
        self,
        connection: Connection,
        model: str | None,
        kind: str | None,
        last: int,
        since: datetime | None,
        until: datetime | None,
        cloud: str | None,
        unvouched: bool,
    ) -> tuple[Entry, ...]:
        """As `entries`, of what is in the database."""
        query = _with_hashes().order_by(ENTRY.c.number.desc())
        if model is not None:
            query = query.where(ENTRY.c.model == model)
        if kind is not None:
            query = query.where(ENTRY.c.kind.startswith(kind, autoescape=True))
        if since is not None:
            query = query.where(ENTRY.c.at >= micros(since.timestamp()))
        if until is not None:
            query = query.where(ENTRY.c.at < micros(until.timestamp()))
        if not unvouched:
            query = query.where(ENTRY.c.event_id.not_like(f"{UNVOUCHED}%"))  # so that a limit will do; the mark counts
        if cloud is None:
            query = query.limit(last)
        found: list[Entry] = []
        for entry in self._read(connection, query):
            if len(found) == last:
                break
            if (unvouched or not entry.unvouched) and (cloud is None or names_cloud(entry.body, cloud)):
                found.append(entry)
        return tuple(reversed(found))

    def entry(self, index: int) -> Entry:
        """Entry number `index`; raises NotFoundError."""
        with self._database.reading() as connection:
            return self._decode(index, self._leaves(connection, index, index + 1)[0], names(connection))

    def leaf(self, index: int) -> bytes:
        """The exact bytes of entry `index`, as the tree holds them; raises NotFoundError."""
        return self.leaves(index, index + 1)[0]

    def leaves(self, start: int, stop: int) -> tuple[bytes, ...]:
        """The bytes of the entries from `start` up to `stop`; raises NotFoundError when one is not there."""
        with self._database.reading() as connection:
            return self._leaves(connection, start, stop)

    def read_node(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree (32 bytes); raises ProofError when it is not there. See `rules/merkle.py`."""
        with self._database.reading() as connection:
            return reader(read_nodes(connection, [(level, index)]))(level, index)

    def with_nodes(self, call: Callable[[NodeReader], bytes]) -> bytes:
        """What `call` makes of nodes, read at once; `call` runs twice, and may not look at what it reads."""
        with self._database.reading() as connection:
            return with_nodes(connection, call)

    def tile(self, name: TileName) -> bytes:
        """Content of a tile of hashes or of a bundle of entries, as copies hold it."""
        if name.level is None:
            return encode_entries(self.leaves(name.index * WIDTH, name.index * WIDTH + name.width))
        return self.with_nodes(lambda read: tile_hashes(name, read))

    def checkpoint(self, size: int | None = None) -> bytes | None:
        """The newest signed checkpoint, or the one of exactly `size` entries; None when nothing was signed so."""
        with self._database.reading() as connection:
            if size is None:
                return newest_checkpoint(connection)[1]
            note = connection.execute(select(CHECKPOINT.c.note).where(CHECKPOINT.c.size == size)).scalar()
            return None if note is None else blob(note)

    def signed_sizes(self) -> frozenset[int]:
        """Numbers of entries of which a signed checkpoint is there."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(select(CHECKPOINT.c.size)).scalars())

    def proof(self, index: int) -> bytes:
        """The proof file (C2SP tlog-proof) that entry `index` stands in the ledger, under the newest checkpoint.

        Raises NotFoundError when there is no such entry, or when no checkpoint covers it.
        """
        with self._database.reading() as connection:
            size, newest = newest_checkpoint(connection)
            if newest is None or not 0 <= index < size:
                raise NotFoundError(
                    f"entry {index} is under no signed checkpoint (signed: {size} entries, there: "
                    f"{tree_size(connection)})",
                    hint="make a key with `lockstep keys create`; the next entry signs those before it",
                )
            path = with_nodes(connection, lambda read: inclusion_proof(index, size, read))
            return make_proof(index, path, newest)

    def verify(self, others: Mapping[str, bytes] | None = None) -> Audit:
        """Recompute every hash and check every signature; see `Audit`. Raises LockstepError only if it cannot be read.

        `others` are newest signed checkpoints kept elsewhere, by what to call the place: the ledger must hold them all.
        """
        held = dict(others or {})
        seen = self._newest.read()
        if seen is not None:
            held[str(self._newest.path)] = seen
        with self._database.reading() as connection:
            return audit(connection, self.origin, self.verifiers, held)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _set_up(self, connection: Connection) -> None:
        lines = set_up(connection, self.name)
        if lines:
            append_events(connection, lines, self._clock(), self.origin, self._signer, 0)

    def _write(self, events: Sequence[Event]) -> tuple[Entry, ...]:
        """Append what waits and then `events`."""
        if self._pause is not None and time.monotonic() < self._pause[0]:
            raise self._pause[1]
        began = time.monotonic()
        waiting = self._spool.waiting()
        for one in waiting:
            if one.event is None:
                self._problem(f"{one.path} is in the ledger's spool, but holds no entry")
        taken = [one for one in waiting if one.event is not None]
        late = [one.event for one in taken if one.event is not None]
        try:
            with self._lock, self._database.writing() as connection:
                signed, newest = newest_checkpoint(connection)
                contradiction = self._newest.contradiction(connection, newest, self._newest.read())
                entries, note = append_events(
                    connection, [*late, *events], self._clock(), self.origin, self._signer, signed
                )
        except LockstepError as error:
            if time.monotonic() - began > SLOW:
                self._pause = (time.monotonic() + PAUSE, error)
            raise
        self._pause = None
        self._spool.remove(taken)
        if self._signer is None and self.verifiers:
            self._problem("the ledger's key cannot be read, so entries are signed later: see `lockstep keys show`")
        if contradiction:
            self._problem(f"{contradiction}: run `lockstep ledger verify`")
        elif note is not None:
            self._remember(note)
        return entries[len(late) :]

    def _keep(self, events: Sequence[Event], cause: LockstepError) -> tuple[Entry, ...]:
        """Put `events` into the spool."""
        kept = []
        for event in events:
            try:
                path = self._spool.keep(event)
            except OSError as error:
                raise LockstepError(f"{cause}, and neither can its spool: {error}", hint=cause.hint) from error
            self._problem(f"{cause}; entries wait in {path.parent}")
            if not self.vouches:
                self._problem(
                    "entries that wait are not signed, since the ledger's key cannot be read: nothing is decided by "
                    "them, now or later (`lockstep keys show`)"
                )
            assert event.at is not None
            kept.append(
                Entry(-1, event.event_id, event.at, event.kind, event.model, event.actor, dict(event.body), late=True)
            )
        return tuple(kept)

    def _remember(self, note: bytes) -> None:
        try:
            self._newest.write(note)
        except OSError as error:
            self._problem(f"the newest checkpoint cannot be kept in {self._newest.path}: {error.strerror}")

    def _problem(self, problem: str) -> None:
        self._problems.setdefault(problem)

    def _read(self, connection: Connection, query: Select[tuple[int, bytes, bytes]]) -> Iterator[Entry]:
        known = names(connection)
        for number, leaf, appended in connection.execute(query.execution_options(yield_per=PAGE)):
            yield self._decode(number, self._compared(number, blob(leaf), appended), known)

    def _leaves(self, connection: Connection, start: int, stop: int) -> tuple[bytes, ...]:
        wanted = _with_hashes().where(ENTRY.c.number >= start, ENTRY.c.number < stop).order_by(ENTRY.c.number)
        found = tuple(self._compared(number, blob(leaf), kept) for number, leaf, kept in connection.execute(wanted))
        if start < 0 or len(found) != stop - start:
            raise NotFoundError(f"the ledger has {tree_size(connection)} entries, not those from {start} up to {stop}")
        return found

    def _compared(self, number: int, leaf: bytes, appended: object) -> bytes:
        """The leaf as it is; one whose hash is not in the tree is noted, and stops nothing."""
        if blob(appended) != leaf_hash(leaf):
            self._altered.setdefault(f"entry {number} of the ledger {self.name} is not what was appended")
        return leaf

    def _decode(self, number: int, leaf: bytes, known: Mapping[str, str]) -> Entry:
        try:
            return decode(number, leaf, known)
        except ValueError as error:
            raise ProofError(
                f"entry {number} of the ledger {self.name} is damaged: {error}", hint="run `lockstep ledger verify`"
            ) from error


def names_cloud(body: object, cloud: str) -> bool:
    """Whether an entry's body is about a cloud: as a key anywhere, or as the value of `cloud` or in `clouds`."""
    if isinstance(body, Mapping):
        listed = body.get("clouds")
        if cloud in body or body.get("cloud") == cloud or (isinstance(listed, list) and cloud in listed):
            return True
        return any(names_cloud(value, cloud) for value in body.values())
    return isinstance(body, list) and any(names_cloud(value, cloud) for value in body)


def _newest(entries: Sequence[Entry], last: int) -> list[Entry]:
    return list(entries[max(0, len(entries) - last) :])


def _writable(event: Event, now: float) -> Event:
    """The event with its time, and with names that every database takes."""
    return replace(
        event,
        event_id=text(event.event_id),
        kind=text(event.kind),
        model=text(event.model),
        actor=text(event.actor),
        at=now if event.at is None else event.at,
    )


def _with_hashes() -> Select[tuple[int, bytes, bytes]]:
    """Entries with the leaf hashes that the tree has of them: one read of the primary key for each."""
    joined: Join = ENTRY.outerjoin(NODE, and_(NODE.c.level == 0, NODE.c.idx == ENTRY.c.number))
    return select(ENTRY.c.number, ENTRY.c.leaf, NODE.c.hash).select_from(joined)
