"""The registry against a real MLflow server: what it keeps, and what it notices when somebody changes it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests

from lockstep.errors import (
    CredentialsError,
    DigestMismatchError,
    LockstepError,
    NotFoundError,
    RefusedError,
    ThrottledError,
    UnreachableError,
)
from lockstep.operations.seal import check_seal
from lockstep.rules.manifest import SCHEMA_V1, Environment, Manifest, Tracking
from lockstep.rules.state import Version
from lockstep.stores import mlflow_server as mlflow_server_module
from lockstep.stores.captures import Capture
from lockstep.stores.folders import measure_files, sha256_of
from lockstep.stores.keys import Keys
from lockstep.stores.mlflow_rest import MlflowRest, RestError, applies
from lockstep.stores.registry import DIGEST_TAG, FORMAT_TAG, Registry
from lockstep.stores.signature import example_rows

PATIENCE = 60.0  # a busy machine answers late; only the tests of silence are in a hurry
BESIDE = {"files", "manifest.json", "requirements.lock", "model.sig"}
numbers = itertools.count(1)
LOCK = b"a==1 --hash=sha256:...\n"
FILES = {"MLmodel": "flavors: {}\n", "model.bin": "weights", "deep/er.txt": "x"}


@dataclass(frozen=True)
class Sealed:
    """A version with the run that holds its files, and what it was sealed from."""

    version: Version
    manifest: Manifest
    uri: str
    folder: Path

    @property
    def capture(self) -> Capture:
        """What is kept of it."""
        return Capture(self.manifest, self.folder, lock=LOCK, signature=b"signed")


class Workshop:
    """Makes models with small files in one server; each has a name of its own."""

    def __init__(self, address: str, folder: Path) -> None:
        self.registry = Registry(address, timeout=PATIENCE)
        self.client = self.registry.client
        self.folder = folder

    def model(self) -> str:
        return f"model-{next(numbers)}"

    def seal(self, model: str, **changes: str) -> Sealed:
        run = self.client.create_run("0")
        folder = self.folder / run.info.run_id
        for path, text in (FILES | changes).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        self.client.log_artifacts(run.info.run_id, str(folder), "model")
        uri = f"{run.info.artifact_uri}/model"
        tracking = Tracking(run_id=run.info.run_id, source=uri)
        env = Environment(lock_sha256=hashlib.sha256(LOCK).hexdigest())
        manifest = Manifest(model, measure_files(folder), mlflow=tracking, env=env)
        sealed = Sealed(Version(model, "", manifest.digest), manifest, uri, folder)
        return replace(sealed, version=self.registry.seal(sealed.capture, uri, run.info.run_id))

    def captured(self, sealed: Sealed) -> str:
        """Where the version's capture lies."""
        return f"{sealed.uri.removesuffix('/model')}/lockstep/{sealed.version.digest}"

    def address(self, uri: str) -> str:
        """Where the server serves an artifact, for anybody who knows it."""
        return self.registry.address + uri.replace("mlflow-artifacts:/", "/api/2.0/mlflow-artifacts/artifacts/", 1)

    def overwrite(self, uri: str, text: str) -> None:
        """As anybody can who knows the address: a plain PUT on the artifact."""
        requests.put(self.address(uri), data=text.encode(), timeout=10).raise_for_status()

    def delete(self, uri: str) -> None:
        """The same with a plain DELETE."""
        requests.delete(self.address(uri), timeout=10).raise_for_status()


@pytest.fixture
def workshop(mlflow_server: str, tmp_path: Path) -> Workshop:
    return Workshop(mlflow_server, tmp_path / "made")


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, lockstep.stores.registry; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


def test_a_sealed_version_is_read_back_whole(workshop: Workshop, tmp_path: Path) -> None:
    model = workshop.model()
    sealed = workshop.seal(model)
    registry, version = workshop.registry, sealed.version
    registry.check()
    assert model in registry.models()
    assert registry.versions(model) == (version,) == (registry.version(model, "1"),)
    assert version.digest == sealed.manifest.digest
    assert registry.manifest(version) == sealed.manifest
    folder = registry.fetch(version, tmp_path / "fetched")
    assert measure_files(folder / "files") == sealed.manifest.files
    assert (folder / "manifest.json").read_bytes() == sealed.manifest.to_bytes()
    assert {path.name for path in folder.iterdir()} == BESIDE
    assert (folder / "requirements.lock").read_bytes() == LOCK == registry.lock(version)
    assert (folder / "model.sig").read_bytes() == b"signed" == registry.signature(version)
    assert registry.url(version) == f"{registry.address}/#/models/{model}/versions/1"


def test_fetch_mends_its_own_folder_and_refuses_another(workshop: Workshop, tmp_path: Path) -> None:
    sealed = workshop.seal(workshop.model())
    folder = workshop.registry.fetch(sealed.version, tmp_path / "fetched")
    (folder / "files" / "model.bin").write_text("changed")
    (folder / "files" / "more").write_text("extra")
    (folder / "requirements.lock").write_text("changed")
    (folder / ".fetch-killed" / "half").mkdir(parents=True)
    workshop.registry.fetch(sealed.version, folder)
    assert {path.name for path in folder.iterdir()} == BESIDE
    assert measure_files(folder / "files") == sealed.manifest.files
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("dear")
    with pytest.raises(RefusedError, match="not empty"):
        workshop.registry.fetch(sealed.version, tmp_path / "else")


def test_sealing_again_gives_the_same_version_also_in_a_race(workshop: Workshop) -> None:
    sealed = workshop.seal(workshop.model())
    run_id = sealed.version.run_id
    assert workshop.registry.seal(sealed.capture, sealed.uri, run_id) == sealed.version
    other = replace(sealed.manifest, params={"depth": "3"})
    capture = replace(sealed.capture, manifest=other)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: workshop.registry.seal(capture, sealed.uri, run_id), range(4)))
    left = workshop.registry.versions(sealed.version.model)
    assert set(made) == set(left[1:])
    assert [version.digest for version in left] == [sealed.manifest.digest, other.digest]


def test_sealing_completes_what_was_killed_half_way(workshop: Workshop) -> None:
    sealed = workshop.seal(workshop.model())
    unfinished = replace(sealed.manifest, name=workshop.model())
    workshop.client.create_registered_model(unfinished.name)  # and then the process died
    assert workshop.registry.versions(unfinished.name) == ()
    made = workshop.registry.seal(replace(sealed.capture, manifest=unfinished), sealed.uri, sealed.version.run_id)
    assert workshop.registry.versions(unfinished.name) == (made,)


def test_aliases_say_what_should_serve(workshop: Workshop) -> None:
    registry, model = workshop.registry, workshop.model()
    first, second = workshop.seal(model).version, workshop.seal(model, **{"model.bin": "better"}).version
    assert registry.desired(model).champion is None
    registry.set_alias(first, "champion")
    registry.set_alias(first, "champion")
    registry.set_alias(second, "challenger")
    desired = registry.desired(model)
    assert (desired.champion, desired.challenger, desired.fallback) == (first, second, None)
    assert registry.alias(model, "champion") == first
    assert registry.alias(model, "fallback") is None
    registry.delete_alias(model, "challenger")
    registry.delete_alias(model, "challenger")
    assert registry.desired(model).challenger is None
    with pytest.raises(RefusedError, match="reserved"):
        registry.set_alias(first, "latest")


def test_an_alias_of_an_unsealed_version_is_refused(workshop: Workshop) -> None:
    sealed = workshop.seal(workshop.model())
    model = sealed.version.model
    plain = workshop.client.create_model_version(model, sealed.uri, sealed.version.run_id)
    workshop.client.set_registered_model_alias(model, "champion", plain.version)
    for look in (lambda: workshop.registry.desired(model), lambda: workshop.registry.find(model, "champion")):
        with pytest.raises(RefusedError, match="points at version 2, which is not sealed"):
            look()


def test_find_takes_labels_aliases_and_digests(workshop: Workshop) -> None:
    registry, model = workshop.registry, workshop.model()
    first, second = workshop.seal(model).version, workshop.seal(model).version
    registry.set_alias(second, "champion")
    for text, version in {
        "1": first,
        "v1": first,
        "2": second,
        "champion": second,
        "@champion": second,
        first.digest: first,
        second.digest[:8]: second,
    }.items():
        assert registry.find(model, text) == version
    for text in ("3", "@nobody", "nobody", first.digest[:7], "0" * 12):
        with pytest.raises(NotFoundError) as caught:
            registry.find(model, text)
        assert all(word in str(caught.value) for word in (text, first.digest[:12], second.digest[:12], "champion"))
    with pytest.raises(NotFoundError, match="no sealed version 9; it has 1, 2"):
        registry.version(model, "9")
    workshop.client.set_registered_model_alias(model, first.digest[:10], "2")
    with pytest.raises(RefusedError, match="several versions") as ambiguous:
        registry.find(model, first.digest[:10])
    assert first.digest[:12] in str(ambiguous.value)


def test_an_unknown_model_names_what_there_is(workshop: Workshop) -> None:
    known = workshop.seal(workshop.model()).version
    for look in (workshop.registry.versions, workshop.registry.desired):
        with pytest.raises(NotFoundError, match="no model 'nothing'") as caught:
            look("nothing")
        assert known.model in str(caught.value)
    with pytest.raises(NotFoundError):
        workshop.registry.versions("it's")


def test_tags_can_be_added_but_not_the_identity(workshop: Workshop) -> None:
    version = workshop.seal(workshop.model()).version
    workshop.registry.tag(version, "reviewed.by", "ada")
    assert workshop.registry.tags(version)["reviewed.by"] == "ada"
    with pytest.raises(RefusedError, match="identity"):
        workshop.registry.tag(version, DIGEST_TAG, "0" * 64)


@pytest.mark.parametrize(
    ("path", "named"), [("model.bin", "model.bin has sha256"), ("deep/more.txt", "deep/more.txt is not in")]
)
def test_a_changed_or_added_file_is_found_and_named(workshop: Workshop, tmp_path: Path, path: str, named: str) -> None:
    """The registered source may hold anything; a changed capture is told and replaced by it; both changed is an end."""
    sealed = workshop.seal(workshop.model())
    told: list[str] = []
    workshop.overwrite(f"{sealed.uri}/{path}", "poison")
    folder = workshop.registry.fetch(sealed.version, tmp_path / "fetched", told.append)
    assert (measure_files(folder / "files"), told) == (sealed.manifest.files, [])
    workshop.overwrite(f"{workshop.captured(sealed)}/files/{path}", "poison")
    with pytest.raises(DigestMismatchError, match=f"captured at registration: .*{named}.*source .*{named}") as caught:
        workshop.registry.fetch(sealed.version, tmp_path / "again", told.append)
    assert str(sealed.version) in str(caught.value)
    assert list((tmp_path / "again").iterdir()) == []
    workshop.delete(sealed.uri)
    workshop.client.log_artifacts(sealed.version.run_id, str(sealed.folder), "model")
    folder = workshop.registry.fetch(sealed.version, tmp_path / "again", told.append)
    assert measure_files(folder / "files") == sealed.manifest.files
    assert len(told) == 1
    assert all(word in told[0] for word in (str(sealed.version), named, "took its registered source", sealed.uri))


def test_files_that_are_gone_are_an_error_and_not_an_empty_folder(workshop: Workshop, tmp_path: Path) -> None:
    sealed = workshop.seal(workshop.model())
    workshop.delete(sealed.uri)
    workshop.registry.fetch(sealed.version, tmp_path / "captured")
    workshop.delete(f"{workshop.captured(sealed)}/files")
    with pytest.raises(DigestMismatchError, match=r"all 3 files of .* are gone.*all 3 files of .* are gone"):
        workshop.registry.fetch(sealed.version, tmp_path / "fetched")


def test_a_spoofed_digest_tag_is_found(workshop: Workshop, tmp_path: Path) -> None:
    registry, model = workshop.registry, workshop.model()
    good, bad = workshop.seal(model), workshop.seal(model, **{"model.bin": "poison"})
    registry.set_alias(bad.version, "champion")
    workshop.client.set_model_version_tag(model, bad.version.label, DIGEST_TAG, good.version.digest)
    with pytest.raises(DigestMismatchError, match="expected " + bad.version.digest[:12]):
        registry.manifest(bad.version)
    champion = registry.desired(model).champion
    assert champion is not None
    with pytest.raises(DigestMismatchError, match="no manifest"):
        registry.fetch(champion, tmp_path / "fetched")
    assert registry.seal(good.capture, good.uri, good.version.run_id) == good.version


def test_a_changed_manifest_is_found(workshop: Workshop) -> None:
    sealed = workshop.seal(workshop.model())
    workshop.overwrite(f"{workshop.captured(sealed)}/manifest.json", "{}")
    with pytest.raises(DigestMismatchError, match="stored manifest"):
        workshop.registry.manifest(sealed.version)


def test_a_changed_or_lost_lock_is_found(workshop: Workshop, tmp_path: Path) -> None:
    sealed = workshop.seal(workshop.model())
    for spoil, found in ((workshop.overwrite, "has sha256"), (lambda uri, _: workshop.delete(uri), "is gone")):
        spoil(f"{workshop.captured(sealed)}/requirements.lock", "b==2\n")
        for read in (workshop.registry.lock, lambda version: workshop.registry.fetch(version, tmp_path / "fetched")):
            with pytest.raises(DigestMismatchError, match=f"the lock of .* {found}") as caught:
                read(sealed.version)
            assert "register" in caught.value.hint
    own = workshop.seal(workshop.model(), **{"locks/mine.txt": LOCK.decode()})
    workshop.delete(f"{workshop.captured(own)}/requirements.lock")
    assert workshop.registry.lock(own.version) == LOCK  # the model brought it
    folder = workshop.registry.fetch(own.version, tmp_path / "own")
    assert (folder / "requirements.lock").read_bytes() == LOCK
    assert workshop.registry.seal(sealed.capture, sealed.uri, sealed.version.run_id) == sealed.version
    assert workshop.registry.lock(sealed.version) == LOCK


def test_a_version_of_the_first_format_is_read_as_it_was(workshop: Workshop, tmp_path: Path) -> None:
    """As an earlier release registered it: a manifest of its own form, and nothing captured."""
    sealed, model = workshop.seal(workshop.model()), workshop.model()
    files = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in sealed.manifest.files]
    lineage = {"run_id": sealed.version.run_id, "source": sealed.uri, "parameters": {}, "metrics": {"auc": 0.5}}
    environment = {"python": "3.11.9", "requirements": ["a==1"]}
    document = {"format": SCHEMA_V1, "model": model, "files": files, "environment": environment, "lineage": lineage}
    (tmp_path / "manifest.json").write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    digest = sha256_of(tmp_path / "manifest.json")
    workshop.client.log_artifact(sealed.version.run_id, str(tmp_path / "manifest.json"), f"lockstep/{digest}")
    workshop.client.create_registered_model(model)
    tags = {DIGEST_TAG: digest, FORMAT_TAG: SCHEMA_V1}
    workshop.client.create_model_version(model, sealed.uri, sealed.version.run_id, tags=tags)
    (version,) = workshop.registry.versions(model)
    assert version.digest == digest
    assert workshop.registry.manifest(version).content == sealed.manifest.content
    folder = workshop.registry.fetch(version, tmp_path / "fetched")
    assert {path.name for path in folder.iterdir()} == {"files", "manifest.json"}
    assert workshop.registry.signature(version) is None
    with pytest.raises(RefusedError, match="sealed without a lock"):
        workshop.registry.lock(version)
    workshop.registry.set_alias(version, "champion")
    assert workshop.registry.desired(model).champion == version
    seal = check_seal(workshop.registry, version, Keys())
    assert (seal.holds, seal.schema, len(seal.doubts)) == (True, SCHEMA_V1, 1)


def test_a_deleted_version_is_not_mistaken_for_another(workshop: Workshop, tmp_path: Path) -> None:
    registry, model = workshop.registry, workshop.model()
    first, second = workshop.seal(model).version, workshop.seal(model).version
    registry.set_alias(first, "champion")
    workshop.client.delete_model_version(model, first.label)
    assert registry.desired(model).champion is None
    with pytest.raises(NotFoundError, match="no longer in MLflow") as caught:
        registry.fetch(first, tmp_path / "fetched")
    assert second.digest[:12] in str(caught.value)
    workshop.client.delete_registered_model(model)
    assert workshop.seal(model).version.label == "1"
    with pytest.raises(DigestMismatchError, match=f"expected {first.digest[:12]}"):
        registry.set_alias(first, "champion")


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's limits as a new process has them, and afterwards as they were: they belong to the whole process."""
    monkeypatch.setattr(mlflow_server_module, "_limits", {})
    for name in ("TIMEOUT", "MAX_RETRIES"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("limits")
def test_a_server_that_is_down_is_reported_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        registry = Registry(f"http://ada:secret@127.0.0.1:{probe.getsockname()[1]}", timeout=1.0)
        assert registry.client  # which imports MLflow: seconds of their own
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="Connection refused") as caught:
            registry.desired("tumour")
    assert time.monotonic() - began < 3.0
    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("limits")
def test_a_server_that_hangs_is_given_up_after_two_timeouts(silent: str) -> None:
    registry = Registry(silent, timeout=1.0)
    assert registry.client
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="timed out"):
        registry.check()
    assert time.monotonic() - began < 4.0


@pytest.mark.usefixtures("limits")
def test_the_users_own_timeout_is_kept(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    Registry(silent, timeout=1.0)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("status", "meant"), [(401, CredentialsError), (403, CredentialsError), (429, ThrottledError)])
def test_a_refusal_is_told_from_silence(status: int, meant: type[LockstepError]) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "120")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(meant) as caught:
                Registry(f"http://127.0.0.1:{server.server_port}").check()
        finally:
            server.shutdown()
    assert caught.value.hint


class Scripted(BaseHTTPRequestHandler):
    """Answers GET with the statuses of a list, one after the other; keeps what was asked and with which login."""

    statuses: ClassVar[list[int]] = []
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        body = b'{"registered_model": {"name": "m", "aliases": [{"alias": "champion", "version": "2"}]}}'
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[str]:
    """The address of a server that answers so."""
    Scripted.statuses, Scripted.asked = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_is_starting_is_asked_once_more(scripted: str) -> None:
    rest = MlflowRest(f"http://{scripted}", f"http://{scripted}", 5.0)
    Scripted.statuses = [503]
    assert rest.get_registered_model("a b").aliases == {"champion": "2"}
    assert [path for path, _ in Scripted.asked] == ["/api/2.0/mlflow/registered-models/get?name=a+b"] * 2
    Scripted.statuses = [503, 503]
    with pytest.raises(RestError, match="HTTP status 503"):
        rest.get_registered_model("m")
    Scripted.statuses = [500]
    with pytest.raises(RestError):
        rest.get_registered_model("m")
    assert Scripted.statuses == []


def test_logins_are_those_that_mlflow_takes(scripted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def login(user: str = "") -> str | None:
        MlflowRest(f"http://{user}{scripted}", f"http://{scripted}", 5.0).get_registered_model("m")
        return Scripted.asked[-1][1]

    def basic(text: str) -> str:
        return f"Basic {base64.b64encode(text.encode()).decode()}"

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    assert login() is None
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert login() == "Bearer t0ken"
    (tmp_path / ".mlflow").mkdir()
    kept = "[mlflow]\nmlflow_tracking_username = kim\nmlflow_tracking_password = 100%\n"
    (tmp_path / ".mlflow" / "credentials").write_text(kept)
    assert login() == basic("kim:100%")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert login() == basic("ada:secret")
    assert login("bob:s%40fe@") == basic("bob:s@fe")


def test_what_only_mlflows_own_client_can_do_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert applies("https://mlflow.example")
    assert not applies("sqlite:///mlflow.db")
    assert not applies("databricks")
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    assert not applies("https://mlflow.example")


def test_a_login_that_is_refused_is_tried_with_mlflows_own_client(scripted: str) -> None:
    """A plugin of it may know how to log in."""
    registry = Registry(f"http://{scripted}", timeout=5.0)
    Scripted.statuses = [401]
    assert registry.named(lambda names: names.get_registered_model("m").aliases) == {"champion": "2"}
    logins = len(Scripted.asked)
    assert registry.named(lambda names: names.get_registered_model("m").aliases) == {"champion": "2"}
    assert len(Scripted.asked) == logins + 1, "from then on that one alone is asked"


def test_reading_versions_imports_none_of_mlflow(workshop: Workshop) -> None:
    sealed = workshop.seal(workshop.model())
    script = f"""
import sys
from lockstep.stores.registry import Registry
registry = Registry({workshop.registry.tracking_uri!r})
version = registry.versions({sealed.version.model!r})[0]
registry.set_alias(version, "champion")
registry.tag(version, "mine", "yes")
record = registry.record(version.model)
assert record.desired.champion == version, record
assert registry.tags(version)["mine"] == "yes"
registry.untag(version, "mine")
registry.delete_alias(version.model, "champion")
assert "mine" not in registry.tags(version)
assert registry.record(version.model).desired.champion is None
print(sorted(name for name in sys.modules if name in ("mlflow", "pandas", "numpy")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_row_is_made_up_from_the_signature() -> None:
    columns = [
        {"type": "double", "name": "mean_radius"},
        {"type": "string", "name": "clinic"},
        {"type": "array", "items": {"type": "long"}, "name": "counts"},
    ]
    assert example_rows(f"signature:\n  inputs: '{json.dumps(columns)}'\n") == (
        {"mean_radius": 1.0, "clinic": "a", "counts": [1]},
    )
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
    assert example_rows(f"signature:\n  inputs: '{json.dumps(tensor)}'\n") == ()
    assert example_rows("flavors: {}\n") == ()
