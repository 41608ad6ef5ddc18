"""The JSON API: rollbacks, intents and the overview, by bearer token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from lockstep.agent.access import DeniedError, NoTokenError, Person, Role
from lockstep.agent.assembly import Agent
from lockstep.agent.overview import CloudView, ModelView
from lockstep.agent.problems import Problem, problem
from lockstep.agent.telemetry import CONTENT_TYPE
from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.reasons import LONGEST, checked_reason
from lockstep.rules.alerts.intent import Intent
from lockstep.rules.waiting import Waiting

AT_ONCE: Final = 8
SECURITY: Final[dict[str, object]] = {"security": [{"token": []}]}
REFUSALS: Final[Mapping[int | str, dict[str, object]]] = {
    code: {"model": Problem} for code in (401, 403, 404, 409, 413, 422, 429, 503)
}

#: The same for a route whose answer is text, which FastAPI would else take for these as well.
BESIDE_TEXT: Final[Mapping[int | str, dict[str, object]]] = {
    code: {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}} for code in REFUSALS
}


class ForbiddenError(DeniedError):
    """The token is right, and its role may not do that."""


class RollbackRequest(BaseModel):
    """A rollback that a person or a program asks for."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=256, description="The model, as configured.")
    to: str | None = Field(None, max_length=128, description="Version to go to; the newest known-good when left out.")
    reason: str = Field(min_length=1, max_length=LONGEST, description="Why; kept in the ledger.")
    leaving: str = Field(
        "",
        max_length=64,
        description="Digest of what is to be left, as `way_back` names it; nothing is done once it is.",
    )


class IntentAnswer(BaseModel):
    """An intent, and how far it got."""

    id: str
    model: str
    version: str
    to: str
    cloud: str
    action: str
    state: str
    open: bool
    reason: str
    actor: str
    alerts: int
    began: float
    ended: float
    told: str


class ReadyAnswer(BaseModel):
    """Whether alerts can be kept and acted on, and by part what is not as it must be."""

    ready: bool
    problems: dict[str, str]


def bearer(agent: Agent, request: Request, least: Role) -> Person:
    """Whose token the request carries; raises DeniedError without a right one, ForbiddenError below that role."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if not (scheme or token).strip():
        raise NoTokenError
    if scheme.lower() != "bearer" or not token.strip():
        raise DeniedError("the header Authorization holds no bearer token", hint="write Bearer before it: Bearer …")
    person = agent.access.person(token.strip(), request.client.host if request.client else "")
    allow(person, least)
    return person


def needs(agent: Agent, least: Role) -> Callable[[Request], Awaitable[Person]]:
    """`bearer` before anything else of a request is looked at: whoever may not is not told what is wrong with it."""

    async def check(request: Request) -> Person:
        return bearer(agent, request, least)

    return check


def allow(person: Person, least: Role) -> None:
    """Raise ForbiddenError for a role that may not."""
    if person.role < least:
        raise ForbiddenError(
            f"{person.name} is {person.role.title}; this needs {least.title}",
            hint="roles stand in lockstep.yaml under agent.tokens",
        )


def routes(agent: Agent) -> APIRouter:
    """The routes of the API, and those for whoever watches over the agent."""
    router = APIRouter(tags=["api"])
    turn = CapacityLimiter(AT_ONCE)
    viewer, operator = Depends(needs(agent, Role.VIEWER)), Depends(needs(agent, Role.OPERATOR))

    @router.post(
        "/api/rollbacks",
        status_code=202,
        summary="Roll a model back",
        response_model=IntentAnswer,
        responses=dict(REFUSALS),
        openapi_extra=SECURITY,
    )
    async def ask(asked: RollbackRequest, person: Person = operator) -> Response:
        """Accept a rollback; the answer comes when it is durable, and says under which id it can be followed."""
        try:
            reason = checked_reason(asked.reason, needed=True)
        except RefusedError as error:
            return problem(422, error.problem, error.hint)
        intent = await to_thread.run_sync(
            lambda: agent.desk.ask_rollback(asked.model, asked.to, reason, person.actor, asked.leaving), limiter=turn
        )
        agent.refresher.poke(asked.model)
        return JSONResponse(intent_as_json(intent), 202, headers={"Location": f"/api/intents/{intent.id}"})

    @router.get(
        "/api/intents",
        summary="The newest intents",
        response_model=list[IntentAnswer],
        responses=dict(REFUSALS),
        openapi_extra=SECURITY,
        dependencies=[viewer],
    )
    async def intents(last: int = Query(50, ge=1, le=500)) -> Response:
        """The newest first."""
        found = await to_thread.run_sync(agent.desk.intents, last, limiter=turn)
        return JSONResponse([intent_as_json(intent) for intent in found])

    @router.get(
        "/api/intents/{intent}",
        summary="One intent",
        response_model=IntentAnswer,
        responses=dict(REFUSALS),
        openapi_extra=SECURITY,
        dependencies=[viewer],
    )
    async def one(intent: str = Path(max_length=128)) -> Response:
        """How far it got."""
        found = await to_thread.run_sync(agent.desk.intent, intent, limiter=turn)
        if found is None:
            raise NotFoundError("there is no such intent", hint="GET /api/intents lists the newest")
        return JSONResponse(intent_as_json(found))

    @router.get(
        "/api/overview",
        summary="What serves",
        responses=dict(REFUSALS),
        openapi_extra=SECURITY,
        dependencies=[viewer],
    )
    async def overview() -> Response:
        """Every model on every cloud, from memory; `at` says when it was looked at."""
        found = agent.refresher.overview
        models = {name: model_as_json(found.models[name]) for name in found.names if name in found.models}
        return JSONResponse({"models": models, "waiting": [name for name in found.names if name not in models]})

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", summary="Whether the process lives", tags=["health"], response_class=PlainTextResponse)
    async def health() -> Response:
        """Answers as long as the process does."""
        return PlainTextResponse("ok\n")

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        summary="Whether alerts are taken",
        tags=["health"],
        response_model=ReadyAnswer,
        responses={503: {"model": ReadyAnswer}},
    )
    async def ready() -> Response:
        """200 when alerts can be kept and acted on; else 503, with what is not ready."""
        problems = await to_thread.run_sync(agent.unready, limiter=turn)
        return JSONResponse({"ready": not problems, "problems": dict(problems)}, 503 if problems else 200)

    @router.get(
        "/metrics",
        summary="Numbers for Prometheus",
        tags=["health"],
        response_class=PlainTextResponse,
        responses=dict(BESIDE_TEXT),
        openapi_extra=SECURITY,
    )
    async def metrics(request: Request) -> Response:
        """Prometheus' text format; by bearer token, unless agent.metrics_open says otherwise."""
        if not agent.config.agent.metrics_open:
            bearer(agent, request, Role.VIEWER)
        text = await to_thread.run_sync(agent.telemetry.text, limiter=turn)
        return Response(text, media_type=CONTENT_TYPE)

    return router


def intent_as_json(intent: Intent) -> dict[str, object]:
    """An intent as plain values."""
    return {
        "id": intent.id,
        "model": intent.model,
        "version": intent.version,
        "to": intent.to,
        "cloud": intent.cloud,
        "action": intent.action.value,
        "state": intent.state.value,
        "open": intent.open,
        "reason": intent.reason,
        "actor": intent.actor,
        "alerts": intent.alerts,
        "began": intent.began,
        "ended": intent.ended,
        "told": intent.told,
    }


def model_as_json(view: ModelView) -> dict[str, object]:
    """A model as plain values."""
    desired = {
        role: None if version is None else {"version": version.label, "digest": version.digest}
        for role, version in (
            ("champion", view.desired.champion),
            ("canary", view.desired.challenger),
            ("fallback", view.desired.fallback),
        )
    }
    return {
        "at": view.at,
        "state": view.tone.value,
        **desired,
        "clouds": {cloud.name: _cloud_as_json(cloud) for cloud in view.clouds},
        "way_back": None
        if view.way is None or view.way.target is None or view.way.arrived  # nothing is left to roll back
        else {
            "version": view.way.target.label,
            "digest": view.way.target.digest,
            "leaving": view.way.leaving,
            "seconds": view.way.seconds,
        },
        "writer": view.writer,
        "running": list(view.running),
        "held": view.held,
        "approvals": [_approval_as_json(one) for one in view.approvals],
        "notes": list(view.notes),
        "problem": view.problem,
    }


def _approval_as_json(one: Waiting) -> dict[str, object]:
    return {
        "id": one.id,
        "version": one.version,
        "digest": one.digest,
        "gate": one.gate,
        "asks": one.asks,
        "evidence": list(one.told),
        "since": one.since,
        "until": one.until,
        "where": one.where,
        "link": one.link,
    }


def _cloud_as_json(cloud: CloudView) -> dict[str, object]:
    return {
        "endpoint": cloud.endpoint,
        "slots": [asdict(slot) for slot in cloud.slots],
        "unreachable": cloud.unreachable,
        "problem": cloud.problem,
        "split": cloud.trailing,
        "proved": cloud.proved.value,
        "proved_at": cloud.proved_at,
        "fallback_warm": cloud.warm,
    }
