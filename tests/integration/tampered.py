"""Somebody who changes a version behind Lockstep's back, and puts it right again when the block ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import obstore

from lockstep.clouds.base import Cloud
from lockstep.operations.fleet import Fleet
from lockstep.rules.state import Version
from lockstep.stores.captures import prefix
from tests.contract.clouds import Subject, open_store
from tests.integration.deployed import Deployed


def captured(version: Version, name: str) -> str:
    """Path in the run's artifacts of something that registration kept."""
    return f"{prefix(version.digest)}/{name}"


def read_artifact(fleet: Fleet, version: Version, path: str) -> bytes:
    """A file of the version's run."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(fleet.registry.client.download_artifacts(version.run_id, path, folder)).read_bytes()


def write_artifact(fleet: Fleet, version: Version, path: str, content: bytes) -> None:
    """Overwrite or add a file of the version's run, as anybody who may log to it can."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, PurePosixPath(path).name)
        place.write_bytes(content)
        fleet.registry.client.log_artifact(version.run_id, str(place), PurePosixPath(path).parent.as_posix())


@contextlib.contextmanager
def artifact_overwritten(fleet: Fleet, version: Version, path: str, content: bytes) -> Iterator[None]:
    """The file with other content while the block lasts."""
    before = read_artifact(fleet, version, path)
    write_artifact(fleet, version, path, content)
    try:
        yield
    finally:
        write_artifact(fleet, version, path, before)


@contextlib.contextmanager
def object_overwritten(cloud: Cloud, version: Version, path: str, content: bytes | None = None) -> Iterator[None]:
    """An object of a replica with other content, or one bit of its own changed, while the block lasts."""
    store, key = open_store(cloud.store()), f"{version.prefix}/{path}"
    before = bytes(obstore.get(store, key).bytes())
    obstore.put(store, key, content if content is not None else bytes([before[0] ^ 1]) + before[1:])
    try:
        yield
    finally:
        obstore.put(store, key, before)


@contextlib.contextmanager
def object_deleted(cloud: Cloud, version: Version, path: str) -> Iterator[None]:
    """An object of a replica that is not there while the block lasts."""
    store, key = open_store(cloud.store()), f"{version.prefix}/{path}"
    before = bytes(obstore.get(store, key).bytes())
    obstore.delete(store, key)
    try:
        yield
    finally:
        obstore.put(store, key, before)


def subject_on(deployed: Deployed, cloud: str) -> Subject:
    """The contract's view of one cloud: its stable version is the one that serves."""
    adapter = deployed.fleet.cloud(cloud)
    return Subject(adapter.title, adapter, deployed.v2, deployed.v1, [], {}, deployed.control, cloud)
