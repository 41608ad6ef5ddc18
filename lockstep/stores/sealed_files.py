"""A sealed version's bytes, read from MLflow and checked: manifest, files, lock, signature."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lockstep.errors import DigestMismatchError, RefusedError
from lockstep.rules.manifest import SCHEMA_V1, Manifest, read_manifest
from lockstep.rules.state import Version
from lockstep.stores.captures import LOCK, SIGNATURE, Captures, prefix
from lockstep.stores.folders import FILES, MANIFEST, check_file, sha256_of, verify_files
from lockstep.stores.mlflow_rest import AnyVersion
from lockstep.stores.signature import example_rows

SCRATCH: Final = ".fetch-"
Tell = Callable[[str], None]


def ignore(*_: object) -> None:
    """For callers that show nothing."""


class SealedFiles(Captures, ABC):
    """The bytes of versions on one MLflow server."""

    @abstractmethod
    def _current(self, version: Version) -> AnyVersion:
        """MLflow's record under the version's number, if it is still this very version; raises otherwise."""

    def manifest(self, version: Version) -> Manifest:
        """The version's manifest; raises DigestMismatchError unless it hashes to the digest and names this version."""
        return read_own_manifest(self._sealed_bytes(version), version)

    def lock(self, version: Version) -> bytes:
        """The version's hash-pinned requirements; raises DigestMismatchError unless they are the sealed ones.

        Raises RefusedError for a version that was sealed without.
        """
        manifest = self.manifest(version)
        if not manifest.env.lock_sha256:
            raise RefusedError(
                f"{version} was sealed without a lock",
                hint=f"register it: lockstep register {version.model} runs:/<run_id>/<path>",
            )
        return self._lock(version, manifest, None)

    def signature(self, version: Version) -> bytes | None:
        """The version's signature (OpenSSF bundle) as it lies there, unchecked; None for one without."""
        return self.kept(self._current(version).run_id or "", version.digest, SIGNATURE)

    def fetch(self, version: Version, folder: Path, tell: Tell = ignore) -> Path:
        """Download the version to `folder`, checked byte for byte; returns `folder`.

        There are then `files/` and `manifest.json`, `requirements.lock` if it was sealed with one, and `model.sig` if
        there is one (unchecked: who may sign is not a matter of the store). Taken from what registration captured; if
        that is gone or changed, from the source that MLflow registered, and `tell` is told so.

        A folder that already holds exactly this version is left as it is, an older version in it is replaced. Raises
        DigestMismatchError naming the first file that differs, is missing or is too many; nothing is left then.
        """
        sealed = self._sealed_bytes(version)
        manifest = read_own_manifest(sealed, version)
        signature = self.signature(version)
        if _holds(folder, sealed, manifest, signature, version):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            files = self._checked(
                version, manifest, Path(scratch), lambda found: verify_files(found, manifest, str(version)), tell=tell
            )
            lock = self._lock(version, manifest, files) if manifest.env.lock_sha256 else b""
            # In this order a process that is killed leaves a folder that the next call knows for its own.
            (folder / MANIFEST).write_bytes(sealed)
            shutil.rmtree(folder / FILES, ignore_errors=True)
            files.rename(folder / FILES)
            for name, content in ((LOCK, lock), (SIGNATURE, signature)):
                (folder / name).unlink(missing_ok=True)
                if content:
                    (folder / name).write_bytes(content)
        return folder

    def example_rows(self, version: Version) -> tuple[Mapping[str, object], ...]:
        """One row that the version's signature accepts, for a probe; empty for a model that takes no named columns."""
        manifest = self.manifest(version)
        entry = next((file for file in manifest.files if file.path == "MLmodel"), None)
        if entry is None:
            return ()
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            path = self._checked(
                version, manifest, Path(scratch), lambda found: check_file(found, entry, str(version)), entry.path
            )
            return example_rows(path.read_text(encoding="utf-8"))

    def _sealed_bytes(self, version: Version) -> bytes:
        run_id = self._current(version).run_id or ""
        found = self.kept(run_id, version.digest, MANIFEST)
        if found is None:
            raise DigestMismatchError(
                f"{version} has no manifest in MLflow (expected {prefix(version.digest)}/{MANIFEST} in run "
                f"{run_id or 'none'})",
                hint="its run was deleted or its tags were changed; register its files again",
            )
        return found

    def _checked(
        self,
        version: Version,
        manifest: Manifest,
        scratch: Path,
        check: Callable[[Path], None],
        path: str = "",
        tell: Tell = ignore,
    ) -> Path:
        """The files (or the one at `path`) that pass `check`: the captured ones, else those of the source."""
        captured, source = scratch / "captured", scratch / "source"
        captured.mkdir()
        source.mkdir()
        raw = self._current(version)
        lost = ""
        if manifest.schema != SCHEMA_V1:  # the first format captured nothing
            found = self.kept_files(raw.run_id or "", version.digest, captured, path)
            try:
                check(found)
            except DigestMismatchError as error:
                lost = error.problem
            else:
                return found
        action = f"give the files of {version}"
        with self.translated(action):
            uri = self.client.get_model_version_download_uri(version.model, version.label)
        found = self._fetched(f"{uri.rstrip('/')}/{path}" if path else uri, source, action)
        try:
            check(found)
        except DigestMismatchError as error:
            if not lost:
                raise
            raise DigestMismatchError(
                f"neither copy in MLflow is {version}: captured at registration: {lost}; registered source "
                f"{raw.source}: {error.problem}",
                hint=error.hint,
            ) from error
        if lost:
            tell(f"what was captured of {version} is not whole ({lost}); took its registered source {raw.source}")
        return found

    def _lock(self, version: Version, manifest: Manifest, files: Path | None) -> bytes:
        """The sealed lock: the captured one, else the model's own file with its hash."""
        wanted = manifest.env.lock_sha256
        found = self.kept(self._current(version).run_id or "", version.digest, LOCK)
        if found is not None and hashlib.sha256(found).hexdigest() == wanted:
            return found
        own = next((file for file in manifest.files if file.sha256 == wanted), None)
        if own is not None:
            if files is not None:
                return (files / own.path).read_bytes()
            with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
                return self._checked(
                    version, manifest, Path(scratch), lambda path: check_file(path, own, str(version)), own.path
                ).read_bytes()
        state = "is gone" if found is None else f"has sha256 {hashlib.sha256(found).hexdigest()}, expected {wanted}"
        raise DigestMismatchError(
            f"the lock of {version} {state}",
            hint="register the same files with the same lock again, which puts it back",
        )


def read_own_manifest(sealed: bytes, version: Version) -> Manifest:
    """Parse the manifest of `version`; raises DigestMismatchError when it is changed or another model's."""
    manifest = read_manifest(sealed, version.digest)
    if manifest.name != version.model:
        raise DigestMismatchError(
            f"{version} carries the manifest of the model {manifest.name!r}",
            hint="its tag lockstep.digest was changed by hand; register its files again",
        )
    return manifest


def _holds(folder: Path, sealed: bytes, manifest: Manifest, signature: bytes | None, version: Version) -> bool:
    """Whether the folder is this version already; refuses a folder that holds something that is not ours."""
    if not folder.exists() or all(path.name.startswith(SCRATCH) for path in folder.iterdir()):
        return False
    if not (folder / MANIFEST).is_file():
        raise RefusedError(f"{folder} is not empty and holds no {MANIFEST}", hint="name an empty or a new folder")
    if (folder / MANIFEST).read_bytes() != sealed:
        return False
    lock = folder / LOCK
    if (sha256_of(lock) if lock.is_file() else "") != manifest.env.lock_sha256:
        return False
    if ((folder / SIGNATURE).read_bytes() if (folder / SIGNATURE).is_file() else None) != signature:
        return False
    try:
        verify_files(folder / FILES, manifest, str(version))
    except DigestMismatchError:
        return False
    return True
