"""The ledger as a folder that any tool for C2SP tlog-tiles reads: `checkpoint`, `tile/<level>/…`, `tile/entries/…`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lockstep.errors import LockstepError, NotFoundError, ProofError, RefusedError
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.tiles import tiles_between
from lockstep.stores.ledger.ledger import Ledger

CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True)
class Exported:
    """What the folder holds now, and how many files were added."""

    checkpoint: Checkpoint
    written: int


def export(ledger: Ledger, folder: Path) -> Exported:
    """Write what `folder` lacks of the newest checkpoint's tree: tiles first, the checkpoint last.

    An older export of the same ledger is continued. Raises NotFoundError when nothing is signed, RefusedError when the
    folder holds something else under a tile's name, LockstepError when it cannot be written, ProofError when the
    ledger was tampered with, as far as a look and the entries that are read tell.
    """
    _refuse(ledger.contradictions())
    note = ledger.checkpoint()
    if note is None:
        raise NotFoundError(
            "the ledger has no signed checkpoint, so an export could not be checked",
            hint="make a key with `lockstep keys create`; the next entry signs those before it",
        )
    checkpoint = open_checkpoint(note, ledger.origin, ledger.verifiers)
    written = 0
    try:
        for name in tiles_between(0, checkpoint.size):
            path, content = folder / name.path, ledger.tile(name)
            _refuse(ledger.altered)
            if path.exists():
                if path.read_bytes() != content:
                    raise RefusedError(f"{path} is not of this ledger", hint="export into a new folder")
                continue
            _write(path, content)
            written += 1
        _write(folder / CHECKPOINT, note)
    except OSError as error:
        raise LockstepError(f"{folder} cannot be written: {error.strerror}", hint="choose another folder") from error
    return Exported(checkpoint, written)


def _refuse(contradictions: tuple[str, ...]) -> None:
    if contradictions:
        raise ProofError(f"not exported: {'; '.join(contradictions)}", hint="run `lockstep ledger verify`")


def _write(path: Path, content: bytes) -> None:
    """In one step: whoever reads the folder meanwhile finds whole files only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unnamed = path.with_name(f".{path.name}.{os.getpid()}")
    unnamed.write_bytes(content)
    unnamed.replace(path)
