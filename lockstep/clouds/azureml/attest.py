"""What somebody changed of a version's records: its model version, its deployment, and the environment behind that.

A model version's path and an environment's image are set once; their tags, properties and archive flag can be changed
at any time, and a version can be deleted and made anew under its number. A deployment can be changed altogether.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.clouds.azureml.arm import Document
from lockstep.clouds.azureml.assets import HEALTH_ROUTE, PORT, RUN_TAG, SCORE_ROUTE, Assets, place
from lockstep.clouds.azureml.endpoints import DIGEST_TAG, LABEL_TAG, MODEL_TAG
from lockstep.rules.attestation import additions, differences

if TYPE_CHECKING:
    from lockstep.rules.state import Version

#: Of a deployment: what would put code, or the model, in another place than the image expects.
NEVER_WRITTEN = ("codeConfiguration", "modelMountPath")


def attest_model(assets: Assets, version: Version) -> tuple[tuple[str, ...], Document | None]:
    """What of the model version differs (that there is none is a difference too), and its document."""
    found = assets.described(version)
    if found is None:
        return (f"the workspace has no model version of {version}",), None
    where, properties = f"model {version.model}:{found['name']}", found["properties"]
    origin = {LABEL_TAG: version.label, DIGEST_TAG: version.digest, RUN_TAG: version.run_id}
    told = differences(
        where,
        {"path": place(str(properties.get("modelUri", ""))), "type": properties.get("modelType")},
        {"path": place(assets.uri(version)), "type": "custom_model"},
    )
    told += _marks(where, "property", properties.get("properties") or {}, origin)
    told += _marks(where, "tag", properties.get("tags") or {}, {**origin, MODEL_TAG: version.model})
    if properties.get("isArchived"):
        told += (f"{where}: it was archived",)
    return told, found


def attest_deployment(
    assets: Assets, version: Version, model: Document | None, deployment: Document, image: str
) -> tuple[str, ...]:
    """What of the slot's deployment and its environment differs; `image` is empty where no image was pinned."""
    where, properties = f"deployment {deployment['name']}", deployment["properties"]
    told: tuple[str, ...] = ()
    if model is not None:
        told += differences(where, {"model": _id(properties.get("model"))}, {"model": _id(model["id"])})
    variables = properties.get("environmentVariables") or {}
    written = {"LOCKSTEP_DIGEST": version.digest, "LOCKSTEP_VERSION": version.label}
    told += differences(where, variables, written) + additions(where, "environment variable", variables, written)
    marks = {LABEL_TAG: version.label, DIGEST_TAG: version.digest, MODEL_TAG: version.model}
    told += _marks(where, "tag", deployment.get("tags") or {}, marks)
    given = {name: properties[name] for name in NEVER_WRITTEN if properties.get(name)}
    told += additions(where, "setting", given, {})
    return told + _environment(assets, where, str(properties.get("environmentId") or ""), image)


def _environment(assets: Assets, deployment: str, identifier: str, image: str) -> tuple[str, ...]:
    found = assets.environment_of(identifier)
    if found is None:
        return (f"{deployment}: its environment {identifier or '(none)'} is not in the workspace",)
    where, properties = f"environment {identifier.partition('/environments/')[2]}", found["properties"]
    routes = properties.get("inferenceConfig") or {}
    told = differences(where, {"image": properties.get("image")}, {"image": image}) if image else ()
    health = f"{PORT}{HEALTH_ROUTE}"
    return told + differences(
        where,
        {name: _route(routes.get(name)) for name in ("livenessRoute", "readinessRoute", "scoringRoute")},
        {"livenessRoute": health, "readinessRoute": health, "scoringRoute": f"{PORT}{SCORE_ROUTE}"},
    )


def _marks(where: str, what: str, found: dict[str, Any], written: dict[str, str]) -> tuple[str, ...]:
    names = {key: f"{what} {key}" for key in written}
    return differences(
        where,
        {names[key]: found.get(key) for key in written},
        {names[key]: value for key, value in written.items()},
    )


def _route(route: dict[str, Any] | None) -> str:
    return f"{route.get('port')}{route.get('path')}" if route else ""


def _id(identifier: object) -> str:
    """Resource ids are the same in any case of letters; a workspace asset may come with its protocol in front."""
    return str(identifier or "").lower().removeprefix("azureml:").strip("/")
