"""A model's folder on disk: which files it has, and whether they are the ones that a manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lockstep.errors import DigestMismatchError, RefusedError
from lockstep.rules.manifest import FileEntry, Manifest

FILES: Final = "files"
MANIFEST: Final = "manifest.json"
PIECE: Final = 1 << 20  # bytes


def measure_files(folder: Path, read: Callable[[int], None] | None = None) -> tuple[FileEntry, ...]:
    """Every file below `folder` with size and SHA-256, in order; `read` is told the bytes of each piece.

    Raises RefusedError for a symbolic link: what it points at would not travel with the folder.
    """
    entries = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise RefusedError(f"{path} is a symbolic link", hint="put the file itself there")
        if path.is_file():
            entries.append(FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path, read)))
    return tuple(sorted(entries))


def verify_files(folder: Path, manifest: Manifest, what: str) -> None:
    """Check a folder against a manifest; raises DigestMismatchError for the first difference in path order."""
    found = {entry.path: entry for entry in measure_files(folder)}
    expected = {entry.path: entry for entry in manifest.files}
    if not found:
        raise DigestMismatchError(
            f"all {len(expected)} files of {what} are gone", hint="restore them from a cloud that holds this version"
        )
    for path in sorted(found.keys() | expected.keys()):
        if path not in expected:
            raise DigestMismatchError(f"{what}: {path} is not in its manifest", hint=_HINT)
        if path not in found:
            raise DigestMismatchError(f"{what}: {path} is missing", hint=_HINT)
        if found[path].sha256 != expected[path].sha256:
            raise DigestMismatchError(
                f"{what}: {path} has sha256 {found[path].sha256}, expected {expected[path].sha256}", hint=_HINT
            )


def check_file(path: Path, entry: FileEntry, what: str) -> None:
    """Check one file against its entry; raises DigestMismatchError."""
    if not path.is_file():
        raise DigestMismatchError(f"{what}: {entry.path} is missing", hint=_HINT)
    found = sha256_of(path)
    if found != entry.sha256:
        raise DigestMismatchError(f"{what}: {entry.path} has sha256 {found}, expected {entry.sha256}", hint=_HINT)


def sha256_of(path: Path, read: Callable[[int], None] | None = None) -> str:
    """Hex SHA-256 of a file, read in pieces of a megabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
            if read is not None:
                read(len(piece))
    return digest.hexdigest()


_HINT: Final = "somebody changed it after registration; restore it from a cloud that holds this version"
