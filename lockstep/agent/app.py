"""The application: hooks, API and page, behind the limits, with the same headers on every answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from lockstep.agent import api, hooks, page
from lockstep.agent.access import DeniedError, WaitError
from lockstep.agent.assembly import Agent
from lockstep.agent.headers import Headers
from lockstep.agent.hooks import LOOK, UNFORESEEN
from lockstep.agent.limits import Bounds, Limits
from lockstep.agent.page_sign_in import NoSessionError
from lockstep.agent.problems import invalid, problem
from lockstep.agent.rendering import render
from lockstep.agent.sessions import COOKIE
from lockstep.errors import LockstepError, NotFoundError, RefusedError, RetryLaterError

LOG: Final = logging.getLogger("lockstep.agent")
FOR_PROGRAMS: Final = ("/api/", "/hooks/", "/metrics", "/readyz", "/healthz")
HOOKS: Final = "the source NAME of alerts.yaml posts to /hooks/NAME"
LISTED: Final = "/openapi.json lists what there is"
DESCRIPTION: Final = "Takes alerts, rolls back, shows what serves."


def create_app(agent: Agent, bounds: Bounds | None = None) -> ASGIApp:
    """The application of an agent; starts nothing."""
    app = FastAPI(
        title="Lockstep agent",
        description=DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    taker = hooks.Taker(agent)
    app.include_router(hooks.routes(agent, taker))
    app.include_router(api.routes(agent))
    app.include_router(page.routes(agent))
    problems = _Problems(agent)
    app.add_exception_handler(LockstepError, problems)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, problems.without_route)
    app.add_exception_handler(Exception, _unforeseen)
    app.openapi = _with_tokens(app)  # type: ignore[method-assign]
    refused = agent.telemetry.refused.labels
    limited = Limits(
        hooks.Hooks(app, taker), bounds or Bounds(), lambda status: refused(str(status)).inc(), agent.sources
    )
    return Headers(limited)


class _Problems:
    """An error of ours as an answer: JSON for programs, a page for people."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, LockstepError)
        status = status_of(error)
        path = request.url.path
        if path.startswith(FOR_PROGRAMS):
            return problem(status, error.problem, error.hint, self._told(error))
        if isinstance(error, NoSessionError):
            return _sign_in(request)
        return self._page(request, status, error.problem, error.hint, self._told(error))

    async def without_route(self, request: Request, error: Exception) -> Response:
        """There is nothing at that address, or not by that method; a page for a browser, JSON for whatever else."""
        assert isinstance(error, HTTPException)
        path, headers = request.url.path, error.headers or {}
        told, hint = f"{request.method} is not taken here", f"send {headers.get('Allow', 'something else')}"
        if error.status_code == 404:
            told = "there is nothing at this address"
            hint = HOOKS if path.rstrip("/") == "/hooks" else LISTED
            hint = "leave the / at its end out" if len(path) > 1 and path.endswith("/") and hint != HOOKS else hint
        elif error.status_code != 405:  # the framework's own, of a body that it could not read
            told, hint = "the body cannot be read", "send a JSON object in UTF-8"
        if path.startswith(FOR_PROGRAMS) or "text/html" not in request.headers.get("accept", ""):
            return problem(error.status_code, told, hint, headers)
        return self._page(request, error.status_code, told, "" if hint == LISTED else hint, headers)

    def _page(self, request: Request, status: int, told: str, hint: str, headers: Mapping[str, str]) -> Response:
        session = self._agent.sessions.find(request.cookies.get(COOKIE, ""))
        heading = {403: "Not allowed", 404: "Not found", 503: "Not now"}.get(status, "Not done")
        text = render("problem.html", session=session, here="", heading=heading, problem=told, hint=hint, back="/")
        return HTMLResponse(text, status, headers=dict(headers))

    def _told(self, error: LockstepError) -> dict[str, str]:
        if isinstance(error, WaitError):
            self._agent.telemetry.sign_ins.labels("locked").inc()
            return {"Retry-After": str(error.seconds)}
        if isinstance(error, DeniedError) and not isinstance(error, api.ForbiddenError):
            self._agent.telemetry.sign_ins.labels(error.result).inc()
            return {"WWW-Authenticate": 'Bearer realm="lockstep"'}
        return {"Retry-After": "5"} if isinstance(error, RetryLaterError) else {}


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors(), request.method, request.url.path)


async def _unforeseen(request: Request, error: Exception) -> Response:
    """A fault of ours, which the server logs."""
    return problem(500, UNFORESEEN, LOOK)


def status_of(error: LockstepError) -> int:
    """HTTP's status for an error of ours."""
    kinds: tuple[tuple[type[LockstepError], int], ...] = (
        (WaitError, 429),
        (api.ForbiddenError, 403),
        (DeniedError, 401),
        (NotFoundError, 404),
        (RetryLaterError, 503),
        (RefusedError, 409),
    )
    return next((status for kind, status in kinds if isinstance(error, kind)), 409)


def _sign_in(request: Request) -> Response:
    """To the page for it; by a header of its own where htmx asks, which would put that page into a part of this one."""
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
    following = request.url.path if request.method == "GET" else "/"
    return RedirectResponse(f"/sign-in?next={quote(following, safe='/')}", 303)


def _with_tokens(app: FastAPI) -> Any:
    """OpenAPI's document, which tells of bearer tokens too."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["token"] = {"type": "http", "scheme": "bearer"}
        return document

    return openapi
