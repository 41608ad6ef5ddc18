"""The verbs of a cloud on Azure Machine Learning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final

from lockstep.clouds.archive import Archive
from lockstep.clouds.azureml.access import Access
from lockstep.clouds.azureml.archive import BlobArchive
from lockstep.clouds.azureml.arm import Workspace
from lockstep.clouds.azureml.assets import Assets
from lockstep.clouds.azureml.attest import attest_deployment, attest_model
from lockstep.clouds.azureml.capture import Captures
from lockstep.clouds.azureml.endpoints import Endpoints
from lockstep.clouds.azureml.failures import translate
from lockstep.clouds.azureml.index import read_many
from lockstep.clouds.azureml.metrics import Metrics
from lockstep.clouds.azureml.permissions import ask
from lockstep.clouds.azureml.scoring import Scoring
from lockstep.clouds.azureml.slots import Slots
from lockstep.clouds.base import Cloud, Row, StoreAddress
from lockstep.errors import LockstepError, NotFoundError
from lockstep.rules.measurement import Answer, CapturedRequest, NativeVersion, SlotMetrics
from lockstep.rules.permissions import Permissions
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit

if TYPE_CHECKING:
    from lockstep.clouds.azureml.settings import AzureMLSettings

STUDIO: Final = "https://ml.azure.com"


class AzureML(Cloud):
    """One Azure ML workspace: an online endpoint per model, a deployment per version."""

    title: ClassVar[str] = "Azure ML"
    #: As recorded on the real service: a PUT of the traffic 20.4 s, a deployment 9 minutes.
    usual: ClassVar[Mapping[str, float]] = {"flip": 20.0, "deploy": 540.0}
    guide: ClassVar[str] = "docs/clouds.md#azure-machine-learning"

    def __init__(self, name: str, settings: AzureMLSettings) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._access = Access(name, settings)
        self._workspace = Workspace(self._access)
        self._endpoints = Endpoints(name, settings, self._workspace)
        self._assets = Assets(self._access, self._workspace)
        self._slots = Slots(name, settings, self._workspace, self._endpoints, self._assets)
        self._scoring = Scoring(self._access, self._workspace, self._endpoints)
        self._metrics = Metrics(self._access)
        self._captures = Captures(self._access, self._workspace)

    def store(self) -> StoreAddress:
        """Lockstep's folder in the container behind the datastore."""
        settings = self._settings
        options = {"account_name": settings.storage_account, "container_name": settings.container}
        client_options: dict[str, object] = {}
        if self._access.root_certificate is not None:
            client_options["root_certificate"] = self._access.root_certificate
        if settings.blob_endpoint is not None:
            options["endpoint"] = settings.blob_endpoint
            if settings.blob_endpoint.startswith("http://"):
                client_options["allow_http"] = True
        prefix = settings.prefix.strip("/")
        url = f"az://{settings.container}" + (f"/{prefix}" if prefix else "")
        if settings.storage_key is not None:
            options["account_key"] = settings.storage_key.get_secret_value()
            return StoreAddress(url, settings.store_uri, options, client_options)
        return StoreAddress(url, settings.store_uri, options, client_options, self._store_token)

    def _store_token(self) -> object:
        """What obstore takes as credentials, asked for again when they expire."""
        with self._translated("get credentials for the store"):
            from obstore.auth.azure import AzureCredentialProvider

            return AzureCredentialProvider(self._access.credential())()  # type: ignore[arg-type]

    def archive(self) -> Archive | None:
        """A folder in the archive's container, in the same storage account as the versions' bytes."""
        settings = self._settings
        if not settings.archive_container:
            return None
        return BlobArchive(self._access, settings.archive_container, settings.archive_folder, self._translated)

    def meanwhile(self, model: str, slot: str) -> str:
        """An endpoint that is being changed takes no new split, and answers by a deployment that is named."""
        return f"callers reach {slot} by sending the header azureml-model-deployment: {slot} to {self.endpoint(model)}"

    def console_url(self, model: str) -> str:
        """The endpoint's page in Azure ML studio."""
        page = f"{STUDIO}/endpoints/realtime/{self.endpoint(model)}/detail"
        return f"{page}?wsid={self._settings.workspace_path}"

    def _check(self) -> None:
        if self._workspace.get("") is None:
            raise NotFoundError(
                f"there is no workspace {self._settings.workspace} in resource group {self._settings.resource_group}",
                cloud=self.name,
                hint="check subscription_id, resource_group and workspace",
            )

    def _permissions(self, models: Collection[str]) -> Permissions:
        return ask(self._workspace, self._settings)

    def _observe(self, model: str) -> CloudState:
        return self._endpoints.state(self.endpoint(model))

    def _observe_many(self, models: Collection[str], known: Mapping[str, CloudState]) -> Mapping[str, CloudState]:
        names = {model: self.endpoint(model) for model in models}
        states = read_many(self.name, self._workspace, set(names.values()), self._endpoints.state)
        return {model: states[name] for model, name in names.items()}

    def _registered(self, version: Version) -> NativeVersion | None:
        found = self._assets.find_model(version)
        return None if found is None else self._assets.native(version, found)

    def _attest_record(self, version: Version, image: str) -> tuple[str, ...]:
        return attest_model(self._assets, version)[0]

    def _attest_slot(self, version: Version, image: str) -> tuple[str, ...]:
        deployment = self._slots.find(self.endpoint(version.model), version.slot)
        if deployment is None:
            return ()
        _, model = attest_model(self._assets, version)
        return attest_deployment(self._assets, version, model, deployment, image)

    def _register(self, version: Version, image: str) -> NativeVersion:
        # A model of the workspace names no image: deployments do, by an environment.
        return self._assets.native(version, self._assets.register_model(version))

    def _verify_traffic(self, model: str, split: TrafficSplit) -> bool | None:
        return self._endpoints.shows(self.endpoint(model), split)

    def _measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        return self._metrics.measure(self.endpoint(model), since, until)

    def _invoke(self, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer:
        return self._scoring.invoke(self.endpoint(model), model, rows, slot, request_id)

    def _captured(
        self, model: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        return self._captures.find(self.endpoint(model), request_id, since, until)

    def _prepare(self, version: Version, image: str) -> None:
        self._slots.prepare(self.endpoint(version.model), version, image)

    def _set_traffic(self, model: str, split: TrafficSplit) -> None:
        self._endpoints.move(self.endpoint(model), model, split)

    def _resize(self, model: str, slot: str, instances: int) -> None:
        self._slots.resize(self.endpoint(model), model, slot, instances)

    def _retire(self, model: str, slot: str) -> None:
        self._slots.retire(self.endpoint(model), model, slot)

    def _translate(self, error: Exception, action: str) -> LockstepError | None:
        return translate(error, action, self.name)
