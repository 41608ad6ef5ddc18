"""Endpoints: their documents, the traffic split, and when a change of it takes effect.

UpdateEndpoint answers at once with the new split. What reads show and where requests go follows when the switch has
reached the serving fleet, `gcp.endpoint.traffic` seconds later; switches take effect in the order of their requests.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sandbox.gcp.errors import GoogleError, invalid, not_emulated, precondition
from sandbox.gcp.vertex_names import (
    ENDPOINT_ID,
    JsonObject,
    check_display_name,
    check_labels,
    etag_of,
    filter_of,
    mask_fields,
    now_text,
    ordered,
    page_of,
    time_text,
)
from sandbox.gcp.vertex_operations import EMPTY, Operation, Operations
from sandbox.gcp.vertex_slots import Routing, Slot
from sandbox.world import World

LOGGING: Final = "predictRequestResponseLoggingConfig"
UPDATABLE: Final = ("displayName", "description", "labels", "trafficSplit", LOGGING)
CREATED: Final = {"name", "displayName", "description", "labels", "trafficSplit", "etag", LOGGING}
#: fields of an endpoint that may come with their empty value, which asks for nothing
OFF: Final[tuple[object, ...]] = ({}, [], "", False, None)


@dataclass
class Endpoint:
    """One endpoint. `split` is what was asked for last, `routing` what is in force.

    `leaving` holds slots that are being undeployed, which get no traffic any more.
    """

    id: str
    content: JsonObject
    split: dict[str, int] = field(default_factory=dict)
    routing: Routing = field(default_factory=lambda: Routing({}))
    slots: dict[str, Slot] = field(default_factory=dict)
    deployed: dict[str, JsonObject] = field(default_factory=dict)
    reserved: dict[str, tuple[str, str]] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    switches: int = 0
    applied: int = 0
    running: str | None = None
    settled: threading.Condition = field(default_factory=threading.Condition)


class Endpoints:
    """All endpoints of the project."""

    def __init__(
        self, world: World, operations: Operations, parent: str, check_logging: Callable[[JsonObject], None]
    ) -> None:
        self._check_logging = check_logging
        self._world = world
        self._operations = operations
        self._parent = parent
        self._frozen: dict[str, JsonObject] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self.lock: Final = threading.RLock()

    # --- reads

    def name(self, endpoint_id: str) -> str:
        """The resource name, with the project's number."""
        return f"{self._parent}/endpoints/{endpoint_id}"

    def freeze(self) -> None:
        """Remember what reads show while they are stale."""
        with self.lock:
            self._frozen = {name: self.json(endpoint) for name, endpoint in self._endpoints.items()}

    def find(self, endpoint_id: str) -> Endpoint:
        """The endpoint as it is; NOT_FOUND otherwise. Takes no lock: requests are routed through here."""
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            raise self._missing(endpoint_id)
        return endpoint

    def all(self) -> list[Endpoint]:
        """Every endpoint."""
        return list(self._endpoints.values())

    def _missing(self, endpoint_id: str) -> GoogleError:
        return GoogleError("NOT_FOUND", f"The Endpoint {self.name(endpoint_id)} is not found.")

    def json(self, endpoint: Endpoint) -> JsonObject:
        """The endpoint as reads show it: with the split that is in force."""
        with self.lock:
            content = {"name": self.name(endpoint.id), **endpoint.content}
            if endpoint.routing.split:
                content["trafficSplit"] = dict(endpoint.routing.split)
            if endpoint.deployed:
                content["deployedModels"] = [dict(d) for d in endpoint.deployed.values()]
            tagged = {**content, "etag": etag_of(content)}
            for shown in tagged.get("deployedModels", ()):
                slot = endpoint.slots[shown["id"]]
                replicas = shown.get("dedicatedResources", {}).get("minReplicaCount", 1)
                shown["status"] = {
                    "availableReplicaCount": replicas if slot.available else 0,
                    "lastUpdateTime": time_text(slot.status_time),
                    **({"message": slot.status_message} if slot.status_message else {}),
                }
            return tagged

    def _shown(self) -> dict[str, JsonObject]:
        if self._world.faults.since("gcp", "stale", "GetEndpoint") is not None:
            return self._frozen
        with self.lock:
            return {name: self.json(endpoint) for name, endpoint in self._endpoints.items()}

    def get(self, endpoint_id: str) -> JsonObject:
        """GetEndpoint."""
        if self._world.faults.since("gcp", "stale", "GetEndpoint") is None:
            return self.json(self.find(endpoint_id))
        if endpoint_id not in self._frozen:
            raise self._missing(endpoint_id)
        return self._frozen[endpoint_id]

    def list(self, query: Mapping[str, str]) -> JsonObject:
        """ListEndpoints."""
        fields = {"endpoint": "name", "display_name": "displayName", "displayName": "displayName"}
        matches = filter_of(query.get("filter"), fields, "ListEndpoints")
        found = ordered([e for e in self._shown().values() if matches(e)], query.get("orderBy"), "ListEndpoints")
        return page_of(found, query, "endpoints")

    # --- life

    def create(self, body: JsonObject, wanted: str | None) -> Operation:
        """CreateEndpoint."""
        odd = sorted(name for name, value in body.items() if name not in CREATED and value not in OFF)
        if odd:
            raise not_emulated(f"CreateEndpoint with {odd[0]}")
        check_display_name(body.get("displayName"), "Endpoint")
        check_labels(body.get("labels", {}))
        if body.get(LOGGING, {}).get("enabled"):
            self._check_logging(body[LOGGING])
        if body.get("trafficSplit"):
            raise invalid(_unknown_ids(body["trafficSplit"]))
        if wanted and not ENDPOINT_ID.fullmatch(wanted):
            raise invalid(
                f'Invalid endpoint ID "{wanted}": up to 63 characters of [a-z0-9-] starting with a letter and ending '
                "with a letter or digit, or up to 9 digits without a leading zero."
            )
        endpoint_id = wanted or str(secrets.randbelow(9 * 10**18) + 10**18)
        if endpoint_id in self._endpoints:
            raise GoogleError("ALREADY_EXISTS", f"The Endpoint {self.name(endpoint_id)} already exists.")

        def work(operation: Operation) -> None:
            self._world.stop.wait(self._world.delays.seconds("gcp.endpoint.create"))
            kind = outcome(self._world, "CreateEndpoint", endpoint_id)
            now = now_text()
            content: JsonObject = {k: body[k] for k in ("displayName", "description", "labels", LOGGING) if k in body}
            content.update(createTime=now, updateTime=now)
            endpoint = Endpoint(endpoint_id, content)
            with self.lock:
                if endpoint_id in self._endpoints:
                    raise GoogleError("ALREADY_EXISTS", f"The Endpoint {self.name(endpoint_id)} already exists.")
                if kind is None:
                    self._endpoints[endpoint_id] = endpoint
            operation.finish("Endpoint", self.json(endpoint))

        return self._operations.begin(self.name(endpoint_id), "CreateEndpoint", work)

    def delete(self, endpoint_id: str) -> Operation:
        """DeleteEndpoint: refused while anything is deployed there."""

        def check() -> Endpoint:
            endpoint = self.find(endpoint_id)
            self.refuse_busy(endpoint)
            if endpoint.deployed or endpoint.reserved:
                ids = ", ".join([*endpoint.deployed, *endpoint.reserved])
                raise precondition(
                    f"Endpoint {self.name(endpoint_id)} has deployed or being-deployed DeployedModel(s) {ids}; "
                    "undeploy them first."
                )
            return endpoint

        def work(operation: Operation) -> None:
            self._world.stop.wait(self._world.delays.seconds("gcp.endpoint.delete"))
            if outcome(self._world, "DeleteEndpoint", endpoint_id) is None:
                with self.lock:
                    self._endpoints.pop(endpoint_id, None)
            operation.finish(EMPTY, {})

        with self.lock:
            endpoint = check()
            return self.begin_on(endpoint, "Delete", work)

    # --- one operation at a time

    def refuse_busy(self, endpoint: Endpoint) -> None:
        """An endpoint carries out one long-running operation at a time."""
        if endpoint.running is not None:
            raise precondition(
                f'There are other operations running on the Endpoint "{self.name(endpoint.id)}". '
                f"Operation(s) are: {endpoint.running}."
            )

    def begin_on(self, endpoint: Endpoint, kind: str, work: Callable[[Operation], None]) -> Operation:
        """Start an operation that keeps others away from the endpoint until it ends."""
        with self.lock:
            self.refuse_busy(endpoint)

            def exclusive(operation: Operation) -> None:
                finished: list[tuple[str, JsonObject]] = []
                held = _Held(operation, finished)
                try:
                    work(held)
                finally:
                    with self.lock:
                        endpoint.running = None
                for message, response in finished:
                    operation.finish(message, response)

            operation = self._operations.begin(self.name(endpoint.id), kind, exclusive)
            endpoint.running = operation.name  # the thread cannot end before we give up the lock
            return operation

    # --- traffic

    def update(self, endpoint_id: str, body: JsonObject, mask: str | None) -> JsonObject:
        """UpdateEndpoint: synchronous; a traffic split takes effect later."""
        fields = mask_fields(mask, UPDATABLE)
        with self.lock:
            endpoint = self.find(endpoint_id)
            shown = self.json(endpoint)
            if body.get("etag") and body["etag"] != shown["etag"]:
                raise GoogleError(
                    "ABORTED",
                    f"The etag of the Endpoint {shown['name']} does not match its current one; read it again.",
                )
            if "displayName" in fields:
                check_display_name(body.get("displayName"), "Endpoint")
            if "labels" in fields:
                check_labels(body.get("labels", {}))
            if LOGGING in fields and body.get(LOGGING, {}).get("enabled"):
                self._check_logging(body[LOGGING])
            if "trafficSplit" in fields:
                wanted: dict[str, int] = body.get("trafficSplit", {})
                gone = {slot for slot in endpoint.leaving if wanted.get(slot)}
                check_split(wanted, {slot: 0 for slot in endpoint.deployed if slot not in gone})
            answer = {k: v for k, v in {**shown, "updateTime": now_text()}.items() if k not in fields}
            answer.update({f: body[f] for f in fields if body.get(f)})
            fault = self._world.faults.take("gcp", "UpdateEndpoint", ("ignore", "revert", "busy"), endpoint_id)
            if fault is not None and fault.kind == "ignore":
                return answer
            if fault is None or fault.kind == "busy":
                plain = [f for f in fields if f != "trafficSplit"]
                for cleared in plain:
                    endpoint.content.pop(cleared, None)
                endpoint.content.update({f: body[f] for f in plain if f in body}, updateTime=answer["updateTime"])
            if "trafficSplit" in fields:
                delay = self._world.delays.seconds("gcp.endpoint.traffic")
                delay += fault.delay if fault is not None and fault.kind == "busy" else 0.0
                reverted = fault is not None and fault.kind == "revert"
                self.switch(endpoint, body.get("trafficSplit", {}), delay, reverted=reverted)
                if delay == 0.0 and not reverted:
                    answer["etag"] = self.json(endpoint)["etag"]
            else:
                answer = self.json(endpoint)
            return answer

    def switch(self, endpoint: Endpoint, split: Mapping[str, int], delay: float, *, reverted: bool = False) -> None:
        """Move traffic, `delay` seconds from now; `reverted` shows the new split at once and the old one for good."""
        began = time.time()
        with self.lock:
            before = dict(endpoint.split)
            endpoint.split = dict(split)
            endpoint.switches += 1
            number = endpoint.switches
            if reverted:
                endpoint.routing = self._routing(endpoint, split)
                split = before
        if delay <= 0.0:
            self._apply(endpoint, number, split, began)
            return

        def later() -> None:
            self._world.stop.wait(delay)
            self._apply(endpoint, number, split, began)

        threading.Thread(target=later, name="traffic", daemon=True).start()

    def _apply(self, endpoint: Endpoint, number: int, split: Mapping[str, int], began: float) -> None:
        with self.lock:
            if number > endpoint.applied:
                endpoint.applied = number
                if number == endpoint.switches:
                    endpoint.split = dict(split)
                endpoint.routing = self._routing(endpoint, split)
                detail = ",".join(f"{slot}={percent}" for slot, percent in sorted(endpoint.routing.split.items()))
                self._world.calls.event("gcp", "traffic", endpoint.id, began, detail)
        with endpoint.settled:
            endpoint.settled.notify_all()

    def forget(self, endpoint: Endpoint, slot_id: str) -> None:
        """Take a slot that gets no traffic out of the split."""
        with self.lock:
            endpoint.split.pop(slot_id, None)
            rest = {key: percent for key, percent in endpoint.routing.split.items() if key != slot_id}
            endpoint.routing = self._routing(endpoint, rest)

    def wait_settled(self, endpoint: Endpoint) -> None:
        """Return when every switch asked for so far has taken effect."""
        number = endpoint.switches
        with endpoint.settled:
            while endpoint.applied < number and not self._world.stop.is_set():
                endpoint.settled.wait(0.5)

    @staticmethod
    def _routing(endpoint: Endpoint, split: Mapping[str, int]) -> Routing:
        upper, ladder, kept = 0, [], {}
        for slot_id, percent in split.items():
            if slot_id in endpoint.slots:
                kept[slot_id] = percent
                upper += percent
                if percent:
                    ladder.append((upper, endpoint.slots[slot_id]))
        return Routing(kept, tuple(ladder))


class _Held(Operation):
    """An operation whose good end is held back until the endpoint is free for the next one."""

    def __init__(self, real: Operation, finished: list[tuple[str, JsonObject]]) -> None:
        super().__init__(real.name, real.kind)
        self._real = real
        self._finished = finished

    def at_stage(self, stage: str) -> None:
        self._real.at_stage(stage)

    def finish(self, kind: str, response: JsonObject) -> None:
        self._finished.append((kind, response))


def outcome(world: World, operation: str, resource: str) -> str | None:
    """Ask the fault board how a long-running operation ends: None as it should, "ignore" with nothing done.

    Waits when the board says `busy`; raises INTERNAL for `revert`, after which the old state must hold.
    """
    fault = world.faults.take("gcp", operation, ("ignore", "revert", "busy"), resource)
    if fault is None:
        return None
    if fault.kind == "busy":
        world.stop.wait(fault.delay)
        return None
    if fault.kind == "revert":
        raise GoogleError("INTERNAL", "Internal error encountered.")
    return "ignore"


def check_split(split: Mapping[str, int], known: Mapping[str, object], *, new: bool = False) -> None:
    """A traffic split is empty, or sums to 100 over deployed models that exist ("0" stands for the one coming)."""
    unknown = {slot for slot in split if slot not in known and not (new and slot == "0")}
    if unknown:
        raise invalid(_unknown_ids(unknown))
    if any(not 0 <= percent <= 100 for percent in split.values()):
        raise invalid("Traffic split percentages must be integers between 0 and 100.")
    if split and sum(split.values()) != 100:
        raise invalid(f"The sum of all percentages in the traffic split must be 100, but it is {sum(split.values())}.")


def _unknown_ids(ids: Iterable[str]) -> str:
    return f"The following DeployedModel ID(s) [{', '.join(sorted(ids))}] do not exist."
