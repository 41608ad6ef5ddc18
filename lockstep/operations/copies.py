"""Copies of the ledger in every cloud's archive: tiles that never change, and checkpoints that only grow.

A copy is a folder of C2SP tiles (rules/tiles.py) with the signed checkpoints beside them, `checkpoint/<size, 20
digits>`. Each cloud's copy is brought up by itself, and is a witness: it takes a checkpoint only if that extends the
newest one it holds. The checkpoint is written last, so one that stands has everything under it; whatever a killed
attempt left is found by the next one and never written again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Final, Protocol

from lockstep.clouds.archive import Archive, Protection
from lockstep.errors import DigestMismatchError, ForkError, LockstepError, NoteError, ProofError, RetryLaterError
from lockstep.operations.running import Job, Outcome, ThreadRunner, attempt
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.merkle import HASH_SIZE, NodeReader, consistency_proof, leaf_hash, root
from lockstep.rules.note import Verifier
from lockstep.rules.tiles import WIDTH, TileName, encode_entries, tile_hashes, tiles_between
from lockstep.rules.witness import HINT, check_extension

CHECKPOINT: Final = re.compile(r"checkpoint/([0-9]{20})")
#: Entries before the ledger's end behind which a copy's newest checkpoint is looked for first.
NEAR: Final = 4096
#: Objects written or read at the same time on one cloud.
AT_ONCE: Final = 8
#: Missing tiles from which on it is cheaper to list what an earlier attempt left than to ask for each.
MANY: Final = 32


class CopiedLedger(Protocol):
    """What a copy needs of the ledger."""

    @property
    def origin(self) -> str:
        """Name of the ledger in its checkpoints."""

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """Keys that its checkpoints are, or once were, signed with."""

    @property
    def size(self) -> int:
        """Number of entries."""

    def leaves(self, start: int, stop: int) -> Sequence[bytes]:
        """The exact bytes of the entries from `start` up to `stop`."""

    def read_node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""

    def with_nodes(self, call: Callable[[NodeReader], bytes]) -> bytes:
        """What `call` makes of nodes that are read at once."""

    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint; None as long as nothing is signed."""

    def signed_sizes(self) -> frozenset[int]:
        """Numbers of entries of which it holds a signed checkpoint."""


class Keeper(Protocol):
    """What a copy needs of a cloud."""

    @property
    def name(self) -> str:
        """What the fleet calls it."""

    def archive(self) -> Archive | None:
        """Where it keeps the copy; None when it keeps none."""


@dataclass(frozen=True)
class CopyReport:
    """What became of one cloud's copy.

    `before` and `size` are the entries under its newest checkpoint before and now (None: it holds none), `written` the
    objects that were added. A cloud without an archive has neither place nor error.
    """

    cloud: str
    place: str = ""
    before: int | None = None
    size: int | None = None
    written: int = 0
    protection: Protection | None = None
    error: LockstepError | None = None


def copy_ledger(
    clouds: Sequence[Keeper], ledger: CopiedLedger, retention: timedelta, seconds: float | None = None
) -> tuple[CopyReport, ...]:
    """Bring every cloud's copy up to the ledger's newest checkpoint, all at the same time; never raises LockstepError.

    Returns within `seconds`, whatever a cloud does; the next call goes on from where this one was. Each request is
    bounded by the cloud's `call_timeout`.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    until = datetime.now(UTC) + retention
    jobs = [_job(cloud, lambda archive: _Copy(archive, ledger, until, deadline).bring_up()) for cloud in clouds]
    outcomes = ThreadRunner().run(jobs) if deadline is None else _run_until(deadline, jobs)
    return tuple(outcome.value or CopyReport(outcome.cloud, error=outcome.error) for outcome in outcomes)


def checkpoint_name(size: int) -> str:
    """Where a copy keeps the checkpoint of `size` entries; names sort by size."""
    return f"checkpoint/{size:020d}"


def tile_content(name: TileName, ledger: CopiedLedger) -> bytes:
    """What belongs into a tile; raises ProofError where an entry is not what the ledger's own tree holds."""
    if name.level is not None:
        return ledger.with_nodes(lambda read: tile_hashes(name, read))
    first = name.index * WIDTH
    entries = ledger.leaves(first, first + name.width)
    hashes = tile_content(replace(name, level=0), ledger)
    for number, entry in enumerate(entries):
        if leaf_hash(entry) != hashes[number * HASH_SIZE :][:HASH_SIZE]:
            problem = f"entry {first + number} of the ledger is not the one in its tree"
            raise ProofError(problem, hint="lockstep ledger verify")
    return encode_entries(entries)


def _job(cloud: Keeper, bring_up: Callable[[Archive], CopyReport]) -> Job[CopyReport]:
    def call() -> CopyReport:
        archive = cloud.archive()
        return CopyReport(cloud.name) if archive is None else bring_up(archive)

    return Job(cloud.name, f"{cloud.name}: copy the ledger", call, retries=0)


def _run_until(deadline: float, jobs: Sequence[Job[CopyReport]]) -> tuple[Outcome[CopyReport], ...]:
    """Outcomes at `deadline` at the latest. What is still waiting then ends by itself, or with this process.

    A copy may be killed at any point, so nobody, the end of the process included, has to wait for its threads.
    """
    done: list[Outcome[CopyReport] | None] = [None] * len(jobs)
    faults: list[Exception] = []

    def work(place: int, job: Job[CopyReport]) -> None:
        try:
            done[place] = attempt(job)
        except Exception as fault:  # a programming error belongs to the caller, as with any other runner
            faults.append(fault)

    threads = [Thread(target=work, args=each, name=each[1].name, daemon=True) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if faults:
        raise faults[0]
    return tuple(
        outcome or Outcome(job.cloud, job.name, 0.0, error=_late(job.cloud, "copying took longer than there was time"))
        for outcome, job in zip(done, jobs, strict=True)
    )


def _late(cloud: str, why: str) -> RetryLaterError:
    hint = "the next operation goes on with it, `lockstep ledger copy` at once"
    return RetryLaterError(why, cloud=cloud, hint=hint)


class _Copy:
    """One cloud's copy on its way up to the ledger."""

    def __init__(self, archive: Archive, ledger: CopiedLedger, until: datetime, deadline: float | None) -> None:
        self._archive = archive
        self._ledger = ledger
        self._until = until
        self._deadline = deadline
        self._written = 0

    def bring_up(self) -> CopyReport:
        report = CopyReport(self._archive.cloud, self._archive.place)
        try:
            report = replace(report, protection=self._archive.protection())
            held = self._newest()
            before = None if held is None else held.size
            report = replace(report, before=before, size=before)
            # Read after the copy: another process may have copied a newer one in between, never the other way round.
            note = self._ledger.checkpoint()
            offered = self._offered(note)
            self._check(held, offered)
            if note is None:
                return report
            if before is None or before < offered.size:
                self._extend(before or 0, offered, note)
            return replace(report, size=offered.size, written=self._written)
        except LockstepError as error:
            return replace(report, written=self._written, error=error)

    def _offered(self, note: bytes | None) -> Checkpoint:
        """What the ledger says of itself; without any signature it can still be held against the copy."""
        ledger = self._ledger
        if note is not None:
            return open_checkpoint(note, ledger.origin, ledger.verifiers)
        size = ledger.size
        return Checkpoint(ledger.origin, size, root(size, ledger.read_node))

    def _newest(self) -> Checkpoint | None:
        """The newest checkpoint that the copy holds; one that nobody known has signed stands in the way."""
        near = checkpoint_name(max(0, self._ledger.size - NEAR))
        for names in (self._archive.names("checkpoint/", after=near), self._archive.names("checkpoint/")):
            for name in reversed([name for name in names if CHECKPOINT.fullmatch(name)]):
                note = self._archive.read(name)
                if note is not None:
                    return self._open(name, note)
        return None

    def _open(self, name: str, note: bytes) -> Checkpoint:
        try:
            found = open_checkpoint(note, self._ledger.origin, self._ledger.verifiers)
        except NoteError as error:
            raise ForkError(
                f"{self._archive.place}/{name} is no checkpoint of this ledger: {error}",
                cloud=self._archive.cloud,
                hint="for another ledger, or keys made anew, set another archive_folder; else find out who wrote it",
            ) from error
        if checkpoint_name(found.size) != name:
            raise ForkError(
                f"{self._archive.place}/{name} holds the checkpoint of {found.size} entries",
                cloud=self._archive.cloud,
                hint=HINT,
            )
        return found

    def _check(self, held: Checkpoint | None, offered: Checkpoint) -> None:
        if held is None:
            return
        comparable = held.size <= offered.size
        proof = consistency_proof(held.size, offered.size, self._ledger.read_node) if comparable else ()
        check_extension(held, offered, proof, self._archive.cloud)

    def _extend(self, old: int, offered: Checkpoint, note: bytes) -> None:
        tiles = tiles_between(old, offered.size)
        if len(tiles) > MANY:
            there = frozenset(self._archive.names("tile/"))
            tiles = tuple(tile for tile in tiles if tile.path not in there)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            for _ in pool.map(self._write_tile, tiles):
                pass
        # Only now: a checkpoint says that everything under it is there.
        self._write(checkpoint_name(offered.size), note, offered)

    def _write_tile(self, tile: TileName) -> None:
        self._write(tile.path, tile_content(tile, self._ledger))

    def _write(self, name: str, content: bytes, checkpoint: Checkpoint | None = None) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise _late(self._archive.cloud, "there was more to write than there was time")
        if self._archive.create(name, content, self._until):
            self._written += 1
            return
        there = self._archive.read(name)
        if there == content:
            return
        if checkpoint is not None and there is not None and self._open(name, there) == checkpoint:
            return  # the same, signed with another of our keys
        raise DigestMismatchError(
            f"{self._archive.place}/{name} is there with other content",
            cloud=self._archive.cloud,
            hint="lockstep ledger verify",
        )
