"""Carrying out a change of a deployment: quota, files, container, health, and the swap without a lost request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sandbox.azure.arm import bad_request
from sandbox.azure.azurite import Azurite
from sandbox.azure.endpoints import endpoint_key
from sandbox.azure.images import QUOTA, Plan, needed, place_files
from sandbox.azure.operations import OperationError
from sandbox.azure.schema import seconds
from sandbox.azure.slots import PARALLEL, Routes, Slot
from sandbox.azure.store import Document, Key, Store, changed, key
from sandbox.world import World

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


class Rollouts:
    """Starts, swaps and ends the containers of deployments."""

    def __init__(self, world: World, store: Store, routes: Routes, azurite: Azurite) -> None:
        self._world = world
        self._store = store
        self._routes = routes
        self._azurite = azurite
        self._logs: dict[Key, str] = {}

    def carry_out(self, change: Change, what: Plan | None) -> None:
        """Make the change; raises OperationError, leaving the deployment Failed and what served before serving.

        `what` is None for a change that needs no container.
        """
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
        timeout, parallel = limits(properties)
        limit = PARALLEL * parallel * int(change.new["sku"]["capacity"])
        self._logs.pop(place, None)
        return Slot(change.name, container, what.scoring, timeout, limit, properties.get("dataCollector"))

    def _resize(self, change: Change) -> None:
        routing = self._routes.find(change.endpoint)
        slot = routing.slots.get(change.name.lower()) if routing is not None else None
        if slot is not None:
            slot.timeout, parallel = limits(change.new["properties"])
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

    def remove(self, endpoint: str, name: str, began: float) -> None:
        """End a deployment's container and forget it."""
        slot = self._routes.detach(endpoint, name)
        if slot is not None:
            slot.retire()
        self._store.remove(deployment_key(endpoint, name))
        self._logs.pop(deployment_key(endpoint, name), None)
        self._world.calls.event("azure", "undeploy", endpoint, began, name)

    def log(self, endpoint: str, name: str) -> str:
        """The output of the container that failed last, or of the one that runs."""
        failed = self._logs.get(deployment_key(endpoint, name))
        if failed is not None:
            return failed
        routing = self._routes.find(endpoint)
        slot = routing.slots.get(name.lower()) if routing is not None else None
        return slot.container.logs() if slot is not None else ""


def limits(properties: Document) -> tuple[float, int]:
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
