"""`/hooks/{source}`: alerts come in. What is genuine is durable before it is answered; what is not gets one answer."""

from __future__ import annotations

import logging
import time
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from lockstep.agent.assembly import Agent
from lockstep.agent.desk import Accepted
from lockstep.agent.sources import AlertFormatError, Delivery, ForgedError, Said, Source
from lockstep.errors import RetryLaterError

LOG: Final = logging.getLogger("lockstep.agent.hooks")
AT_ONCE: Final = 48  # deliveries that are verified and kept at the same time; the others wait for their turn
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


def routes(agent: Agent) -> APIRouter:
    """The routes of hooks."""
    router = APIRouter(tags=["hooks"])
    turn = CapacityLimiter(AT_ONCE)
    quiet = _Quiet()

    def keep(source: Source, delivery: Delivery) -> tuple[Said, Accepted | None]:
        said = source.receive(delivery)
        accepted = agent.desk.accept(source.name, said.alerts, delivery.body, delivery.at) if said.alerts else None
        source.settled(said)
        return said, accepted

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
        began = time.monotonic()
        count = agent.telemetry.deliveries.labels
        found = agent.sources.get(source)
        if found is None:
            count("", "unknown source").inc()
            return _problem(404, "there is no such source")
        peer = request.client.host if request.client else ""
        body = await request.body()
        query: bytes = request.scope.get("query_string", b"")
        delivery = Delivery.of(request.scope["headers"], body, query, peer, time.time())
        try:
            said, accepted = await to_thread.run_sync(keep, found, delivery, limiter=turn)
        except ForgedError as error:
            count(source, "forged").inc()
            quiet.say(source, error.problem)
            return _problem(401, NOT_GENUINE)
        except AlertFormatError as error:
            count(source, "unreadable").inc()
            quiet.say(source, error.problem)
            return _problem(422, error.problem, error.hint)
        except RetryLaterError as error:
            count(source, "later").inc()
            quiet.say(source, error.reason)
            return _problem(503, "not kept, try again later", wait=AGAIN)
        count(source, "accepted").inc()
        agent.telemetry.answers.observe(time.monotonic() - began)
        if said.confirm:
            agent.confirm(found, said.confirm)
        if said.answer:
            return PlainTextResponse(said.answer)
        accepted = accepted or Accepted((), 0, 0)
        agent.telemetry.alerts.labels(source, "new").inc(accepted.alerts)
        agent.telemetry.alerts.labels(source, "known").inc(accepted.duplicates)
        answer = {"intents": list(accepted.intents), "alerts": accepted.alerts, "duplicates": accepted.duplicates}
        return JSONResponse(answer, 202)

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
