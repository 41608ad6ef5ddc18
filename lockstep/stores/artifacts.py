"""A version's bytes in one cloud's object store.

Layout under the cloud's prefix, with natural paths since serving containers read it as a folder:

    models/<model>/<manifest digest>/files/…            the MLflow model
    models/<model>/<manifest digest>/requirements.lock  its environment, hash-pinned
    models/<model>/<manifest digest>/model.sig          its signature (OpenSSF), for anybody to check
    models/<model>/<manifest digest>/manifest.json      written once, after every file has been read back and hashed
    models/<model>/<manifest digest>/COMMIT             written once, last: the replica is whole

A copy that was killed leaves no COMMIT; the next one goes on from what is there. Nothing is ever overwritten once
COMMIT stands, except by `repair`, which puts back the bytes that the digest names.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from lockstep.errors import CredentialsError, DigestMismatchError, LockstepError
from lockstep.rules.manifest import FileEntry, Manifest
from lockstep.rules.state import Version
from lockstep.stores.captures import LOCK, SIGNATURE, TRAVELS
from lockstep.stores.obstore_loading import load_obstore
from lockstep.stores.store_errors import is_absent, translated

if TYPE_CHECKING:
    from obstore.store import ObjectStore

COMMIT: Final = "COMMIT"
MANIFEST: Final = "manifest.json"
PART: Final = 16 * 1024 * 1024  # bytes per part of a multipart upload
PARTS_IN_FLIGHT: Final = 8
Progress = Callable[[str, int, int], None]  # what is done, bytes so far, bytes in all


@dataclass(frozen=True)
class ReplicaCheck:
    """What reading a replica found: `problems` maps a path to what is wrong there, empty for a whole one."""

    committed: bool
    problems: Mapping[str, str]

    @property
    def whole(self) -> bool:
        """Committed and every byte right."""
        return self.committed and not self.problems

    def __str__(self) -> str:
        return "; ".join(f"{path} {problem}" for path, problem in sorted(self.problems.items()))


class Replicas:
    """Versions in one cloud's store. `name` is the cloud's, for errors; the rest is where the store is."""

    def __init__(
        self,
        name: str,
        url: str,
        options: Mapping[str, str],
        client_options: Mapping[str, object],
        credentials: Callable[[], object] | None,
        timeout: float = 30.0,
    ) -> None:
        load_obstore()
        from obstore.store import from_url

        self._name = name
        self._refusal: LockstepError | None = None
        with self._translated("open the store"):
            self._store: ObjectStore = from_url(
                url,
                config=cast(Any, dict(options)),
                client_options=cast(
                    Any, {"timeout": f"{timeout:.0f}s", "connect_timeout": f"{min(timeout, 5):.0f}s", **client_options}
                ),
                retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=timeout)},
                credential_provider=cast(Any, credentials and self._remembering(credentials)),
            )

    def check_access(self) -> None:
        """Prove with one small read that the store answers and lets us in; raises the error that any method would."""
        self._read("lockstep-check", "be read")

    def is_committed(self, version: Version) -> bool:
        """Whether a whole replica was once written here (one small read)."""
        return self._read(f"{version.prefix}/{COMMIT}", f"look for {version}") == version.digest.encode()

    def copy_in(self, version: Version, manifest: Manifest, folder: Path, progress: Progress, *, repair: bool) -> None:
        """Bring the version here from `folder` (with `files/` and what else travels), verified; does nothing twice.

        Raises DigestMismatchError when a committed replica was changed and `repair` is off, or when the bytes that
        arrived are not those that were sent.
        """
        check = self.check(version, manifest, progress)
        if check.committed and check.problems and not repair:
            raise DigestMismatchError(
                f"the replica of {version} was changed after it was written: {check}",
                cloud=self._name,
                hint=f"find out who wrote there, then: lockstep replicate {version.model} {version.label} --repair",
            )
        late = {MANIFEST, *(f"/{name}" for name in TRAVELS)}
        named = {file.path for file in manifest.files}
        strays = sorted(set(check.problems) - named - late)
        if repair:
            self._remove_strays(version, manifest)
        elif strays:
            raise DigestMismatchError(
                f"the replica of {version} holds what is not part of the version: {', '.join(strays)}",
                cloud=self._name,
                hint=f"find out who wrote there, then: lockstep replicate {version.model} {version.label} --repair",
            )
        done = 0
        for file in manifest.files:
            if file.path in check.problems:
                self._upload(version, file, folder)
            done += file.size
            progress(f"copied {file.path}", done, manifest.size)
        if not check.whole:
            after = self.check(version, manifest, progress)
            # What lies beside the files is put right below, and read back there.
            files = {path: what for path, what in after.problems.items() if path in named or path not in late}
            if files:
                raise DigestMismatchError(
                    f"{version} did not arrive as sent: {ReplicaCheck(after.committed, files)}",
                    cloud=self._name,
                    hint="run the same command again; if it repeats, look for a proxy that rewrites uploads",
                )
        for name in TRAVELS:
            if (folder / name).is_file():
                self._write_once(version, name, (folder / name).read_bytes(), repair=repair)
        self._write_once(version, MANIFEST, manifest.to_bytes(), repair=repair)
        self._write_once(version, COMMIT, version.digest.encode(), repair=repair)

    def check(
        self, version: Version, manifest: Manifest, progress: Progress, read: Collection[str] | None = None
    ) -> ReplicaCheck:
        """Read every byte of the replica and compare digests; changes nothing.

        With `read`, only the bytes of the files at these paths; presence and size are looked at for all.

        What lies beside the files is named with a slash before it. Who signed is not looked at.
        """
        committed = self.is_committed(version)
        problems: dict[str, str] = {}
        done = 0
        present = self._sizes(version)
        for file in manifest.files:
            problem = self._problem(version, file, present, read=read is None or file.path in read)
            if problem:
                problems[file.path] = problem
            done += file.size
            progress(f"read back {file.path}", done, manifest.size)
        named = {file.path for file in manifest.files}
        problems.update(dict.fromkeys(set(present) - named, "is not part of the version"))
        sealed = self.manifest(version)
        if committed and (sealed is None or hashlib.sha256(sealed).hexdigest() != version.digest):
            problems[MANIFEST] = "does not have the version's digest"
        if committed and (wanted := manifest.env.lock_sha256):
            lock = self._read(f"{version.prefix}/{LOCK}", f"read the lock of {version}")
            if lock is None or hashlib.sha256(lock).hexdigest() != wanted:
                problems[f"/{LOCK}"] = "is missing" if lock is None else "is not the sealed one"
        return ReplicaCheck(committed, problems)

    def manifest(self, version: Version) -> bytes | None:
        """The replica's manifest, unchecked; None where there is none."""
        return self._read(f"{version.prefix}/{MANIFEST}", f"read the manifest of {version}")

    def signature(self, version: Version) -> bytes | None:
        """The replica's signature (OpenSSF bundle), unchecked; None where there is none."""
        return self._read(f"{version.prefix}/{SIGNATURE}", f"read the signature of {version}")

    def _problem(self, version: Version, file: FileEntry, present: Mapping[str, int], *, read: bool) -> str | None:
        size = present.get(file.path)
        if size is None:
            return "is missing"
        if size != file.size:
            return f"has {size} bytes, expected {file.size}"
        if not read:
            return None
        found = self._sha256(version, file.path)
        return None if found == file.sha256 else f"has sha256 {found}, expected {file.sha256}"

    def _upload(self, version: Version, file: FileEntry, folder: Path) -> None:
        target = f"{version.prefix}/files/{file.path}"
        source = folder / "files" / file.path
        with self._translated(f"copy {file.path} of {version}"):
            # A small file goes in one request; a multipart upload commits all or nothing.
            self._store.put(
                target, source, use_multipart=file.size > PART, chunk_size=PART, max_concurrency=PARTS_IN_FLIGHT
            )

    def _remove_strays(self, version: Version, manifest: Manifest) -> None:
        strays = set(self._sizes(version)) - {file.path for file in manifest.files}
        with self._translated(f"remove what is not part of {version}"):
            for path in sorted(strays):
                self._store.delete(f"{version.prefix}/files/{path}")

    def _write_once(self, version: Version, name: str, content: bytes, *, repair: bool) -> None:
        path, action = f"{version.prefix}/{name}", f"write {name} of {version}"
        if self._read(path, action) == content:
            return
        from obstore.exceptions import AlreadyExistsError

        with self._translated(action), contextlib.suppress(AlreadyExistsError):
            self._store.put(path, content, mode="overwrite" if repair else "create")
        if self._read(path, action) != content:
            raise DigestMismatchError(
                f"{name} of {version} is there with other content",
                cloud=self._name,
                hint=f"lockstep replicate {version.model} {version.label} --repair",
            )

    def _sizes(self, version: Version) -> dict[str, int]:
        prefix = f"{version.prefix}/files"
        with self._translated(f"list the files of {version}"):
            return {
                str(item["path"]).removeprefix(f"{prefix}/"): int(item["size"])
                for batch in self._store.list(prefix)
                for item in batch
            }

    def _read(self, path: str, action: str) -> bytes | None:
        with self._translated(action):
            try:
                return bytes(self._store.get(path).bytes())
            except FileNotFoundError as error:
                if not is_absent(error):
                    raise
                return None

    def _sha256(self, version: Version, file: str) -> str:
        digest = hashlib.sha256()
        with self._translated(f"read {file} of {version}"):
            for chunk in self._store.get(f"{version.prefix}/files/{file}").stream(min_chunk_size=4 * 1024 * 1024):
                digest.update(bytes(chunk))
        return digest.hexdigest()

    def _translated(self, action: str) -> AbstractContextManager[None]:
        return self._with_own_refusals(translated(self._name, action))

    @contextlib.contextmanager
    def _with_own_refusals(self, translation: AbstractContextManager[None]) -> Iterator[None]:
        """What the cloud's own credentials said, rather than that obstore got none."""
        self._refusal = None
        try:
            with translation:
                yield
        except CredentialsError:
            if self._refusal is None:
                raise
            raise self._refusal from None

    def _remembering(self, credentials: Callable[[], object]) -> Callable[[], object]:
        def ask() -> object:
            try:
                return credentials()
            except LockstepError as error:
                self._refusal = error
                raise

        return functools.update_wrapper(ask, credentials)  # obstore reads a provider's attributes
