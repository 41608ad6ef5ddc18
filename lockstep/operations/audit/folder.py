"""The report as a folder: written whole beside its place, then put there; its digest stands in the ledger.

index.html audit.json       the report, for people and for programs
entries/<index>.json        every entry of the model, its exact bytes
manifests/<digest>.json     every version's sealed manifest
keys.txt                    verifier keys that may have signed the checkpoint, one a line
SHA256SUMS                  of all of the above; its own SHA-256 stands in the report's own entry, the last
proofs/<index>.tlog-proof   that each entry stands in the ledger
checkpoint                  the signed note that all proofs lead to
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.audit.collect import Audit
from lockstep.operations.audit.page import draw, render
from lockstep.operations.audit.picture import standing_alone
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.operations.proof import Log, prove
from lockstep.rules.note import Verifier

PAGE: Final = "index.html"
DOCUMENT: Final = "audit.json"
TIMELINE: Final = "timeline.svg"
CHANGES: Final = "changes.svg"
SUMS: Final = "SHA256SUMS"
CHECKPOINT: Final = "checkpoint"
KEYS: Final = "keys.txt"
ENTRIES: Final = "entries"
PROOFS: Final = "proofs"
MANIFESTS: Final = "manifests"
SIGNATURES: Final = "signatures"
SIGNING: Final = "signing"
KIND: Final = "audit.outcome"


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than an older report."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / SUMS).is_file())):
        raise RefusedError(f"{folder} is there and is no report", hint="name a new or an empty folder: --out")


def write_report(
    fleet: Fleet, log: Log, verifiers: Iterable[Verifier], audit: Audit, folder: Path, *, vouch: bool = True
) -> None:
    """Write the report to `folder`, in the place of an older one; the ledger gets an entry that vouches for it.

    Without `vouch` nothing is appended, for a ledger that does not hold: what is forged is not built upon. The report
    then has neither checkpoint nor proofs, and a check of it fails.

    Raises RefusedError, with nothing written there, when the ledger has no signed checkpoint or the folder holds
    something else.
    """
    check_place(folder)
    pictures = draw(audit)
    content = {
        PAGE: render(audit, pictures).encode(),
        TIMELINE: standing_alone(pictures.scale).encode(),
        CHANGES: standing_alone(pictures.steps).encode(),
        DOCUMENT: (json.dumps(audit.document, indent=2, ensure_ascii=False) + "\n").encode(),
        KEYS: "".join(f"{verifier.vkey}\n" for verifier in verifiers).encode(),
        **{entry_file(index): leaf for index, leaf in audit.leaves.items()},
        **{f"{MANIFESTS}/{digest}.json": sealed for digest, sealed in audit.manifests.items()},
        **{f"{SIGNATURES}/{digest}.sig": signature for digest, signature in audit.signatures.items()},
        **{f"{SIGNING}/{number}.pub": public for number, public in enumerate(fleet.keys.signing_public)},
    }
    sums = "".join(f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content)).encode()
    if not vouch:
        _put(folder, content | {SUMS: sums})
        return
    body = {key: audit.document[key] for key in ("from", "to")} | {
        "entries": len(audit.leaves),
        "sums": hashlib.sha256(sums).hexdigest(),
    }
    own = note(fleet, KIND, body)
    if own.number < 0:
        raise LockstepError(
            "the ledger cannot be written now, so nothing would vouch for the report",
            hint="mend the ledger and ask for the report again",
        )
    checkpoint, proven = prove(log, [*audit.leaves, own.number])
    content |= {SUMS: sums, CHECKPOINT: checkpoint}
    content |= {proof_file(one.index): one.proof for one in proven}
    content |= {entry_file(one.index): one.entry for one in proven if one.index == own.number}
    _put(folder, content)


def entry_file(index: int) -> str:
    """Name of an entry's file in the folder."""
    return f"{ENTRIES}/{index:012d}.json"


def proof_file(index: int) -> str:
    """Name of the file of an entry's proof."""
    return f"{PROOFS}/{index:012d}.tlog-proof"


def _put(folder: Path, content: Mapping[str, bytes]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            whole = Path(scratch) / "report"
            for name, data in content.items():
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            if folder.exists():
                folder.rename(Path(scratch) / "older")
            whole.rename(folder)
            shutil.rmtree(Path(scratch) / "older", ignore_errors=True)
    except OSError as error:
        raise RefusedError(
            f"{folder} cannot be written: {error.strerror}", hint="name another folder: --out"
        ) from error
