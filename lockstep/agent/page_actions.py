"""What people do on the page: a rollback, whose plan they see first and say why, and the release of a hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from lockstep.agent.access import Role
from lockstep.agent.api import allow
from lockstep.agent.assembly import Agent
from lockstep.agent.overview import WayBack
from lockstep.agent.page_sign_in import form_of, session_of
from lockstep.agent.page_words import view_of
from lockstep.agent.rendering import render
from lockstep.agent.sessions import Session
from lockstep.agent.ways_back import plan_way
from lockstep.errors import LockstepError
from lockstep.operations.hold import release
from lockstep.operations.reasons import checked_reason

PLAN_SECONDS: Final = 15.0  # that a page waits for a fresh plan
CHECK_SECONDS: Final = 5.0  # that the button waits for one, to see that it is still what was shown


def routes(agent: Agent, turn: CapacityLimiter) -> APIRouter:
    """The routes of what changes something, and of the plan that is shown before; each takes its turn."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    async def planned(model: str, to: str, patience: float = PLAN_SECONDS) -> WayBack:
        fleet = agent.fleets(model)
        try:
            with fail_after(patience):
                return await to_thread.run_sync(plan_way, fleet, to or None, limiter=turn, abandon_on_cancel=True)
        except TimeoutError:
            return WayBack(0.0, problem=f"no plan came within {patience:g} s; a rollback can begin all the same")

    async def rollback_page(
        session: Session,
        model: str,
        problem: str = "",
        status: int = 200,
        fields: Mapping[str, str] | None = None,
        way: WayBack | None = None,
    ) -> Response:
        view, given = view_of(agent, model), fields or {}
        text = render(
            "rollback.html",
            session=session,
            here="models",
            view=view,
            way=way or view.way,
            champion=view.desired.champion,
            to=given.get("to", ""),
            reason=given.get("reason", ""),
            problem=problem,
            bad_reason=status == 422,
        )
        return HTMLResponse(text, status)

    @router.get("/models/{model}/plan")
    async def plan(request: Request, model: str, to: str = "") -> Response:
        allow(session_of(agent, request).person, Role.OPERATOR)
        view = view_of(agent, model)
        way = await planned(model, to.strip())
        return HTMLResponse(render("plan.html", way=way, champion=view.desired.champion))

    @router.get("/models/{model}/rollback")
    async def ask(request: Request, model: str) -> Response:
        session = session_of(agent, request)
        allow(session.person, Role.OPERATOR)
        return await rollback_page(session, model)

    @router.post("/models/{model}/rollback")
    async def roll_back(request: Request, model: str) -> Response:
        session, fields = await form_of(agent, request)
        allow(session.person, Role.OPERATOR)
        agent.config.model(model)
        to, leaving = fields.get("to", "").strip(), fields.get("leaving", "").strip()
        try:
            reason = checked_reason(fields.get("reason", ""), needed=True)
        except LockstepError as error:
            return await rollback_page(session, model, error.reason, 422, fields)
        way = await planned(model, to, CHECK_SECONDS)
        if problem := way.refusal(fields.get("shown", "")):
            agent.refresher.poke(model)
            return await rollback_page(session, model, problem, 409, fields, way)
        try:
            intent = await to_thread.run_sync(
                agent.desk.ask_rollback, model, to or None, reason, session.person.actor, leaving, limiter=turn
            )
        except LockstepError as error:
            return await rollback_page(session, model, error.reason, 503, fields, way)
        agent.refresher.poke(model)
        return RedirectResponse(f"/intents/{quote(intent.id, safe='')}", 303)

    @router.post("/models/{model}/release")
    async def end_hold(request: Request, model: str) -> Response:
        session, fields = await form_of(agent, request)
        allow(session.person, Role.APPROVER)
        fleet = replace(agent.fleets(model), actor=session.person.actor, via="agent")
        await to_thread.run_sync(release, fleet, fields.get("reason", ""), limiter=turn)
        agent.refresher.poke(model)
        return RedirectResponse(f"/models/{quote(model, safe='')}", 303)

    return router
