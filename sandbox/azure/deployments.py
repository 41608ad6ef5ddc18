"""Online deployments: each runs as a real container over the bytes that lie in Blob when it is deployed.

However many instances a deployment has, one container serves it; the count is state, and decides quota and how many
requests may be in it at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import ArmError, Ask, Operation, ResourceManager, answer, bad_request, not_found
from sandbox.azure.azurite import Azurite
from sandbox.azure.endpoints import check_idle, endpoint_key
from sandbox.azure.images import QUOTA, Plan, cores, needed, place_files, plan
from sandbox.azure.operations import OperationError, Operations
from sandbox.azure.schema import DEPLOYMENT, DEPLOYMENT_PATCH, LOGS, check, check_name, present, seconds
from sandbox.azure.slots import PARALLEL, Routes, Slot
from sandbox.azure.store import Document, Key, Store, changed, document, key
from sandbox.world import World

DEPLOYMENT_LIMIT: Final = 20
INSTANCE_LIMIT: Final = 50
HEALTHY_SECONDS: Final = 60.0
REQUEST_SECONDS: Final = 5.0
LONGEST_REQUEST_SECONDS: Final = 180.0
#: Properties that a running container need not be replaced for.
SOFT: Final = ("requestSettings", "description", "properties", "provisioningState", "scaleSettings")
CRASHED: Final = (
    "User container has crashed or terminated. Please see troubleshooting guide, available here: "
    "https://aka.ms/oe-tsg#error-resourcenotready"
)
UNREADY: Final = (
    "User container did not pass its readiness probe in time. Please see troubleshooting guide, available here: "
    "https://aka.ms/oe-tsg#error-resourcenotready"
)


def deployment_key(endpoint: str, name: str) -> Key:
    """Where a deployment lies."""
    return key("onlineEndpoints", endpoint, "deployments", name)


@dataclass(frozen=True)
class Change:
    """One accepted change of a deployment."""

    endpoint: str
    name: str
    old: Document | None
    new: Document
    delay: float
    reverted: bool
    began: float


class Deployments:
    """Serves the deployments of all endpoints."""

    def __init__(
        self,
        world: World,
        store: Store,
        operations: Operations,
        routes: Routes,
        azurite: Azurite,
        check_workspace: Callable[[str], None],
    ) -> None:
        self._world = world
        self._store = store
        self._operations = operations
        self._routes = routes
        self._azurite = azurite
        self._check_workspace = check_workspace
        self._logs: dict[Key, str] = {}

    def serve(self, manager: ResourceManager) -> None:
        """Add the operations on deployments."""
        base = "workspaces/*/onlineEndpoints/*/deployments"
        manager.add("GET", base, Operation("OnlineDeployments_List", self._list))
        manager.add("GET", f"{base}/*", Operation("OnlineDeployments_Get", self._get))
        manager.add("PUT", f"{base}/*", Operation("OnlineDeployments_CreateOrUpdate", self._put))
        manager.add("PATCH", f"{base}/*", Operation("OnlineDeployments_Update", self._patch))
        manager.add("DELETE", f"{base}/*", Operation("OnlineDeployments_Delete", self._delete))
        manager.add("POST", f"{base}/*/getLogs", Operation("OnlineDeployments_GetLogs", self._get_logs))

    def remove_all(self, endpoint: str) -> None:
        """End every deployment of an endpoint that is being deleted."""
        for deployment in self._store.children((*endpoint_key(endpoint), "deployments")):
            self._remove(endpoint, deployment["name"], time.time())

    def _endpoint(self, ask: Ask) -> Document:
        self._check_workspace(ask.names[0])
        found = self._store.get(endpoint_key(ask.names[1]), ask.stale)
        if found is None:
            raise not_found("workspaces/onlineEndpoints", ask.names[1])
        return found

    def _find(self, ask: Ask) -> Document:
        self._endpoint(ask)
        found = self._store.get(deployment_key(*ask.names[1:3]), ask.stale)
        if found is None:
            raise not_found("workspaces/onlineEndpoints/deployments", "/".join(ask.names[1:3]))
        return found

    def _get(self, ask: Ask) -> Response:
        return answer(self._find(ask))

    def _list(self, ask: Ask) -> Response:
        self._endpoint(ask)
        return answer({"value": self._store.children((*endpoint_key(ask.names[1]), "deployments"), ask.stale)})

    def _put(self, ask: Ask) -> Response:
        endpoint, name = ask.names[1:3]
        check_name("Deployment", name)
        check(ask.body, DEPLOYMENT)
        with self._store.lock:
            parent = self._endpoint(ask)
            place = deployment_key(endpoint, name)
            old = self._store.get(place)
            self._check_parent(parent, endpoint)
            if old is not None:
                check_idle(old, name)
            elif len(self._store.children(place[:-1])) >= DEPLOYMENT_LIMIT:
                raise bad_request(f"The limit of {DEPLOYMENT_LIMIT} deployments in endpoint '{endpoint}' is reached.")
            new = self._document(ask, old)
            what = plan(self._store, new["properties"])
            return self._begin(ask, old, new, what)

    def _patch(self, ask: Ask) -> Response:
        check(ask.body, DEPLOYMENT_PATCH)
        with self._store.lock:
            old = self._find(ask)
            check_idle(old, ask.names[2])
            self._check_parent(self._endpoint(ask), ask.names[1])
            sku = {**old["sku"], **present(ask.body.get("sku") or {})}
            _check_capacity(sku)
            state = "Scaling" if sku != old["sku"] else "Updating"
            tags = ask.body.get("tags") or old.get("tags")
            new = changed(old, {"provisioningState": state}, sku=sku, tags=tags)
            return self._begin(ask, old, new, None)

    def _document(self, ask: Ask, old: Document | None) -> dict[str, Any]:
        """The document that the request asks for, in the state Creating or Updating."""
        endpoint, name = ask.names[1:3]
        if not ask.body.get("location"):
            raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
        sent = present(ask.body.get("properties") or {})
        kind = sent.get("endpointComputeType", "Managed")
        if kind != "Managed":
            raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: endpointComputeType {kind}")
        cores(sent.get("instanceType", ""))
        if old is not None and old["properties"]["instanceType"].lower() != sent["instanceType"].lower():
            raise bad_request(f"The instance type of deployment '{name}' cannot be changed after its creation.")
        _limits(sent)
        sku = {"name": "Default", "tier": "Standard", **present(ask.body.get("sku") or {})}
        _check_capacity(sku)
        properties = {
            "description": None,
            "properties": {},
            "environmentVariables": {},
            "appInsightsEnabled": False,
            "egressPublicNetworkAccess": "Enabled",
            "requestSettings": {
                "maxConcurrentRequestsPerInstance": 1,
                "maxQueueWait": "PT0.5S",
                "requestTimeout": f"PT{REQUEST_SECONDS:g}S",
            },
            **sent,
            "endpointComputeType": "Managed",
            "scaleSettings": {"scaleType": "Default"},
            "provisioningState": "Creating" if old is None else "Updating",
        }
        identifier = self._store.id("onlineEndpoints", endpoint, "deployments", name)
        envelope = {
            "location": ask.body["location"],
            "tags": ask.body.get("tags") or {},
            "kind": ask.body.get("kind") or "Managed",
            "sku": sku,
        }
        return document(identifier, "workspaces/onlineEndpoints/deployments", properties, **envelope)

    def _begin(self, ask: Ask, old: Document | None, new: Document, what: Plan | None) -> Response:
        endpoint, name = ask.names[1:3]
        place, faults, resource = deployment_key(endpoint, name), self._world.faults, f"{endpoint}/{name}"
        status = 202 if what is None else 201
        if faults.take("azure", ask.operation, ("ignore",), resource):
            return self._operations.accepted(ask, self._operations.begin("od", None, place), status, new)
        busy = faults.take("azure", ask.operation, ("busy",), resource)
        reverted = faults.take("azure", ask.operation, ("revert",), resource) is not None
        delay = self._world.delays.seconds("azure.deployment.create" if old is None else "azure.deployment.update")
        change = Change(endpoint, name, old, new, delay + (busy.delay if busy else 0.0), reverted, time.time())
        shown = new if old is None else changed(old, {"provisioningState": new["properties"]["provisioningState"]})
        self._store.put(place, shown)
        operation = self._operations.begin("od", lambda: self._carry_out(change, what), place)
        return self._operations.accepted(ask, operation, status, shown)

    def _carry_out(self, change: Change, what: Plan | None) -> None:
        place = deployment_key(change.endpoint, change.name)
        slot: Slot | None = None
        try:
            self._check_quota(change)
            if what is not None and _needs_container(change):
                slot = self._start(change, what)
            self._world.stop.wait(change.delay - (time.time() - change.began))
        except Exception:
            self._store.put(place, changed(change.new, {"provisioningState": "Failed"}))
            raise
        if change.reverted:
            if slot is not None:
                slot.retire()
            if change.old is None:
                self._store.remove(place)
            else:
                self._store.put(place, change.old)
            return
        replaced = self._routes.attach(change.endpoint, slot) if slot is not None else None
        if slot is None:
            self._resize(change)
        self._store.put(place, changed(change.new, {"provisioningState": "Succeeded"}))
        if replaced is not None:
            replaced.retire()
        self._world.calls.event("azure", "deploy", change.endpoint, change.began, change.name)

    def _start(self, change: Change, what: Plan) -> Slot:
        place, properties = deployment_key(change.endpoint, change.name), change.new["properties"]
        files = self._world.containers.new_folder()
        model_dir = place_files(self._azurite, what, files)
        variables = {name: str(value) for name, value in properties["environmentVariables"].items()}
        container = self._world.containers.start({**variables, "AZUREML_MODEL_DIR": str(model_dir)}, files=files)
        if not container.wait_healthy(what.readiness, HEALTHY_SECONDS, self._world.stop):
            crashed = container.exit_status is not None
            self._logs[place] = container.logs()
            container.stop()
            raise OperationError("ResourceNotReady", CRASHED if crashed else UNREADY)
        timeout, parallel = _limits(properties)
        limit = PARALLEL * parallel * int(change.new["sku"]["capacity"])
        self._logs.pop(place, None)
        return Slot(change.name, container, what.scoring, timeout, limit)

    def _resize(self, change: Change) -> None:
        routing = self._routes.find(change.endpoint)
        slot = routing.slots.get(change.name.lower()) if routing is not None else None
        if slot is not None:
            slot.timeout, parallel = _limits(change.new["properties"])
            slot.limit = PARALLEL * parallel * int(change.new["sku"]["capacity"])

    def _check_quota(self, change: Change) -> None:
        size, count = change.new["properties"]["instanceType"], int(change.new["sku"]["capacity"])
        used = 0
        for endpoint in self._store.children(key("onlineEndpoints")):
            for other in self._store.children((*endpoint_key(endpoint["name"]), "deployments")):
                if other["id"].lower() != change.new["id"].lower():
                    used += needed(other["properties"]["instanceType"], int(other["sku"]["capacity"]))
        more = needed(size, count)
        if used + more > QUOTA:
            subscription = change.new["id"].split("/")[2]
            raise OperationError(
                "OutOfQuota",
                f"Not enough quota available for {size} in SubscriptionId {subscription}. Current usage/limit: "
                f"{used}/{QUOTA}. Additional needed: {more}. Please see troubleshooting guide, available here: "
                "https://aka.ms/oe-tsg#error-outofquota",
            )

    def _check_parent(self, parent: Document, endpoint: str) -> None:
        state = parent["properties"]["provisioningState"]
        if state != "Succeeded":
            raise ArmError(
                409,
                "Conflict",
                f"Cannot create a deployment in endpoint {endpoint} because it is in {state} provisioning state.",
            )

    def _delete(self, ask: Ask) -> Response:
        self._check_workspace(ask.names[0])
        endpoint, name = ask.names[1:3]
        place, faults, began = deployment_key(endpoint, name), self._world.faults, time.time()
        with self._store.lock:
            parent, old = self._store.get(endpoint_key(endpoint)), self._store.get(place)
            if parent is None or old is None:
                return answer(None, 204)
            check_idle(parent, endpoint)
            check_idle(old, name)
            if parent["properties"]["traffic"].get(name.lower()):
                raise bad_request(f"Can't delete deployment [{name}] with non-zero traffic weight.")
            if faults.take("azure", ask.operation, ("ignore",), f"{endpoint}/{name}"):
                return self._operations.accepted(ask, self._operations.begin("od", None, None), 202)
            self._store.put(place, changed(old, {"provisioningState": "Deleting"}))
        busy = faults.take("azure", ask.operation, ("busy",), f"{endpoint}/{name}")
        reverted = faults.take("azure", ask.operation, ("revert",), f"{endpoint}/{name}")
        delay = self._world.delays.seconds("azure.deployment.delete") + (busy.delay if busy else 0.0)

        def work() -> None:
            self._world.stop.wait(delay)
            if reverted:
                self._store.put(place, old)
            else:
                self._remove(endpoint, name, began)

        return self._operations.accepted(ask, self._operations.begin("od", work, None), 202)

    def _remove(self, endpoint: str, name: str, began: float) -> None:
        slot = self._routes.detach(endpoint, name)
        if slot is not None:
            slot.retire()
        self._store.remove(deployment_key(endpoint, name))
        self._logs.pop(deployment_key(endpoint, name), None)
        self._world.calls.event("azure", "undeploy", endpoint, began, name)

    def _get_logs(self, ask: Ask) -> Response:
        check(ask.body, LOGS)
        self._find(ask)
        kind = ask.body.get("containerType") or "InferenceServer"
        if kind != "InferenceServer":
            raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: logs of {kind}")
        routing = self._routes.find(ask.names[1])
        slot = routing.slots.get(ask.names[2].lower()) if routing is not None else None
        failed = self._logs.get(deployment_key(*ask.names[1:3]))
        log = failed if failed is not None else slot.container.logs() if slot is not None else ""
        lines = log.splitlines()[-int(ask.body.get("tail") or 5000) :]
        return answer({"content": "\n".join(lines)})


def _check_capacity(sku: Document) -> None:
    capacity = sku.get("capacity")
    if not isinstance(capacity, int) or capacity < 1:
        raise bad_request("The field 'sku.capacity' (the instance count) must be a whole number of at least 1.")
    if capacity > INSTANCE_LIMIT:
        raise bad_request(f"The limit of {INSTANCE_LIMIT} instances in a deployment is exceeded: {capacity}.")


def _limits(properties: Document) -> tuple[float, int]:
    """Seconds that a request may take, and requests that one instance may work on at once."""
    settings = properties.get("requestSettings") or {}
    timeout = seconds(settings.get("requestTimeout") or f"PT{REQUEST_SECONDS:g}S")
    if not 0 < timeout <= LONGEST_REQUEST_SECONDS:
        raise bad_request(f"The request timeout must be more than 0 and at most {LONGEST_REQUEST_SECONDS:g} seconds.")
    seconds(settings.get("maxQueueWait") or "PT0S")
    parallel = settings.get("maxConcurrentRequestsPerInstance") or 1
    if parallel < 1:
        raise bad_request("The field 'maxConcurrentRequestsPerInstance' must be at least 1.")
    return timeout, int(parallel)


def _needs_container(change: Change) -> bool:
    if change.old is None or change.old["properties"]["provisioningState"] != "Succeeded":
        return True
    old, new = change.old["properties"], change.new["properties"]
    return any(old.get(name) != new.get(name) for name in {*old, *new} - {*SOFT})
