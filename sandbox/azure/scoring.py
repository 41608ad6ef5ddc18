"""The scoring address: authentication, routing by traffic or by header, and the limits of a managed online endpoint.

A real endpoint has a host of its own; here its name is the path's first part: `https://HOST:PORT/<endpoint>/score`.
"""

from __future__ import annotations

import hmac
import json
import re
import time
import uuid
from typing import Final

from werkzeug.wrappers import Request, Response

from sandbox.azure.collector import Collector
from sandbox.azure.metrics import Metrics, Sample
from sandbox.azure.slots import Routes, Routing, Slot
from sandbox.azure.tokens import SCORING, InvalidTokenError, Tokens
from sandbox.containers import ContainerGone, Reply
from sandbox.faults import Fault
from sandbox.web import Target

DEPLOYMENT_HEADER: Final = "azureml-model-deployment"
CLIENT_ID: Final = "x-ms-client-request-id"
NOT_FORWARDED: Final = frozenset(
    ("host", "connection", "keep-alive", "transfer-encoding", "te", "upgrade", "authorization", "content-length",
     "expect", "accept-encoding")
)  # fmt: skip
NOT_RETURNED: Final = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"))


class Scoring:
    """Answers scoring requests from the deployments' containers."""

    cloud = "azure"

    def __init__(self, routes: Routes, metrics: Metrics, tokens: Tokens, collector: Collector) -> None:
        self._routes = routes
        self._metrics = metrics
        self._tokens = tokens
        self._collector = collector

    def identify(self, request: Request) -> Target:
        """`Score` and the endpoint's name."""
        return Target("Score", request.path.lstrip("/").partition("/")[0], quiet=True)

    def respond(self, request: Request, target: Target) -> Response:
        """Route the request, and pass it to a container."""
        began = time.time()
        routing = self._routes.find(target.resource)
        if routing is None:
            return self._finish(request, "", _text(404, f"Endpoint '{target.resource}' does not exist."))
        if not self._allowed(request, routing):
            refused = _text(401, "Unauthorized: the key or token in the Authorization header is not valid.")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return self._finish(request, "", refused)
        path = request.path.lstrip("/").partition("/")[2]
        if path != "score":
            return self._finish(request, "", _text(501, f"not implemented by the sandbox: scoring path /{path}"))
        name, response, model_status = self._route(request, target.resource, routing)
        milliseconds = (time.time() - began) * 1000.0
        if name:
            self._metrics.record(
                routing.endpoint, Sample(time.time(), name, response.status_code, model_status, milliseconds)
            )
        return self._finish(request, name, response)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """429 when throttled; else the status that was asked for, as the endpoint's front end would answer."""
        text = "Too many requests. Please retry later." if fault.kind == "throttle" else "upstream connect error"
        return self._finish(request, "", _text(429 if fault.kind == "throttle" else fault.status, text))

    def _allowed(self, request: Request, routing: Routing) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        if routing.auth_mode == "Key":
            return any(hmac.compare_digest(given.encode(), key.encode()) for key in routing.keys)
        own = SCORING if routing.auth_mode == "AADToken" else (f"{SCORING[0]}/{routing.endpoint.lower()}",)
        try:
            self._tokens.check(given, own)
        except InvalidTokenError:
            return False
        return True

    def _route(self, request: Request, endpoint: str, first: Routing) -> tuple[str, Response, int]:
        """The deployment's name, the answer, and the model's own status (0: it gave none)."""
        forced = request.headers.get(DEPLOYMENT_HEADER, "").lower()
        routing: Routing | None = first
        while routing is not None:
            name = forced or routing.pick(self._routes.chance())
            if name is None:
                return "", _text(404, "Unable to find deployment with nonzero weight."), 0
            slot = routing.slots.get(name)
            if slot is None and forced:
                return "", _text(404, f"Deployment '{forced}' does not exist in endpoint '{endpoint}'."), 0
            if slot is None:
                return name, _text(503, "no healthy upstream"), 0
            entered = slot.enter()
            if entered is False:
                busy = _text(429, "Too many pending requests: the deployment gets more than it can handle.")
                return slot.name, busy, 0
            if entered:
                try:
                    response, status = _ask(slot, request)
                finally:
                    slot.leave()
                if slot.collector is not None and status == 200:
                    bodies = (request.get_data(), response.get_data())
                    headers = {**request.headers, CLIENT_ID: _client_id(request)}
                    self._collector.record(
                        slot.collector, first.endpoint, slot.name, _request_id(request), headers, bodies
                    )
                return slot.name, response, status
            routing = self._routes.find(endpoint)  # the slot was retired meanwhile, so the traffic has moved
        return "", _text(404, f"Endpoint '{endpoint}' does not exist."), 0

    def _finish(self, request: Request, deployment: str, response: Response) -> Response:
        if deployment:
            response.headers[DEPLOYMENT_HEADER] = deployment
        response.headers["X-Request-ID"] = _request_id(request)
        response.headers[CLIENT_ID] = _client_id(request)
        return response


def _request_id(request: Request) -> str:
    """The service's own id, whatever the caller sent under that name."""
    given: str = request.environ.setdefault("sandbox.request_id", str(uuid.uuid4()))
    return given


def _client_id(request: Request) -> str:
    """The caller's id, with letters, digits, dashes and underscores alone and cut at 40 characters, as documented."""
    sent = re.sub(r"[^A-Za-z0-9_-]", "", request.headers.get(CLIENT_ID, ""))[:40]
    return sent or _request_id(request)


def _ask(slot: Slot, request: Request) -> tuple[Response, int]:
    headers = {k: v for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED}
    body = request.get_data()
    deadline = time.monotonic() + slot.timeout
    path = f"{slot.path}?{request.query_string.decode()}" if request.query_string else slot.path
    try:
        try:
            reply = slot.container.request(request.method, path, body, headers, slot.timeout)
        except ContainerGone:
            # An idle connection that the container closed this very moment; a front end takes a fresh one.
            if slot.container.exit_status is not None:
                raise
            reply = slot.container.request(request.method, path, body, headers, max(0.1, deadline - time.monotonic()))
    except TimeoutError:
        late = _text(408, f"The model did not answer within its request timeout of {slot.timeout:g} s.")
        late.headers["ms-azureml-model-error-reason"] = "model_timeout"
        return late, 0
    except ContainerGone:
        gone = _text(424, "The user container does not answer: it has crashed or terminated.")
        gone.headers["ms-azureml-model-error-statuscode"] = "502"
        return gone, 502
    return _translate(reply), reply.status


def _translate(reply: Reply) -> Response:
    """A model's 200 passes; anything else becomes 424 that tells the model's own status."""
    response = Response(reply.body, 200 if reply.status == 200 else 424)
    response.headers.clear()
    for name, value in reply.headers.items():
        if name not in NOT_RETURNED:
            response.headers[name] = value
    if reply.status != 200:
        response.headers["ms-azureml-model-error-statuscode"] = str(reply.status)
        response.headers["ms-azureml-model-error-reason"] = "model_error"
    return response


def _text(status: int, message: str) -> Response:
    body = json.dumps({"error": {"code": str(status), "message": message}})
    return Response(body, status, content_type="application/json")
