"""`/hooks/{source}`: alerts come in. What is genuine is durable before it is answered; what is not gets one answer."""

from __future__ import annotations

import logging
import time
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from lockstep.agent.assembly import Agent
from lockstep.agent.desk import Accepted
from lockstep.agent.sources import AlertFormatError, Delivery, ForgedError, Said, Source
from lockstep.errors import RetryLaterError

LOG: Final = logging.getLogger("lockstep.agent.hooks")
PLACE: Final = "/hooks/"
AT_ONCE: Final = 48  # deliveries that are verified in threads at the same time; the others wait for their turn
PROMPT: Final = 65_536  # bytes that are verified and read between two requests: a few milliseconds at most
AGAIN: Final = 5  # seconds after which a sender may try again
NOT_GENUINE: Final = "the delivery does not show that it is genuine"


class AcceptedAnswer(BaseModel):
    """What a delivery came to; it is durable."""

    intents: list[str] = Field(description="Intents that its alerts started or joined; see /api/intents/{id}.")
    alerts: int = Field(description="Alerts that are new.")
    duplicates: int = Field(description="Alerts that had been accepted before.")


class Problem(BaseModel):
    """Why something was not done, and what to do."""

    error: str
    hint: str = ""


class _Quiet:
    """Says that a delivery was refused at most once a second: who sends a flood of them must not fill a disk."""

    def __init__(self) -> None:
        self._last = 0.0
        self._more = 0

    def say(self, source: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._last < 1.0:
            self._more += 1
            return
        more = f" (and {self._more} more refused meanwhile)" if self._more else ""
        self._last, self._more = now, 0
        told = reason if reason.startswith(f"source {source}:") else f"source {source}: {reason}"
        LOG.warning("a delivery was refused: %s%s", told, more)


class Taker:
    """Takes deliveries to hooks: verifies the raw bytes, has the alerts kept, says what to answer."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._turn = CapacityLimiter(AT_ONCE)
        self._quiet = _Quiet()

    async def take(self, name: str, scope: Scope, body: bytes) -> Response:
        """One delivery to the source of that name, whatever it comes to."""
        began = time.monotonic()
        telemetry = self._agent.telemetry
        count = telemetry.deliveries.labels
        source = self._agent.sources.get(name)
        if source is None:
            count("", "unknown source").inc()
            return _problem(404, "there is no such source")
        client, query = scope.get("client"), scope.get("query_string", b"")
        delivery = Delivery.of(scope["headers"], body, query, client[0] if client else "", time.time())
        try:
            said, accepted = await self._keep(source, delivery)
        except ForgedError as error:
            count(name, "forged").inc()
            self._quiet.say(name, error.problem)
            return _problem(401, NOT_GENUINE)
        except AlertFormatError as error:
            count(name, "unreadable").inc()
            self._quiet.say(name, error.problem)
            return _problem(422, error.problem, error.hint)
        except RetryLaterError as error:
            count(name, "later").inc()
            self._quiet.say(name, error.reason)
            return _problem(503, "not kept, try again later", wait=AGAIN)
        count(name, "accepted").inc()
        telemetry.answers.observe(time.monotonic() - began)
        if said.confirm:
            self._agent.confirm(source, said.confirm)
        if said.answer:
            return PlainTextResponse(said.answer)
        telemetry.alerts.labels(name, "new").inc(accepted.alerts)
        telemetry.alerts.labels(name, "known").inc(accepted.duplicates)
        answer = {"intents": list(accepted.intents), "alerts": accepted.alerts, "duplicates": accepted.duplicates}
        return JSONResponse(answer, 202)

    async def _keep(self, source: Source, delivery: Delivery) -> tuple[Said, Accepted]:
        """What the delivery says, once it is durable; in a thread where that would hold up others."""
        if source.waits or len(delivery.body) > PROMPT:
            said = await to_thread.run_sync(source.receive, delivery, limiter=self._turn)
        else:
            said = source.receive(delivery)
        if not said.alerts:
            source.settled(said)
            return said, Accepted((), 0, 0)
        accepted = await self._agent.desk.accepted(said.alerts, delivery.body, delivery.at)
        source.settled(said)
        return said, accepted


class Hooks:
    """The application with deliveries before its router, whose own work is most of what a duplicate costs."""

    def __init__(self, app: ASGIApp, taker: Taker) -> None:
        self._app = app
        self._taker = taker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; all but a POST to a hook is passed on."""
        name = _posted_to(scope)
        if name is None:
            await self._app(scope, receive, send)
            return
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # nobody is there to be answered
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        answer = await self._taker.take(name, scope, b"".join(parts))
        await answer(scope, receive, send)


def _posted_to(scope: Scope) -> str | None:
    """The source whose hook a request is posted to; None for any other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(PLACE):
        return None
    name: str = scope["path"].removeprefix(PLACE)
    return name if name and "/" not in name else None


def routes(agent: Agent, taker: Taker) -> APIRouter:
    """The routes of hooks."""
    router = APIRouter(tags=["hooks"])

    @router.post(
        "/hooks/{source}",
        status_code=202,
        summary="Take alerts of a source",
        response_model=AcceptedAnswer,
        responses={code: {"model": Problem} for code in (401, 404, 408, 413, 422, 429, 503)},
        openapi_extra={
            "requestBody": {
                "description": "As the source's vendor sends it.",
                "content": {"application/json": {"schema": {}}},
            }
        },
    )
    async def receive(source: str, request: Request) -> Response:
        """Verify the raw bytes as the source's vendor signs them, keep the alerts, answer what they came to."""
        return await taker.take(source, request.scope, await request.body())  # for the document: see `Hooks`

    @router.options("/hooks/{source}", summary="CloudEvents' handshake", responses={404: {"model": Problem}})
    async def handshake(source: str, request: Request) -> Response:
        """Whether deliveries are welcome, as the CloudEvents webhook specification asks."""
        found = agent.sources.get(source)
        headers = None if found is None else found.handshake("OPTIONS", dict(request.headers))
        if headers is None:
            return _problem(404, "no such source asks for a handshake")
        return Response(status_code=200, headers=dict(headers))

    return router


def _problem(status: int, error: str, hint: str = "", wait: int = 0) -> JSONResponse:
    headers = {"Retry-After": str(wait)} if wait else None
    return JSONResponse({"error": error, "hint": hint}, status, headers=headers)
