"""Check a report's folder, or a decision's proof file: offline, with nothing but what lies there and a key.

Without a key from elsewhere it shows that the folder is consistent with the keys that it names; who holds them is
what a key that somebody was given tells.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lockstep.errors import LockstepError, NotFoundError, RefusedError
from lockstep.operations.audit.collect import timeline
from lockstep.operations.audit.folder import (
    CHECKPOINT,
    DOCUMENT,
    ENTRIES,
    KEYS,
    KIND,
    MANIFESTS,
    PROOFS,
    SIGNATURES,
    SIGNING,
    SUMS,
)
from lockstep.operations.audit.lines import LeafLine, read_leaf
from lockstep.operations.proof import read_checkpoint, verify_decision_proof
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint
from lockstep.rules.history import read_history
from lockstep.rules.manifest import read_manifest
from lockstep.rules.note import Verifier, parse_vkey
from lockstep.rules.tlog_proof import verify_proof
from lockstep.stores.model_signature import verify_signature

SUM_LINE: Final = re.compile(r"([0-9a-f]{64})  (\S.*)")
ENTRY_FILE: Final = re.compile(rf"{ENTRIES}/(\d{{12}})\.json")


@dataclass(frozen=True)
class Verified:
    """What was checked: `problems` maps a file to what is wrong with it; empty when all holds."""

    place: Path
    problems: Mapping[str, str]
    entries: int
    checkpoint: Checkpoint | None
    keys: tuple[str, ...]


@dataclass
class _Check:
    """A check under way; `sums` are the digests that SHA256SUMS lists."""

    files: Mapping[str, bytes]
    sums: Mapping[str, str]
    problems: dict[str, str] = field(default_factory=dict)
    lines: dict[int, LeafLine] = field(default_factory=dict)

    def wrong(self, name: str, what: str) -> None:
        """The first thing that is wrong with a file is what is told."""
        self.problems.setdefault(name, what)

    def as_listed(self, name: str) -> bool:
        """Whether the file's bytes are those that SHA256SUMS lists."""
        return name in self.files and self.sums.get(name) == hashlib.sha256(self.files[name]).hexdigest()


def verify(place: Path, trusted: Iterable[Verifier] = ()) -> Verified:
    """Check a report's folder or a decision's proof file; `trusted` are ledger keys that are known from elsewhere.

    Raises NotFoundError for a place where there is neither.
    """
    given = tuple(trusted)
    if place.is_file():
        content = place.read_bytes()
        problems = verify_decision_proof(content, given)
        keys = tuple(key.vkey for key in given) or _named_keys(content)
        return Verified(place, {place.name: "; ".join(problems)} if problems else {}, 0, None, keys)
    if not (place / SUMS).is_file():
        raise NotFoundError(
            f"{place} is neither a report nor a decision's proof (there is no {SUMS})",
            hint="name the folder that `lockstep audit MODEL --out FOLDER` wrote",
        )
    try:
        files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    except OSError as error:
        raise RefusedError(
            f"{error.filename or place} cannot be read: {error.strerror}", hint="check its owner and mode"
        ) from error
    check = _Check(files, {})
    check.sums = _listed(check)
    verifiers = given or _keys(check)
    checkpoint = _checkpoint(check, verifiers, blame=bool(given) or check.as_listed(KEYS))
    if checkpoint is not None:
        _entries(check, checkpoint, verifiers)
        _own_entry(check)
    _bytes(check)
    _manifests(check)
    _signatures(check)
    _timeline(check)
    return Verified(place, check.problems, len(check.lines), checkpoint, tuple(key.vkey for key in verifiers))


def read_keys(given: Iterable[str]) -> tuple[Verifier, ...]:
    """Keys from the command line, each a verifier key or a file of them; raises RefusedError for what is neither."""
    found: list[Verifier] = []
    for text in given:
        try:
            path = Path(text)
            lines = path.read_text(encoding="utf-8").splitlines() if "+" not in text and path.is_file() else [text]
            found += [parse_vkey(line.strip()) for line in lines if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"{text} cannot be read as verifier keys: {error}", hint="see --key") from error
    return tuple(found)


def _named_keys(content: bytes) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(content)["keys"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()


def _keys(check: _Check) -> tuple[Verifier, ...]:
    try:
        lines = check.files.get(KEYS, b"").decode().splitlines()
        return tuple(parse_vkey(line) for line in lines if line.strip())
    except (LockstepError, UnicodeDecodeError) as error:
        check.wrong(KEYS, f"it holds no verifier keys: {error}")
        return ()


def _checkpoint(check: _Check, verifiers: tuple[Verifier, ...], *, blame: bool) -> Checkpoint | None:
    """The checkpoint that the proofs lead to: the folder's, or, where that is damaged, the one of a proof.

    `blame` tells whether the keys are right, so that it is the checkpoint that is wrong when they do not fit.
    """
    notes = {CHECKPOINT: check.files.get(CHECKPOINT, b"")}
    notes |= {name: data.partition(b"\n\n")[2] for name, data in check.files.items() if name.startswith(f"{PROOFS}/")}
    for name, data in notes.items():
        try:
            return open_checkpoint(data, read_checkpoint(data).origin, verifiers)
        except LockstepError as error:
            if name == CHECKPOINT and blame:
                check.wrong(CHECKPOINT, str(error) if data else "it is missing")
    check.wrong(KEYS, "no checkpoint here is signed by a key that it names")
    return None


def _listed(check: _Check) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in check.files[SUMS].decode(errors="replace").splitlines():
        match = SUM_LINE.fullmatch(line)
        if match is None:
            check.wrong(SUMS, f"it has a line that names no file: {line!r}")
        else:
            found[match[2]] = match[1]
    return found


def _bytes(check: _Check) -> None:
    """Every file is listed with its digest, but for the proofs, the checkpoint and the report's own entry."""
    for name in check.sums:
        match = ENTRY_FILE.fullmatch(name)
        proven = match is not None and int(match[1]) in check.lines
        if name not in check.files:
            check.wrong(name, "it is missing")
        elif not check.as_listed(name) and not proven:  # of an entry that is proven, it is the list that is wrong
            check.wrong(name, f"its bytes are not those that {SUMS} names")
    entries = sorted(name for name in check.files if ENTRY_FILE.fullmatch(name))
    unlisted = {SUMS, CHECKPOINT, *entries[-1:], *map(_proof_of, entries)}
    for name in check.files:
        if name not in check.sums and name not in unlisted:
            check.wrong(name, f"it is too many: {SUMS} does not name it")


def _proof_of(entry: str) -> str:
    return f"{PROOFS}/{entry.removeprefix(ENTRIES + '/').removesuffix('.json')}.tlog-proof"


def _entries(check: _Check, checkpoint: Checkpoint, verifiers: tuple[Verifier, ...]) -> None:
    """Each entry's bytes stand in the tree, at the index that its file is named after."""
    for name, data in sorted(check.files.items()):
        match = ENTRY_FILE.fullmatch(name)
        if match is None:
            continue
        index, proof_name = int(match[1]), _proof_of(name)
        proof = check.files.get(proof_name)
        if proof is None:
            check.wrong(proof_name, "it is missing")
            continue
        try:
            found, vouched = verify_proof(proof, data, checkpoint.origin, verifiers)
            if found != index or vouched != checkpoint:
                check.wrong(proof_name, f"it is of entry {found} in a tree of {vouched.size} entries")
                continue
            check.lines[index] = read_leaf(index, data)
        except (LockstepError, ValueError) as error:
            # The listed digest of an entry tells which of the two was changed; the report's own entry has none.
            blamed = [proof_name] if check.as_listed(name) else [name]
            for one in blamed if name in check.sums else [name, proof_name]:
                check.wrong(one, f"entry {index} cannot be proven: {error}")


def _own_entry(check: _Check) -> None:
    """The report's own entry vouches for the sums, and so for every file."""
    sums = hashlib.sha256(check.files[SUMS]).hexdigest()
    vouching = [line for line in check.lines.values() if line.kind == KIND and line.body.get("sums") == sums]
    if not vouching:
        check.wrong(SUMS, f"no proven entry of kind {KIND} names its digest: it was changed, or that entry is missing")
    elif not any(line.number == max(check.lines) for line in vouching):
        check.wrong(SUMS, "entries were added after the one that vouches for it")


def _manifests(check: _Check) -> None:
    for name, data in check.files.items():
        folder, _, rest = name.partition("/")
        if folder == MANIFESTS and rest != f"{hashlib.sha256(data).hexdigest()}.json":
            check.wrong(name, "its SHA-256 is not the digest that it is named after")


def _signatures(check: _Check) -> None:
    """Each signature is of the manifest of its version, by a key that lies here."""
    # A key that was changed is named as such, and is no key to check with.
    public = [data for name, data in check.files.items() if name.startswith(f"{SIGNING}/") and check.as_listed(name)]
    for name, data in check.files.items():
        folder, _, rest = name.partition("/")
        digest = rest.removesuffix(".sig")
        sealed = check.files.get(f"{MANIFESTS}/{digest}.json")
        if folder != SIGNATURES or sealed is None:
            continue
        try:
            verify_signature(data, read_manifest(sealed, digest), public, digest[:12])
        except (LockstepError, ValueError) as error:
            if check.as_listed(f"{MANIFESTS}/{digest}.json"):  # else it is the manifest that is wrong, and named
                check.wrong(name, str(error))


def _timeline(check: _Check) -> None:
    """What the report says of what served is what the entries say."""
    try:
        document = json.loads(check.files.get(DOCUMENT, b"{}"))
        listed = [one["index"] for one in document["entries"]]
        known = [check.lines[index] for index in listed if index in check.lines]
        told = [line for line in known if line.model == document["model"]]
        if len(known) == len(listed) and timeline(read_history(told)) != document["timeline"]:
            check.wrong(DOCUMENT, "its timeline is not the one that the entries tell")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        check.wrong(DOCUMENT, f"it is no report: {error!r}")
