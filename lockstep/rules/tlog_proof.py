"""Proof files: that an entry stands in a log, in one small text that is checked offline with the log's key alone.

The format is C2SP's tlog-proof (c2sp.org/tlog-proof): a first line that names it, the entry's index, the inclusion
proof's hashes in base64, an empty line, and the signed checkpoint as it is. Files end in `.tlog-proof`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Final

from lockstep.errors import ProofError
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.merkle import check_hash, leaf_hash, verify_inclusion
from lockstep.rules.note import Verifier, decode_base64

HEADER: Final = "c2sp.org/tlog-proof@v1"
INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")
EXTRA: Final = "extra "


def make_proof(index: int, path: Sequence[bytes], checkpoint_note: bytes) -> bytes:
    """The proof file of entry `index`; `path` is its inclusion proof in the tree that the checkpoint is of."""
    lines = [HEADER, f"index {index}"]
    for number, value in enumerate(path):
        check_hash(value, f"hash {number} of the proof")
        lines.append(base64.b64encode(value).decode())
    return "\n".join(lines).encode() + b"\n\n" + checkpoint_note


def verify_proof(proof: bytes, entry: bytes, origin: str, verifiers: Iterable[Verifier]) -> tuple[int, Checkpoint]:
    """The index of `entry` and the checkpoint that vouches for it; raises ProofError (NoteError for the checkpoint).

    Only what the checkpoint's signature and the hashes cover is believed; an `extra` line is passed over.
    """
    index, path, note = _parse(proof)
    checkpoint = open_checkpoint(note, origin, verifiers)
    verify_inclusion(leaf_hash(entry), index, checkpoint.size, path, checkpoint.root)
    return index, checkpoint


def _parse(proof: bytes) -> tuple[int, tuple[bytes, ...], bytes]:
    """Index, hashes and the checkpoint's note."""
    head, _, note = proof.partition(b"\n\n")
    first, *lines = head.decode("ascii", errors="replace").split("\n")
    if first != HEADER:
        raise ProofError(f"this is no proof file: its first line is not {HEADER}")
    try:
        if lines and lines[0].startswith(EXTRA):
            decode_base64(lines.pop(0).removeprefix(EXTRA))
        path = tuple(decode_base64(line) for line in lines[1:])
    except ValueError as error:
        raise ProofError(f"the proof file is damaged: {error}") from error
    match = INDEX.fullmatch(lines[0]) if lines else None
    if match is None:
        raise ProofError("the proof file names no entry's index")
    return int(match[1]), path, note
