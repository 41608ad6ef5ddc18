"""What a version is: its files and where they came from, as one canonical JSON document whose SHA-256 names it.

Canonical means RFC 8785 (JSON Canonicalization Scheme): the same content always gives the same bytes, so the digest
of those bytes can be the version's identity on every cloud. Nothing that changes between two identical registrations
(a time, a host name, MLflow's number) belongs in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

import rfc8785

from lockstep.errors import DigestMismatchError, RefusedError

FORMAT: Final = "lockstep/manifest/v1"
SHA256: Final = re.compile(r"[0-9a-f]{64}")
PINNED: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?==[^=*\s;]+(\s*;.*)?$")


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of the model folder: POSIX path relative to it, size in bytes, hex SHA-256."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or "\\" in self.path:
            raise RefusedError(f"file path {self.path!r} is not a plain relative path")
        if not SHA256.fullmatch(self.sha256):
            raise RefusedError(f"sha256 of {self.path} is not 64 hex digits: {self.sha256!r}")


@dataclass(frozen=True)
class Manifest:
    """A sealed description of one version.

    `parameters` and `metrics` are the training run's, `requirements` the pinned lines of its requirements file,
    `python` the interpreter that it was trained with, `run_id` and `source` its origin in MLflow.
    """

    model: str
    files: tuple[FileEntry, ...]
    requirements: tuple[str, ...] = ()
    python: str = ""
    run_id: str = ""
    source: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.files:
            raise RefusedError(f"model {self.model!r}: a version without files cannot be sealed")
        if list(self.files) != sorted(set(self.files)):
            raise RefusedError(f"model {self.model!r}: the manifest's files must be sorted and distinct")

    def to_bytes(self) -> bytes:
        """The canonical JSON (RFC 8785) that is stored and hashed."""
        return rfc8785.dumps(
            {
                "format": FORMAT,
                "model": self.model,
                "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files],
                "environment": {"python": self.python, "requirements": list(self.requirements)},
                "lineage": {
                    "run_id": self.run_id,
                    "source": self.source,
                    "parameters": dict(self.parameters),
                    "metrics": {name: float(value) for name, value in self.metrics.items()},
                },
            }
        )

    @property
    def digest(self) -> str:
        """Hex SHA-256 of `to_bytes()`: the version's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def read_manifest(sealed: bytes, digest: str) -> Manifest:
    """Parse stored bytes; raises DigestMismatchError unless they hash to `digest`, RefusedError for another format."""
    found = hashlib.sha256(sealed).hexdigest()
    if found != digest:
        raise DigestMismatchError(
            f"the stored manifest has sha256 {found}, expected {digest}",
            hint="somebody changed it after registration; restore it or register the model again",
        )
    body = json.loads(sealed)
    if body.get("format") != FORMAT:
        raise RefusedError(f"manifest {digest[:12]} has format {body.get('format')!r}; this release reads {FORMAT!r}")
    lineage, environment = body["lineage"], body["environment"]
    return Manifest(
        model=body["model"],
        files=tuple(FileEntry(f["path"], f["size"], f["sha256"]) for f in body["files"]),
        requirements=tuple(environment["requirements"]),
        python=environment["python"],
        run_id=lineage["run_id"],
        source=lineage["source"],
        parameters=lineage["parameters"],
        # JSON's canonical form writes large doubles as integers; only as doubles are they the same numbers again.
        metrics={name: float(value) for name, value in lineage["metrics"].items()},
    )


def unpinned(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """The requirement lines that do not name one exact version (`name==1.2.3`), in order."""
    return tuple(line for line in requirements if not PINNED.match(line.strip()))
