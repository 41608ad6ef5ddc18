r"""Checkpoints: a log's name, size and root in three lines, signed as a note.

The format is C2SP's tlog-checkpoint (c2sp.org/tlog-checkpoint): `<origin>\n<size>\nbase64(<root>)\n`, then extension
lines if there are any (Lockstep writes none). Whoever holds a checkpoint holds everything up to its size in place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lockstep.errors import NoteError
from lockstep.rules.merkle import check_hash
from lockstep.rules.note import Signer, Verifier, decode_base64, open_note, sign

SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")  # decimal without leading zeros, below 2**63


@dataclass(frozen=True)
class Checkpoint:
    """`size` entries (from 0) of the log `origin` have the root `root` (32 bytes)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all((self.origin, *self.extensions)) or "\n" in "".join((self.origin, *self.extensions)):
            raise NoteError("a checkpoint's lines may not be empty")
        if not SIZE.fullmatch(str(self.size)):
            raise NoteError(f"a checkpoint cannot be of {self.size} entries")
        check_hash(self.root, "a checkpoint's root")

    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note's text; raises NoteError. Who signed it is `open_checkpoint`'s question."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1]:
        raise NoteError("a checkpoint has three lines: origin, size and root")
    origin, size, root, *extensions = lines[:-1]
    if not SIZE.fullmatch(size):
        raise NoteError(f"a checkpoint's size is a decimal number, not {size!r}")
    try:
        decoded = decode_base64(root)
    except ValueError as error:
        raise NoteError(f"a checkpoint's root is base64, not {root!r}") from error
    return Checkpoint(origin, int(size), decoded, tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, *signers: Signer) -> bytes:
    """The signed note of a checkpoint."""
    return sign(checkpoint.text(), *signers)


def open_checkpoint(note: bytes, origin: str, verifiers: Iterable[Verifier]) -> Checkpoint:
    """The checkpoint in a note that one of `verifiers` signed; raises NoteError, also when it is of another log."""
    text, _ = open_note(note, verifiers)
    checkpoint = parse_checkpoint(text)
    if checkpoint.origin != origin:
        raise NoteError(f"the checkpoint is of the log {checkpoint.origin!r}, not {origin!r}")
    return checkpoint
