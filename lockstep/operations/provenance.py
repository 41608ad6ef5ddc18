"""Where a version comes from: the code that trained it and the data that it was trained on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.origin import Progress
from lockstep.rules.manifest import Code, Dataset, files_digest
from lockstep.stores.folders import measure_files, sha256_of

if TYPE_CHECKING:
    from mlflow.entities import Run

GIT_TIMEOUT: Final = 60.0  # seconds
COMMIT_TAG: Final = "mlflow.source.git.commit"
CSV: Final = (".csv",)
PARQUET: Final = (".parquet", ".pq")
#: What a person's git may be set to that would change a patch's bytes.
PLAIN: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--full-index", "--src-prefix=a/",
                "--dst-prefix=b/", "--no-renames", "--unified=3", "--diff-algorithm=myers")  # fmt: skip


@dataclass(frozen=True)
class CodeState:
    """The code as a manifest names it, and the patch that brings its commit to what was trained from."""

    code: Code
    patch: bytes = b""


def read_code(folder: Path | None, tags: Mapping[str, str], progress: Progress) -> CodeState:
    """State of the git repository around `folder`; without one, the commit that the run's tags name, or nothing.

    The patch holds every change to files that git tracks. Raises NotFoundError for a folder that is not there.
    """
    logged = CodeState(Code(git_commit=tags.get(COMMIT_TAG, "")))
    if folder is None:
        return logged
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {folder}", hint="--code names the folder of the code that trained it")
    commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}")
    if commit is None:
        known = f"the run names commit {logged.code.git_commit}" if logged.code.git_commit else "nor does the run"
        progress(f"{folder} gives no git commit; {known}", 0, 0)
        return logged
    patch = _git(folder, "-c", "core.quotePath=true", "diff", *PLAIN, "HEAD")
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "--full-name", ":/")
    if patch is None or new is None:
        raise RefusedError(
            f"git does not say what differs from commit {commit.decode().strip()} in {folder}",
            hint=f"run `git -C {folder} diff HEAD` to see why, or leave --code out",
        )
    if untracked := len(new.splitlines()):
        progress(f"{untracked} files in {folder} are not known to git, so no commit and no patch holds them", 0, 0)
    digest = hashlib.sha256(patch).hexdigest() if patch else ""
    return CodeState(Code(commit.decode().strip(), dirty=bool(patch), patch_sha256=digest), patch)


def read_data(given: Sequence[str], run: Run | None, progress: Progress) -> tuple[Dataset, ...]:
    """The training data: what a person named, and what the run logged.

    `given` are paths, or `uri=path` or `uri@snapshot=path` for a copy of what lies elsewhere. A file's digest is of
    all its bytes, a folder's of its list of files with theirs. What the run logged is hashed where its source is a
    local file; of other data only MLflow's own digest is known, which is of a sample.
    """
    logged = {data.uri: data for data in _logged(run, progress)}
    found: dict[tuple[str, str], Dataset] = {}
    for text in given:
        data = _given(text, progress)
        same = logged.pop(data.uri, None)
        data = replace(data, mlflow_digest=same.mlflow_digest) if same is not None else data
        if found.setdefault((data.uri, data.snapshot_id), data) != data:
            raise RefusedError(f"--data names {data.uri} twice, with different content", hint="name each snapshot once")
    for data in logged.values():
        found.setdefault((data.uri, data.snapshot_id), data)
    return tuple(found.values())


def measure_data(path: Path, progress: Progress) -> tuple[str, int | None]:
    """SHA-256 over everything in a file or folder, and its rows where it is CSV (less a heading each) or Parquet."""
    if path.is_file():
        total = path.stat().st_size
        done = 0

        def read(size: int) -> None:
            nonlocal done
            done += size
            progress(f"hashing {path}", done, total)

        return sha256_of(path, read), _rows(path)
    progress(f"hashing {path}", 0, 0)
    entries = measure_files(path)
    if not entries:
        raise RefusedError(f"{path} holds no file", hint="name the folder that holds the data")
    counts = [_rows(path / entry.path) for entry in entries]
    known = [count for count in counts if count is not None]
    return files_digest(entries), sum(known) if known else None


def _given(text: str, progress: Progress) -> Dataset:
    if Path(text).exists():
        digest, rows = measure_data(Path(text), progress)
        return Dataset(text, sha256=digest, rows=rows)
    for place in (index for index, sign in enumerate(text) if sign == "="):
        name, path = text[:place], Path(text[place + 1 :]).expanduser()
        if name and path.exists():
            uri, at, snapshot = name.rpartition("@")
            if not at or "/" in snapshot:  # somebody's name in an address
                uri, snapshot = name, ""
            digest, rows = measure_data(path, progress)
            return Dataset(uri, snapshot, digest, rows)
    raise NotFoundError(
        f"--data {text}: there is no such file or folder",
        hint="name a path, or where it comes from and a copy of it: s3://bucket/train.parquet@VERSION=train.parquet",
    )


def _logged(run: Run | None, progress: Progress) -> list[Dataset]:
    """What `mlflow.log_input` told; one entry a source."""
    found: dict[str, Dataset] = {}
    inputs = run.inputs.dataset_inputs if run is not None and run.inputs is not None else []
    for dataset in (one.dataset for one in inputs):
        uri = _source_uri(dataset.source) or f"mlflow:{dataset.name}"
        path = _local(uri) if dataset.source_type in ("local", "file") else None
        digest, rows = measure_data(path, progress) if path is not None else ("", None)
        found.setdefault(uri, Dataset(uri, "", digest, rows, str(dataset.digest or "")))
    return list(found.values())


def _source_uri(source: str) -> str:
    """The address in a source as MLflow keeps it, a JSON document; "" where there is none."""
    try:
        document = json.loads(source)
    except ValueError:
        return ""
    named = document.get("uri") or document.get("url") or document.get("path") if isinstance(document, dict) else ""
    return str(named or "")


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    path = Path(unquote(parts.path) if parts.scheme == "file" else uri)
    return path if path.exists() else None


def _rows(path: Path) -> int | None:
    kind = path.suffix.lower()
    try:
        if kind in PARQUET:
            import pyarrow.parquet

            return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
        if kind in CSV:
            with path.open(encoding="utf-8", errors="replace", newline="") as stream:
                return max(0, sum(1 for row in csv.reader(stream) if row) - 1)
    except (ValueError, OSError, csv.Error):
        return None
    return None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Standard output of one git command; None when it fails, takes too long, or there is no git."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
