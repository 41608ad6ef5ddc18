"""What registration captures of a version, that it says where it comes from, and that anybody can check its seal."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from lockstep.errors import ConfigError, DigestMismatchError, NotFoundError, RefusedError
from lockstep.operations.register import register
from lockstep.operations.seal import check_seal
from lockstep.rules.manifest import Code, Dataset, Manifest, files_digest
from lockstep.rules.state import Version
from lockstep.stores.folders import measure_files, sha256_of
from lockstep.stores.keys import Keys
from lockstep.stores.model_signature import fingerprint, open_signature, sign_manifest, verify_signature
from lockstep.stores.registry import Registry
from tests.signing import signing_keys

KEYS = signing_keys()
OFFICIAL = Path(sys.executable).with_name("model_signing")
LOCK = f"mlflow=={installed('mlflow')} --hash=sha256:{'0' * 64}\nother==1 --hash=sha256:{'1' * 64}\n"
SIGNATURE = {"inputs": '[{"type": "double", "name": "radius"}]', "outputs": None, "params": None}
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def registry(mlflow_server: str) -> Registry:
    return Registry(mlflow_server, timeout=60.0)


@pytest.fixture
def model() -> str:
    return f"sealed-{next(numbers)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as MLflow writes it, as far as registration looks."""
    made = tmp_path / "model"
    made.mkdir()
    flavors = {"python_function": {"loader_module": "mlflow.sklearn"}}
    described = {"flavors": flavors, "signature": SIGNATURE, "mlflow_version": installed("mlflow")}
    (made / "MLmodel").write_text(yaml.safe_dump(described))
    (made / "model.pkl").write_bytes(os.urandom(1000))
    (made / "python_env.yaml").write_text("python: 3.11.9\n")
    (made / "requirements.txt").write_text(f"mlflow=={installed('mlflow')}\n")
    (made / "requirements.lock").write_text(LOCK)
    return made


def seal(registry: Registry, model: str, folder: Path, **facts: Any) -> Version:
    return register(registry, model, str(folder), **{"keys": KEYS, **facts})


def kept(registry: Registry, version: Version) -> set[str]:
    """Paths of everything under the version's prefix in its run."""
    home = f"lockstep/{version.digest}"

    def below(path: str) -> set[str]:
        found = registry.client.list_artifacts(version.run_id, path)
        return {name for one in found for name in (below(one.path) if one.is_dir else {one.path})}

    return {path.removeprefix(f"{home}/") for path in below(home)}


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    done = subprocess.run(
        ["git", *author, "-C", str(folder), *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_everything_is_captured_and_the_manifest_says_so(registry: Registry, model: str, folder: Path) -> None:
    images = {"aws": "a@sha256:1", "gcp": "b@sha256:2"}
    first = seal(registry, model, folder, images=images)
    assert kept(registry, first) == {"manifest.json", "requirements.lock", "model.sig"} | {
        f"files/{entry.path}" for entry in measure_files(folder)
    }
    manifest = registry.manifest(first)
    assert manifest.files == measure_files(folder)
    assert manifest.content == files_digest(measure_files(folder))
    assert (manifest.env.python, manifest.env.platform, manifest.env.images) == ("3.11.9", "linux/amd64", images)
    assert manifest.env.lock_sha256 == hashlib.sha256(LOCK.encode()).hexdigest()
    assert registry.lock(first) == LOCK.encode()
    assert manifest.mlflow.mlflow_version == installed("mlflow")
    expected = '{"inputs":"[{\\"type\\": \\"double\\", \\"name\\": \\"radius\\"}]","outputs":null,"params":null}'
    assert manifest.signature_sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert (manifest.code, manifest.data, manifest.parents) == (Code(), (), ())
    again = seal(registry, model, folder, images=images)
    second = seal(registry, model, folder, images={**images, "aws": "c@sha256:3"}, parents=[first.label])
    assert (again, second.label) == (first, "2")
    assert registry.manifest(second).parents == (first.digest,)
    assert registry.manifest(second).content == manifest.content
    third = seal(registry, model, folder, parents=[first.digest, "2", second.digest])
    assert set(registry.manifest(third).parents) == {first.digest, second.digest}
    with pytest.raises(NotFoundError, match="has no version 'nobody'"):
        seal(registry, model, folder, parents=["nobody"])


def test_the_official_tool_verifies_a_fetched_version(
    registry: Registry, model: str, folder: Path, tmp_path: Path
) -> None:
    version = seal(registry, model, folder)
    fetched = registry.fetch(version, tmp_path / "fetched")
    (tmp_path / "signing.pub").write_bytes(KEYS.signing_public[0])
    command = [OFFICIAL, "verify", "key", fetched / "files", "--signature", fetched / "model.sig"]
    command += ["--public_key", tmp_path / "signing.pub"]

    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )

    done = verify()
    assert done.returncode == 0, done
    changed = bytearray((fetched / "files/model.pkl").read_bytes())
    changed[500] ^= 1
    (fetched / "files/model.pkl").write_bytes(changed)
    done = verify()
    assert done.returncode != 0
    assert "model.pkl" in done.stdout + done.stderr


def test_a_signature_of_the_official_tool_says_the_same_of_the_files(folder: Path, tmp_path: Path) -> None:
    signature, key = tmp_path / "model.sig", tmp_path / "signing.key"
    assert KEYS.signing is not None
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(KEYS.signing.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    (folder / "a-b").mkdir()
    (folder / "a").mkdir()
    for path in ("a-b/ü.txt", "a/b.txt", "a.txt"):
        (folder / path).write_text(path)
    command = [OFFICIAL, "sign", "key", folder, "--signature", signature, "--private_key", key]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    manifest = Manifest("model", measure_files(folder))
    made = sign_manifest(manifest, KEYS.signing)
    theirs = open_signature(signature.read_bytes(), KEYS.signing_public, "model 1")
    ours = open_signature(made, KEYS.signing_public, "model 1")
    assert (theirs.files, theirs.signer) == (ours.files, ours.signer)
    assert (theirs.manifest, ours.manifest) == ("", manifest.digest)
    assert statement(signature.read_bytes())["subject"] == statement(made)["subject"]
    with pytest.raises(DigestMismatchError, match="manifest of nobody"):  # it signs the files, not what they came from
        verify_signature(signature.read_bytes(), manifest, KEYS.signing_public, "model 1")


def statement(bundle: bytes) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])))


def test_a_seal_that_holds_names_its_signer_and_a_broken_one_its_break(
    registry: Registry, model: str, folder: Path, tmp_path: Path
) -> None:
    version = seal(registry, model, folder)
    seen = check_seal(registry, version, KEYS)
    assert (seen.holds, seen.signer, seen.doubts) == (True, fingerprint(KEYS.signing_public[0]), ())
    assert seen.content == registry.manifest(version).content
    unknown = check_seal(registry, version, Keys())
    assert (unknown.holds, unknown.signer) == (True, "")
    assert "no public key" in unknown.doubts[0]
    stranger = check_seal(registry, version, signing_keys())
    assert not stranger.holds
    assert "none of ours" in stranger.problems[0]

    home = f"lockstep/{version.digest}"
    other = seal(registry, model, folder, images={"aws": "x"})
    for content, problem in ((registry.signature(other), "is for the manifest"), (b"{}", "malformed")):
        (tmp_path / "model.sig").write_bytes(content or b"")
        registry.client.log_artifact(version.run_id, str(tmp_path / "model.sig"), home)
        broken = check_seal(registry, version, KEYS)
        assert not broken.holds
        assert problem in broken.problems[0]
    assert seal(registry, model, folder) == version  # which puts it right
    assert check_seal(registry, version, KEYS).holds
    (tmp_path / "manifest.json").write_text("{}")
    registry.client.log_artifact(version.run_id, str(tmp_path / "manifest.json"), home)
    assert "stored manifest" in check_seal(registry, version, KEYS).problems[0]


def test_a_signature_that_holds_is_kept(registry: Registry, model: str, folder: Path) -> None:
    """Replicas have it too: a new one, as good, would make each of them differ."""
    version = seal(registry, model, folder)
    before = registry.signature(version)
    seal(registry, model, folder)
    assert registry.signature(version) == before
    rotated = signing_keys()
    keys = Keys(signing=rotated.signing, signing_public=(*rotated.signing_public, *KEYS.signing_public))
    seal(registry, model, folder, keys=keys)
    assert registry.signature(version) == before


def test_without_a_key_nothing_is_sealed(registry: Registry, model: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no key to sign a version with: it is lost") as caught:
        seal(registry, model, folder, keys=Keys(problems=("it is lost",)))
    assert "lockstep keys create" in caught.value.hint
    assert model not in registry.models()


class Killed(BaseException):
    """The process died here."""


class DyingClient:
    """MLflow's client in a process that dies before its `number`th change."""

    CHANGES = ("log_artifact", "create_run", "create_experiment", "set_terminated", "create_registered_model",
               "create_model_version", "delete_run", "delete_model_version")  # fmt: skip

    def __init__(self, client: Any, number: float) -> None:
        self._client = client
        self._left = number
        self.changes = 0

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._client, name)
        if name not in self.CHANGES:
            return method

        def change(*arguments: Any, **named: Any) -> Any:
            self.changes += 1
            if self.changes > self._left:
                raise Killed
            return method(*arguments, **named)

        return change


def test_killed_anywhere_and_run_again_it_is_one_version(mlflow_server: str, folder: Path, tmp_path: Path) -> None:
    whole = Registry(mlflow_server, timeout=60.0)
    counting = Registry(mlflow_server, timeout=60.0)
    counting.__dict__["client"] = client = DyingClient(whole.client, float("inf"))
    seal(counting, f"sealed-{next(numbers)}", folder)
    assert client.changes > 10
    for number in range(client.changes):
        (folder / "model.pkl").write_bytes(os.urandom(10))
        name = f"killed-{next(numbers)}"
        dying = Registry(mlflow_server, timeout=60.0)
        dying.__dict__["client"] = DyingClient(whole.client, number)
        with pytest.raises(Killed):
            seal(dying, name, folder)
        version = seal(whole, name, folder)
        assert whole.versions(name) == (version,)
        assert version.label == "1"
        assert check_seal(whole, version, KEYS).signer
        whole.fetch(version, tmp_path / name)


def test_code_is_a_commit_and_the_patch_from_it(registry: Registry, model: str, folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "code"
    (repository / "src").mkdir(parents=True)
    git(repository, "init", "-q")
    (repository / "src/train.py").write_text("print(1)\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    commit = git(repository, "rev-parse", "HEAD")
    clean = seal(registry, model, folder, code=repository / "src")
    assert registry.manifest(clean).code == Code(commit)
    assert "code.patch" not in kept(registry, clean)

    (repository / "src/train.py").write_text("print(2)\n")
    (repository / "more.bin").write_bytes(b"\0\1")
    git(repository, "add", "more.bin")
    (repository / "unknown.py").write_text("")
    told: list[str] = []
    dirty = seal(registry, model, folder, code=repository, progress=lambda text, *_: told.append(text))
    patch = registry.kept(dirty.run_id, dirty.digest, "code.patch")
    assert patch is not None
    assert registry.manifest(dirty).code == Code(commit, True, hashlib.sha256(patch).hexdigest())
    assert [text for text in told if "1 files" in text and "not known to git" in text]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    (tmp_path / "code.patch").write_bytes(patch)
    git(clone, "apply", str(tmp_path / "code.patch"))
    assert (clone / "src/train.py").read_text() == "print(2)\n"
    assert (clone / "more.bin").read_bytes() == b"\0\1"
    assert git(repository, "status", "--porcelain").split() == [
        "A",
        "more.bin",
        "M",
        "src/train.py",
        "??",
        "unknown.py",
    ]


def test_without_a_repository_the_runs_commit_counts(
    registry: Registry, model: str, folder: Path, tmp_path: Path
) -> None:
    assert registry.manifest(seal(registry, model, folder, code=tmp_path)).code == Code()
    with pytest.raises(NotFoundError, match="no folder"):
        seal(registry, model, folder, code=tmp_path / "nowhere")
    run = registry.client.create_run("0", tags={"mlflow.source.git.commit": "c0ffee"})
    registry.client.log_artifacts(run.info.run_id, str(folder), "model")
    for code in (None, tmp_path):
        version = register(registry, model, f"runs:/{run.info.run_id}/model", keys=KEYS, code=code)
        assert registry.manifest(version).code == Code("c0ffee")


def test_data_is_hashed_over_every_row(
    registry: Registry, model: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": range(50_000), "b": ["x, \n y"] * 50_000})
    frame.to_csv("train.csv", index=False)
    parts = Path("parts=all")
    parts.mkdir()
    for number in range(2):
        frame.head(30).to_parquet(parts / f"{number}.parquet")
    (parts / "README").write_text("")
    data = ["train.csv", "s3://bucket/year=2026/x@7=parts=all", "table:patients=train.csv"]
    version = seal(registry, model, folder, data=data)
    digest = sha256_of(Path("train.csv"))
    assert registry.manifest(version).data == (
        Dataset("s3://bucket/year=2026/x", "7", files_digest(measure_files(parts)), 60),
        Dataset("table:patients", "", digest, 50_000),
        Dataset("train.csv", "", digest, 50_000),
    )
    text = Path("train.csv").read_text()
    Path("train.csv").write_text(text.replace("44444,", "44445,"))  # which MLflow's digest, over a sample, may not see
    assert seal(registry, model, folder, data=data) != version
    for wrong in ("nowhere.csv", "s3://b/x=nowhere.csv"):
        with pytest.raises(NotFoundError, match=r"--data .*nowhere\.csv"):
            seal(registry, model, folder, data=[wrong])
    with pytest.raises(RefusedError, match="twice"):
        seal(registry, model, folder, data=["u=train.csv", "u=parts=all"])


def test_what_the_run_logged_is_hashed_where_it_lies_here(
    registry: Registry, model: str, folder: Path, tmp_path: Path
) -> None:
    import mlflow
    from mlflow.data.pandas_dataset import from_pandas

    path = tmp_path / "train.csv"
    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame.to_csv(path, index=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        with mlflow.start_run() as run:
            mlflow.log_input(from_pandas(frame, source=str(path)), context="training")
            mlflow.log_input(from_pandas(frame, source="https://data.example/far.csv", name="far"))
            mlflow.log_artifacts(str(folder), "model")
    finally:
        mlflow.set_tracking_uri(before)
    source = f"runs:/{run.info.run_id}/model"
    near, far = registry.manifest(register(registry, model, source, keys=KEYS)).data
    assert (near.uri, near.sha256, near.rows) == (str(path), sha256_of(path), 3)
    assert (far.uri, far.sha256, far.rows) == ("https://data.example/far.csv", "", None)
    assert near.mlflow_digest
    assert near.mlflow_digest == far.mlflow_digest
    copied = register(registry, model, source, keys=KEYS, data=[f"https://data.example/far.csv@3={path}"])
    assert registry.manifest(copied).data[1] == replace(far, snapshot_id="3", sha256=sha256_of(path), rows=3)


def test_a_lock_may_be_given(registry: Registry, model: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.lock"
    other.write_text(LOCK.replace("other==1", "other==2"))
    version = seal(registry, model, folder, lock=other)
    assert registry.lock(version) == other.read_bytes()
    other.write_text(f"--index-url https://ada:secret@packages.example/simple\n{LOCK}")
    with pytest.raises(RefusedError, match="it holds options: --index-url") as caught:
        seal(registry, model, folder, lock=other)
    assert "secret" not in str(caught.value)
    with pytest.raises(NotFoundError, match="no lock"):
        seal(registry, model, folder, lock=tmp_path / "nowhere")
    with pytest.raises(RefusedError, match="platform 'windows' is not known"):
        seal(registry, model, folder, platform="windows")


def test_paths_that_differ_in_case_alone_are_told(registry: Registry, model: str, folder: Path) -> None:
    (folder / "MODEL.pkl").write_text("")
    told: list[str] = []
    seal(registry, model, folder, progress=lambda text, *_: told.append(text))
    assert [text for text in told if "MODEL.pkl and model.pkl" in text]


def test_the_manifest_is_json_that_anybody_can_read(
    registry: Registry, model: str, folder: Path, tmp_path: Path
) -> None:
    version = seal(registry, model, folder)
    fetched = registry.fetch(version, tmp_path / "fetched")
    document = json.loads((fetched / "manifest.json").read_bytes())
    assert document["schema"] == "lockstep/manifest/v2"
    assert document["name"] == model
    assert sha256_of(fetched / "manifest.json") == version.digest
