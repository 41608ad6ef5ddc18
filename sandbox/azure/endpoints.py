"""Online endpoints: states, traffic, keys. Traffic changes by PUT alone, with no ETag: the last writer wins."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import ArmError, Ask, Operation, ResourceManager, answer, bad_request, not_found, not_implemented
from sandbox.azure.operations import Operations
from sandbox.azure.schema import ENDPOINT, ENDPOINT_PATCH, KEYS, check, check_name, present
from sandbox.azure.slots import Routes, Routing
from sandbox.azure.store import Document, Key, Store, changed, document, key
from sandbox.azure.tokens import LIFETIME, SCORING, Tokens
from sandbox.world import World

TRANSITIONAL: Final = ("Creating", "Updating", "Deleting", "Scaling")
AUTH_MODES: Final = ("Key", "AMLToken", "AADToken")
ENDPOINT_LIMIT: Final = 100
#: Properties that an update takes from the request as they are.
KEPT: Final = ("authMode", "description", "properties", "publicNetworkAccess")


def endpoint_key(name: str) -> Key:
    """Where an endpoint lies."""
    return key("onlineEndpoints", name)


class Endpoints:
    """Serves online endpoints; `undeploy(endpoint)` ends all of an endpoint's deployments."""

    def __init__(
        self,
        world: World,
        store: Store,
        operations: Operations,
        routes: Routes,
        tokens: Tokens,
        check_workspace: Callable[[str], None],
        undeploy: Callable[[str], None],
    ) -> None:
        self._world = world
        self._store = store
        self._operations = operations
        self._routes = routes
        self._tokens = tokens
        self._check_workspace = check_workspace
        self._undeploy = undeploy
        self.scoring_url = ""

    def serve(self, manager: ResourceManager) -> None:
        """Add the operations on endpoints."""
        base = "workspaces/*/onlineEndpoints"
        manager.add("GET", base, Operation("OnlineEndpoints_List", self._list))
        manager.add("GET", f"{base}/*", Operation("OnlineEndpoints_Get", self._get))
        manager.add("PUT", f"{base}/*", Operation("OnlineEndpoints_CreateOrUpdate", self._put))
        manager.add("PATCH", f"{base}/*", Operation("OnlineEndpoints_Update", self._patch))
        manager.add("DELETE", f"{base}/*", Operation("OnlineEndpoints_Delete", self._delete))
        manager.add("POST", f"{base}/*/listKeys", Operation("OnlineEndpoints_ListKeys", self._list_keys))
        manager.add("POST", f"{base}/*/regenerateKeys", Operation("OnlineEndpoints_RegenerateKeys", self._regenerate))
        manager.add("POST", f"{base}/*/token", Operation("OnlineEndpoints_GetToken", self._token))

    def _find(self, ask: Ask) -> Document:
        self._check_workspace(ask.names[0])
        found = self._store.get(endpoint_key(ask.names[1]), ask.stale)
        if found is None:
            raise not_found("workspaces/onlineEndpoints", ask.names[1])
        return found

    def _get(self, ask: Ask) -> Response:
        return answer(self._find(ask))

    def _list(self, ask: Ask) -> Response:
        self._check_workspace(ask.names[0])
        return answer({"value": self._store.children(key("onlineEndpoints"), ask.stale)})

    def _put(self, ask: Ask) -> Response:
        self._check_workspace(ask.names[0])
        name = ask.names[1]
        check_name("Endpoint", name)
        check(ask.body, ENDPOINT)
        if not ask.body.get("location"):
            raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
        sent = present(ask.body.get("properties") or {})
        if sent.get("authMode") not in AUTH_MODES:
            raise bad_request(f"The field 'authMode' must be one of {', '.join(AUTH_MODES)}.")
        with self._store.lock:
            old = self._store.get(endpoint_key(name))
            if old is not None:
                check_idle(old, name)
            traffic, mirror = self._traffic(name, sent)
            if old is None:
                return self._create(ask, name, sent, traffic)
            return self._update(ask, old, sent, {"traffic": traffic, "mirrorTraffic": mirror})

    def _create(self, ask: Ask, name: str, sent: dict[str, Any], traffic: dict[str, int]) -> Response:
        if len(self._store.children(key("onlineEndpoints"))) >= ENDPOINT_LIMIT:
            raise bad_request(f"The limit of {ENDPOINT_LIMIT} endpoints in this subscription and region is reached.")
        given = sent.pop("keys", None) or {}
        keys = tuple(given.get(f"{which}Key") or secrets.token_urlsafe(24) for which in ("primary", "secondary"))
        properties = {
            "description": None,
            "properties": {},
            "publicNetworkAccess": "Enabled",
            "compute": None,
            **sent,
            "traffic": traffic,
            "mirrorTraffic": {},
            "scoringUri": f"{self.scoring_url}/{name}/score",
            "swaggerUri": f"{self.scoring_url}/{name}/swagger.json",
            "provisioningState": "Creating",
        }
        envelope = {
            "location": ask.body["location"],
            "tags": ask.body.get("tags") or {},
            "kind": ask.body.get("kind") or "Managed",
            "identity": {"principalId": str(uuid.uuid4()), **(ask.body.get("identity") or {"type": "SystemAssigned"})},
        }
        new = document(self._store.id("onlineEndpoints", name), "workspaces/onlineEndpoints", properties, **envelope)
        place = endpoint_key(name)
        if self._faults(ask, "ignore"):
            return self._operations.accepted(ask, self._operations.begin("oe", None, place), 201, new)
        self._store.put(place, new)
        delay, reverted = self._delay(ask, "azure.endpoint.create"), self._faults(ask, "revert")

        def work() -> None:
            self._world.stop.wait(delay)
            if reverted:
                self._store.remove(place)
                return
            self._routes.open(Routing(name, sent["authMode"], (keys[0], keys[1])))
            self._store.put(place, changed(new, {"provisioningState": "Succeeded"}))

        return self._operations.accepted(ask, self._operations.begin("oe", work, place), 201, new)

    def _update(self, ask: Ask, old: Document, sent: dict[str, Any], split: dict[str, dict[str, int]]) -> Response:
        name, place, began = ask.names[1], endpoint_key(ask.names[1]), time.time()
        given = sent.pop("keys", None) or {}
        kept: dict[str, Any] = {field: sent[field] for field in KEPT if field in sent}
        new = changed(old, {**kept, **split, "provisioningState": "Succeeded"}, tags=ask.body.get("tags") or {})
        shown = changed(old, {"provisioningState": "Updating"})
        if self._faults(ask, "ignore"):
            return self._operations.accepted(ask, self._operations.begin("oe", None, place), 201, shown)
        self._store.put(place, shown)
        delay, reverted = self._delay(ask, "azure.endpoint.traffic"), self._faults(ask, "revert")

        def work() -> None:
            self._world.stop.wait(delay)
            if reverted:
                self._store.put(place, old)
                return
            routing = self._routes.find(name)
            assert routing is not None
            keys = (given.get("primaryKey") or routing.keys[0], given.get("secondaryKey") or routing.keys[1])
            self._routes.secure(name, new["properties"]["authMode"], keys)
            self._routes.weigh(name, split["traffic"])
            self._store.put(place, new)
            if split["traffic"] != old["properties"]["traffic"]:
                detail = ",".join(f"{slot}={weight}" for slot, weight in split["traffic"].items())
                self._world.calls.event("azure", "traffic", old["name"], began, detail)

        return self._operations.accepted(ask, self._operations.begin("oe", work, place), 201, shown)

    def _traffic(self, name: str, sent: Document) -> tuple[dict[str, int], dict[str, int]]:
        """Check a split against the deployments that exist; zeros go, names become lower-case."""
        deployments = {
            d["name"].lower()
            for d in self._store.children((*endpoint_key(name), "deployments"))
            if d["properties"]["provisioningState"] != "Deleting"
        }
        traffic = _weights(sent.get("traffic") or {}, "traffic")
        mirror = _weights(sent.get("mirrorTraffic") or {}, "mirror traffic")
        for slot in (*traffic, *mirror):
            if slot not in deployments:
                raise bad_request(f"Deployment '{slot}' in the traffic does not exist in endpoint '{name}'.")
        if sum(traffic.values()) not in (0, 100):
            raise bad_request(f"The sum of traffic must be 0 or 100, not {sum(traffic.values())}.")
        if len(mirror) > 1 or sum(mirror.values()) > 50:
            raise bad_request("Mirror traffic can go to one deployment only and be at most 50 percent.")
        if set(mirror) & set(traffic):
            raise bad_request("A deployment can receive either live traffic or mirror traffic, not both.")
        if mirror:
            raise not_implemented("mirrored traffic")
        return traffic, mirror

    def _patch(self, ask: Ask) -> Response:
        if "properties" in ask.body:
            raise bad_request("PATCH can change tags and identity of an endpoint only: send the whole endpoint by PUT.")
        check(ask.body, ENDPOINT_PATCH)
        with self._store.lock:
            old = self._find(ask)
            check_idle(old, ask.names[1])
            new = changed(old, **present(ask.body))
            if not self._faults(ask, "ignore"):
                self._store.put(endpoint_key(ask.names[1]), new)
        return answer(new)

    def _delete(self, ask: Ask) -> Response:
        self._check_workspace(ask.names[0])
        name, place = ask.names[1], endpoint_key(ask.names[1])
        with self._store.lock:
            old = self._store.get(place)
            if old is None:
                return answer(None, 204)
            check_idle(old, name)
            for deployment in self._store.children((*place, "deployments")):
                check_idle(deployment, deployment["name"])
            if self._faults(ask, "ignore"):
                return self._operations.accepted(ask, self._operations.begin("oe", None, None), 202)
            self._store.put(place, changed(old, {"provisioningState": "Deleting"}))
        delay, reverted = self._delay(ask, "azure.endpoint.delete"), self._faults(ask, "revert")

        def work() -> None:
            self._world.stop.wait(delay)
            if reverted:
                self._store.put(place, old)
                return
            self._routes.weigh(name, {})
            self._undeploy(name)
            self._routes.close(name)
            self._store.remove(place)

        return self._operations.accepted(ask, self._operations.begin("oe", work, None), 202)

    def _list_keys(self, ask: Ask) -> Response:
        routing = self._secured(ask, "Key")
        return answer({"primaryKey": routing.keys[0], "secondaryKey": routing.keys[1]})

    def _regenerate(self, ask: Ask) -> Response:
        check(ask.body, KEYS)
        routing = self._secured(ask, "Key")
        which = str(ask.body.get("keyType", "")).lower()
        if which not in ("primary", "secondary"):
            raise bad_request("The field 'keyType' must be Primary or Secondary.")
        fresh = ask.body.get("keyValue") or secrets.token_urlsafe(24)
        if not self._faults(ask, "ignore"):
            keys = (fresh, routing.keys[1]) if which == "primary" else (routing.keys[0], fresh)
            self._routes.secure(routing.endpoint, routing.auth_mode, keys)
        return self._operations.accepted(ask, self._operations.begin("oe", None, None), 202)

    def _token(self, ask: Ask) -> Response:
        self._secured(ask, "AMLToken")
        expiry = int(time.time()) + LIFETIME
        return answer(
            {
                "accessToken": self._tokens.mint(f"{SCORING[0]}/{ask.names[1].lower()}", "endpoint"),
                "tokenType": "Bearer",
                "expiryTimeUtc": expiry,
                "refreshAfterTimeUtc": expiry - LIFETIME // 4,
            }
        )

    def _secured(self, ask: Ask, mode: str) -> Routing:
        actual = self._find(ask)["properties"]["authMode"]
        if actual != mode:
            raise bad_request(f"Endpoint '{ask.names[1]}' authenticates by {actual}, not by {mode}.")
        routing = self._routes.find(ask.names[1])
        if routing is None:
            raise not_found("workspaces/onlineEndpoints", ask.names[1])
        return routing

    def _delay(self, ask: Ask, delay: str) -> float:
        fault = self._world.faults.take("azure", ask.operation, ("busy",), "/".join(ask.names[1:]))
        return self._world.delays.seconds(delay) + (fault.delay if fault is not None else 0.0)

    def _faults(self, ask: Ask, kind: str) -> bool:
        return self._world.faults.take("azure", ask.operation, (kind,), "/".join(ask.names[1:])) is not None


def check_idle(found: Document, name: str) -> None:
    """Raise 409 while a change of the endpoint or deployment is under way."""
    state = found["properties"]["provisioningState"]
    if state in TRANSITIONAL:
        method = {"Creating": "Create", "Updating": "Update", "Deleting": "Delete"}.get(state, "Scale")
        raise ArmError(409, "Conflict", f"Already running method {method} on '{name}'.")


def _weights(sent: Mapping[str, Any], what: str) -> dict[str, int]:
    for slot, weight in sent.items():
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= 100:
            raise bad_request(f"The {what} of deployment '{slot}' must be a whole number from 0 to 100.")
    return {slot.lower(): weight for slot, weight in sent.items() if weight}
