from __future__ import annotations

from pathlib import Path

import pytest

from serving.contract import ContractError, read_contract
from serving.verify import DigestMismatchError, verify_folder
from tests.model_files import ModelVersion, seal_folder

DIGEST = "a" * 64


def test_each_clouds_contract_is_understood() -> None:
    sagemaker = read_contract({"LOCKSTEP_DIGEST": DIGEST})
    assert (str(sagemaker.folder), sagemaker.port) == ("/opt/ml/model", 8080)
    azure = read_contract({"LOCKSTEP_DIGEST": DIGEST, "AZUREML_MODEL_DIR": "/var/azureml-app/m/1", "PORT": "31311"})
    assert (str(azure.folder), azure.port) == ("/var/azureml-app/m/1", 31311)
    vertex = read_contract(
        {
            "LOCKSTEP_DIGEST": DIGEST,
            "AIP_STORAGE_URI": "gs://b/p",
            "AIP_HTTP_PORT": "8085",
            "AIP_HEALTH_ROUTE": "/alive",
            "AIP_PREDICT_ROUTE": "/ask",
        }
    )
    assert (vertex.folder, vertex.storage_uri, vertex.port) == (None, "gs://b/p", 8085)
    assert "/alive" in vertex.health_routes
    assert vertex.vertex_route == "/ask"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "LOCKSTEP_DIGEST"),
        ({"LOCKSTEP_DIGEST": "abc"}, "LOCKSTEP_DIGEST"),
        ({"LOCKSTEP_DIGEST": DIGEST, "PORT": "http"}, "PORT"),
        ({"LOCKSTEP_DIGEST": DIGEST, "AIP_STORAGE_URI": "s3://b/p"}, "AIP_STORAGE_URI"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ContractError, match=named):
        read_contract(environment)


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    files = tmp_path / "1" / "files"
    (files / "data").mkdir(parents=True)
    (files / "MLmodel").write_text("flavors: {}\n")
    (files / "data" / "weights.bin").write_bytes(bytes(range(256)))
    return seal_folder(tmp_path / "1", "1")


def test_right_bytes_are_accepted_also_one_folder_deeper(version: ModelVersion) -> None:
    assert verify_folder(version.folder, version.digest).count == 2
    assert verify_folder(version.folder.parent, version.digest).files == version.folder / "files"


def test_another_version_is_refused(version: ModelVersion) -> None:
    with pytest.raises(DigestMismatchError, match=r"manifest\.json"):
        verify_folder(version.folder, DIGEST)


def test_a_changed_byte_a_missing_and_an_extra_file_are_named(version: ModelVersion) -> None:
    weights = version.folder / "files" / "data" / "weights.bin"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\x00")
    with pytest.raises(DigestMismatchError, match=r"data/weights\.bin has sha256"):
        verify_folder(version.folder, version.digest)
    weights.unlink()
    with pytest.raises(DigestMismatchError, match=r"data/weights\.bin is missing"):
        verify_folder(version.folder, version.digest)
    weights.write_bytes(good)
    (version.folder / "files" / "sitecustomize.py").write_text("boom")
    with pytest.raises(DigestMismatchError, match=r"sitecustomize\.py is not in the manifest"):
        verify_folder(version.folder, version.digest)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatchError, match="0 manifests"):
        verify_folder(tmp_path, DIGEST)
