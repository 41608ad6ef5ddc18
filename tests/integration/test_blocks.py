"""The blocks: made without a server, complete for the Prefect UI, and the same settings as lockstep.yaml's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks import AzureMLCloud, Fleet, MlflowRegistry, SageMakerCloud, VertexCloud
from lockstep.config import ModelSettings, RolloutSettings
from lockstep.operations.fleet import open_fleet
from lockstep.stores.ledger import LedgerSettings
from lockstep.stores.outcomes import FileOutcomes

AWS = SageMakerCloud(
    region="eu-central-1",
    bucket="models",
    role_arn="arn:aws:iam::123456789012:role/serving",
    image="repository@sha256:0",
    secret_access_key=SecretStr("very-secret"),
    price_per_hour=0.3,
)
AZURE = AzureMLCloud(
    subscription_id="sub",
    resource_group="group",
    workspace="space",
    region="westeurope",
    storage_account="account",
    container="blobs",
    image="repository@sha256:0",
    price_per_hour=0.2,
)
GCP = VertexCloud(project="project", location="europe-west4", bucket="models", image="repository@sha256:0")
MLFLOW = MlflowRegistry(tracking_uri="http://127.0.0.1:1")


class Standard(BlockStandardTestSuite):
    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The suite's own test fetches the picture; here it is enough that the API will take its address."""
        assert str(block._logo_url).startswith("https://")
        assert block._to_block_type().logo_url is not None

    def test_the_slug_names_lockstep(self, block: type[Block]) -> None:
        assert block.get_block_type_slug().startswith("lockstep-")


class TestSageMaker(Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return SageMakerCloud


class TestAzureML(Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return AzureMLCloud


class TestVertex(Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return VertexCloud


class TestMlflow(Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return MlflowRegistry


class TestFleet(Standard):
    @pytest.fixture
    def block(self) -> type[Block]:
        return Fleet


def test_blocks_and_adapters_are_made_without_any_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    fleet = Fleet(
        mlflow=MLFLOW, aws=AWS.model_copy(), azure=AZURE.model_copy(),
        ledger=LedgerSettings(database=str(tmp_path / "ledger.db")),
        models={"tumour": ModelSettings(fleet="elsewhere", outcomes=FileOutcomes(path="outcomes"))},
        rollout=RolloutSettings(steps=(50, 100)),
    )  # fmt: skip
    opened = open_fleet(fleet.to_config(), "tumour", clouds=fleet.adapters())
    assert [cloud.name for cloud in opened.clouds] == ["azure", "aws"]  # the cheapest first
    assert opened.settings.rollout.steps == (50, 100)
    assert isinstance(opened.outcomes, FileOutcomes)


def test_secrets_do_not_show() -> None:
    assert "very-secret" not in repr(AWS) + str(AWS) + AWS.model_dump_json()
    assert "secret_access_key" in AWS.model_json_schema()["secret_fields"]
    settings = AWS.settings()
    assert settings.secret_access_key is not None
    assert settings.secret_access_key.get_secret_value() == "very-secret"


def test_a_listed_order_is_kept_and_checked() -> None:
    fleet = Fleet(mlflow=MLFLOW, aws=AWS, gcp=GCP, listed=("gcp", "aws"), order="listed")
    assert list(fleet.clouds()) == ["gcp", "aws"]
    with pytest.raises(ValidationError, match="the fleet's clouds are aws"):
        Fleet(mlflow=MLFLOW, aws=AWS, listed=("azure",))
    with pytest.raises(ValidationError, match="at least one"):
        Fleet(mlflow=MLFLOW)
