"""Folders of files that MLflow keeps, compared with what a manifest names; every difference, not only the first."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from lockstep.errors import NotFoundError
from lockstep.rules.manifest import FileEntry
from lockstep.stores.folders import sha256_of
from lockstep.stores.mlflow_server import ONLY_IN_DOWNLOADS, MlflowServer


def files_below(server: MlflowServer, uri: str, action: str) -> frozenset[str]:
    """Paths of all files below an artifact URI, relative to it; none where there is no such folder."""

    def walk(folder: str) -> Iterator[str]:
        for name, is_folder in server.folder_names(f"{root}/{folder}".rstrip("/"), action):
            path = PurePosixPath(folder, name).as_posix()
            if is_folder:
                yield from walk(path)
            elif path != ONLY_IN_DOWNLOADS:
                yield path

    root = _root(server, uri, action)
    return frozenset(walk(""))


def compare_files(
    server: MlflowServer, uri: str, entries: Sequence[FileEntry], read: Collection[str], action: str
) -> Mapping[str, str]:
    """What is wrong with the files below an artifact URI, by path; empty when they are those that `entries` name.

    All are looked for, also those that are too many; the bytes of those in `read` are downloaded, one file at a time,
    and hashed.
    """
    try:
        root = _root(server, uri, action)  # asked once: what a URI stands for is no matter of any one file
        present = files_below(server, root, action)
    except NotFoundError as error:  # the logged model or the run that the URI names
        return {"": f"all files are gone: {error.problem}"}
    if not present:
        return {"": f"all {len(entries)} files are gone from {uri}"}
    named = {entry.path for entry in entries}
    problems = dict.fromkeys(present - named, "is not part of the version")
    for entry in entries:
        if entry.path not in present:
            problems[entry.path] = "is missing"
        elif entry.path in read and (found := _sha256(server, f"{root}/{entry.path}", action)):
            if found != entry.sha256:
                problems[entry.path] = f"has sha256 {found}, expected {entry.sha256}"
        elif entry.path in read:
            problems[entry.path] = "is missing"
    return problems


def _root(server: MlflowServer, uri: str, action: str) -> str:
    with server.translated(action):
        return server.stored_at(uri).rstrip("/")


def _sha256(server: MlflowServer, uri: str, action: str) -> str:
    """Hex SHA-256 of one file; "" for one that went away meanwhile."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch, contextlib.suppress(NotFoundError):
        found = server.download_file(uri, Path(scratch), action)
        return sha256_of(found) if found.is_file() else ""
    return ""
