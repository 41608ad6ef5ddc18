"""A thin ASGI layer over MLflow's scoring server: the routes of all three contracts, identity in every answer.

Only the outermost layer is ours. Parsing, schema enforcement, prediction and error texts are MLflow's.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from serving.contract import Contract

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SCORING_ROUTE: Final = "/invocations"


class VersionedApp:
    """Wraps `scoring` (MLflow's ASGI app) for a contract; `model` is the registered model's name."""

    def __init__(self, scoring: Asgi, contract: Contract, model: str) -> None:
        self._scoring = scoring
        self._contract = contract
        identity = {"version": contract.version, "digest": contract.digest}
        self._health = json.dumps({"status": "ok", "model": model, **identity}).encode()
        self._headers = [
            (b"x-lockstep-model", model.encode()),
            (b"x-lockstep-version", contract.version.encode()),
            (b"x-lockstep-digest", contract.digest.encode()),
            # The one header that InvokeEndpoint hands on to its caller, as CustomAttributes.
            (
                b"x-amzn-sagemaker-custom-attributes",
                f"lockstep-version={contract.version};lockstep-digest={contract.digest}".encode(),
            ),
        ]
        self._metadata = {f"lockstep_{name}": value for name, value in {"model": model, **identity}.items()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer health routes here; hand scoring routes to MLflow, with our headers on the way back."""
        if scope["type"] != "http":
            await self._scoring(scope, receive, send)
            return
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD") and path in self._contract.health_routes:
            await self._answer_health(send, with_body=scope["method"] == "GET")
            return
        if path in self._contract.score_routes:
            scope = {**scope, "path": SCORING_ROUTE, "raw_path": SCORING_ROUTE.encode()}
        outward = self._named(send)
        if path == self._contract.vertex_route:
            outward = self._with_metadata(outward)
        await self._scoring(scope, receive, outward)

    async def _answer_health(self, send: Send, *, with_body: bool) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self._health)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers + self._headers})
        await send({"type": "http.response.body", "body": self._health if with_body else b""})

    def _named(self, send: Send) -> Send:
        async def outward(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return outward

    def _with_metadata(self, send: Send) -> Send:
        """Hold the answer back until it is whole, then add the identity as PredictResponse's `metadata`."""
        start: list[Message] = []
        parts: list[bytes] = []

        async def outward(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = self._extend(b"".join(parts)) if start[0]["status"] == 200 else b"".join(parts)
            headers = [pair for pair in start[0]["headers"] if pair[0].lower() != b"content-length"]
            await send({**start[0], "headers": [*headers, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        return outward

    def _extend(self, body: bytes) -> bytes:
        answer = json.loads(body)
        if isinstance(answer, dict):
            answer["metadata"] = self._metadata
        return json.dumps(answer).encode()
