"""What somebody changed of a version's records: its model package, its variant, and the Model behind that.

A package's source, approval, metadata and even its containers can be changed (UpdateModelPackage). Models and endpoint
configurations cannot, but they can be deleted while they serve and made anew under the same name, which instances that
start later would use; and an endpoint can be led to a configuration in which the slot's name stands for another Model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.clouds.sagemaker.definitions import SLOT_TAG, Definitions
from lockstep.clouds.sagemaker.endpoints import Endpoint
from lockstep.clouds.sagemaker.names import model_name
from lockstep.clouds.sagemaker.packages import Packages, container, origin
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.rules.attestation import additions, differences
from lockstep.rules.state import Version

Document = Mapping[str, Any]


def attest_package(
    packages: Packages, settings: SageMakerSettings, version: Version, group: str, image: str
) -> tuple[str, ...]:
    """What of the model package differs; that there is none is a difference too."""
    found = packages.described(version, group)
    if found is None:
        return (f"model package group {group} has no package of {version}",)
    where = f"model package {found['ModelPackageArn']}"
    wanted = container(version, settings, image)
    specified = found.get("InferenceSpecification") or {}
    containers = specified.get("Containers") or []
    marks, metadata = origin(version, packages.cloud), found.get("CustomerMetadataProperties") or {}
    told = differences(
        where,
        {"status": found.get("ModelPackageStatus"), "approval": found.get("ModelApprovalStatus")},
        {"status": "Completed", "approval": "Approved"},
    )
    told += differences(where, {"source": found.get("SourceUri")}, {"source": _place(wanted)})
    told += differences(where, {f"metadata {key}": metadata.get(key) for key in marks}, _named("metadata", marks))
    if len(containers) != 1:
        return (*told, f"{where}: it has {len(containers)} containers, not 1")
    told += _container(where, containers[0], wanted, image)
    more = found.get("AdditionalInferenceSpecifications") or []
    names = {str(one.get("Name")): one.get("Description") or "without description" for one in more}
    return told + additions(where, "inference specification", names, {})


def attest_slot(
    definitions: Definitions, settings: SageMakerSettings, version: Version, live: Endpoint, image: str
) -> tuple[str, ...]:
    """What of the slot's variant and Model differs; nothing for an endpoint without this slot."""
    if version.slot not in live.slots:
        return ()
    name = model_name(live.name, version.slot)
    used = definitions.slot_model(live, version.slot)
    where = f"variant {version.slot} of endpoint {live.name}"
    told = differences(where, {"model": used}, {"model": name})
    mark = SLOT_TAG + version.slot
    tagged = definitions.tagged(live).get(version.slot)
    told += differences(f"endpoint configuration {live.config}", {mark: tagged}, {mark: version.digest})
    model = definitions.model(used)
    if model is None:
        return (*told, f"{where}: its SageMaker model {used} was deleted: instances that start from now on have none")
    primary = model.get("PrimaryContainer")
    if not primary or model.get("Containers"):
        return (*told, f"SageMaker model {used}: it has no primary container, or others beside it")
    return told + _container(f"SageMaker model {used}", primary, container(version, settings, image), image)


def _container(where: str, found: Document, wanted: Document, image: str) -> tuple[str, ...]:
    """A ContainerDefinition; `image` is empty where no image was pinned."""
    environment = found.get("Environment") or {}
    source = (found.get("ModelDataSource") or {}).get("S3DataSource") or {}
    given = wanted["ModelDataSource"]["S3DataSource"]
    told = differences(where, {"image": found.get("Image")}, {"image": image}) if image else ()
    told += differences(where, {"bytes at": source.get("S3Uri")}, {"bytes at": given["S3Uri"]})
    told += differences(
        where,
        {"kind of bytes": (source.get("S3DataType"), source.get("CompressionType"))},
        {"kind of bytes": (given["S3DataType"], given["CompressionType"])},
    )
    told += differences(where, {"other bytes": found.get("ModelDataUrl")}, {"other bytes": None})
    told += differences(where, environment, wanted["Environment"])
    return told + additions(where, "environment variable", environment, wanted["Environment"])


def _place(wanted: Document) -> str:
    return str(wanted["ModelDataSource"]["S3DataSource"]["S3Uri"])


def _named(what: str, marks: Mapping[str, str]) -> dict[str, str]:
    return {f"{what} {key}": value for key, value in marks.items()}
