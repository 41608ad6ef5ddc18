"""lockstep.yaml as blocks on a Prefect server: what differs, and saving it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from prefect.blocks.core import Block
from pydantic import BaseModel, ValidationError

from blocks.azureml import AzureMLCloud
from blocks.fleet import CloudBlock, Fleet
from blocks.mlflow_registry import MlflowRegistry
from blocks.sagemaker import SageMakerCloud
from blocks.vertex import VertexCloud
from lockstep.clouds.azureml import AzureMLSettings
from lockstep.clouds.sagemaker import SageMakerSettings
from lockstep.config import AnyCloud, Config, ModelSettings
from lockstep.errors import ConfigError
from lockstep.stores.outcomes import FileOutcomes

B = TypeVar("B", bound=Block)
Change = Literal["added", "changed", "unchanged"]
MLFLOW: Final = "mlflow"
#: Fields that name files: a worker runs in another folder than lockstep.yaml lies in.
FILES: Final = ("credentials_file", "ca_file")


@dataclass(frozen=True)
class Difference:
    """What saving would do to one thing on the server; `fields` are names only, so that no secret is shown."""

    what: str
    name: str
    change: Change
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class WantedBlocks:
    """Blocks by the name under which they are saved."""

    mlflow: MlflowRegistry
    clouds: Mapping[str, CloudBlock]
    fleets: Mapping[str, Fleet]

    def all(self) -> tuple[tuple[str, Block], ...]:
        """Every block with its name, what others refer to first."""
        return ((MLFLOW, self.mlflow), *self.clouds.items(), *self.fleets.items())


def blocks_of(config: Config, folder: Path) -> WantedBlocks:
    """The blocks that hold `config`; paths are taken from `folder`, where lockstep.yaml lies.

    Raises ConfigError for what a Fleet block cannot hold: two clouds of one vendor, or names that become the same.
    """
    registry = MlflowRegistry(**_values(config.mlflow))
    clouds = {name: _cloud(name, settings, folder) for name, settings in config.clouds.items()}
    fleets: dict[str, Fleet] = {}
    for name, settings in config.fleets.items():
        members = [clouds[cloud] for cloud in settings.clouds]
        fleets[name] = Fleet(
            mlflow=registry,
            aws=_only(name, members, SageMakerCloud),
            azure=_only(name, members, AzureMLCloud),
            gcp=_only(name, members, VertexCloud),
            listed=settings.clouds,
            order=settings.order,
            rollout=settings.rollout,
            monitor=settings.monitor,
            reconcile=settings.reconcile,
            ledger=config.ledger.placed(folder),
            state=_absolute(config.state, folder) if config.state else None,
            keys_folder=_absolute(config.keys.folder, folder),
            verifiers=config.keys.verifiers,
            fleet_name=name,
            models={
                model: _with_absolute_paths(given, folder)
                for model, given in config.models.items()
                if given.fleet == name
            },
        )
    return WantedBlocks(registry, _named(clouds), _named(fleets))


def block_name(name: str) -> str:
    """The name as Prefect takes it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def differences(wanted: WantedBlocks) -> tuple[Difference, ...]:
    """What saving would change; reads the server only."""
    return tuple(_difference(name, block) for name, block in wanted.all())


def save(wanted: WantedBlocks) -> None:
    """Save what differs. A fleet refers to its clouds' blocks, so that a cloud that is edited changes in all fleets."""
    registry = _saved(MLFLOW, wanted.mlflow)
    saved = {name: _saved(name, cloud) for name, cloud in wanted.clouds.items()}
    for name, fleet in wanted.fleets.items():
        references = {
            key: saved[block_name(member.cloud_name)]
            for key in ("aws", "azure", "gcp")
            if (member := getattr(fleet, key)) is not None
        }
        if _difference(name, fleet).change != "unchanged":
            fleet.model_copy(update={"mlflow": registry, **references}).save(name, overwrite=True)


def _saved(name: str, block: B) -> B:
    try:
        existing = _load(type(block), name)
    except ValidationError:  # saved by another release
        existing = None
    if existing is not None and not _changed_fields(block, existing):
        return existing
    block.save(name, overwrite=True)
    return block


def _difference(name: str, block: Block) -> Difference:
    what = block.get_block_type_name()
    try:
        existing = _load(type(block), name)
    except ValidationError as error:  # saved by another release: it is written anew
        return Difference(what, name, "changed", tuple(sorted({str(found["loc"][0]) for found in error.errors()})))
    if existing is None:
        return Difference(what, name, "added")
    fields = _changed_fields(block, existing)
    return Difference(what, name, "changed" if fields else "unchanged", fields)


def _changed_fields(wanted: Block, existing: Block) -> tuple[str, ...]:
    return tuple(
        name
        for name in type(wanted).model_fields
        if _comparable(getattr(wanted, name)) != _comparable(getattr(existing, name))
    )


def _comparable(value: object) -> object:
    """A nested block is compared by what it refers to: its own values have a line of their own."""
    if isinstance(value, MlflowRegistry):
        return MLFLOW
    if isinstance(value, SageMakerCloud | AzureMLCloud | VertexCloud):
        return block_name(value.cloud_name)
    return value


def _load(kind: type[B], name: str) -> B | None:
    try:
        loaded = kind.load(name)
    except ValueError as error:
        if isinstance(error, ValidationError) or "Unable to find block document" not in str(error):
            raise
        return None
    assert isinstance(loaded, kind)  # outside of an event loop Prefect waits for the answer itself
    return loaded


def _cloud(name: str, settings: AnyCloud, folder: Path) -> CloudBlock:
    values = _values(settings)
    for field in FILES:
        if values.get(field):
            values[field] = _absolute(values[field], folder)
    if isinstance(settings, SageMakerSettings):
        return SageMakerCloud(cloud_name=name, **values)
    if isinstance(settings, AzureMLSettings):
        return AzureMLCloud(cloud_name=name, **values)
    return VertexCloud(cloud_name=name, **values)


def _only(fleet: str, members: list[CloudBlock], kind: type[B]) -> B | None:
    found = [member for member in members if isinstance(member, kind)]
    if len(found) > 1:
        names = ", ".join(str(getattr(member, "cloud_name", "")) for member in found)
        raise ConfigError(
            f"fleet {fleet!r} has several clouds of one kind ({names}); a Fleet block holds one of each",
            hint="split the fleet; the command line takes it as it is",
        )
    return found[0] if found else None


def _named(blocks: Mapping[str, B]) -> dict[str, B]:
    named: dict[str, B] = {}
    for name, block in blocks.items():
        if not block_name(name) or block_name(name) in named:
            raise ConfigError(f"{name!r} gives no block name of its own in Prefect", hint="rename it in lockstep.yaml")
        named[block_name(name)] = block
    return named


def _values(settings: BaseModel) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in type(settings).model_fields}


def _with_absolute_paths(model: ModelSettings, folder: Path) -> ModelSettings:
    outcomes = model.outcomes
    if not isinstance(outcomes, FileOutcomes):
        return model
    paths = {"path": _absolute(outcomes.path, folder)}
    if outcomes.requests is not None:
        paths["requests"] = _absolute(outcomes.requests, folder)
    return model.model_copy(update={"outcomes": outcomes.model_copy(update=paths)})


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).absolute())
