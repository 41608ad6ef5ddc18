"""Replicas in each cloud's own store: resumed after a kill, changed bytes found and put right, COMMIT last."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest

from demo.addresses import cloud_settings
from lockstep.clouds.base import Cloud
from lockstep.config import parse
from lockstep.errors import DigestMismatchError
from lockstep.operations.fleet import open_replicas
from lockstep.rules.manifest import FileEntry, Manifest
from lockstep.rules.state import Version
from lockstep.stores.artifacts import Replicas
from tests.contract.clouds import open_store
from tests.integration.fleets import configure
from tests.sandbox_control import RunningSandbox

COPY = """
import os, signal, sys
from pathlib import Path
from lockstep.config import load
from lockstep.operations.fleet import open_replicas
from lockstep.rules.manifest import read_manifest
from lockstep.rules.state import Version
cloud, folder, model, digest = sys.argv[2:]
manifest = read_manifest((Path(folder) / "manifest.json").read_bytes(), digest)
def progress(text, done, total):
    if text.startswith("copied") and 0 < done < total:
        os.kill(os.getpid(), signal.SIGKILL)
store = open_replicas(load(Path(sys.argv[1])).clouds[cloud].connect(cloud))
store.copy_in(Version(model, "1", digest), manifest, Path(folder), progress, repair=False)
"""


class Place:
    """A version of a few files on disk, and one cloud's store that does not have it yet."""

    def __init__(self, cloud: Cloud, folder: Path, config: Path) -> None:
        self.cloud, self.folder, self.config = cloud, folder, config
        contents = {"MLmodel": b"flavors: {}\n", "data/a.bin": uuid.uuid4().bytes * 1000, "data/b.bin": b"b" * 70_000}
        entries = []
        for path, content in contents.items():
            target = folder / "files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            entries.append(FileEntry(path, len(content), hashlib.sha256(content).hexdigest()))
        self.manifest = Manifest(f"bytes-{uuid.uuid4().hex[:6]}", tuple(sorted(entries, key=lambda entry: entry.path)))
        (folder / "manifest.json").write_bytes(self.manifest.to_bytes())
        self.version = Version(self.manifest.name, "1", self.manifest.digest)
        self.store = open_store(cloud.store())
        self.progress: list[str] = []

    @property
    def replicas(self) -> Replicas:
        return open_replicas(self.cloud)

    def copy(self, *, repair: bool = False) -> None:
        self.replicas.copy_in(
            self.version,
            self.manifest,
            self.folder,
            lambda text, done, total: self.progress.append(text),
            repair=repair,
        )

    def names(self) -> set[str]:
        listed = obstore.list(self.store, self.version.prefix)
        return {item["path"].removeprefix(f"{self.version.prefix}/") for batch in listed for item in batch}

    def put(self, path: str, content: bytes) -> None:
        obstore.put(self.store, f"{self.version.prefix}/{path}", content)

    def problems(self) -> dict[str, str]:
        check = self.replicas.check(self.version, self.manifest, lambda text, done, total: None)
        return dict(check.problems)


WHOLE = {"COMMIT", "manifest.json", "files/MLmodel", "files/data/a.bin", "files/data/b.bin"}


@pytest.fixture(params=["aws", "azure", "gcp"])
def place(request: pytest.FixtureRequest, sandbox: RunningSandbox, tmp_path: Path) -> Place:
    configure(sandbox, "http://127.0.0.1:1", tmp_path, "bytes")
    config = tmp_path / "lockstep.yaml"
    assert set(cloud_settings(sandbox.settings)) >= {request.param}
    cloud = parse(config.read_text(), str(config), {}).clouds[request.param].connect(request.param)
    return Place(cloud, tmp_path / "version", config)


def test_a_copy_is_whole_and_is_not_made_twice(place: Place) -> None:
    assert not place.replicas.is_committed(place.version)
    place.copy()
    assert place.names() == WHOLE
    assert place.replicas.is_committed(place.version)
    assert place.problems() == {}
    before = {path: obstore.head(place.store, f"{place.version.prefix}/{path}")["last_modified"] for path in WHOLE}
    place.copy()
    place.copy(repair=True)
    after = {path: obstore.head(place.store, f"{place.version.prefix}/{path}")["last_modified"] for path in WHOLE}
    assert after == before


def test_a_copy_that_was_killed_has_no_commit_and_is_taken_up_again(place: Place) -> None:
    arguments = [str(place.config), place.cloud.name, str(place.folder), place.version.model, place.version.digest]
    ended = subprocess.run([sys.executable, "-c", COPY, *arguments], check=False, timeout=60)
    assert ended.returncode == -9
    left = place.names()
    assert left
    assert left < WHOLE - {"COMMIT", "manifest.json"}
    assert not place.replicas.is_committed(place.version)
    kept = {path: obstore.head(place.store, f"{place.version.prefix}/{path}")["last_modified"] for path in left}
    place.copy()
    assert place.names() == WHOLE
    assert place.problems() == {}
    assert kept == {
        path: obstore.head(place.store, f"{place.version.prefix}/{path}")["last_modified"] for path in left
    }, "what had arrived was not sent again"


def test_changed_missing_and_stray_files_are_found_and_put_right(place: Place) -> None:
    place.copy()
    changed = bytearray((place.folder / "files/data/b.bin").read_bytes())
    changed[1234] ^= 1
    place.put("files/data/b.bin", bytes(changed))
    place.put("files/data/stray.bin", b"not ours")
    obstore.delete(place.store, f"{place.version.prefix}/files/MLmodel")
    problems = place.problems()
    assert set(problems) == {"MLmodel", "data/b.bin", "data/stray.bin"}
    assert "sha256" in problems["data/b.bin"]
    assert "missing" in problems["MLmodel"]
    assert "not part of the version" in problems["data/stray.bin"]
    with pytest.raises(DigestMismatchError, match="changed after it was written") as caught:
        place.copy()
    assert caught.value.cloud == place.cloud.name
    assert str(place.version) in str(caught.value)
    assert f"lockstep replicate {place.version.model} 1 --repair" in caught.value.hint
    assert set(place.problems()) == set(problems), "nothing was mended without being asked to"
    place.copy(repair=True)
    assert place.problems() == {}
    assert place.names() == WHOLE


def test_a_stray_file_is_never_committed(place: Place) -> None:
    place.put("files/data/stray.bin", b"not ours")
    with pytest.raises(DigestMismatchError, match=r"stray\.bin") as caught:
        place.copy()
    assert "--repair" in caught.value.hint
    assert not place.replicas.is_committed(place.version)
    place.copy(repair=True)
    assert place.names() == WHOLE


def test_another_manifest_or_commit_is_never_written_over_unasked(place: Place) -> None:
    place.put("manifest.json", b"{}")
    with pytest.raises(DigestMismatchError, match=r"manifest\.json") as caught:
        place.copy()
    assert "--repair" in caught.value.hint
    assert "COMMIT" not in place.names()
    place.copy(repair=True)
    assert place.problems() == {}


def test_bytes_that_are_wrong_on_disk_are_never_committed(place: Place) -> None:
    (place.folder / "files/MLmodel").write_bytes(b"flavors: []\n")
    with pytest.raises(DigestMismatchError, match="did not arrive as sent"):
        place.copy()
    assert "COMMIT" not in place.names()


def test_many_copies_at_once_make_one(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        for copied in [pool.submit(place.copy) for _ in range(4)]:
            copied.result()
    assert place.names() == WHOLE
    assert place.problems() == {}
