"""The newest checkpoint in a file beside the database, where a database that was put back to an older state shows.

It only ever moves to a checkpoint whose ledger holds the one before: what contradicts it is told and not overwritten.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sqlalchemy import Connection, select

from lockstep.errors import LockstepError
from lockstep.rules.checkpoint import Checkpoint, parse_checkpoint
from lockstep.stores.ledger.tables import CHECKPOINT, blob


class NewestCheckpoint:
    """The file at `path`; missing until something is signed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """The signed note, None when there is none."""
        try:
            return self.path.read_bytes() or None
        except OSError:
            return None

    def contradiction(self, connection: Connection, newest: bytes | None, note: bytes | None) -> str:
        """What the database, with `newest` as its checkpoint, lacks of `note`, which this file held; empty: nothing.

        Whoever is not the writer takes `note` before the moment of `connection`: others move both on together.
        """
        if note is None or note == newest:
            return ""
        seen = text_of(note)
        if seen is None:
            return f"{self.path} holds no checkpoint"
        stands = connection.execute(select(CHECKPOINT.c.note).where(CHECKPOINT.c.size == seen.size)).scalar()
        if stands is not None and text_of(blob(stands)) == seen:
            return ""
        return f"the ledger does not hold the {seen.size} entries that {self.path} has seen"

    def write(self, note: bytes) -> None:
        """Replace the file; not fsynced, as an older checkpoint in it is right as well."""
        unnamed = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        unnamed.write_bytes(note)
        unnamed.replace(self.path)


def text_of(note: bytes) -> Checkpoint | None:
    """The checkpoint that the note tells of, whoever signed it; None when it tells of none."""
    try:
        return parse_checkpoint(note.decode().rpartition("\n\n")[0] + "\n")
    except (LockstepError, ValueError):
        return None
