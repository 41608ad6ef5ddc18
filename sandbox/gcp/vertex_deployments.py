"""DeployModel, UndeployModel, MutateDeployedModel, and what happens to spot machines."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sandbox.gcp.errors import GoogleError, invalid, not_emulated, precondition
from sandbox.gcp.gcs_objects import Store
from sandbox.gcp.vertex_endpoints import Endpoint, Endpoints, check_split, outcome
from sandbox.gcp.vertex_models import Models
from sandbox.gcp.vertex_names import JsonObject, mask_fields, now_text
from sandbox.gcp.vertex_operations import Operation
from sandbox.gcp.vertex_slots import Place, Slot
from sandbox.world import World

#: the stages before the container starts
STAGES: Final = (
    "STARTING_DEPLOYMENT",
    "PREPARING_MODEL",
    "CREATING_SERVING_CLUSTER",
    "ADDING_NODES_TO_CLUSTER",
    "GETTING_CONTAINER_IMAGE",
)
DEPLOYABLE: Final = {"id", "model", "displayName", "dedicatedResources", "serviceAccount", "enableAccessLogging"} | {
    "disableContainerLogging",
    "disableExplanations",
}
DEDICATED: Final = {"machineSpec", "minReplicaCount", "maxReplicaCount", "requiredReplicaCount", "spot"} | {
    "autoscalingMetricSpecs",
}
MUTABLE: Final = (
    "dedicatedResources.minReplicaCount",
    "dedicatedResources.maxReplicaCount",
    "dedicatedResources.requiredReplicaCount",
    "dedicatedResources.autoscalingMetricSpecs",
    "disableContainerLogging",
)
KEPT_LOGS: Final = 200
#: What the platform does by itself, and a `fail` fault can prevent: an attempt to start a replica again.
SPOT_RESTART: Final = "SpotRestart"
CONTAINER_RESTART: Final = "ContainerRestart"
NO_CAPACITY: Final = "Spot capacity was reclaimed (STOCKOUT): the replica was preempted."


class Deployments:
    """Puts models on endpoints and takes them off."""

    def __init__(
        self, world: World, store: Store, models: Models, endpoints: Endpoints, place: Callable[[str], Place]
    ) -> None:
        self._world = world
        self._store = store
        self._models = models
        self._endpoints = endpoints
        self._place = place
        self._ended: OrderedDict[str, str] = OrderedDict()
        models.deployed = self.deployed

    def deployed(self, model_id: str, version: str | None) -> list[tuple[str, str]]:
        """Where a model (or one version of it) is deployed or being deployed: (endpoint name, deployed model id)."""
        found = []
        for endpoint in self._endpoints.all():
            for slot_id, document in list(endpoint.deployed.items()):
                at = (document["model"].rpartition("/")[2], document["modelVersionId"])
                if at[0] == model_id and version in (None, at[1]):
                    found.append((self._endpoints.name(endpoint.id), slot_id))
            for slot_id, at in list(endpoint.reserved.items()):
                if at[0] == model_id and version in (None, at[1]):
                    found.append((self._endpoints.name(endpoint.id), slot_id))
        return found

    # --- deploy

    def deploy(self, endpoint_id: str, body: JsonObject) -> Operation:
        """DeployModel: a new slot, with the traffic that the request gives it once it serves."""
        wanted: JsonObject = dict(body.get("deployedModel") or {})
        split: dict[str, int] = body.get("trafficSplit") or {}
        _check_deployed_model(wanted)
        model_id, version, model = self._models.resolve(str(wanted["model"]).rpartition("/models/")[2])
        began = time.time()
        with self._endpoints.lock:
            endpoint = self._endpoints.find(endpoint_id)
            self._endpoints.refuse_busy(endpoint)
            check_split(split, endpoint.deployed, new=True)
            slot_id = str(wanted.get("id") or secrets.randbelow(9 * 10**18) + 10**18)
            if slot_id in endpoint.deployed:
                raise GoogleError("ALREADY_EXISTS", f"The DeployedModel ID {slot_id} already exists in the Endpoint.")
            endpoint.reserved[slot_id] = (model_id, version)
            document: JsonObject = {
                **wanted,
                "id": slot_id,
                "model": model["name"],
                "modelVersionId": version,
                "displayName": wanted.get("displayName") or model["displayName"],
                "createTime": now_text(),
            }
            resources = document["dedicatedResources"]
            resources = {"maxReplicaCount": resources["minReplicaCount"], **resources}
            document["dedicatedResources"] = resources
            machine = resources["machineSpec"]["machineType"]
            slot = Slot(
                self._world,
                self._store,
                self._place(endpoint_id),
                slot_id,
                {**model, "machineType": machine},
                spot=bool(resources.get("spot")),
            )

            def work(operation: Operation) -> None:
                try:
                    self._start(operation, endpoint, slot)
                    lost = outcome(self._world, "DeployModel", endpoint_id)
                except BaseException:
                    self._end(slot)
                    raise
                finally:
                    endpoint.reserved.pop(slot_id, None)
                if lost is None:
                    with self._endpoints.lock:
                        endpoint.slots[slot_id] = slot
                        endpoint.deployed[slot_id] = document
                        if split:
                            moved = {slot_id if k == "0" else k: v for k, v in split.items()}
                            self._endpoints.switch(endpoint, moved, self._traffic_delay())
                    self._endpoints.wait_settled(endpoint)
                    self._world.calls.event("gcp", "deploy", endpoint_id, began, slot_id)
                else:
                    self._end(slot)
                operation.at_stage("SUCCESSFULLY_DEPLOYED")
                operation.finish("DeployModelResponse", {"deployedModel": document})

            return self._endpoints.begin_on(endpoint, "DeployModel", work)

    def _traffic_delay(self) -> float:
        return self._world.delays.seconds("gcp.endpoint.traffic")

    def _start(self, operation: Operation, endpoint: Endpoint, slot: Slot) -> None:
        delay = self._world.delays.seconds("gcp.endpoint.deploy")
        for stage in STAGES:
            operation.at_stage(stage)
            if stage == "PREPARING_MODEL":
                slot.copy_artifacts()
            self._world.stop.wait(delay / len(STAGES))
        operation.at_stage("STARTING_MODEL_SERVER")
        try:
            slot.launch()
        except GoogleError:
            operation.at_stage("FAILED_TO_DEPLOY")
            self._world.calls.event("gcp", "deploy-failed", endpoint.id, time.time(), slot.logs()[-2000:])
            raise
        operation.at_stage("FINISHING_UP")

    # --- undeploy

    def undeploy(self, endpoint_id: str, body: JsonObject) -> Operation:
        """UndeployModel: only without traffic, unless the request moves it or the slot is the last one."""
        slot_id = str(body.get("deployedModelId", ""))
        began = time.time()
        with self._endpoints.lock:
            endpoint = self._endpoints.find(endpoint_id)
            if slot_id not in endpoint.deployed:
                raise GoogleError(
                    "NOT_FOUND", f"The DeployedModel {slot_id} is not found in the Endpoint {endpoint_id}."
                )
            self._endpoints.refuse_busy(endpoint)
            last = len(endpoint.deployed) == 1
            moved: dict[str, int] | None = body.get("trafficSplit")
            if moved:
                check_split(moved, endpoint.deployed)
            moved = {} if last else (moved or None)
            if (endpoint.split if moved is None else moved).get(slot_id, 0):
                raise precondition(
                    f"DeployedModel {slot_id} has traffic assigned to it in the traffic split of the Endpoint "
                    f"{self._endpoints.name(endpoint_id)}; unassign the traffic before undeploying the model."
                )

            def work(operation: Operation) -> None:
                try:
                    if outcome(self._world, "UndeployModel", endpoint_id) is None:
                        self._remove(endpoint, slot_id, moved)
                        self._world.calls.event("gcp", "undeploy", endpoint_id, began, slot_id)
                finally:
                    endpoint.leaving.discard(slot_id)
                operation.finish("UndeployModelResponse", {})

            endpoint.leaving.add(slot_id)
            return self._endpoints.begin_on(endpoint, "UndeployModel", work)

    def _remove(self, endpoint: Endpoint, slot_id: str, moved: dict[str, int] | None) -> None:
        if moved is not None and moved != endpoint.split:
            self._endpoints.switch(endpoint, moved, self._traffic_delay())
        self._endpoints.wait_settled(endpoint)
        self._endpoints.forget(endpoint, slot_id)
        slot = endpoint.slots[slot_id]
        self._world.stop.wait(self._world.delays.seconds("gcp.endpoint.undeploy"))
        with self._endpoints.lock:
            endpoint.deployed.pop(slot_id, None)
            endpoint.slots.pop(slot_id, None)
        self._end(slot)

    def _end(self, slot: Slot) -> None:
        slot.close()
        self._ended[slot.id] = slot.logs()
        while len(self._ended) > KEPT_LOGS:
            self._ended.popitem(last=False)

    # --- mutate

    def mutate(self, endpoint_id: str, body: JsonObject) -> Operation:
        """MutateDeployedModel: replica counts and autoscaling of a slot, and whether it logs."""
        change: JsonObject = body.get("deployedModel") or {}
        fields = mask_fields(body.get("updateMask"), MUTABLE)
        slot_id = str(change.get("id", ""))
        with self._endpoints.lock:
            endpoint = self._endpoints.find(endpoint_id)
            if slot_id not in endpoint.deployed:
                raise GoogleError(
                    "NOT_FOUND", f"The DeployedModel {slot_id} is not found in the Endpoint {endpoint_id}."
                )
            document = endpoint.deployed[slot_id]
            resources = dict(document["dedicatedResources"])
            changed = {**document, "dedicatedResources": resources}
            given: JsonObject = change.get("dedicatedResources", {})
            for path in fields:
                outer, _, inner = path.partition(".")
                place, source, key = (resources, given, inner) if inner else (changed, change, outer)
                place.pop(key, None)
                if key in source:
                    place[key] = source[key]
            _check_replicas(resources)

            def work(operation: Operation) -> None:
                if outcome(self._world, "MutateDeployedModel", endpoint_id) is None:
                    with self._endpoints.lock:
                        endpoint.deployed[slot_id] = changed
                operation.finish("MutateDeployedModelResponse", {"deployedModel": changed})

            return self._endpoints.begin_on(endpoint, "MutateDeployedModel", work)

    # --- machines that go away

    def evict(self, endpoint_name: str, slot_name: str) -> str:
        """Take a spot slot's machine; it comes back after `gcp.endpoint.deploy` seconds if there is capacity.

        The endpoint is named by id, resource name or display name, the slot by deployed model id or display name.
        Raises KeyError when there is no such slot, ValueError when it does not run on spot capacity.
        """
        for endpoint in self._endpoints.all():
            if endpoint_name.rpartition("/")[2] != endpoint.id and endpoint_name != endpoint.content["displayName"]:
                continue
            for slot_id, document in list(endpoint.deployed.items()):
                if slot_name in (slot_id, document["displayName"]):
                    slot = endpoint.slots[slot_id]
                    if not slot.spot:
                        raise ValueError(f"deployed model {slot_id} does not run on spot capacity")
                    slot.kill(NO_CAPACITY)
                    self._world.calls.event("gcp", "evict", endpoint.id, time.time(), slot_id)
                    delay = self._world.delays.seconds("gcp.endpoint.deploy")
                    self._revive(endpoint, slot, delay, SPOT_RESTART)
                    return f"{self._endpoints.name(endpoint.id)}/deployedModels/{slot_id}"
        raise KeyError(f"deployed model {slot_name} on endpoint {endpoint_name}")

    def crashed(self, endpoint: Endpoint, slot: Slot) -> None:
        """A container ended by itself: the platform starts it again at once."""
        if slot.crashed() and slot.kill("The model server exited; it is being restarted."):
            self._revive(endpoint, slot, 0.0, CONTAINER_RESTART)

    def _revive(self, endpoint: Endpoint, slot: Slot, delay: float, operation: str) -> None:
        def work() -> None:
            while not self._world.stop.wait(delay) and not slot.closed:
                if self._world.faults.take("gcp", operation, ("fail",), endpoint.id) is None:
                    try:
                        slot.launch()
                    except GoogleError as error:
                        slot.kill(error.message)
                    else:
                        self._world.calls.event("gcp", "restart", endpoint.id, time.time(), slot.id)
                        return
                self._world.stop.wait(1.0)  # the platform tries again

        threading.Thread(target=work, name=operation, daemon=True).start()

    def logs(self, slot_id: str) -> str | None:
        """The output of a deployed model's container, the last one's when it ended; None for an unknown id."""
        for endpoint in self._endpoints.all():
            if slot_id in endpoint.slots:
                return endpoint.slots[slot_id].logs()
        return self._ended.get(slot_id)


def _check_deployed_model(wanted: JsonObject) -> None:
    if not re.fullmatch(r"projects/[^/]+/locations/[^/]+/models/[^/]+", str(wanted.get("model", ""))):
        raise invalid(f'Invalid resource name of the model to deploy: "{wanted.get("model", "")}".')
    if wanted.get("id") and not re.fullmatch(r"[0-9]{1,10}", str(wanted["id"])):
        raise invalid(f'Invalid DeployedModel ID "{wanted["id"]}": it must be 1-10 characters of [0-9].')
    for other in ("automaticResources", "sharedResources"):
        if other in wanted:
            raise invalid(f"'{other}' is not supported for Model {wanted['model']}; use 'dedicated_resources'.")
    resources = wanted.get("dedicatedResources")
    if resources is None:
        raise invalid("'dedicated_resources' is required to deploy a custom-trained Model.")
    odd = sorted({k for k, v in wanted.items() if v} - DEPLOYABLE) + sorted(
        {k for k, v in resources.items() if v} - DEDICATED
    )
    if odd:
        raise not_emulated(f"DeployModel with {odd[0]}")
    if not resources.get("machineSpec", {}).get("machineType"):
        raise invalid("'dedicated_resources.machine_spec.machine_type' is required.")
    _check_replicas(resources)


def _check_replicas(resources: JsonObject) -> None:
    least = resources.get("minReplicaCount", 0)
    most = resources.get("maxReplicaCount", least)
    if least < 1:
        raise invalid("'dedicated_resources.min_replica_count' must be greater than or equal to 1.")
    if most < least:
        raise invalid(
            f"'dedicated_resources.max_replica_count' ({most}) must not be less than 'min_replica_count' ({least})."
        )
