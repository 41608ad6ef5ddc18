"""A ledger in memory and an archive in memory, for tests of copying that need neither database nor cloud."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from lockstep.clouds.archive import Archive, Protection, StoredVersion
from lockstep.errors import UnreachableError
from lockstep.rules.checkpoint import Checkpoint, sign_checkpoint
from lockstep.rules.merkle import NodeReader, completed_nodes, leaf_hash, root
from lockstep.rules.note import Signer, Verifier

ORIGIN = "lockstep/test"


def signer(name: str = "key") -> Signer:
    """A key that is the same for the same name."""
    return Signer(ORIGIN, hashlib.sha256(name.encode()).digest())


@dataclass
class MemoryLedger:
    """Entries with their tree; `sign()` makes the newest checkpoint, as the real ledger does after each append."""

    key: Signer = field(default_factory=signer)
    origin: str = ORIGIN
    entries: list[bytes] = field(default_factory=list)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    note: bytes | None = None
    older: tuple[Verifier, ...] = ()

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        return (*self.older, self.key.verifier)

    @property
    def size(self) -> int:
        return len(self.entries)

    def leaves(self, start: int, stop: int) -> list[bytes]:
        return self.entries[start:stop]

    def read_node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def with_nodes(self, call: Callable[[NodeReader], bytes]) -> bytes:
        return call(self.read_node)

    def checkpoint(self) -> bytes | None:
        return self.note

    def signed_sizes(self) -> frozenset[int]:
        return frozenset(range(self.size + 1))

    def append(self, *entries: bytes, sign: bool = True) -> MemoryLedger:
        for entry in entries:
            for level, index, value in completed_nodes(self.size, leaf_hash(entry), self.read_node):
                self.nodes[level, index] = value
            self.entries.append(entry)
        if sign:
            self.sign()
        return self

    def sign(self) -> None:
        self.note = sign_checkpoint(Checkpoint(self.origin, self.size, root(self.size, self.read_node)), self.key)


def entries(count: int, word: str = "entry", start: int = 0) -> list[bytes]:
    """That many different entries."""
    return [f'{{"{word}":{number}}}'.encode() for number in range(start, start + count)]


def ledger_of(count: int, word: str = "entry", key: str = "key") -> MemoryLedger:
    """A signed ledger of that many entries."""
    return MemoryLedger(signer(key)).append(*entries(count, word))


class KilledError(Exception):
    """The process ends here: no error that the product knows."""


class MemoryArchive(Archive):
    """Versions in a dictionary. `die_after` and `fail_after` count the writes that still succeed."""

    def __init__(self, cloud: str = "memory", enforced: bool = True) -> None:
        super().__init__(cloud, f"memory://{cloud}", self._bare)
        self.enforced = enforced
        self.objects: dict[str, list[bytes | None]] = {}
        self.writes: list[str] = []
        self.reads = 0
        self.die_after: int | None = None
        self.fail_after: int | None = None
        self.dies_before_answer = False
        self._lock = threading.Lock()

    @staticmethod
    def _bare(action: str) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, name: str, content: bytes | None) -> None:
        """Lay another version over what is there (None: a mark of deletion)."""
        self.objects.setdefault(name, []).append(content)

    def _protection(self) -> Protection:
        return Protection(self.enforced, "memory")

    def _create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        with self._lock:
            for limit, error in ((self.die_after, KilledError(name)), (self.fail_after, UnreachableError(name))):
                if limit is not None and len(self.writes) >= limit and not self.dies_before_answer:
                    raise error
            if name in self.objects:
                return False
            self.objects[name] = [content]
            self.writes.append(name)
            if self.dies_before_answer and self.die_after is not None and len(self.writes) > self.die_after:
                raise KilledError(name)
            return True

    def _read(self, version: StoredVersion) -> bytes:
        self.reads += 1
        content = self.objects[version.name][int(version.number)]
        assert content is not None
        return content

    def _versions(self, prefix: str, *, after: str = "", exact: bool = False) -> Iterator[StoredVersion]:
        with self._lock:
            held = [(name, list(versions)) for name, versions in self.objects.items() if name.startswith(prefix)]
        for name, versions in held:
            last = len(versions) - 1
            for number, content in enumerate(versions):
                current = number == last and content is not None
                yield StoredVersion(name, str(number), current, content is not None)


def names_of(archive: MemoryArchive, prefix: str) -> Iterable[str]:
    """Names in an archive, sorted."""
    return sorted(name for name in archive.objects if name.startswith(prefix))


@dataclass(frozen=True)
class Place:
    """A cloud as far as copying knows one."""

    name: str
    kept: Archive | None = None

    def archive(self) -> Archive | None:
        return self.kept
