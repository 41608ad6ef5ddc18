"""Google's JSON read into values and written from them; no I/O.

Answers carry the project's number where requests carry its id, so resources are compared by their last segment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from lockstep.rules.state import SlotState, Version

PORT: Final = 8080
DIGEST: Final = "lockstep-digest"
LABEL: Final = "lockstep-version"
RUN_ID: Final = "lockstep-run-id"


@dataclass(frozen=True)
class DeployedModel:
    """One deployed model: `slot` is its display name, `available` its replicas that can serve (None: not said).

    `replicas` are those that it keeps at least, `most` those that it may grow to.
    """

    id: str
    slot: str
    model: str
    version_id: str
    replicas: int
    most: int
    available: int | None
    message: str

    @property
    def ready(self) -> bool:
        """Whether it can take requests: deployed, and not reported as being without a replica."""
        return self.available is None or self.available > 0

    @property
    def trouble(self) -> str:
        """Why it cannot take requests, in the service's words where it has any."""
        return f"it is not ready: {self.message or 'no replica is available'}"


@dataclass(frozen=True)
class EndpointRecord:
    """An endpoint as the service shows it: weights by deployed-model id, and when it was changed last.

    `logging` is where requests are logged to (`project.dataset.table`, "" when they are not), `sampled` the share.
    """

    updated: datetime | None
    deployed: tuple[DeployedModel, ...]
    traffic: Mapping[str, int] = field(default_factory=dict)
    logging: str = ""
    sampled: float = 0.0
    etag: str = ""

    def find(self, slot: str) -> DeployedModel | None:
        """The deployed model of a slot; where several bear its name, the one that takes most traffic."""
        named = [deployed for deployed in self.deployed if deployed.slot == slot]
        return max(named, key=lambda deployed: self.traffic.get(deployed.id, 0), default=None)

    def slots(self) -> tuple[tuple[str, DeployedModel], ...]:
        """Slots and their deployed models, in the order of their names."""
        names = sorted({deployed.slot for deployed in self.deployed})
        return tuple((name, found) for name in names if (found := self.find(name)) is not None)

    def taking(self) -> dict[str, int]:
        """Weight by slot of those that take traffic."""
        return {slot: weight for slot, weight in self.weights().items() if weight}

    def weights(self) -> dict[str, int]:
        """Weight by slot; an id that belongs to no deployed model stands under its own name."""
        names = {deployed.id: deployed.slot for deployed in self.deployed}
        found = dict.fromkeys(names.values(), 0)
        for deployed_id, weight in self.traffic.items():
            slot = names.get(deployed_id, deployed_id)
            found[slot] = found.get(slot, 0) + weight
        return found


def read_endpoint(content: Mapping[str, Any]) -> EndpointRecord:
    """`Endpoint` of the v1 API."""
    updated = content.get("updateTime")
    logging = content.get("predictRequestResponseLoggingConfig") or {}
    destination = str((logging.get("bigqueryDestination") or {}).get("outputUri", "")) if logging.get("enabled") else ""
    return EndpointRecord(
        updated=datetime.fromisoformat(updated) if updated else None,
        deployed=tuple(_read_deployed(item) for item in content.get("deployedModels", ())),
        traffic={str(key): int(weight) for key, weight in content.get("trafficSplit", {}).items()},
        logging=destination.removeprefix("bq://"),
        sampled=float(logging.get("samplingRate") or 0.0),
        etag=str(content.get("etag", "")),
    )


def _read_deployed(content: Mapping[str, Any]) -> DeployedModel:
    model, _, version = str(content.get("model", "")).rpartition("/")[2].partition("@")
    status = content.get("status", {})
    available = status.get("availableReplicaCount")
    resources = content.get("dedicatedResources", {})
    replicas = int(resources.get("minReplicaCount", 1))
    return DeployedModel(
        id=str(content["id"]),
        slot=str(content.get("displayName", "")),
        model=model,
        version_id=str(content.get("modelVersionId") or version),
        replicas=replicas,
        most=int(resources.get("maxReplicaCount", replicas)),
        available=None if available is None else int(available),
        message=str(status.get("message", "")),
    )


def slot_state(deployed: DeployedModel, weight: int, label: str, digest: str) -> SlotState:
    """A deployed model as Lockstep's value."""
    return SlotState(
        name=deployed.slot,
        weight=weight,
        ready=deployed.ready,
        status=deployed.message or ("deployed" if deployed.ready else "no replica available"),
        capacity=deployed.replicas if deployed.available is None else deployed.available,
        label=label,
        digest=digest,
    )


def container_env(model: Mapping[str, Any]) -> dict[str, str]:
    """Environment of a model version's container: immutable, unlike its labels."""
    pairs = model.get("containerSpec", {}).get("env", ())
    return {str(pair["name"]): str(pair.get("value", "")) for pair in pairs}


def digest_of(model: Mapping[str, Any]) -> str:
    """The digest that a model version was uploaded for; "" for one that did not come from Lockstep."""
    return container_env(model).get("LOCKSTEP_DIGEST", "") or str(model.get("labels", {}).get(DIGEST, ""))


def upload_body(version: Version, image: str, artifact_uri: str) -> dict[str, Any]:
    """`Model` for UploadModel. The version's alias is its slot, so that no later upload takes it over."""
    labels = {LABEL: label_value(version.label), DIGEST: version.digest}
    if version.run_id:
        labels[RUN_ID] = label_value(version.run_id)
    return {
        "displayName": version.model[:128],
        "versionAliases": [version.slot],
        "versionDescription": f"MLflow version {version.label}, digest {version.digest}, run {version.run_id or '-'}",
        "labels": labels,
        "artifactUri": artifact_uri,
        "containerSpec": {
            "imageUri": image,
            "env": [
                {"name": "LOCKSTEP_DIGEST", "value": version.digest},
                {"name": "LOCKSTEP_VERSION", "value": version.label},
            ],
            "ports": [{"containerPort": PORT}],
            "predictRoute": "/predict",
            "healthRoute": "/health",
        },
    }


def label_value(text: str) -> str:
    """`text` as a label's value: at most 63 of lower-case letters, digits, `_` and `-`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def resource_id(name: str) -> str:
    """An id that Vertex AI accepts for models and endpoints, the same for the same name.

    Lower-case letters, digits and dashes, a letter first, at most 63 characters. A name that had to be changed gets
    the start of its hash, so that two names never share an id.
    """
    plain = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    if plain == name and re.fullmatch(r"[a-z][a-z0-9-]{0,62}", plain):
        return plain
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"m-{plain[:52].strip('-')}-{mark}".replace("--", "-")
