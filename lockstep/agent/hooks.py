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
from lockstep.agent.problems import Problem, problem
from lockstep.agent.sources import AlertFormatError, Delivery, ForgedError, Said, Source
from lockstep.agent.sparing import Sparing
from lockstep.errors import RetryLaterError
from lockstep.rules.alerts.reading import text

LOG: Final = logging.getLogger("lockstep.agent.hooks")
PLACE: Final = "/hooks/"
AT_ONCE: Final = 48  # deliveries that are verified in threads at the same time; the others wait for their turn
PROMPT: Final = 65_536  # bytes that are verified and read between two requests: a few milliseconds at most
AGAIN: Final = 5  # seconds after which a sender may try again
NOT_GENUINE: Final = "the delivery does not show that it is genuine"
UNFORESEEN: Final = "the agent failed at this by itself"
LOOK: Final = "the agent's log says more"
HANDSHAKE: Final = "a source of kind cloudevents has one, for the WebHook-Request-Origin that its origins list"
LONGEST_NAME: Final = 64  # characters of names and addresses in the log


class AcceptedAnswer(BaseModel):
    """What a delivery came to; it is durable. The same for one that is sent again."""

    intents: list[str] = Field(description="Intents that its alerts started or joined; see /api/intents/{id}.")
    alerts: int = Field(description="Alerts that are new.")
    duplicates: int = Field(description="Alerts that had been accepted before.")


class Taker:
    """Takes deliveries to hooks: verifies the raw bytes, has the alerts kept, says what to answer."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._turn = CapacityLimiter(AT_ONCE)
        self._refusals = Sparing(lambda told: LOG.warning("a delivery was refused: %s", told))
        self._doubts = Sparing(lambda told: LOG.warning("an alert was taken in, but %s", told))

    async def take(self, name: str, scope: Scope, body: bytes) -> Response:
        """One delivery to the source of that name, whatever it comes to."""
        began = time.monotonic()
        telemetry = self._agent.telemetry
        count = telemetry.deliveries.labels
        client = scope.get("client")
        peer = text(client[0], LONGEST_NAME) if client else ""
        source = self._agent.sources.get(name)
        if source is None:
            count("", "unknown source").inc()
            there = ", ".join(sorted(self._agent.sources)) or "none"
            self._refusals.say("there is no such source", f"{text(name, LONGEST_NAME)!r} (there: {there})", peer)
            return problem(404, "there is no such source", LOOK)
        delivery = Delivery.of(scope["headers"], body, scope.get("query_string", b""), peer, time.time())
        try:
            said, accepted = await self._keep(source, delivery)
        except ForgedError as error:
            count(name, error.result).inc()
            self._refused(name, error.problem, peer)
            return problem(401, NOT_GENUINE, LOOK)
        except AlertFormatError as error:
            count(name, "unreadable").inc()
            self._refused(name, error.problem, peer)
            return problem(422, error.problem, error.hint)
        except RetryLaterError as error:
            count(name, "later").inc()
            self._refused(name, error.reason, peer)
            return problem(503, "not kept, try again later", f"send it again in {AGAIN} s", {"Retry-After": str(AGAIN)})
        count(name, "accepted").inc()
        for alert in said.alerts:
            if alert.doubt:
                self._doubts.say(f"source {name}", alert.doubt, peer)
        telemetry.answers.observe(time.monotonic() - began)
        if said.confirm:
            self._agent.confirm(source, said.confirm)
        if said.answer:
            return PlainTextResponse(said.answer)
        telemetry.alerts.labels(name, "new").inc(accepted.alerts)
        telemetry.alerts.labels(name, "known").inc(accepted.duplicates)
        answer = {"intents": list(accepted.intents), "alerts": accepted.alerts, "duplicates": accepted.duplicates}
        return JSONResponse(answer, 202)

    def _refused(self, name: str, reason: str, peer: str) -> None:
        self._refusals.say(f"source {name}", reason.removeprefix(f"source {name}: "), peer)

    async def _keep(self, source: Source, delivery: Delivery) -> tuple[Said, Accepted]:
        """What the delivery says, once it is durable; in a thread where that would hold up others."""
        if source.waits or len(delivery.body) > PROMPT:
            said = await to_thread.run_sync(source.receive, delivery, limiter=self._turn)
        else:
            said = source.receive(delivery)
        if said.before is not None:
            return said, Accepted(said.before.intents, 0, said.before.alerts)
        if not said.alerts:
            source.settled(said)
            return said, Accepted((), 0, 0)
        accepted = await self._agent.desk.accepted(said.alerts, delivery.body, delivery.at)
        source.settled(said, accepted.intents)
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
        try:
            answer = await self._taker.take(name, scope, b"".join(parts))
        except Exception:
            LOG.exception("a delivery to %s failed by a fault of ours; its sender may try again", name)
            answer = problem(500, UNFORESEEN, LOOK)
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
        responses={
            200: {"description": "To a confirmation of SNS, a line of text.", "content": {"text/plain": {}}},
            **{code: {"model": Problem} for code in (401, 404, 408, 413, 422, 429, 503)},
        },
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

    @router.options(
        "/hooks/{source}",
        summary="CloudEvents' handshake",
        responses={code: {"model": Problem} for code in (404, 422, 429, 503)},
    )
    async def handshake(source: str, request: Request) -> Response:
        """Whether deliveries are welcome, as the CloudEvents webhook specification asks."""
        found = agent.sources.get(source)
        headers = None if found is None else found.handshake("OPTIONS", dict(request.headers))
        if headers is None:
            return problem(404, "no such source asks for a handshake", HANDSHAKE)
        return Response(status_code=200, headers=dict(headers))

    return router
