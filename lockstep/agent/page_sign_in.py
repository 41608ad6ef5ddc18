"""Who is signed in to the page, and what counts as a form of theirs; the way in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from lockstep.agent.access import DeniedError, WaitError
from lockstep.agent.api import ForbiddenError
from lockstep.agent.assembly import Agent
from lockstep.agent.rendering import render
from lockstep.agent.sessions import COOKIE, Session, same_origin

FIELDS: Final = 20  # of a form


class NoSessionError(DeniedError):
    """Nobody is signed in."""


def session_of(agent: Agent, request: Request) -> Session:
    """Who is signed in; raises NoSessionError for nobody."""
    session = agent.sessions.find(request.cookies.get(COOKIE, ""))
    if session is None:
        raise NoSessionError("you are not signed in")
    return session


async def form_of(agent: Agent, request: Request) -> tuple[Session, Mapping[str, str]]:
    """A form that a page of ours sent, of the session's own; raises NoSessionError or ForbiddenError else."""
    session = session_of(agent, request)
    fields = await fields_of(request)
    if not session.sent(fields.get("csrf", "")):
        raise ForbiddenError("the form is not from this sign-in", hint="load the page again, and send it once more")
    return session, fields


async def fields_of(request: Request) -> Mapping[str, str]:
    """The fields of a form of our own page; raises ForbiddenError for another site's."""
    head = request.headers
    if not same_origin(
        head.get("host", ""), head.get("origin", ""), head.get("referer", ""), head.get("sec-fetch-site", "")
    ):
        raise ForbiddenError("the form was sent by another site's page")
    if head.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise ForbiddenError("that is no form")
    try:
        text = (await request.body()).decode("utf-8")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError:
        raise ForbiddenError("the form cannot be read") from None


def routes(agent: Agent) -> APIRouter:
    """The routes of signing in and out."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @router.get("/sign-in")
    async def sign_in_page(request: Request, next: str = "/") -> Response:
        return signing_in(next)

    def signing_in(following: str, problem: str = "", status: int = 200) -> HTMLResponse:
        given = {"next": local(following), "problem": problem, "anybody": agent.access.anybody}
        return HTMLResponse(render("sign_in.html", session=None, here="", **given), status)

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        fields = await fields_of(request)
        following = local(fields.get("next", "/"))
        peer = request.client.host if request.client else ""
        try:
            person = agent.access.person(fields.get("token", "").strip(), peer)
        except WaitError as error:
            agent.telemetry.sign_ins.labels("locked").inc()
            wait = {"Retry-After": str(error.seconds)}
            answer = signing_in(following, error.reason, 429)
            answer.headers.update(wait)
            return answer
        except DeniedError as error:
            agent.telemetry.sign_ins.labels(error.result).inc()
            return signing_in(following, error.problem, 401)
        agent.telemetry.sign_ins.labels("right").inc()
        agent.sessions.end(request.cookies.get(COOKIE, ""))
        answered = RedirectResponse(following, 303)
        answered.set_cookie(
            COOKIE,
            agent.sessions.begin(person),
            max_age=int(agent.config.agent.session_hours * 3600),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answered

    @router.post("/sign-out")
    async def sign_out(request: Request) -> Response:
        await form_of(agent, request)
        agent.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return router


def local(following: str) -> str:
    """A path of this site to go on to; "/" for anything else."""
    plain = following.startswith("/") and not following.startswith(("//", "/\\"))
    return following if plain and following.isprintable() and "\\" not in following else "/"
