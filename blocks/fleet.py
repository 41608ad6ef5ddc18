"""Block of a fleet: which clouds serve which models, in which order and within which limits."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, model_validator

from blocks.azureml import AzureMLCloud
from blocks.mlflow_registry import MlflowRegistry
from blocks.sagemaker import SageMakerCloud
from blocks.settings import BLOCK_CONFIG, DOCUMENTATION, SchemaOnce, logo
from blocks.vertex import VertexCloud
from lockstep.clouds.base import Cloud
from lockstep.config import (
    Config,
    FleetSettings,
    ModelSettings,
    MonitorSettings,
    ReconcileSettings,
    RolloutSettings,
)
from lockstep.stores.key_settings import KeySettings
from lockstep.stores.ledger import AnyLedger, LedgerSettings

CloudBlock = SageMakerCloud | AzureMLCloud | VertexCloud


class Fleet(SchemaOnce, Block):
    """The clouds that serve a set of models in step, with the limits of rollouts and of what serves.

    Example:
        Look at every cloud of a model's fleet:
        ```python
        from blocks import Fleet
        from lockstep.operations.fleet import open_fleet

        fleet = Fleet.load("BLOCK_NAME")
        print(open_fleet(fleet.to_config(), "tumour", clouds=fleet.adapters()).observe())
        ```
    """

    model_config: ClassVar[ConfigDict] = BLOCK_CONFIG

    _block_type_name = "Lockstep Fleet"
    _block_type_slug = "lockstep-fleet"
    _logo_url: ClassVar[HttpUrl | None] = logo("2d0b896006ad463b49c28aaac14f31e00e32cfab-250x250")
    _documentation_url: ClassVar[HttpUrl | None] = DOCUMENTATION

    mlflow: Annotated[MlflowRegistry, Field(description="The canonical store of versions.")]
    aws: Annotated[SageMakerCloud | None, Field(description="Amazon SageMaker, if it serves.")] = None
    azure: Annotated[AzureMLCloud | None, Field(description="Azure Machine Learning, if it serves.")] = None
    gcp: Annotated[VertexCloud | None, Field(description="Google Vertex AI, if it serves.")] = None
    listed: Annotated[
        tuple[str, ...],
        Field(description="Names of the clouds in the order of lockstep.yaml; when empty: AWS, Azure, Google."),
    ] = ()
    order: Annotated[
        Literal["cheapest", "listed"], Field(description="Which cloud a canary tries first: the cheapest or as listed.")
    ] = "cheapest"
    rollout: Annotated[RolloutSettings, Field(description="How a canary moves, and what stops it.")] = RolloutSettings()
    monitor: Annotated[MonitorSettings, Field(description="When the version that serves is in breach.")] = (
        MonitorSettings()
    )
    reconcile: Annotated[ReconcileSettings, Field(description="What reconciling may change at once.")] = (
        ReconcileSettings()
    )
    ledger: Annotated[
        AnyLedger,
        Field(description="The record of what was done; paths are absolute, as workers run in folders of their own."),
    ] = LedgerSettings()
    state: Annotated[
        str | None,
        Field(description="Folder for what was last known of each model; beside the ledger when left out."),
    ] = None
    keys_folder: Annotated[
        str,
        Field(
            description="Folder of the keys that sign the ledger and the versions; the keys themselves are not saved "
            "here: a worker has the folder, or the keys in its environment."
        ),
    ] = ".lockstep/keys"
    verifiers: Annotated[
        tuple[str, ...], Field(description="Verifier keys of the ledger that are trusted besides those in the folder.")
    ] = ()
    fleet_name: Annotated[str, Field(min_length=1, description="Name of this fleet in lockstep.yaml.")] = "default"
    models: Annotated[
        dict[str, ModelSettings],
        Field(description="Models by their name in MLflow, each with its outcomes and the rows to probe it with."),
    ] = {}  # noqa: RUF012 - pydantic copies defaults

    @model_validator(mode="after")
    def _listed_clouds_exist(self) -> Fleet:
        names = [block.cloud_name for block in self._blocks()]
        if not names:
            raise ValueError("a fleet needs at least one of aws, azure and gcp")
        if len(set(names)) != len(names):
            raise ValueError(f"two clouds of the fleet have one name: {', '.join(names)}")
        if self.listed and set(self.listed) != set(names):
            raise ValueError(f"listed names {', '.join(self.listed)}, but the fleet's clouds are {', '.join(names)}")
        return self

    def clouds(self) -> dict[str, CloudBlock]:
        """The fleet's cloud blocks by name, in the listed order."""
        blocks = {block.cloud_name: block for block in self._blocks()}
        return {name: blocks[name] for name in self.listed or blocks}

    def adapters(self) -> dict[str, Cloud]:
        """The adapters by name; opens no connection yet."""
        return {name: block.connect() for name, block in self.clouds().items()}

    def to_config(self) -> Config:
        """The configuration that lockstep.yaml would hold for this fleet alone."""
        clouds = {name: block.settings() for name, block in self.clouds().items()}
        settings = FleetSettings(
            clouds=tuple(clouds),
            order=self.order,
            rollout=self.rollout,
            monitor=self.monitor,
            reconcile=self.reconcile,
        )
        return Config(
            mlflow=self.mlflow.settings(),
            ledger=self.ledger,
            keys=KeySettings(folder=self.keys_folder, verifiers=self.verifiers),
            state=self.state,
            clouds=clouds,
            fleets={self.fleet_name: settings},
            models={name: model.model_copy(update={"fleet": self.fleet_name}) for name, model in self.models.items()},
        )

    def _blocks(self) -> tuple[CloudBlock, ...]:
        return tuple(block for block in (self.aws, self.azure, self.gcp) if block is not None)
