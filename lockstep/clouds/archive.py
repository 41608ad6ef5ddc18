"""Where a cloud keeps copies of the ledger: objects that are written once and read for years.

Every store has its own way of refusing change (S3 Object Lock, Azure's immutability policies, Cloud Storage's
retention). What they share is kept here: which of an object's versions counts (the first), and how it shows that
somebody tried to put another in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

Translated = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Protection:
    """What the store says of itself: `enforced` when nobody, its owner included, can change a copy before its time."""

    enforced: bool
    text: str


@dataclass(frozen=True)
class StoredVersion:
    """One version of one object; `number` is the store's name for it.

    `readable` is False for a mark of deletion and for bytes that are gone; `current` for what was replaced or deleted.
    """

    name: str
    number: str
    current: bool
    readable: bool = True


class Archive(ABC):
    """One bucket or container for copies of the ledger. Names are relative to a folder of its own in there.

    Methods raise errors of `lockstep.errors` only, are safe to call from several threads, and bound each request by
    the cloud's `call_timeout`.
    """

    def __init__(self, cloud: str, place: str, translated: Translated) -> None:
        self.cloud = cloud
        #: The folder's address: `s3://bucket/folder`.
        self.place = place
        self._translated = translated

    def protection(self) -> Protection:
        """What the store itself says about who can change what lies in it."""
        with self._translated(f"ask how {self.place} is protected"):
            return self._protection()

    def create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        """Write an object that nobody can change before `retain_until` (aware), as far as the store enforces that.

        Returns False, changing nothing, where an object of that name is or ever was: a second version written over a
        deleted one would look like the very tampering that `tampered` reports.
        """
        with self._translated(f"write {name} to {self.place}"):
            if any(version.name == name for version in self._versions(name, exact=True)):
                return False
            return self._create(name, content, retain_until)

    def read(self, name: str) -> bytes | None:
        """The first version ever written, as far as the store still has it; None where there is no such object."""
        with self._translated(f"read {name} from {self.place}"):
            for version in self._versions(name, exact=True):
                if version.name == name and version.readable:
                    return self._read(version)
            return None

    def names(self, prefix: str, after: str = "") -> tuple[str, ...]:
        """Names of all objects ever written that begin with `prefix` and sort behind `after`, sorted."""
        with self._translated(f"list {self.place}/{prefix}"):
            found = {version.name for version in self._versions(prefix, after=after)}
            return tuple(sorted(name for name in found if name > after))

    def tampered(self, prefix: str) -> tuple[str, ...]:
        """Names with more than one version, or deleted: somebody tried to change what is written once. Sorted."""
        with self._translated(f"list the versions in {self.place}/{prefix}"):
            versions = tuple(self._versions(prefix))
        times = Counter(version.name for version in versions)
        gone = {version.name for version in versions if not version.current}
        return tuple(sorted(name for name, count in times.items() if count > 1 or name in gone))

    @abstractmethod
    def _protection(self) -> Protection: ...

    @abstractmethod
    def _create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        """Write unless there is a current object of that name; False if there is."""

    @abstractmethod
    def _read(self, version: StoredVersion) -> bytes:
        """The bytes of one version."""

    @abstractmethod
    def _versions(self, prefix: str, *, after: str = "", exact: bool = False) -> Iterator[StoredVersion]:
        """Versions of objects whose names begin with `prefix`, each object's oldest first.

        `exact` asks for the object called `prefix`; others may be among the answers. `after` lets a store leave out
        names that do not sort behind it.
        """
