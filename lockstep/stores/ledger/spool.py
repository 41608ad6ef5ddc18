"""Where entries wait while the ledger cannot be written: a file of one JSON line each, fsynced, taken in order later.

A file is complete from the moment that it has its name, so processes that keep and that take need no lock. When the
folder itself cannot be written (a full or read-only disk), the user's state folder and then the temporary one are
tried, under a name that belongs to this ledger alone.

Under the JSON stands a signature by the ledger's key, since the next append signs whatever waits: an entry without one,
kept while there was no key or put there by somebody else, is appended under another event id and marked `unvouched`, so
that it takes nobody's place. It decides nothing, neither while it waits nor afterwards.
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lockstep.errors import LockstepError
from lockstep.rules.deeds import UNVOUCHED
from lockstep.rules.note import Signer, Verifier, open_note, sign
from lockstep.stores.ledger.entry import DEEPEST, Entry, Event, canonical, decode, encode, nested, plain, text

SUFFIX: Final = ".jsonl"
SIGNED: Final = "lockstep/spool/v1"
REFERENCES: Final = ("intent", "within")


@dataclass(frozen=True)
class Waiting:
    """A kept event with its file; None for a file that holds none."""

    path: Path
    event: Event | None


class Spool:
    """The waiting entries of one ledger; `name` is the ledger's, for the folders that several ledgers share.

    `signer` vouches for what is kept, `verifiers` are believed; without any key nothing is marked.
    """

    def __init__(
        self, folder: Path, name: str, signer: Signer | None = None, verifiers: Sequence[Verifier] = ()
    ) -> None:
        self._signer = signer
        self._verifiers = tuple(verifiers)
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
                return _write(folder, name, line + b"\n" + self._signature(line))
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
        return tuple(Waiting(path, self._read(path)) for path in sorted(paths, key=lambda path: path.name))

    def entries(self) -> tuple[Entry, ...]:
        """What waits and was vouched for, oldest first, with numbers below 0 in that order; of each event id the first.

        So the next append takes them. What nobody vouches for decides nothing, and afterwards neither.
        """
        waiting = self.waiting()
        found: dict[str, Event] = {}
        for one in waiting:
            if one.event is not None and not one.event.unvouched:
                found.setdefault(one.event.event_id, one.event)
        return tuple(
            Entry(number, one.event_id, one.at or 0.0, one.kind, one.model, one.actor, dict(one.body), late=True)
            for number, one in enumerate(found.values(), -len(waiting))
        )

    def remove(self, taken: Iterable[Waiting]) -> None:
        """Forget what stands in the ledger now."""
        for one in taken:
            with contextlib.suppress(OSError):  # taken again next time, and found to stand there already
                one.path.unlink()

    def _signature(self, line: bytes) -> bytes:
        if self._signer is None:
            return b""
        return sign(_signed_text(line), self._signer).rpartition(b"\n\n")[2]

    def _read(self, path: Path) -> Event | None:
        """The event in a file; None for what `keep` never wrote and no append could take: it may hold up no other."""
        try:
            if not path.is_file():  # reading a pipe would wait for ever
                return None
            line, _, signature = path.read_bytes().partition(b"\n")
            event = _parse(line)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        if not self._verifiers or self._vouched(line, signature):
            return event
        body = {name: _apart(value) if name in REFERENCES else value for name, value in event.body.items()}
        return replace(event, event_id=_apart(event.event_id), body=body, unvouched=True)

    def _vouched(self, line: bytes, signature: bytes) -> bool:
        try:
            open_note(_signed_text(line).encode() + b"\n" + signature, self._verifiers)
        except (LockstepError, ValueError):
            return False
        return True


def _parse(line: bytes) -> Event:
    """Raises ValueError, KeyError, TypeError, OverflowError or RecursionError for what can be no entry."""
    kept = json.loads(line)
    event_id, kind, model, actor = names = [str(kept[name]) for name in ("event_id", "kind", "model", "actor")]
    if names != [text(name) for name in names]:
        raise ValueError("no database takes its names")
    if nested(kept["body"]) > DEEPEST:
        raise ValueError("it is nested too deeply")
    body = plain(dict(kept["body"]))
    assert isinstance(body, dict)
    at = float(kept["at"])
    event = Event(event_id, kind, model, actor, body, at, late=True)
    decode(0, encode(event, at, actor))  # the append does the same, with all that waits in one transaction
    return event


def _signed_text(line: bytes) -> str:
    """Two lines, so that it can never be taken for a checkpoint, which the same key signs."""
    return f"{SIGNED}\n{line.decode()}\n"


def _apart(reference: object) -> str:
    return UNVOUCHED + str(reference).removeprefix(UNVOUCHED)


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
