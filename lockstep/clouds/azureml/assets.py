"""The workspace's own registry: a model version per Lockstep version, an environment per serving image.

Looking is done by plain GETs; azure-ai-ml, which takes seconds to import, is loaded only to create what lacks.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections.abc import Container, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from lockstep.clouds.azureml.arm import Document, Workspace
from lockstep.clouds.azureml.endpoints import DIGEST_TAG, LABEL_TAG, MODEL_TAG
from lockstep.clouds.azureml.settings import PUBLIC_RESOURCE_MANAGER
from lockstep.errors import CloudRejectedError, DigestMismatchError, RefusedError, RetryLaterError
from lockstep.rules.measurement import NativeVersion

if TYPE_CHECKING:
    from lockstep.clouds.azureml.access import Access
    from lockstep.rules.state import Version

RUN_TAG: Final = "mlflow-run-id"
ENVIRONMENT: Final = "lockstep-serving"
PORT: Final = 8080
HEALTH_ROUTE: Final = "/health"
SCORE_ROUTE: Final = "/score"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
CURRENT_CLOUD: Final = "AZUREML_CURRENT_CLOUD"  # where azure-ai-ml leaves it
OWN_CLOUD: Final = "lockstep-"  # how names of clouds begin that are made up here
#: azure-ai-ml keeps its list of clouds, and which one is meant, in the process.
_SDK_LOCK: Final = threading.Lock()


class Assets:
    """Models and environments of one workspace."""

    def __init__(self, access: Access, workspace: Workspace) -> None:
        self._name = access.name
        self._access = access
        self._settings = access.settings
        self._workspace = workspace
        self._lock = threading.Lock()
        self._client: Any = None

    # -- models ------------------------------------------------------------------------------------------------

    def find_model(self, version: Version) -> Document | None:
        """The record of this version, under its label or under label and digest; None when there is none.

        Raises DigestMismatchError when a record with its digest points to other bytes, or one with its bytes
        carries another digest.
        """
        return self._look_up(version)[0]

    def register_model(self, version: Version) -> Document:
        """The record of this version, made if it is not there yet."""
        found, free = self._look_up(version)
        if found is not None:
            return found
        if not NAME.fullmatch(version.model) or not NAME.fullmatch(version.label):
            raise RefusedError(
                f"Azure ML does not take the name of model {version.model!r} or of its version {version.label!r}",
                cloud=self._name,
                hint="use letters, digits, dots, dashes and underscores, at most 255",
            )
        self._create_model(version, free)
        created = self.find_model(version)
        if created is None:
            raise RetryLaterError(
                f"Azure ML took the registration of {version} but does not show it",
                cloud=self._name,
                hint="run the same command again; if it repeats, look for the model in Azure ML studio",
            )
        return created

    def _look_up(self, version: Version) -> tuple[Document | None, str]:
        """The version's record if there is one, and the version name that a new one would get.

        MLflow's numbers begin again when a model is made anew, so a label may be taken by another digest.
        """
        name = ""
        for name in self._names(version):
            found = self._get(version, name)
            if found is None:
                break
            same_bytes, same_digest = self._matches(found, version)
            if same_bytes and same_digest:
                return found, name
            if same_bytes or same_digest:
                raise DigestMismatchError(
                    f"Azure ML model {version.model}:{name} should be {version}, but its "
                    + ("digest" if same_bytes else "path")
                    + f" was changed: it points to {found['properties'].get('modelUri')}",
                    cloud=self._name,
                    hint="find out who changed it, delete that version in Azure ML studio, and register again",
                )
        return None, name

    def described(self, version: Version) -> Document | None:
        """The record of this version as it is, changed or not: under one of its two names, with its path or digest."""
        for name in self._names(version):
            found = self._get(version, name)
            if found is not None and any(self._matches(found, version)):
                return found
        return None

    @staticmethod
    def _names(version: Version) -> tuple[str, str]:
        return version.label, f"{version.label}-{version.digest[:12]}"

    def _get(self, version: Version, name: str) -> Document | None:
        return self._workspace.get(f"models/{quote(version.model)}/versions/{quote(name)}")

    def _matches(self, found: Document, version: Version) -> tuple[bool, bool]:
        """Whether a record has this version's path, and whether it has its digest."""
        return (
            place(found["properties"].get("modelUri", "")) == place(self.uri(version)),
            (found["properties"].get("properties") or {}).get(DIGEST_TAG) == version.digest,
        )

    def native(self, version: Version, document: Document) -> NativeVersion:
        """A record as the rest of Lockstep knows it."""
        page = f"https://ml.azure.com/model/{quote(version.model)}:{document['name']}/details"
        return NativeVersion(self._name, str(document["id"]), f"{page}?wsid={self._settings.workspace_path}")

    def uri(self, version: Version) -> str:
        """Where the version's replica lies, as Azure ML names it."""
        return f"{self._settings.store_uri}/{version.prefix}"

    def _create_model(self, version: Version, name: str) -> None:
        client = self._sdk()  # first: it makes the SDK importable
        from azure.ai.ml.entities import Model

        origin = {LABEL_TAG: version.label, DIGEST_TAG: version.digest, RUN_TAG: version.run_id}
        client.models.create_or_update(
            Model(
                name=version.model,
                version=name,
                path=self.uri(version),
                type="custom_model",
                description=f"MLflow {version.model} version {version.label}, run {version.run_id or 'unknown'}",
                tags={**origin, MODEL_TAG: version.model},
                properties=origin,
            )
        )

    # -- environments ------------------------------------------------------------------------------------------

    def environment(self, image: str) -> str:
        """Identifier of the environment that is this image; made if it is not there yet."""
        name = hashlib.sha256(f"{image} {PORT} {HEALTH_ROUTE} {SCORE_ROUTE}".encode()).hexdigest()[:16]
        path = f"environments/{ENVIRONMENT}/versions/{name}"
        found = self._workspace.get(path)
        if found is None:
            self._create_environment(name, image)
            found = self._workspace.get(path)
        if found is None or found["properties"].get("image") != image:
            shown = "nothing" if found is None else found["properties"].get("image")
            raise CloudRejectedError(
                f"Azure ML environment {ENVIRONMENT}:{name} should be {image}, but Azure shows {shown}",
                cloud=self._name,
                hint="archive that environment version in Azure ML studio and try again",
            )
        return str(found["id"])

    def environment_of(self, identifier: str) -> Document | None:
        """The environment with that resource id; None when this workspace has none."""
        inside = identifier.lower().find("/environments/")
        return self._workspace.get(identifier[inside + 1 :]) if inside >= 0 else None

    def _create_environment(self, name: str, image: str) -> None:
        client = self._sdk()
        from azure.ai.ml.entities import Environment

        health = {"path": HEALTH_ROUTE, "port": PORT}
        client.environments.create_or_update(
            Environment(
                name=ENVIRONMENT,
                version=name,
                image=image,
                description="Lockstep's serving image",
                inference_config={
                    "liveness_route": health,
                    "readiness_route": health,
                    "scoring_route": {"path": SCORE_ROUTE, "port": PORT},
                },
            )
        )

    # -- the SDK -----------------------------------------------------------------------------------------------

    def _sdk(self) -> Any:
        with self._lock:
            if self._client is None:
                with _SDK_LOCK:
                    self._client = self._make_sdk()
            return self._client

    def _make_sdk(self) -> Any:
        forget_inherited(os.environ, sys.modules)
        from azure.ai.ml import MLClient

        settings = self._settings
        options = self._access.transport_options()
        if settings.resource_manager.rstrip("/") != PUBLIC_RESOURCE_MANAGER:
            # The first address given for a cloud's name stays for the life of the process: one name per address.
            address = settings.resource_manager.rstrip("/")
            options["cloud"] = f"{OWN_CLOUD}{hashlib.sha256(address.encode()).hexdigest()[:12]}"
            options["cloud_metadata"] = {
                "azure_portal": "https://portal.azure.com",
                "resource_manager": address,
                "active_directory": settings.authority or "https://login.microsoftonline.com",
                "aml_resource_id": "https://ml.azure.com",
                "storage_endpoint": "core.windows.net",
                "registry_discovery_endpoint": address,
            }
        return MLClient(
            self._access.credential(),
            settings.subscription_id,
            settings.resource_group,
            settings.workspace,
            enable_telemetry=False,
            show_progress=False,
            polling_interval=1,
            **options,
        )


def forget_inherited(environment: MutableMapping[str, str], loaded: Container[str]) -> None:
    """Make azure-ai-ml importable in a child of a process that has used it with a cloud of ours.

    It leaves the cloud's name in the environment, and fails to import where the name means nothing.
    """
    if "azure.ai.ml" not in loaded and environment.get(CURRENT_CLOUD, "").startswith(OWN_CLOUD):
        del environment[CURRENT_CLOUD]


def place(uri: str) -> str:
    """A datastore path without the workspace in front of it: Azure shows it in more than one form."""
    _, found, path = uri.lower().partition("/datastores/")
    return path.strip("/") if found else uri.lower().partition("datastores/")[2].strip("/")
