"""Predict and RawPredict: a request is routed by the split in force and answered by the container it was routed to.

Shared endpoints: 60 seconds, 1.5 MB, 30,000 requests a minute.
"""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.containers import Container, ContainerGone, Reply
from sandbox.gcp.bigquery import RequestLogs
from sandbox.gcp.errors import GoogleError, error_response, invalid, not_emulated, precondition, status_for_http
from sandbox.gcp.samples import Samples
from sandbox.gcp.vertex_deployments import Deployments
from sandbox.gcp.vertex_endpoints import LOGGING, Endpoint, Endpoints
from sandbox.gcp.vertex_slots import Slot
from sandbox.world import World

LIMIT_BYTES: Final = 1_500_000
LIMIT_SECONDS: Final = 60.0
JSON_TYPE: Final = "application/json; charset=UTF-8"
PREDICT_FIELDS: Final = {"instances", "parameters", "labels"}


class Scoring:
    """Answers prediction requests; takes no lock of the control plane."""

    def __init__(
        self, world: World, endpoints: Endpoints, deployments: Deployments, samples: Samples, logs: RequestLogs
    ) -> None:
        self._endpoints = endpoints
        self._deployments = deployments
        self._samples = samples
        self._logs = logs
        self._random = random.Random(world.seed)  # noqa: S311  # repeatable routing, not a secret
        self._lock = threading.Lock()

    def predict(self, endpoint_id: str, request: Request) -> Response:
        """Predict: JSON instances in, predictions out with the deployed model that made them."""
        body = self._body(request)
        try:
            content = json.loads(body)
        except ValueError:
            raise invalid("Invalid JSON payload received. Unexpected token.") from None
        if not isinstance(content, dict) or set(content) - PREDICT_FIELDS:
            odd = sorted(set(content) - PREDICT_FIELDS)[0] if isinstance(content, dict) else "(not an object)"
            raise invalid(f'Invalid JSON payload received. Unknown name "{odd}": Cannot find field.')
        if not isinstance(content.get("instances"), list):
            raise invalid("The 'instances' of a prediction request must be a list.")
        slot, reply = self._ask(self._endpoints.find(endpoint_id), body, {"Content-Type": "application/json"})
        if reply.status >= 400:
            status = status_for_http(reply.status)
            return error_response(status, reply.body.decode(errors="replace"), reply.status)
        try:
            answer = json.loads(reply.body)
            predictions = answer["predictions"]
        except (ValueError, KeyError, TypeError):
            raise GoogleError(
                "INTERNAL", 'Invalid response from the model server: it must be a JSON object with "predictions".'
            ) from None
        config = self._endpoints.find(endpoint_id).content.get(LOGGING)
        self._logs.record(config, endpoint_id, slot.id, content["instances"], predictions)
        model = slot.model
        full: dict[str, Any] = {
            "predictions": predictions,
            "deployedModelId": slot.id,
            "model": model["name"],
            "modelDisplayName": model["displayName"],
            "modelVersionId": model["versionId"],
        }
        if "metadata" in answer:
            full["metadata"] = answer["metadata"]
        return Response(json.dumps(full), 200, content_type=JSON_TYPE)

    def raw_predict(self, endpoint_id: str, request: Request) -> Response:
        """RawPredict: the body goes to the container as it is, and its answer comes back as it is."""
        kind = request.headers.get("Content-Type", "application/json")
        slot, reply = self._ask(self._endpoints.find(endpoint_id), self._body(request), {"Content-Type": kind})
        headers = {
            "X-Vertex-AI-Endpoint-Id": endpoint_id,
            "X-Vertex-AI-Deployed-Model-Id": slot.id,
            "X-Vertex-AI-Model": str(slot.model["name"]),
            "X-Vertex-AI-Model-Version-Id": str(slot.model["versionId"]),
        }
        return Response(
            reply.body, reply.status, headers, content_type=reply.headers.get("content-type", "application/json")
        )

    @staticmethod
    def _body(request: Request) -> bytes:
        body = request.get_data()
        if len(body) > LIMIT_BYTES:
            raise precondition(f"The request size ({len(body)} bytes) exceeds 1.500MB limit.")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise not_emulated("prediction requests with a Content-Encoding")
        return body

    def _ask(self, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> tuple[Slot, Reply]:
        began = time.perf_counter()
        while True:
            slot = self._route(endpoint)
            try:
                reply, model_seconds = self._send(endpoint, slot, body, headers)
                break
            except LookupError:
                continue  # undeployed between routing and sending: the routing table has been replaced by then
        total = time.perf_counter() - began
        overhead = max(0.0, total - model_seconds)
        self._samples.add(endpoint.id, slot.id, reply.status, model_seconds * 1e3, overhead * 1e3)
        return slot, reply

    def _route(self, endpoint: Endpoint) -> Slot:
        with self._lock:
            percent = self._random.uniform(0.0, 100.0)
        routing = endpoint.routing
        slot = routing.slot(min(percent, 99.999999))
        if slot is None:
            what = "has an empty traffic split" if endpoint.deployed else "has no deployed models"
            raise precondition(f"The Endpoint {self._endpoints.name(endpoint.id)} {what}; it cannot serve predictions.")
        return slot

    def _send(self, endpoint: Endpoint, slot: Slot, body: bytes, headers: dict[str, str]) -> tuple[Reply, float]:
        with slot.serving() as container:
            if container is None:
                return _unavailable(slot), 0.0
            began = time.perf_counter()
            try:
                reply = _request(container, slot.predict_route, body, headers)
            except TimeoutError:
                message = json.dumps({"error": "The prediction request timed out."}).encode()
                reply = Reply(504, {"content-type": "application/json"}, message)
            except ContainerGone:
                self._deployments.crashed(endpoint, slot)
                reply = _unavailable(slot)
            return reply, time.perf_counter() - began


def _request(container: Container, route: str, body: bytes, headers: dict[str, str]) -> Reply:
    """One request to a container; sent again when a connection that was kept alive turns out to be closed."""
    try:
        return container.request("POST", route, body, headers, LIMIT_SECONDS)
    except ContainerGone:
        if container.exit_status is not None:
            raise
        return container.request("POST", route, body, headers, LIMIT_SECONDS)


def _unavailable(slot: Slot) -> Reply:
    message = f"The DeployedModel {slot.id} has no available replica. {slot.status_message}".strip()
    return Reply(503, {"content-type": "text/plain"}, message.encode())
