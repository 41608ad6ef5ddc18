"""Endpoints: the state machine Creating -> InService <-> Updating -> Deleting, and the traffic between variants.

A change is accepted or refused at once and carried out by a thread of its own. Invocations read the routing without
any lock of the control plane: it is one immutable value that a change replaces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sandbox.aws.capture import summary
from sandbox.aws.deployment import Deployer, DeploymentError, Placed, Wanted
from sandbox.aws.documents import endpoint_document, pending_summary, refuse_deployment_config
from sandbox.aws.errors import invalid
from sandbox.aws.listing import page
from sandbox.aws.models import find_config, find_model, refuse_no_instance, refuse_zero_weights
from sandbox.aws.shapes import refuse_unsupported
from sandbox.aws.state import CLOUD, Document, State, arn, now
from sandbox.world import World

Change = Callable[["Live"], None]


@dataclass
class Live:
    """An endpoint beyond its document. `placed` is what invocations are led to; replaced as a whole."""

    name: str
    config: str
    placed: tuple[Placed, ...] = ()
    capture: Document | None = None
    created: Any = field(default_factory=now)
    last_deployment: Document | None = None


class Endpoints:
    """The operations on endpoints."""

    def __init__(self, world: World, state: State, deployer: Deployer) -> None:
        self._world = world
        self._state = state
        self._deployer = deployer
        self._live: dict[str, Live] = {}

    def routing(self, name: str) -> tuple[Placed, ...] | None:
        """The variants that take requests now; None when the endpoint cannot be invoked."""
        live = self._live.get(name)
        return live.placed if live is not None and live.placed else None

    def capturing(self, name: str) -> Document | None:
        """The DataCaptureConfig in force; None when the endpoint captures nothing."""
        live = self._live.get(name)
        found = live.capture if live is not None else None
        return found if found is not None and found["EnableCapture"] else None

    def create(self, given: Document) -> Document:
        """CreateEndpoint."""
        name, endpoint = given["EndpointName"], arn("endpoint", given["EndpointName"])
        refuse_deployment_config(given)
        with self._state.lock:
            if name in self._state.now.endpoints:
                raise invalid(f'Cannot create already existing endpoint "{endpoint}".')
            wanted = self._wanted(given["EndpointConfigName"])
            captures = self._captures(given["EndpointConfigName"])
            if self._ignored("CreateEndpoint", name):
                return {"EndpointArn": endpoint}
            self._state.tag(endpoint, given.get("Tags"))
            live = Live(name, given["EndpointConfigName"], last_deployment=given.get("DeploymentConfig"))
            self._live[name] = live
            self._show(live, "Creating", pending=(given["EndpointConfigName"], wanted))
        extra = self._extra("CreateEndpoint", name)

        def work(live: Live) -> None:
            began = time.time()
            try:
                placed = self._place(live, wanted)
            except DeploymentError as error:
                self._show(live, "Failed", reason=str(error))
                return
            self._wait("aws.endpoint.create", extra, began)
            live.placed, live.capture = placed, captures
            self._switched(live, began)
            self._show(live, "InService")

        self._carry_out(live, work)
        return {"EndpointArn": endpoint}

    def update(self, given: Document) -> Document:
        """UpdateEndpoint: starts only the variants that are new, switches, then stops those that are gone.

        When a new variant does not come up, the endpoint is InService on its old configuration with a FailureReason.
        """
        refuse_deployment_config(given)
        name = given["EndpointName"]
        with self._state.lock:
            live = self._ready(name)
            wanted = self._retained(given, live, self._wanted(given["EndpointConfigName"]))
            refuse_zero_weights([variant.weight for variant in wanted])
            captures = self._captures(given["EndpointConfigName"])
            if self._ignored("UpdateEndpoint", name):
                return {"EndpointArn": arn("endpoint", name)}
            self._show(live, "Updating", pending=(given["EndpointConfigName"], wanted))
        extra = self._extra("UpdateEndpoint", name)
        revert = self._world.faults.take(CLOUD, "UpdateEndpoint", ("revert",), name) is not None
        policy = given.get("DeploymentConfig", {}).get("BlueGreenUpdatePolicy", {})

        def work(live: Live) -> None:
            began = time.time()
            old = live.placed
            try:
                placed = self._place(live, wanted)
            except DeploymentError as error:
                self._show(live, "InService", reason=str(error))
                return
            self._wait("aws.endpoint.update", extra, began)
            if revert:
                self._retire(live, placed, kept=old)
                self._show(live, "InService")
                return
            live.placed, live.config, live.capture = placed, given["EndpointConfigName"], captures
            live.last_deployment = given.get("DeploymentConfig", live.last_deployment)
            self._switched(live, began)
            self._world.stop.wait(float(policy.get("TerminationWaitInSeconds", 0)))
            self._retire(live, old, kept=placed)
            self._show(live, "InService")

        self._carry_out(live, work)
        return {"EndpointArn": arn("endpoint", name)}

    def update_weights(self, given: Document) -> Document:
        """UpdateEndpointWeightsAndCapacities: the weights take effect at the end of the update."""
        operation, name = "UpdateEndpointWeightsAndCapacities", given["EndpointName"]
        with self._state.lock:
            live = self._ready(name)
            wishes = {wish["VariantName"]: wish for wish in given["DesiredWeightsAndCapacities"]}
            for wish in wishes.values():
                refuse_unsupported(wish, ("ServerlessUpdateConfig",), operation)
            unknown = sorted(set(wishes) - {placed.name for placed in live.placed})
            if unknown:
                raise invalid(f'Could not find production variant "{unknown[0]}" on "{arn("endpoint", name)}".')
            target = tuple(
                Placed(
                    placed.wanted,
                    placed.slot,
                    float(wishes.get(placed.name, {}).get("DesiredWeight", placed.weight)),
                    int(wishes.get(placed.name, {}).get("DesiredInstanceCount", placed.count)),
                )
                for placed in live.placed
            )
            refuse_zero_weights([placed.weight for placed in target])
            for placed in target:
                refuse_no_instance(placed.count, placed.name)
            if self._ignored(operation, name):
                return {"EndpointArn": arn("endpoint", name)}
            self._show(live, "Updating", desired=target)
        extra = self._extra(operation, name)
        revert = self._world.faults.take(CLOUD, operation, ("revert",), name) is not None

        def work(live: Live) -> None:
            began = time.time()
            self._wait("aws.endpoint.weights", extra, began)
            if not revert:
                live.placed = target
                self._switched(live, began)
            self._show(live, "InService")

        self._carry_out(live, work)
        return {"EndpointArn": arn("endpoint", name)}

    def delete(self, given: Document) -> None:
        """DeleteEndpoint: allowed for InService and Failed."""
        name = given["EndpointName"]
        with self._state.lock:
            live = self._ready(name, ("InService", "Failed"))
            if self._ignored("DeleteEndpoint", name):
                return
            self._show(live, "Deleting")
        extra = self._extra("DeleteEndpoint", name)

        def work(live: Live) -> None:
            began = time.time()
            old, live.placed = live.placed, ()
            self._retire(live, old, kept=())
            self._wait("aws.endpoint.delete", extra, began)
            with self._state.lock:
                del self._state.now.endpoints[name]
                del self._live[name]
                self._state.now.tags.pop(arn("endpoint", name), None)

        self._carry_out(live, work)

    def describe(self, given: Document) -> Document:
        """DescribeEndpoint."""
        return self._document(given["EndpointName"], "DescribeEndpoint")

    def list(self, given: Document) -> Document:
        """ListEndpoints."""
        endpoints: Iterable[Document] = list(self._state.reading("ListEndpoints").endpoints.values())
        if "StatusEquals" in given:
            endpoints = [e for e in endpoints if e["EndpointStatus"] == given["StatusEquals"]]
        return page(endpoints, given, "Endpoints", lambda d: str(d["EndpointName"]))

    def _document(self, name: str, operation: str) -> Document:
        found = self._state.reading(operation).endpoints.get(name)
        if found is None:
            raise invalid(f'Could not find endpoint "{arn("endpoint", name)}".')
        return found

    def _ready(self, name: str, allowed: Sequence[str] = ("InService",)) -> Live:
        document = self._state.now.endpoints.get(name)
        if document is None:
            raise invalid(f'Could not find endpoint "{arn("endpoint", name)}".')
        if document["EndpointStatus"] not in allowed:
            raise invalid(f'Cannot update in-progress endpoint "{arn("endpoint", name)}".')
        return self._live[name]

    def _wanted(self, config: str) -> tuple[Wanted, ...]:
        tables = self._state.now
        variants = find_config(tables.configs, config)["ProductionVariants"]
        return tuple(
            Wanted(
                variant,
                find_model(tables.models, variant["ModelName"]),
                float(variant["InitialVariantWeight"]),
                int(variant["InitialInstanceCount"]),
            )
            for variant in variants
        )

    def _captures(self, config: str) -> Document | None:
        """A configuration's DataCaptureConfig. It is no variant property, so an update never retains the old one."""
        found: Document | None = find_config(self._state.now.configs, config).get("DataCaptureConfig")
        return found

    @staticmethod
    def _retained(given: Document, live: Live, wanted: Sequence[Wanted]) -> tuple[Wanted, ...]:
        """Carry weights and counts over from the variants that run, where the request asks for it."""
        excluded = {p["VariantPropertyType"] for p in given.get("ExcludeRetainedVariantProperties", ())}
        if excluded and not given.get("RetainAllVariantProperties"):
            raise invalid("ExcludeRetainedVariantProperties needs RetainAllVariantProperties.")
        if not given.get("RetainAllVariantProperties"):
            return tuple(wanted)
        running = {placed.name: placed for placed in live.placed}
        return tuple(
            Wanted(
                variant.definition,
                variant.model,
                variant.weight
                if variant.name not in running or "DesiredWeight" in excluded
                else running[variant.name].weight,
                variant.count
                if variant.name not in running or "DesiredInstanceCount" in excluded
                else running[variant.name].count,
            )
            for variant in wanted
        )

    def _place(self, live: Live, wanted: Sequence[Wanted]) -> tuple[Placed, ...]:
        """Start what does not run yet, all at once; when one fails none stays."""
        running = {placed.slot.identity: placed.slot for placed in live.placed}
        missing = [variant for variant in wanted if variant.identity not in running]
        failure: DeploymentError | None = None
        started = {}
        with ThreadPoolExecutor(max_workers=max(1, len(missing))) as pool:
            pending = {v.identity: pool.submit(self._deployer.start, live.name, v) for v in missing}
            for identity, result in pending.items():
                try:
                    started[identity] = result.result()
                except DeploymentError as error:
                    failure = failure or error
        if failure is not None:
            for slot in started.values():
                slot.container.stop()
            raise failure
        slots = {**running, **started}
        return tuple(Placed(v, slots[v.identity], v.weight, v.count) for v in wanted)

    def _retire(self, live: Live, gone: Sequence[Placed], kept: Sequence[Placed]) -> None:
        staying = {placed.slot.identity for placed in kept}
        for placed in gone:
            if placed.slot.identity not in staying:
                self._deployer.retire(live.name, placed)

    def _switched(self, live: Live, began: float) -> None:
        split = ",".join(f"{placed.name}={placed.weight:g}" for placed in live.placed)
        self._world.calls.event(CLOUD, "traffic", live.name, began, split)

    def _show(
        self,
        live: Live,
        status: str,
        *,
        desired: Sequence[Placed] = (),
        pending: tuple[str, Sequence[Wanted]] | None = None,
        reason: str = "",
    ) -> None:
        document = endpoint_document(live.name, live.config, status, live.placed, desired)
        document["CreationTime"] = live.created
        captures = summary(live.capture)
        if captures is not None:
            document["DataCaptureConfig"] = captures
        if live.last_deployment:
            document["LastDeploymentConfig"] = live.last_deployment
        if reason:
            document["FailureReason"] = reason
        if pending is not None:
            document["PendingDeploymentSummary"] = pending_summary(*pending)
        with self._state.lock:
            self._state.now.endpoints[live.name] = document

    def _ignored(self, operation: str, name: str) -> bool:
        return self._world.faults.take(CLOUD, operation, ("ignore",), name) is not None

    def _extra(self, operation: str, name: str) -> float:
        busy = self._world.faults.take(CLOUD, operation, ("busy",), name)
        return busy.delay if busy is not None else 0.0

    def _wait(self, delay: str, extra: float, began: float) -> None:
        """Let the rest of an operation's time pass; the work done since `began` counts."""
        self._world.stop.wait(max(0.0, self._world.delays.seconds(delay) - (time.time() - began)) + extra)

    def _carry_out(self, live: Live, work: Change) -> None:
        def run() -> None:
            try:
                work(live)
            except Exception as error:
                if not self._world.stop.is_set():
                    self._show(live, "Failed", reason=f"Internal error: {error}")
                    raise

        threading.Thread(target=run, name=f"endpoint-{live.name}", daemon=True).start()
