"""Check a model folder against its manifest before anything in it is opened by a loader.

A model may be a pickle: loading it runs it. So a folder is accepted only if the manifest has the pinned digest, every
file that it names has the named size and SHA-256, and there is no file that it does not name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MANIFEST: Final = "manifest.json"
FILES: Final = "files"


class DigestMismatchError(Exception):
    """The bytes are not the version that was asked for. Names the file, what was expected and what was found."""


@dataclass(frozen=True)
class VerifiedModel:
    """A folder of MLflow model files that was checked byte for byte; `model` is the registered model's name."""

    model: str
    files: Path
    count: int


def find_root(folder: Path) -> Path:
    """The folder that holds the manifest: `folder` itself, or its only child that does (Azure ML adds a level)."""
    if (folder / MANIFEST).is_file():
        return folder
    roots = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if len(roots) != 1:
        raise DigestMismatchError(f"{folder} holds {len(roots)} manifests, expected exactly one {MANIFEST}")
    return roots[0]


def verify_folder(folder: Path, digest: str) -> VerifiedModel:
    """Check everything under `folder`; raises DigestMismatchError for the first difference in path order."""
    root = find_root(folder)
    sealed = (root / MANIFEST).read_bytes()
    found = hashlib.sha256(sealed).hexdigest()
    if found != digest:
        raise DigestMismatchError(f"{MANIFEST} has sha256 {found}, expected {digest}")
    manifest = json.loads(sealed)
    named = {entry["path"]: entry for entry in manifest["files"]}
    base = root / FILES
    present = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_symlink() or not path.is_dir()}
    for path in sorted(present - set(named)):
        raise DigestMismatchError(f"{path} is not in the manifest {digest}")
    for path, entry in sorted(named.items()):
        if path not in present:
            raise DigestMismatchError(f"{path} is missing")
        actual = sha256_file(base / path)
        if actual != entry["sha256"]:
            raise DigestMismatchError(f"{path} has sha256 {actual}, expected {entry['sha256']}")
    name = manifest.get("name") or manifest["model"]  # versions sealed by the first format call it so
    return VerifiedModel(name, base, len(named))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
