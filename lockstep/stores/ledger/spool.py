"""Where entries wait while the ledger cannot be written: a file of one JSON line each, fsynced, taken in order later.

A file is complete from the moment that it has its name, so processes that keep and that take need no lock. When the
folder itself cannot be written (a full or read-only disk), the user's state folder and then the temporary one are
tried, under a name that belongs to this ledger alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lockstep.stores.ledger.entry import Event, canonical, plain

SUFFIX: Final = ".jsonl"


@dataclass(frozen=True)
class Waiting:
    """A kept event with its file; None for a file that holds none."""

    path: Path
    event: Event | None


class Spool:
    """The waiting entries of one ledger; `name` is the ledger's, for the folders that several ledgers share."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folders = (folder, *_elsewhere(name))
        self._counter = itertools.count()

    def keep(self, event: Event) -> Path:
        """Write the event down and wait until it is on the disk; raises OSError when no folder takes it."""
        line = canonical(
            plain(
                {
                    "event_id": event.event_id,
                    "kind": event.kind,
                    "model": event.model,
                    "actor": event.actor,
                    "body": event.body,
                    "at": event.at,
                }
            )
        )
        # Nanoseconds first: in the order of names the entries are in the order of events.
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._counter):06d}"
        problem: OSError | None = None
        for folder in self._folders:
            try:
                return _write(folder, name, line + b"\n")
            except OSError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def waiting(self) -> tuple[Waiting, ...]:
        """What waits, oldest first."""
        paths: list[Path] = []
        for number, folder in enumerate(self._folders):
            with contextlib.suppress(OSError):
                # In folders that others may write to only what is our own is believed.
                if number == 0 or folder.stat().st_uid == os.geteuid():
                    paths += [path for path in folder.iterdir() if path.suffix == SUFFIX]
        return tuple(Waiting(path, _read(path)) for path in sorted(paths, key=lambda path: path.name))

    def remove(self, taken: Iterable[Waiting]) -> None:
        """Forget what stands in the ledger now."""
        for one in taken:
            with contextlib.suppress(OSError):  # taken again next time, and found to stand there already
                one.path.unlink()


def waiting_entries(spool: Spool) -> list[str]:
    """One sentence for each folder in which entries wait, and one for each file there that holds none."""
    found = spool.waiting()
    counts = Counter(one.path.parent for one in found if one.event is not None)
    told = [
        f"{count} {'entry waits' if count == 1 else 'entries wait'} in {folder}: the next operation appends what waits"
        for folder, count in counts.items()
    ]
    return told + [f"{one.path} is in the ledger's spool, but holds no entry" for one in found if one.event is None]


def _elsewhere(name: str) -> tuple[Path, ...]:
    mark = hashlib.sha256(name.encode()).hexdigest()[:12]
    folders = [Path(tempfile.gettempdir()) / f"lockstep-spool-{os.geteuid()}-{mark}"]
    with contextlib.suppress(RuntimeError):  # no home
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folders.insert(0, state / "lockstep" / f"spool-{mark}")
    return tuple(folders)


def _write(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unnamed, path = folder / f".{name}", folder / f"{name}{SUFFIX}"
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unnamed.rename(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the name, too
    finally:
        os.close(descriptor)
    return path


def _read(path: Path) -> Event | None:
    try:
        kept = json.loads(path.read_bytes())
        return Event(
            str(kept["event_id"]),
            str(kept["kind"]),
            str(kept["model"]),
            str(kept["actor"]),
            dict(kept["body"]),
            float(kept["at"]),
            late=True,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
