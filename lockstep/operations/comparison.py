"""The ledger here against its copies: what was changed, where, from which entry on.

Roots are computed anew from the entries, so that an edited entry shows even where the stored tree was left alone. A
copy speaks through its signed checkpoints; every one of them must fit the ledger, not only the newest, as whoever holds
the key and a cloud's credentials could have added a newer one of his own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from lockstep.clouds.archive import Archive, Protection
from lockstep.errors import LockstepError, NoteError, NotFoundError, ProofError
from lockstep.operations.copies import AT_ONCE, CHECKPOINT, CopiedLedger, Keeper, checkpoint_name
from lockstep.operations.running import Job, ThreadRunner
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.merkle import HASH_SIZE, NodeReader, leaf_hash, root
from lockstep.rules.tiles import WIDTH, TileName, decode_entries, encode_entries, tile_hashes, tiles_between
from lockstep.rules.witness import first_difference, recompute, show

PAGE: Final = 4096  # entries read at a time


@dataclass(frozen=True)
class CopyCheck:
    """What comparing one cloud's copy found.

    `size` is that of its newest checkpoint (None: it holds none), `first_bad` the number of the first entry that the
    ledger here has otherwise or not at all, `signed` the entries under the ledger's newest checkpoint. `error` says why
    the copy could not be read. A cloud without an archive has no place.
    """

    cloud: str
    place: str = ""
    protection: Protection | None = None
    size: int | None = None
    checkpoints: int = 0
    first_bad: int | None = None
    problems: tuple[str, ...] = ()
    error: LockstepError | None = None
    signed: int = 0

    @property
    def behind(self) -> int:
        """Signed entries of the ledger that the copy lacks: not copied yet, or taken away where the store allows it."""
        return max(0, self.signed - (self.size or 0)) if self.place and self.error is None else 0

    @property
    def holds(self) -> bool:
        """Whether the copy was read and nothing contradicts it."""
        return not self.problems and self.error is None


@dataclass(frozen=True)
class _Tree:
    """The ledger's entries and the tree that follows from them."""

    size: int
    entries: tuple[bytes, ...]
    read: NodeReader
    signed: frozenset[int]

    @property
    def hashes(self) -> Sequence[bytes]:
        return [self.read(0, number) for number in range(self.size)]


def compare_copies(clouds: Sequence[Keeper], ledger: CopiedLedger) -> tuple[CopyCheck, ...]:
    """Compare every cloud's copy, all at the same time; what cannot be reached is named in its `error`."""
    entries = _entries(ledger)
    size, read = recompute(leaf_hash(entry) for entry in entries)
    tree = _Tree(size, entries, read, ledger.signed_sizes())
    jobs = [_job(cloud, ledger, tree) for cloud in clouds]
    return tuple(outcome.value or CopyCheck(outcome.cloud, error=outcome.error) for outcome in ThreadRunner().run(jobs))


def _entries(ledger: CopiedLedger) -> tuple[bytes, ...]:
    """The ledger's entries up to the first that is missing: what lies behind a gap is under no root."""
    found: list[bytes] = []
    size, page = ledger.size, PAGE
    while len(found) < size:
        try:
            found += ledger.leaves(len(found), min(size, len(found) + page))
        except NotFoundError:
            if page == 1:
                break
            page = 1
    return tuple(found)


def _job(cloud: Keeper, ledger: CopiedLedger, tree: _Tree) -> Job[CopyCheck]:
    def call() -> CopyCheck:
        archive = cloud.archive()
        return CopyCheck(cloud.name) if archive is None else _Comparison(archive, ledger, tree).run()

    return Job(cloud.name, f"{cloud.name}: compare the ledger's copy", call, retries=1)


class _Comparison:
    """One cloud's copy under examination."""

    def __init__(self, archive: Archive, ledger: CopiedLedger, tree: _Tree) -> None:
        self._archive = archive
        self._ledger = ledger
        self._tree = tree
        self._problems: list[str] = []
        self._bad: list[int] = []

    def run(self) -> CopyCheck:
        archive = self._archive
        check = CopyCheck(archive.cloud, archive.place, archive.protection())
        names = archive.names("checkpoint/")
        for name in archive.tampered(""):
            self._problems.append(f"{name} was overwritten or deleted after it had been copied")
        held = sorted(self._checkpoints(names), key=lambda checkpoint: checkpoint.size)
        fitting = [checkpoint for checkpoint in held if self._fits(checkpoint)]
        if fitting:
            self._check_tiles(fitting[-1])
        return replace(
            check,
            size=held[-1].size if held else None,
            checkpoints=len(held),
            first_bad=min(self._bad, default=None),
            problems=tuple(dict.fromkeys(self._problems)),
            signed=self._signed(),
        )

    def _signed(self) -> int:
        try:
            note = self._ledger.checkpoint()
            return open_checkpoint(note, self._ledger.origin, self._ledger.verifiers).size if note else 0
        except LockstepError:  # whatever is wrong there is told by the ledger's own audit
            return 0

    def _checkpoints(self, names: Iterable[str]) -> list[Checkpoint]:
        found = []
        names = tuple(names)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            for name, note in zip(names, pool.map(self._archive.read, names), strict=True):
                if note is None:
                    self._problems.append(f"{name} is gone")
                    continue
                try:
                    checkpoint = open_checkpoint(note, self._ledger.origin, self._ledger.verifiers)
                except NoteError as error:
                    self._problems.append(f"{name} is no checkpoint of this ledger: {error}")
                    continue
                if not CHECKPOINT.fullmatch(name) or name != checkpoint_name(checkpoint.size):
                    self._problems.append(f"{name} holds the checkpoint of {checkpoint.size} entries")
                found.append(checkpoint)
        return found

    def _fits(self, checkpoint: Checkpoint) -> bool:
        """Whether the ledger's first entries are those under the checkpoint; else what differs is noted."""
        tree = self._tree
        said = f"the copy holds {show(checkpoint)}"
        if checkpoint.size <= tree.size and root(checkpoint.size, tree.read) == checkpoint.root:
            if checkpoint.size not in tree.signed:
                self._problems.append(
                    f"{said}, a checkpoint that was taken from the database here; the entries are as they were"
                )
            return True
        theirs = self._hashes_under(checkpoint)
        if theirs is None:
            self._problems.append(f"{said}; the ledger here does not have them, and the copy lacks its tiles")
            return False
        differs = first_difference(tree.hashes, theirs)
        if differs is None:
            self._bad.append(tree.size)
            self._problems.append(
                f"{said}; the ledger here ends after {tree.size}: it was rolled back or cut short before entry "
                f"{tree.size}"
            )
        else:
            self._bad.append(differs)
            self._problems.append(f"{said}; entry {differs} is another one in the ledger here: history was rewritten")
        return False

    def _hashes_under(self, checkpoint: Checkpoint) -> tuple[bytes, ...] | None:
        """The copy's leaf hashes, if they are the ones that the checkpoint was signed over."""
        names = [name for name in tiles_between(0, checkpoint.size) if name.level == 0]
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            contents = list(pool.map(lambda name: self._archive.read(name.path), names))
        hashes: list[bytes] = []
        for name, content in zip(names, contents, strict=True):
            if content is None or len(content) != name.width * HASH_SIZE:
                return None
            hashes += (content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE))
        size, read = recompute(hashes)
        return tuple(hashes) if root(size, read) == checkpoint.root else None

    def _check_tiles(self, checkpoint: Checkpoint) -> None:
        """Whether the copy could stand in for the ledger: everything under its newest good checkpoint, byte by byte."""
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            for problem in pool.map(self._check_tile, tiles_between(0, checkpoint.size)):
                if problem:
                    self._problems.append(problem)

    def _check_tile(self, name: TileName) -> str:
        content = self._archive.read(name.path)
        if content is None:
            return f"{name.path} is missing"
        if name.level is not None:
            return "" if content == tile_hashes(name, self._tree.read) else f"{name.path} holds other hashes"
        first = name.index * WIDTH
        ours = self._tree.entries[first : first + name.width]
        if content == encode_entries(ours):
            return ""
        try:
            differs = first_difference(ours, decode_entries(content))
        except ProofError as error:
            return f"{name.path} cannot be read: {error}"
        where = "the number of entries" if differs is None else f"entry {first + differs}"
        return f"{name.path} differs in {where} from what its own checkpoint was signed over"
