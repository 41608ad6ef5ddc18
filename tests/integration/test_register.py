"""Registering real models that MLflow logged or saved, and refusing those that could not be served again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.locks import environment_lock
from lockstep.config import FleetSettings
from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.register import check_model_name
from lockstep.operations.register import register as register_signed
from lockstep.operations.verify import verify
from lockstep.rules.findings import Finding
from lockstep.rules.manifest import Tracking
from lockstep.rules.state import Version
from lockstep.stores.ledger import Ledger
from lockstep.stores.registry import Registry
from tests.model_files import ModelVersion
from tests.signing import signing_keys

KEYS = signing_keys()
LOCK = "requirements.lock"
PACKAGES = ("mlflow", "scikit-learn")
PINNED = tuple(f"{name}=={installed(name)}" for name in PACKAGES)


def register(registry: Registry, model: str, source: str, **facts: Any) -> Version:
    return register_signed(registry, model, source, **{"keys": KEYS, **facts})


@dataclass(frozen=True)
class Trained:
    """A run in which a model called "classifier" was logged."""

    run_id: str
    model_id: str


@pytest.fixture(scope="module")
def registry(mlflow_server: str) -> Registry:
    return Registry(mlflow_server, timeout=60.0)


@pytest.fixture(scope="module")
def trained(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """As a data scientist does it: fluent MLflow, in the server's own run."""
    import mlflow.sklearn
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        frame = pd.DataFrame({"radius": [1.0, 2.0, 3.0, 4.0]})
        model = LogisticRegression(C=0.5).fit(frame, [0, 0, 1, 1])
        with mlflow.start_run() as run:
            mlflow.log_param("C", 0.5)
            mlflow.log_metrics({"auc": 0.75, "loss": float("nan")})
            info = mlflow.sklearn.log_model(
                model,
                name="classifier",
                signature=infer_signature(frame, model.predict(frame)),
                pip_requirements=list(PINNED),
            )
        lock = tmp_path_factory.mktemp("lock") / LOCK
        lock.write_text(environment_lock(PACKAGES))
        registry.client.log_model_artifact(str(info.model_id), str(lock))
    finally:
        mlflow.set_tracking_uri(before)
    return Trained(run.info.run_id, str(info.model_id))


@pytest.fixture(scope="module")
def saved(model_versions: tuple[ModelVersion, ModelVersion], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with exact requirements."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    shutil.copytree(model_versions[0].folder / "files", folder)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in PINNED))
    (folder / LOCK).write_text(environment_lock(PACKAGES))
    return folder


def test_a_run_and_its_logged_model_are_one_version(
    registry: Registry, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = register(registry, "from-run", f"runs:/{trained.run_id}/classifier")
    assert register(registry, "from-run", f"models:/{trained.model_id}") == version
    assert registry.versions("from-run") == (version,)
    manifest = registry.manifest(version)
    assert manifest.env.python.startswith("3.")
    tracking = Tracking(trained.run_id, trained.model_id, f"models:/{trained.model_id}", installed("mlflow"))
    assert manifest.mlflow == tracking
    assert (manifest.params, manifest.metrics) == ({"C": "0.5"}, {"auc": "0.75", "loss": "nan"})
    assert {"MLmodel", "requirements.txt", "python_env.yaml"} < {file.path for file in manifest.files}
    assert registry.example_rows(version) == ({"radius": 1.0},)
    assert list(tmp_path.iterdir()) == []  # MLflow makes a database where it asks the process's default server


@pytest.mark.parametrize("source", ["runs:/{0.run_id}/classifier", "models:/{0.model_id}"])
def test_a_logged_model_is_as_it_was_sealed_until_a_file_of_it_is_overwritten(
    registry: Registry, trained: Trained, tmp_path: Path, source: str
) -> None:
    version = register(registry, "logged", source.format(trained))
    ledger = Ledger(str(tmp_path / "ledger.db"))
    fleet = Fleet("logged", (), registry, ledger, FleetSettings(clouds=("aws",)), keys=KEYS)
    untouched = verify(fleet, version.label)
    assert {check.finding for check in untouched.checks} == {Finding.OK}, untouched.altered
    kept = registry.download(f"models:/{trained.model_id}/MLmodel", tmp_path, "give MLmodel")
    poisoned = tmp_path / "poisoned" / "MLmodel"
    poisoned.parent.mkdir()
    poisoned.write_bytes(kept.read_bytes() + b"#")
    registry.client.log_model_artifact(trained.model_id, str(poisoned))
    try:
        (told,) = verify(fleet, version.label).altered
    finally:
        registry.client.log_model_artifact(trained.model_id, str(kept))
    assert "source file MLmodel has sha256 " in told


def test_a_local_folder_gets_a_run_and_stays_one_version(registry: Registry, saved: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    version = register(registry, "from-folder", str(saved), progress=lambda *step: told.append(step))
    assert told[-1][0] == f"{version} registered"
    assert all(0 <= done <= total for _, done, total in told)
    register(registry, "from-folder", f"{saved}/", progress=lambda *step: told.append(step))
    assert told[-1][0] == f"{version} was already registered"
    assert registry.versions("from-folder") == (version,)
    folder = registry.fetch(version, tmp_path / "fetched")
    assert (folder / "files" / "requirements.txt").read_bytes() == (saved / "requirements.txt").read_bytes()
    assert registry.client.get_run(version.run_id).info.status == "FINISHED"


def test_registering_again_completes_and_mends_an_upload(registry: Registry, saved: Path, tmp_path: Path) -> None:
    version = register(registry, "mended", str(saved))
    (tmp_path / "requirements.txt").write_text("poison")
    registry.client.log_artifact(version.run_id, str(tmp_path / "requirements.txt"), "model")
    assert register(registry, "mended", str(saved)) == version
    registry.fetch(version, tmp_path / "fetched")


def test_artifacts_of_a_run_can_be_registered(registry: Registry, saved: Path) -> None:
    run_id = registry.client.create_run("0").info.run_id
    registry.client.log_artifacts(run_id, str(saved), "exported/model")
    version = register(registry, "from-artifacts", f"runs:/{run_id}/exported/model")
    assert version.run_id == run_id
    registry.client.delete_run(run_id)
    with pytest.raises(RefusedError, match="is deleted") as caught:
        register(registry, "from-artifacts", f"runs:/{run_id}/exported/model")
    assert "restore" in caught.value.hint


def without_signature(folder: Path) -> None:
    path = folder / "MLmodel"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"signature": None}))


def without_server_flavor(folder: Path) -> None:
    path = folder / "MLmodel"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"flavors": {"sklearn": {}}}))


def with_open_versions(folder: Path) -> None:
    (folder / "requirements.txt").write_text("mlflow>=3\nscikit-learn\npandas==3.*\nscipy==1.16\n-c constraints.txt\n")


def with_some_hashes(folder: Path) -> None:
    (folder / "requirements.txt").write_text(f"a==1 \\\n    --hash=sha256:{'0' * 64}\nb==2\n")


def without_lock(folder: Path) -> None:
    (folder / LOCK).unlink()


def with_another_lock(folder: Path) -> None:
    (folder / LOCK).write_text(environment_lock(PACKAGES).replace(PINNED[1], "scikit-learn==1.0.0"))


def with_nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "problem", "fix"),
    [
        (without_lock, "has no lock", "lockstep lock {source} -o requirements.lock"),
        (with_another_lock, "requirements.lock cannot be its environment: .*scikit-learn", "--lock requirements.lock"),
        (without_signature, "has no signature", "infer_signature"),
        (without_server_flavor, "no python_function flavor", "mlflow.pyfunc.log_model"),
        (with_open_versions, r"exact version: mlflow>=3, scikit-learn, pandas==3\.\*, -c constr", "scikit-learn==1."),
        (with_some_hashes, "some do not: b==2", "pip-compile --generate-hashes"),
        (with_nothing, "is empty", "log_model"),
        (lambda folder: (folder / "MLmodel").unlink(), "not an MLflow model", "save_model"),
        (lambda folder: (folder / "MLmodel").write_text("a: [b"), "is not YAML", "save the model again"),
        (lambda folder: (folder / "requirements.txt").unlink(), "has no requirements.txt", "pip-compile"),
        (lambda folder: (folder / "requirements.txt").write_text("# none\n"), "the file is empty", "pip_requirements"),
        (lambda folder: (folder / "python_env.yaml").unlink(), "has no python_env.yaml", "pip_requirements"),
        (lambda folder: (folder / "python_env.yaml").write_text("python: any"), "names no Python", "python: 3."),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "symbolic link", "the file itself"),
    ],
)
def test_a_model_that_could_not_be_served_is_refused(
    registry: Registry, saved: Path, tmp_path: Path, spoil: Callable[[Path], None], problem: str, fix: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    spoil(folder)
    with pytest.raises(RefusedError, match=problem) as caught:
        register(registry, "refused", str(folder))
    assert fix.format(source=folder) in caught.value.hint
    assert "refused" not in registry.models()


def test_a_logged_model_without_exact_requirements_is_refused(registry: Registry, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "requirements.txt").write_text("scikit-learn\n")
    run_id = registry.client.create_run("0").info.run_id
    registry.client.log_artifacts(run_id, str(folder), "model")
    with pytest.raises(RefusedError, match="scikit-learn") as caught:
        register(registry, "refused", f"runs:/{run_id}/model")
    assert f'mlflow.sklearn.log_model(..., pip_requirements=["{PINNED[1]}"])' in caught.value.hint


def test_a_source_that_is_not_there_names_what_is(registry: Registry, trained: Trained) -> None:
    with pytest.raises(NotFoundError, match="it has classifier"):
        register(registry, "missing", f"runs:/{trained.run_id}/regressor")
    for source in (f"runs:/{'0' * 32}/model", f"models:/m-{'0' * 32}", "/nowhere/at/all"):
        with pytest.raises(NotFoundError):
            register(registry, "missing", source)
    for source in (f"runs:/{trained.run_id}", "models:/from-run/1", __file__):
        with pytest.raises(RefusedError):
            register(registry, "missing", source)


@pytest.mark.parametrize("name", ["tumour", "Fraud-2", "a-b-c", "a" * 32])
def test_names_that_every_cloud_takes(name: str) -> None:
    check_model_name(name)


@pytest.mark.parametrize(
    "name", ["", "ab", "1st", "-a", "abc-", "a--b", "a_b", "a b", "a/b", "ümlaut", "a" * 33, "a\n"]
)
def test_names_that_some_cloud_refuses(name: str) -> None:
    with pytest.raises(RefusedError, match="would not be taken") as caught:
        check_model_name(name)
    assert "letters, digits and single dashes" in caught.value.hint
