"""What a version is: its files and all that they came from, as one canonical JSON document whose SHA-256 names it.

Canonical means RFC 8785 (JSON Canonicalization Scheme): the same facts always give the same bytes, so the digest of
those bytes is the version's identity on every cloud. Nothing that changes between two identical registrations (a time,
a host name, MLflow's number, an alias) belongs in it; those are the ledger's. Attributes are named as the document's
keys. Numbers with a fraction are text and whole ones stay below 2^53, since JSON readers disagree about the others.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Final, TypeVar

import rfc8785

from lockstep.errors import DigestMismatchError, RefusedError

SCHEMA: Final = "lockstep/manifest/v2"
SCHEMA_V1: Final = "lockstep/manifest/v1"
#: What this release reads; it writes SCHEMA alone.
SCHEMAS: Final = (SCHEMA_V1, SCHEMA)
SHA256: Final = re.compile(r"[0-9a-f]{64}")
MOST: Final = 2**53 - 1  # the largest whole number that every JSON reader keeps

T = TypeVar("T")


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
class Tracking:
    """Where MLflow had the model when it was sealed; `model_id` is empty for files that are no logged model."""

    run_id: str = ""
    model_id: str = ""
    source: str = ""
    mlflow_version: str = ""


@dataclass(frozen=True)
class Code:
    """The code that trained it: commit, whether files differed from it, and the SHA-256 of that difference.

    All empty where nobody could tell.
    """

    git_commit: str = ""
    dirty: bool = False
    patch_sha256: str = ""


@dataclass(frozen=True)
class Dataset:
    """Data that it was trained on. `sha256` covers every byte and is empty for data that could not be read.

    `rows` is None where rows cannot be counted; `mlflow_digest` is MLflow's own, over a sample.
    """

    uri: str
    snapshot_id: str = ""
    sha256: str = ""
    rows: int | None = None
    mlflow_digest: str = ""


@dataclass(frozen=True)
class Environment:
    """What it is served with: interpreter, platform, the lock's SHA-256, and each cloud's image."""

    python: str = ""
    platform: str = ""
    lock_sha256: str = ""
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A sealed description of one version.

    `params` and `metrics` are the training run's, as text; `signature_sha256` is of the model's signature;
    `parents` are digests of the versions that this one was made from. The order in which files, data and parents
    are given means nothing.
    """

    schema: ClassVar[str] = SCHEMA

    name: str
    files: tuple[FileEntry, ...]
    mlflow: Tracking = Tracking()
    code: Code = Code()
    data: tuple[Dataset, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    signature_sha256: str = ""
    parents: tuple[str, ...] = ()
    env: Environment = Environment()

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        object.__setattr__(self, "data", tuple(sorted(self.data, key=lambda data: (data.uri, data.snapshot_id))))
        object.__setattr__(self, "parents", tuple(sorted(self.parents)))
        self._check()

    def _check(self) -> None:
        what = f"model {self.name!r}"
        _check_files(what, self.files)
        for file in self.files:
            _check_path(file.path)
            _check_whole(f"size of {file.path}", file.size)
        for data in self.data:
            _check_whole(f"rows of {data.uri}", data.rows or 0)
        digests = {
            "patch_sha256": self.code.patch_sha256,
            "signature_sha256": self.signature_sha256,
            "lock_sha256": self.env.lock_sha256,
            **{f"sha256 of {data.uri}": data.sha256 for data in self.data},
        }
        wrong = [name for name, digest in digests.items() if digest and not SHA256.fullmatch(digest)]
        wrong += [f"parent {parent!r}" for parent in self.parents if not SHA256.fullmatch(parent)]
        if wrong:
            raise RefusedError(f"{what}: not 64 hex digits: {', '.join(wrong)}")
        for kind, found in (("data", [(data.uri, data.snapshot_id) for data in self.data]), ("parents", self.parents)):
            if len(set(found)) != len(found):
                raise RefusedError(f"{what}: {kind} named twice: {', '.join(map(str, found))}")

    def to_bytes(self) -> bytes:
        """The canonical JSON (RFC 8785) that is stored and hashed."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "files": [asdict(file) for file in self.files],
            "mlflow": asdict(self.mlflow),
            "code": asdict(self.code),
            "data": [asdict(data) for data in self.data],
            "params": dict(self.params),
            "metrics": dict(self.metrics),
            "signature_sha256": self.signature_sha256,
            "parents": list(self.parents),
            "env": {**asdict(self.env), "images": dict(self.env.images)},
        }
        return rfc8785.dumps(document)  # type: ignore[arg-type]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of `to_bytes()`: the version's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def content(self) -> str:
        """Hex SHA-256 of the canonical list of files alone: equal for versions with the same bytes."""
        return files_digest(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class ManifestV1(Manifest):
    """A manifest of the first format, as far as its facts have a place in this one; `sealed` are its own bytes.

    It names no lock, no data and no code, and its version has no signature: it can be served and rolled back to.
    """

    schema: ClassVar[str] = SCHEMA_V1

    sealed: bytes = b""

    def _check(self) -> None:
        _check_files(f"model {self.name!r}", self.files)

    def to_bytes(self) -> bytes:
        """The bytes that were sealed then."""
        return self.sealed


def files_digest(files: Iterable[FileEntry]) -> str:
    """Hex SHA-256 of the canonical list of files, in order of their paths."""
    listed = [asdict(file) for file in sorted(files)]
    return hashlib.sha256(rfc8785.dumps(listed)).hexdigest()


def number_text(value: float) -> str:
    """A number as a manifest holds it: the shortest text that reads back as the same double, `nan`, `inf`, `-inf`."""
    return repr(float(value))


def case_clashes(files: Iterable[FileEntry]) -> tuple[tuple[str, ...], ...]:
    """Paths that are one and the same where upper and lower case are: a computer like that loses all but one."""
    folded: dict[str, list[str]] = {}
    for file in sorted(files):
        folded.setdefault(unicodedata.normalize("NFC", file.path.casefold()), []).append(file.path)
    return tuple(tuple(paths) for _, paths in sorted(folded.items()) if len(paths) > 1)


def read_manifest(sealed: bytes, digest: str) -> Manifest:
    """Parse stored bytes; raises DigestMismatchError unless they hash to `digest`.

    Raises RefusedError for another schema and for a document that is not exactly one that `to_bytes` writes: with
    keys too many, too few or twice, with values of other types, or in other than canonical form.
    """
    found = hashlib.sha256(sealed).hexdigest()
    if found != digest:
        raise DigestMismatchError(
            f"the stored manifest has sha256 {found}, expected {digest}",
            hint="somebody changed it after registration; restore it or register the model again",
        )
    try:
        body = json.loads(sealed)
        schema = body.get("schema", body.get("format"))
        if schema == SCHEMA_V1:
            return _read_v1(body, sealed)
        manifest = _read(body) if schema == SCHEMA else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"manifest {digest[:12]} is malformed: {error}") from error
    if manifest is None:
        known = " and ".join(repr(one) for one in SCHEMAS)
        raise RefusedError(
            f"manifest {digest[:12]} has schema {schema!r}; this release reads {known}",
            hint="another release of Lockstep sealed it: use that one, or register the files again",
        )
    try:
        canonical = manifest.to_bytes() == sealed
    except ValueError:  # half characters, which JSON can spell and UTF-8 cannot
        canonical = False
    if not canonical:
        raise RefusedError(f"manifest {digest[:12]} is not in canonical form (RFC 8785) or has keys of its own")
    return manifest


def _read(body: Any) -> Manifest:
    """Types only: keys too many or twice show when it is written again."""
    tracking, code, env = body["mlflow"], body["code"], body["env"]
    return Manifest(
        name=_is(str, body["name"]),
        files=_each(body["files"], lambda f: FileEntry(_is(str, f["path"]), _whole(f["size"]), _is(str, f["sha256"]))),
        mlflow=Tracking(**{key: _is(str, tracking[key]) for key in Tracking.__dataclass_fields__}),
        code=Code(_is(str, code["git_commit"]), _is(bool, code["dirty"]), _is(str, code["patch_sha256"])),
        data=_each(body["data"], _read_dataset),
        params=_texts(body["params"]),
        metrics=_texts(body["metrics"]),
        signature_sha256=_is(str, body["signature_sha256"]),
        parents=_each(body["parents"], lambda parent: _is(str, parent)),
        env=Environment(
            _is(str, env["python"]), _is(str, env["platform"]), _is(str, env["lock_sha256"]), _texts(env["images"])
        ),
    )


def _read_dataset(data: Any) -> Dataset:
    rows = None if data["rows"] is None else _whole(data["rows"])
    texts = {key: _is(str, data[key]) for key in Dataset.__dataclass_fields__ if key != "rows"}
    return Dataset(**texts, rows=rows)


def _read_v1(body: Any, sealed: bytes) -> ManifestV1:
    lineage, environment = body["lineage"], body["environment"]
    return ManifestV1(
        name=_is(str, body["model"]),
        files=_each(body["files"], lambda f: FileEntry(_is(str, f["path"]), _whole(f["size"]), _is(str, f["sha256"]))),
        mlflow=Tracking(run_id=_is(str, lineage["run_id"]), source=_is(str, lineage["source"])),
        params=_texts(lineage["parameters"]),
        metrics={name: number_text(value) for name, value in lineage["metrics"].items()},
        env=Environment(python=_is(str, environment["python"])),
        sealed=sealed,
    )


def _is(kind: type[T], value: object) -> T:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value


def _whole(value: object) -> int:
    return _is(int, value)


def _each(values: object, read: Callable[[Any], T]) -> tuple[T, ...]:
    return tuple(read(value) for value in _is(list, values))


def _texts(values: object) -> Mapping[str, str]:
    return {key: _is(str, value) for key, value in _is(dict, values).items()}


def _check_files(what: str, files: tuple[FileEntry, ...]) -> None:
    if not files:
        raise RefusedError(f"{what}: a version without files cannot be sealed")
    paths = [file.path for file in files]
    if len(set(paths)) != len(paths):
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise RefusedError(f"{what}: the manifest names a file twice: {', '.join(twice)}")


def _check_path(path: str) -> None:
    """One spelling for one file: what a path looks like must be what it is, on every computer."""
    if unicodedata.normalize("NFC", path) != path:
        raise RefusedError(
            f"file path {path!r} is not in Unicode's composed form (NFC)",
            hint="rename the file, or save the model anew",
        )
    if PurePosixPath(path).as_posix() != path or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in path):
        raise RefusedError(f"file path {path!r} is not a plain relative path", hint="rename the file")


def _check_whole(what: str, value: int) -> None:
    if not 0 <= value <= MOST:
        raise RefusedError(f"{what} is {value}; a manifest holds whole numbers from 0 to {MOST}")
