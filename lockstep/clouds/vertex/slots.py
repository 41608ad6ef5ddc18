"""Slots: deploying a version beside the others without touching them, and removing one that takes no traffic."""

from __future__ import annotations

import time

from lockstep.clouds.vertex import records
from lockstep.clouds.vertex.capture import LOGGING, logging_config, table_of
from lockstep.clouds.vertex.endpoints import Endpoints
from lockstep.clouds.vertex.records import DeployedModel, EndpointRecord
from lockstep.clouds.vertex.registry import Registry
from lockstep.clouds.vertex.rest import JsonObject, OperationFailedError, Rest, VertexError, delays
from lockstep.clouds.vertex.sdk import Sdk
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.errors import DeploymentFailedError, NotFoundError, RefusedError, RetryLaterError
from lockstep.rules.state import Version


class Slots:
    """A slot is a deployed model whose display name is the slot's name; its id is the service's own."""

    def __init__(
        self, cloud: str, settings: VertexSettings, rest: Rest, sdk: Sdk, endpoints: Endpoints, registry: Registry
    ) -> None:
        self._cloud = cloud
        self._settings = settings
        self._rest = rest
        self._sdk = sdk
        self._endpoints = endpoints
        self._registry = registry

    def prepare(self, version: Version, image: str) -> None:
        """Have the slot ready; all steps look first, so that a killed attempt is taken up where it ended."""
        deadline = time.monotonic() + self._settings.deploy_timeout
        record = self._registry.have(version, deadline, image)
        self._have_endpoint(version.model, deadline)
        for delay in delays():
            endpoint = self._endpoints.settled(version.model, deadline)
            deployed = endpoint.find(version.slot)
            if deployed is not None:
                self._refuse_other_digest(version, deployed)
                break
            try:
                self._have_capture(version.model, endpoint)
                self._deploy(version, self._registry.native(record).resource, endpoint, deadline)
                break
            except VertexError as error:
                if not error.is_busy or time.monotonic() > deadline:
                    raise
            time.sleep(delay)  # somebody else's change began between our look and our request
        self._await_ready(version, deadline)

    def resize(self, model: str, slot: str, instances: int) -> None:
        """Give a slot that many replicas at least, and no fewer than it may grow to now at most."""
        deadline = time.monotonic() + self._settings.deploy_timeout
        deployed = self._endpoints.settled(model, deadline).find(slot)
        if deployed is None:
            raise NotFoundError(
                f"there is no slot {slot} on the endpoint of {model}",
                hint="prepare the version first",
                cloud=self._cloud,
            )
        if deployed.replicas == instances:
            return
        least, most = "dedicatedResources.minReplicaCount", "dedicatedResources.maxReplicaCount"
        resources = {"minReplicaCount": instances, "maxReplicaCount": max(instances, deployed.most)}
        body = {
            "deployedModel": {"id": deployed.id, "dedicatedResources": resources},
            "updateMask": f"{least},{most}",
        }
        operation = self._rest.call("POST", f"{self._endpoints.url(model)}:mutateDeployedModel", body=body)
        self._rest.finish(self._settings.api, operation, deadline, f"the change of size of slot {slot} of {model}")
        limit = min(deadline, time.monotonic() + self._settings.traffic_timeout)
        for delay in delays():
            shown = self._endpoints.read(model).find(slot)
            if shown is not None and shown.replicas == instances:
                return
            if time.monotonic() > limit:
                raise RetryLaterError(
                    f"slot {slot} of {model} does not show {instances} replicas",
                    hint=f"see {self._endpoints.console_url(model)}, then repeat",
                    cloud=self._cloud,
                )
            time.sleep(delay)

    def retire(self, model: str, slot: str) -> None:
        """Remove a slot; the version's record in the registry stays, as its history."""
        deadline = time.monotonic() + self._settings.deploy_timeout
        for delay in delays():
            endpoint = self._endpoints.find(model)
            deployed = endpoint.find(slot) if endpoint is not None else None
            if endpoint is None or deployed is None:
                return
            weight = endpoint.weights().get(slot, 0)
            if weight:
                raise RefusedError(
                    f"slot {slot} of {model} takes {weight} % of the traffic",
                    hint="move its traffic to another slot first",
                    cloud=self._cloud,
                )
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"slot {slot} of {model} is still there",
                    hint=f"see {self._endpoints.console_url(model)}, then repeat",
                    cloud=self._cloud,
                )
            try:
                self._undeploy(model, deployed, deadline)
            except VertexError as error:
                if not error.is_busy and error.http != 404:
                    raise
                running = self._endpoints.running(self._endpoints.url(model))
                self._endpoints.await_others(running, deadline, f"slot {slot} of {model} cannot be removed")
            if self._gone(model, slot):
                return
            time.sleep(delay)

    def _gone(self, model: str, slot: str) -> bool:
        endpoint = self._endpoints.find(model)
        return endpoint is None or endpoint.find(slot) is None

    def _have_endpoint(self, model: str, deadline: float) -> None:
        body: JsonObject = {
            "parent": self._settings.parent,
            "endpoint": {
                "displayName": self._endpoints.name(model)[:128],
                "labels": {"lockstep-model": records.label_value(model)},
            },
            "endpointId": self._endpoints.id(model),
        }
        for delay in delays():
            if self._endpoints.find(model) is not None:
                return
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"the endpoint of {model} does not appear",
                    hint=f"see {self._endpoints.console_url(model)}, then repeat",
                    cloud=self._cloud,
                )
            running = self._endpoints.running(self._endpoints.url(model))
            if running:
                self._endpoints.await_others(running, deadline, f"the endpoint of {model} cannot be created")
                continue
            try:
                operation = self._sdk.create_endpoint(body)
                self._rest.finish(self._settings.api, operation, deadline, f"the creation of the endpoint of {model}")
            except VertexError as error:
                if error.status != "ALREADY_EXISTS" and not error.is_busy:
                    raise
                time.sleep(delay)  # an earlier attempt is creating it at this moment

    def _have_capture(self, model: str, endpoint: EndpointRecord) -> None:
        """Log requests as the settings say; logging by somebody else, to another table, stays as it is."""
        table = table_of(self._settings, self._endpoints.id(model))
        wanted = logging_config(self._settings, self._endpoints.id(model))
        if endpoint.logging not in ("", table) or (endpoint.logging == "" and wanted is None):
            return
        if wanted is not None and (endpoint.logging, endpoint.sampled) == (table, wanted["samplingRate"]):
            return
        self._rest.call(
            "PATCH",
            self._endpoints.url(model),
            query={"updateMask": LOGGING},
            body={LOGGING: wanted or {"enabled": False}},
        )

    def _refuse_other_digest(self, version: Version, deployed: DeployedModel) -> None:
        _, digest = self._endpoints.identity(version.model, deployed)
        if digest != version.digest:
            raise RefusedError(
                f"slot {version.slot} of {version.model} runs digest {digest or 'unknown'}, not {version.digest}",
                hint=f"undeploy model {deployed.id} at {self._endpoints.console_url(version.model)}, then repeat",
                cloud=self._cloud,
            )

    def _deploy(self, version: Version, resource: str, endpoint: EndpointRecord, deadline: float) -> None:
        given = self._settings
        resources: JsonObject = {
            "machineSpec": {"machineType": given.machine_type},
            "minReplicaCount": given.instance_count,
            "maxReplicaCount": given.instance_count,
        }
        if given.spot:
            resources["spot"] = True
        deployed: JsonObject = {"model": resource, "displayName": version.slot, "dedicatedResources": resources}
        if given.service_account:
            deployed["serviceAccount"] = given.service_account
        name = f"{given.parent}/endpoints/{self._endpoints.id(version.model)}"
        body: JsonObject = {"endpoint": name, "deployedModel": deployed}
        if not endpoint.deployed:
            body["trafficSplit"] = {"0": 100}  # without one, the service leaves the endpoint's own split as it is
        operation = self._sdk.deploy_model(body)
        try:
            self._rest.finish(given.api, operation, deadline, f"the deployment of {version}")
        except OperationFailedError as error:
            self._remove_failed(version)
            check = "quota or capacity is short" if error.http == 429 else "check image, bytes and machine type"
            raise DeploymentFailedError(
                f"{version} did not become ready on endpoint {self._endpoints.name(version.model)}: {error.message}",
                hint=f"read the container's log (resource.type=aiplatform.googleapis.com/Endpoint); {check}",
                cloud=self._cloud,
            ) from error

    def _remove_failed(self, version: Version) -> None:
        endpoint = self._endpoints.read(version.model)
        deployed = endpoint.find(version.slot)
        if deployed is not None and not endpoint.traffic.get(deployed.id):
            self._undeploy(version.model, deployed, time.monotonic() + self._settings.traffic_timeout)

    def _undeploy(self, model: str, deployed: DeployedModel, deadline: float) -> None:
        body = {"deployedModelId": deployed.id}
        operation = self._rest.call("POST", f"{self._endpoints.url(model)}:undeployModel", body=body)
        self._rest.finish(self._settings.api, operation, deadline, f"the removal of slot {deployed.slot} of {model}")

    def _await_ready(self, version: Version, deadline: float) -> None:
        limit = min(deadline, time.monotonic() + self._settings.traffic_timeout)
        for delay in delays():
            deployed = self._endpoints.read(version.model).find(version.slot)
            if deployed is not None and deployed.ready:
                return
            if time.monotonic() > limit:
                state = "its slot is not on the endpoint" if deployed is None else deployed.trouble
                raise RetryLaterError(
                    f"{version} was deployed, but {state}",
                    hint=f"see {self._endpoints.console_url(version.model)}, then repeat",
                    cloud=self._cloud,
                )
            time.sleep(delay)
