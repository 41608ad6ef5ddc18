"""The application: hooks, API and page, behind the limits, with the same headers on every answer."""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp

from lockstep.agent import api, hooks, page
from lockstep.agent.access import DeniedError, WaitError
from lockstep.agent.assembly import Agent
from lockstep.agent.headers import Headers
from lockstep.agent.limits import Bounds, Limits
from lockstep.agent.page_sign_in import NoSessionError
from lockstep.agent.rendering import render
from lockstep.agent.sessions import COOKIE
from lockstep.errors import LockstepError, NotFoundError, RefusedError, RetryLaterError

LOG: Final = logging.getLogger("lockstep.agent")
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
    app.add_exception_handler(LockstepError, _Problems(agent))
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
        if path.startswith(("/api/", "/hooks/", "/metrics", "/readyz", "/healthz")):
            return JSONResponse({"error": error.problem, "hint": error.hint}, status, headers=self._told(error))
        if isinstance(error, NoSessionError):
            return _sign_in(request)
        session = self._agent.sessions.find(request.cookies.get(COOKIE, ""))
        heading = {403: "Not allowed", 404: "Not found", 503: "Not now"}.get(status, "Not done")
        text = render(
            "problem.html", session=session, here="", heading=heading, problem=error.problem, hint=error.hint, back="/"
        )
        return HTMLResponse(text, status, headers=self._told(error))

    def _told(self, error: LockstepError) -> dict[str, str]:
        if isinstance(error, WaitError):
            self._agent.telemetry.sign_ins.labels("locked").inc()
            return {"Retry-After": str(error.seconds)}
        if isinstance(error, DeniedError) and not isinstance(error, api.ForbiddenError):
            self._agent.telemetry.sign_ins.labels("wrong").inc()
            return {"WWW-Authenticate": 'Bearer realm="lockstep"'}
        return {"Retry-After": "5"} if isinstance(error, RetryLaterError) else {}


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
