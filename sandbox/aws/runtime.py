"""SageMaker's runtime: InvokeEndpoint, led by weight or by TargetVariant to a container."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from sandbox.aws.capture import Capture
from sandbox.aws.deployment import Placed
from sandbox.aws.endpoints import Endpoints
from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.logs import group_of, stream_of
from sandbox.aws.metrics import CloudWatch
from sandbox.aws.state import ACCOUNT, REGION
from sandbox.containers import ContainerGone, Reply
from sandbox.world import World

MAX_BODY: Final = 6_291_456
MODEL_SECONDS: Final = 60.0
MAX_ATTRIBUTES: Final = 1024
PREFIX: Final = "X-Amzn-SageMaker-"
ATTRIBUTES: Final = PREFIX + "Custom-Attributes"
INFERENCE_ID: Final = PREFIX + "Inference-Id"
UNSUPPORTED: Final = (
    "Target-Model",
    "Target-Container-Hostname",
    "Enable-Explanations",
    "Inference-Component",
    "Session-Id",
    "Prefix-Aware-Id",
)
NAMESPACE: Final = "AWS/SageMaker"


class Runtime:
    """Answers invocations and publishes the variants' metrics."""

    def __init__(self, world: World, endpoints: Endpoints, metrics: CloudWatch, capture: Capture) -> None:
        self._endpoints = endpoints
        self._capture = capture
        self._metrics = metrics
        self._random = random.Random(world.seed)  # noqa: S311 - a draw between variants, repeatable

    def invoke(self, request: Request, endpoint: str) -> Response:
        """InvokeEndpoint; a model's own error is answered as ModelError (424)."""
        began = time.perf_counter()
        forwarded = _checked(request)
        body = request.get_data()
        if len(body) > MAX_BODY:
            raise AwsError("413", f"HTTP content length exceeded {MAX_BODY} bytes.", 413)
        target = request.headers.get(PREFIX + "Target-Variant")
        while True:
            placed = self._choose(endpoint, target)
            with placed.slot.request() as admitted:
                if not admitted:
                    continue  # retired between the look at the routing and now: the routing names another by now
                return self._score(endpoint, placed, body, forwarded, began)

    def _choose(self, endpoint: str, target: str | None) -> Placed:
        variants = self._endpoints.routing(endpoint)
        if variants is None:
            raise AwsError("ValidationError", f"Endpoint {endpoint} of account {ACCOUNT} not found.")
        if target is not None:
            for placed in variants:
                if placed.name == target:
                    return placed
            raise AwsError("ValidationError", f"Variant {target} not found for Request")
        return _weighted(variants, self._random.random())

    def _score(self, endpoint: str, placed: Placed, body: bytes, headers: dict[str, str], began: float) -> Response:
        called = time.perf_counter()
        problem = ""
        try:
            reply = placed.slot.container.request("POST", "/invocations", body, headers, MODEL_SECONDS)
        except TimeoutError:
            reply = Reply(0, {}, b"")
            problem = (
                "Your invocation timed out while waiting for a response from container primary. Review the latency "
                "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
            )
        except ContainerGone:
            reply = Reply(0, {}, b"")
            problem = "The container primary closed the connection before it answered."
        model_seconds = time.perf_counter() - called
        response = _response(reply, placed.name) if 200 <= reply.status < 300 else None
        if response is None:
            problem = problem or reply.body.decode(errors="replace")
        self._publish(endpoint, placed.name, reply.status, model_seconds, time.perf_counter() - began - model_seconds)
        if response is not None:
            given = (headers["Content-Type"], body)
            answered = (response.content_type or "", reply.body)
            capturing = self._endpoints.capturing(endpoint)
            self._capture.record(capturing, endpoint, placed.name, headers.get(INFERENCE_ID), given, answered)
            return response
        raise _model_error(endpoint, placed, reply.status, problem)

    def _publish(self, endpoint: str, variant: str, status: int, model: float, overhead: float) -> None:
        self._metrics.record(
            NAMESPACE,
            {"EndpointName": endpoint, "VariantName": variant},
            {
                "Invocations": (1.0, "None"),
                "Invocation4XXErrors": (float(400 <= status < 500), "None"),
                "Invocation5XXErrors": (float(not status or status >= 500), "None"),
                "InvocationModelErrors": (float(not 200 <= status < 300), "None"),
                "ModelLatency": (model * 1e6, "Microseconds"),
                "OverheadLatency": (overhead * 1e6, "Microseconds"),
            },
        )


def _weighted(variants: Sequence[Placed], draw: float) -> Placed:
    """The variant that a draw from [0, 1) falls to; one of weight 0 is never chosen."""
    weighted = [placed for placed in variants if placed.weight > 0.0]
    left = draw * sum(placed.weight for placed in weighted)
    for placed in weighted:
        left -= placed.weight
        if left < 0.0:
            return placed
    return weighted[-1]


def _checked(request: Request) -> dict[str, str]:
    """Validate the headers; returns those that the container gets."""
    for name in UNSUPPORTED:
        if PREFIX + name in request.headers:
            raise not_implemented(f"InvokeEndpoint with {name}")
    attributes, inference = request.headers.get(ATTRIBUTES), request.headers.get(INFERENCE_ID)
    if attributes is not None and (len(attributes) > MAX_ATTRIBUTES or not attributes.isascii()):
        raise AwsError("ValidationError", f"CustomAttributes must be at most {MAX_ATTRIBUTES} ASCII characters.")
    if inference is not None and not re.fullmatch(r"\S[ -~]{0,63}", inference):
        raise AwsError("ValidationError", "InferenceId must be 1 to 64 printable characters.")
    forwarded = {"Content-Type": request.headers.get("Content-Type") or "application/octet-stream"}
    for name in ("Accept", ATTRIBUTES, INFERENCE_ID):
        value = request.headers.get(name)
        if value is not None:
            forwarded[name] = value
    return forwarded


def _response(reply: Reply, variant: str) -> Response:
    headers = {"x-Amzn-Invoked-Production-Variant": variant}
    attributes = reply.headers.get(ATTRIBUTES.lower())
    if attributes is not None:
        headers[ATTRIBUTES] = attributes[:MAX_ATTRIBUTES]
    content_type = reply.headers.get("content-type", "application/octet-stream")
    return Response(reply.body, reply.status, headers, content_type=content_type)


def _model_error(endpoint: str, placed: Placed, status: int, text: str) -> AwsError:
    side = "client" if 400 <= status < 500 else "server"
    group, stream = group_of(endpoint), stream_of(placed.name, placed.slot.container)
    return AwsError(
        "ModelError",
        f'Received {side} error ({status}) from primary with message "{text}". See https://{REGION}.console.aws.amazon.'
        f"com/cloudwatch/home?region={REGION}#logEventViewer:group={quote(group, safe='/')} in account {ACCOUNT} "
        "for more information.",
        424,
        OriginalStatusCode=status,
        OriginalMessage=text,
        LogStreamArn=f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}:log-stream:{stream}",
    )
