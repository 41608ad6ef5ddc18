"""What registration keeps of a version, in its run's artifacts, under the version's own digest.

    lockstep/<manifest digest>/files/…            the model's bytes
    lockstep/<manifest digest>/requirements.lock  exact, hash-pinned environment
    lockstep/<manifest digest>/code.patch         what the code differed by from its commit, if it did
    lockstep/<manifest digest>/model.sig          OpenSSF model signature
    lockstep/<manifest digest>/manifest.json      written last

The source that MLflow registered may be overwritten by whoever logs to the run or the model again, which happens by
accident. This prefix is nobody's but Lockstep's; MLflow guards it no better, so nothing read here is believed before
it hashes to what the manifest says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from lockstep.errors import NotFoundError
from lockstep.rules.manifest import Manifest
from lockstep.stores.folders import FILES, MANIFEST
from lockstep.stores.mlflow_server import MlflowServer

LOCK: Final = "requirements.lock"
PATCH: Final = "code.patch"
SIGNATURE: Final = "model.sig"
#: What lies beside the files in every copy of a version: the patch alone stays with the run.
TRAVELS: Final = (LOCK, SIGNATURE)
#: What is done, bytes so far, bytes in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Capture:
    """A version as it is kept: `folder` holds the files that the manifest names; what is empty is not kept."""

    manifest: Manifest
    folder: Path
    lock: bytes = b""
    patch: bytes = b""
    signature: bytes = b""


class Captures(MlflowServer):
    """Captures on one MLflow server."""

    def keep(self, capture: Capture, run_id: str, progress: Progress) -> None:
        """Store a capture in a run. Written each time: the same bytes, which mends one that was cut short or changed.

        The manifest comes last, so that where it lies everything once lay.
        """
        manifest = capture.manifest
        home, done = prefix(manifest.digest), 0
        for file in manifest.files:
            progress(f"keeping {file.path}", done, manifest.size)
            parent = PurePosixPath(home, FILES, file.path).parent.as_posix()
            with self.translated(f"keep {file.path} of {manifest.name} in run {run_id}"):
                self.client.log_artifact(run_id, str(capture.folder / file.path), parent)
            done += file.size
        beside = {LOCK: capture.lock, PATCH: capture.patch, SIGNATURE: capture.signature}
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            for name, content in {**beside, MANIFEST: manifest.to_bytes()}.items():
                if not content:
                    continue
                path = Path(scratch) / name
                path.write_bytes(content)
                with self.translated(f"keep {name} of {manifest.name} in run {run_id}"):
                    self.client.log_artifact(run_id, str(path), home)
        progress(f"kept {len(manifest.files)} files", done, manifest.size)

    def kept(self, run_id: str, digest: str, name: str) -> bytes | None:
        """One thing that lies beside the files, as it is there now; None for one that is not there."""
        if not run_id:
            return None
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            try:
                return self.download_file(
                    f"runs:/{run_id}/{prefix(digest)}/{name}", Path(scratch), f"give {name} of run {run_id}"
                ).read_bytes()
            except (NotFoundError, OSError):  # a folder is what MLflow answers a missing file with
                return None

    def kept_files(self, run_id: str, digest: str, scratch: Path, path: str = "") -> Path:
        """Download the kept files (or one) below `scratch`, unchecked; an empty folder where there are none."""
        uri = f"runs:/{run_id}/{PurePosixPath(prefix(digest), FILES, path)}"
        return self._fetched(uri, scratch, f"give the files of run {run_id}")

    def _fetched(self, uri: str, scratch: Path, action: str) -> Path:
        try:
            return self.download(uri, scratch, action)
        except NotFoundError:  # some stores say so, others give an empty folder
            (empty := scratch / FILES).mkdir(exist_ok=True)
            return empty


def prefix(digest: str) -> str:
    """Where a version is kept, below its run's artifacts."""
    return f"lockstep/{digest}"
