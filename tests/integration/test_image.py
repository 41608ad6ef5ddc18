"""The serving image's build context: exact, complete, the same each time, and it serves."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import requests

from demo.locks import environment_lock
from lockstep.errors import ConfigError, DigestMismatchError, RefusedError
from lockstep.operations.image import find_serving, write_image
from lockstep.operations.lock import SERVER_PACKAGES
from lockstep.operations.register import register as register_signed
from lockstep.rules.requirements import bare, package, requirement_lines, unhashed, unpinned
from lockstep.rules.state import Version
from lockstep.stores.registry import Registry
from tests.model_files import ModelVersion
from tests.signing import signing_keys

PACKAGES = ("mlflow", "scikit-learn")
MODEL_PINS = tuple(f"{name}=={installed(name)}" for name in PACKAGES)
KEYS = signing_keys()
START_TIMEOUT = 150.0


def register(registry: Registry, model: str, folder: Path) -> Version:
    return register_signed(registry, model, str(folder), keys=KEYS)


@pytest.fixture(scope="module")
def registry(mlflow_server: str) -> Registry:
    return Registry(mlflow_server, timeout=60.0)


@pytest.fixture(scope="module")
def folder(model_versions: tuple[ModelVersion, ModelVersion], tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("saved") / "model"
    shutil.copytree(model_versions[0].folder / "files", copy)
    (copy / "requirements.txt").write_text("".join(f"{line}\n" for line in MODEL_PINS))
    (copy / "requirements.lock").write_text(environment_lock(PACKAGES))
    return copy


@pytest.fixture(scope="module")
def version(registry: Registry, folder: Path) -> Version:
    return register(registry, "imaged", folder)


def content(context: Path) -> dict[str, str]:
    return {
        path.relative_to(context).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in context.rglob("*")
        if path.is_file()
    }


def test_the_context_is_complete_and_exact(registry: Registry, version: Version, tmp_path: Path) -> None:
    context = tmp_path / "context"
    written = write_image(registry, version, context)
    assert {path.relative_to(context).as_posix() for path in written} == set(content(context))
    lines = requirement_lines((context / "requirements.lock").read_text())
    assert not unpinned(lines)
    assert not unhashed(lines)
    assert {*MODEL_PINS, *(f"{name}=={installed(name)}" for name in SERVER_PACKAGES)} < {*map(bare, lines)}
    text = (context / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied == ["requirements.lock", "serving"]
    assert all((context / name).exists() for name in copied)
    python = registry.manifest(version).env.python
    assert f"FROM --platform=linux/amd64 python:{python}-slim\n" in text
    for line in ("USER 10001", "EXPOSE 8080", 'ENTRYPOINT ["python", "-m", "serving"]'):
        assert f"{line}\n" in text
    assert "--no-deps --require-hashes -r requirements.lock && python -m pip check\n" in text


def test_the_context_is_the_same_each_time(registry: Registry, version: Version, tmp_path: Path) -> None:
    write_image(registry, version, tmp_path / "one")
    (tmp_path / "one" / "serving" / "left_over.py").write_text("")
    write_image(registry, version, tmp_path / "one")
    write_image(registry, version, tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_requirements_with_hashes_are_their_own_lock(registry: Registry, folder: Path, tmp_path: Path) -> None:
    hashed = tmp_path / "hashed"
    shutil.copytree(folder, hashed)
    (hashed / "requirements.lock").replace(hashed / "requirements.txt")
    version = register(registry, "imaged-hashed", hashed)
    context = tmp_path / "context"
    context.mkdir()
    for name, text in {"Dockerfile": "# Serving image, written by `lockstep image`.\n", "requirements.txt": ""}.items():
        (context / name).write_text(text)  # as an earlier release left it
    write_image(registry, version, context, base="registry.example/python:{python}")
    assert (context / "requirements.lock").read_text() == environment_lock(PACKAGES)
    assert not (context / "requirements.txt").exists()
    assert "FROM --platform=linux/amd64 registry.example/python:3." in (context / "Dockerfile").read_text()


def test_a_lock_without_what_the_server_needs_gives_no_image(registry: Registry, folder: Path, tmp_path: Path) -> None:
    bald = tmp_path / "bald"
    shutil.copytree(folder, bald)
    lines = requirement_lines((bald / "requirements.lock").read_text())
    kept = [line for line in lines if package(line) not in ("uvicorn", "google-cloud-storage")]
    (bald / "requirements.lock").write_text("".join(f"{line}\n" for line in kept))
    version = register(registry, "imaged-bald", bald)
    with pytest.raises(RefusedError, match="has no google-cloud-storage, uvicorn") as caught:
        write_image(registry, version, tmp_path / "context")
    assert "lockstep lock" in caught.value.hint
    assert not (tmp_path / "context").exists()


def test_a_folder_with_other_files_is_refused(registry: Registry, version: Version, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM mine\n")
    with pytest.raises(RefusedError, match="holds other files"):
        write_image(registry, version, tmp_path)
    assert (tmp_path / "Dockerfile").read_text() == "FROM mine\n"


def test_a_folder_that_cannot_be_written_is_named(registry: Registry, version: Version, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RefusedError, match="cannot be written: Not a directory") as caught:
        write_image(registry, version, tmp_path / "file" / "context")
    assert "--out" in caught.value.hint
    (tmp_path / "context" / "requirements.lock").mkdir(parents=True)
    (tmp_path / "context" / "Dockerfile").write_bytes(b"# Serving image, written by `lockstep image`.\n\xff")
    with pytest.raises(RefusedError, match=r"requirements\.lock cannot be written"):
        write_image(registry, version, tmp_path / "context")


def test_a_missing_serving_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (find_serving() / "__main__.py").is_file()
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "serving", raising=False)
    monkeypatch.setattr(
        sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    )
    with pytest.raises(ConfigError, match="serving package is not on the Python path"):
        find_serving()


def test_the_context_serves_the_fetched_version(registry: Registry, version: Version, tmp_path: Path) -> None:
    """The image's entry point, run from the context alone by this interpreter, as SageMaker starts it."""
    context = tmp_path / "context"
    write_image(registry, version, context)
    model = registry.fetch(version, tmp_path / "model")
    rows = registry.example_rows(version)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment |= {
        "PORT": str(port),
        "HOST": "127.0.0.1",
        "SM_MODEL_DIR": str(model),
        "LOCKSTEP_DIGEST": version.digest,
        "LOCKSTEP_VERSION": version.label,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve"],
            cwd=context,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        health = wait_for(process, f"http://127.0.0.1:{port}/health", log)
        assert health == {"status": "ok", "model": "imaged", "version": version.label, "digest": version.digest}
        answer = requests.post(
            f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": list(rows)}, timeout=30
        )
        assert (answer.status_code, answer.headers["x-lockstep-digest"]) == (200, version.digest)
        assert len(answer.json()["predictions"]) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=15)


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> object:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            return requests.get(url, timeout=2.0).json()
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError(f"nothing answered at {url}: {log.read_text()}")


def test_a_tampered_version_gives_no_image(registry: Registry, folder: Path, tmp_path: Path) -> None:
    version = register(registry, "imaged-tampered", folder)
    (tmp_path / "manifest.json").write_text("{}")
    registry.client.log_artifact(version.run_id, str(tmp_path / "manifest.json"), f"lockstep/{version.digest}")
    with pytest.raises(DigestMismatchError):
        write_image(registry, version, tmp_path / "context")
    assert not (tmp_path / "context").exists()
