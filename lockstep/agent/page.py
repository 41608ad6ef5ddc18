"""The status page, from memory: all models, one model, intents; with the ways in and what people do there."""

from __future__ import annotations

import time
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from lockstep.agent import page_actions, page_sign_in
from lockstep.agent.access import Role
from lockstep.agent.assembly import Agent
from lockstep.agent.overview import Tone
from lockstep.agent.page_sign_in import session_of
from lockstep.agent.page_words import SAID, is_behind, newest_rows, rows, summary, view_of
from lockstep.agent.rendering import assets, render
from lockstep.agent.sessions import Session
from lockstep.errors import NotFoundError
from lockstep.rules.alerts.intent import Intent

AT_ONCE: Final = 6
STOP_POLLING: Final = 286  # htmx's own status


def routes(agent: Agent) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    turn = CapacityLimiter(AT_ONCE)
    router.include_router(page_sign_in.routes(agent))
    router.include_router(page_actions.routes(agent, turn))
    titles = {name: cloud.title for name, cloud in agent.fleets.clouds.items()}

    def page(name: str, session: Session, here: str, **given: object) -> HTMLResponse:
        return HTMLResponse(render(name, session=session, here=here, **given))

    async def newest() -> tuple[Intent, ...]:
        return await to_thread.run_sync(agent.desk.intents, 6, limiter=turn)

    async def models_part() -> dict[str, object]:
        overview = agent.refresher.overview
        return {
            "overview": overview,
            "titles": titles,
            "rollouts": [view for view in overview.models.values() if view.tone is Tone.CANARY or view.trying],
            "intents": await newest(),
            "deeds": newest_rows(overview),
        }

    @router.get("/")
    async def index(request: Request) -> Response:
        session = session_of(agent, request)
        return page("index.html", session, "models", **summary(agent.refresher.overview), **await models_part())

    @router.get("/parts/summary")
    async def summary_part(request: Request, seen: str = "") -> Response:
        session_of(agent, request)
        given = summary(agent.refresher.overview)
        # The same words are not said again to who listens to the page.
        return Response(status_code=204) if given["mark"] == seen else HTMLResponse(render("summary.html", **given))

    @router.get("/parts/models")
    async def models(request: Request) -> Response:
        session_of(agent, request)
        return HTMLResponse(render("models.html", **await models_part()))

    @router.get("/models/{model}")
    async def one(request: Request, model: str) -> Response:
        session = session_of(agent, request)
        view = view_of(agent, model)
        agent.refresher.watch(model)
        role = session.person.role
        return page(
            "model.html",
            session,
            "models",
            view=view,
            deeds=rows(view),
            may_roll_back=role >= Role.OPERATOR,
            may_release=role >= Role.APPROVER,
        )

    @router.get("/parts/models/{model}")
    async def model_part(request: Request, model: str) -> Response:
        session_of(agent, request)
        view = view_of(agent, model)
        agent.refresher.watch(model)
        return HTMLResponse(render("model_part.html", view=view, deeds=rows(view)))

    @router.get("/intents")
    async def intents(request: Request) -> Response:
        session = session_of(agent, request)
        found = await to_thread.run_sync(agent.desk.intents, 50, limiter=turn)
        return page("intents.html", session, "intents", intents=found)

    async def intent_of(given: str) -> dict[str, object]:
        intent = await to_thread.run_sync(agent.desk.intent, given, limiter=turn)
        if intent is None:
            raise NotFoundError("there is no such intent", hint="the page of intents lists the newest")
        view = agent.refresher.overview.models.get(intent.model)
        behind = is_behind(view, intent, time.time())
        if intent.open or behind:
            agent.refresher.poke(intent.model)
        return {"intent": intent, "said": SAID[intent.state], "view": view, "behind": behind}

    @router.get("/intents/{intent}")
    async def one_intent(request: Request, intent: str) -> Response:
        session = session_of(agent, request)
        return page("intent.html", session, "intents", **await intent_of(intent))

    @router.get("/parts/intents/{intent}")
    async def intent_part(request: Request, intent: str) -> Response:
        session_of(agent, request)
        return HTMLResponse(render("intent_part.html", **await intent_of(intent)))

    @router.get("/parts/intents/{intent}/said")
    async def said(request: Request, intent: str, seen: str = "") -> Response:
        session_of(agent, request)
        given = await intent_of(intent)
        found = given["intent"]
        assert isinstance(found, Intent)
        if found.state.value == seen and found.open:
            return Response(status_code=204)
        return HTMLResponse(render("said.html", **given), 200 if found.open else STOP_POLLING)

    @router.get("/static/{name}")
    async def static(name: str, v: str = "") -> Response:
        asset = assets().get(name)
        if asset is None:
            raise NotFoundError("there is no such file")
        kept = "public, max-age=31536000, immutable" if v == asset.mark else "no-cache"
        return Response(asset.content, media_type=asset.type, headers={"Cache-Control": kept})

    return router
