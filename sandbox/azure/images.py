"""What a deployment is made of, read at deploy time: the model's bytes, the image's routes, the machine's size."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.azure.arm import ArmError, bad_request, not_implemented
from sandbox.azure.azurite import Azurite
from sandbox.azure.operations import OperationError
from sandbox.azure.store import Document, Store, key

ASSET: Final = re.compile(r"/(models|environments)/([^/]+)/versions/([^/]+)$", re.IGNORECASE)
STORED: Final = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/(?:providers/[^/]+/)?workspaces/[^/]+/)?"
    r"datastores/([^/]+)/paths/(.+)",
    re.IGNORECASE,
)
#: Cores of one machine family that the subscription may use in its region.
QUOTA: Final = 600


@dataclass(frozen=True)
class Plan:
    """A deployment's ingredients: names of the model's version, where its files are, the container's routes."""

    model: str
    version: str
    container: str
    prefix: str
    readiness: str
    scoring: str


def plan(store: Store, properties: Document) -> Plan:
    """Resolve the model and the environment that a deployment names; raises ArmError."""
    if properties.get("codeConfiguration"):
        raise not_implemented("codeConfiguration (a scoring script on Azure's inference server)")
    if properties.get("modelMountPath"):
        raise not_implemented("modelMountPath")
    if not properties.get("model"):
        raise not_implemented("a deployment without a model")
    if not properties.get("environmentId"):
        raise not_implemented("no-code MLflow deployment: name an environment with an image")
    model = _asset(store, "models", properties["model"])
    environment = _asset(store, "environments", properties["environmentId"])["properties"]
    uri = str(model["properties"]["modelUri"])
    stored = STORED.fullmatch(uri)
    if stored is None:
        raise not_implemented(f"a model at {uri}")
    datastore = store.get(key("datastores", stored[1]))
    if datastore is None:
        raise bad_request(f"Datastore '{stored[1]}' of model path '{uri}' does not exist.")
    routes = environment.get("inferenceConfig") or {}
    paths = {}
    for route in ("livenessRoute", "readinessRoute", "scoringRoute"):
        path = (routes.get(route) or {}).get("path")
        if not path:
            raise bad_request(
                "An environment without code configuration needs an inferenceConfig with livenessRoute, "
                f"readinessRoute and scoringRoute: {route} is missing."
            )
        paths[route] = path
    name, version = model["id"].split("/")[-3::2]
    container = str(datastore["properties"]["containerName"])
    return Plan(name, version, container, stored[2].strip("/"), paths["readinessRoute"], paths["scoringRoute"])


def place_files(azurite: Azurite, what: Plan, root: Path) -> Path:
    """Put the model's bytes, as they lie in Blob now, below `root`; returns what AZUREML_MODEL_DIR must name.

    Raises OperationError when there are none.
    """
    folder = root / "azureml-models" / what.model / what.version
    folder.mkdir(parents=True)
    count = azurite.download(what.container, what.prefix, folder / what.prefix.rsplit("/", 1)[-1])
    if count == 0:
        raise OperationError(
            "BadArgument",
            f"Unable to download user model '{what.model}:{what.version}': no blob at '{what.prefix}' in container "
            f"'{what.container}'. Please see troubleshooting guide, available here: "
            "https://aka.ms/oe-tsg#error-badargument",
        )
    return folder


def cores(instance_type: str) -> int:
    """Virtual cores of a machine size, by the rule in Azure's size names; raises ArmError for a name that is none."""
    match = re.fullmatch(r"Standard_([A-Z]+)(\d+)[A-Za-z]*(?:_[A-Za-z0-9]+)*", instance_type or "", re.IGNORECASE)
    if match is None:
        raise bad_request(f"Instance type '{instance_type}' is not supported, such as Standard_DS3_v2 is.")
    number = int(match[2])
    old_series = match[1].upper() in ("D", "DS") and instance_type.lower().endswith("_v2") and number <= 5
    return 2 ** (number - 1) if old_series else number


def needed(instance_type: str, instances: int) -> int:
    """Cores that a deployment takes from the quota: a fifth is reserved for upgrades."""
    return math.ceil(round(1.2 * instances, 6)) * cores(instance_type)


def _asset(store: Store, collection: str, reference: str) -> Document:
    match = ASSET.search(reference)
    if match is None or match[1].lower() != collection:
        raise not_implemented(f"the reference {reference!r}: name a version in this workspace by its full identifier")
    found = store.get(key(collection, match[2], "versions", match[3]))
    if found is None:
        kind = collection.removesuffix("s").capitalize()
        raise ArmError(400, "BadRequest", f"{kind} '{match[2]}:{match[3]}' could not be found in the workspace.")
    return found
