"""Online deployments: each runs as a real container over the bytes that lie in Blob when it is deployed.

However many instances a deployment has, one container serves it; the count is state, and decides quota and how many
requests may be in it at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import ArmError, Ask, Operation, ResourceManager, answer, bad_request, not_found
from sandbox.azure.collector import check_collector
from sandbox.azure.endpoints import check_idle, endpoint_key
from sandbox.azure.images import Plan, cores, plan
from sandbox.azure.operations import Operations
from sandbox.azure.rollouts import REQUEST_SECONDS, Change, Rollouts, deployment_key, limits
from sandbox.azure.schema import DEPLOYMENT, DEPLOYMENT_PATCH, LOGS, check, check_name, present
from sandbox.azure.store import Document, Store, changed, document
from sandbox.world import World

DEPLOYMENT_LIMIT: Final = 20
INSTANCE_LIMIT: Final = 50


class Deployments:
    """Serves the deployments of all endpoints."""

    def __init__(
        self,
        world: World,
        store: Store,
        operations: Operations,
        rollouts: Rollouts,
        check_workspace: Callable[[str], None],
    ) -> None:
        self._world = world
        self._store = store
        self._operations = operations
        self._rollouts = rollouts
        self._check_workspace = check_workspace

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
            self._rollouts.remove(endpoint, deployment["name"], time.time())

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
        limits(sent)
        if sent.get("dataCollector"):
            check_collector(sent["dataCollector"])
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
        operation = self._operations.begin("od", lambda: self._rollouts.carry_out(change, what), place)
        return self._operations.accepted(ask, operation, status, shown)

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
                self._rollouts.remove(endpoint, name, began)

        return self._operations.accepted(ask, self._operations.begin("od", work, None), 202)

    def _get_logs(self, ask: Ask) -> Response:
        check(ask.body, LOGS)
        self._find(ask)
        kind = ask.body.get("containerType") or "InferenceServer"
        if kind != "InferenceServer":
            raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: logs of {kind}")
        log = self._rollouts.log(*ask.names[1:3])
        lines = log.splitlines()[-int(ask.body.get("tail") or 5000) :]
        return answer({"content": "\n".join(lines)})


def _check_capacity(sku: Document) -> None:
    capacity = sku.get("capacity")
    if not isinstance(capacity, int) or capacity < 1:
        raise bad_request("The field 'sku.capacity' (the instance count) must be a whole number of at least 1.")
    if capacity > INSTANCE_LIMIT:
        raise bad_request(f"The limit of {INSTANCE_LIMIT} instances in a deployment is exceeded: {capacity}.")
