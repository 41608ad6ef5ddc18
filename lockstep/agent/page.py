"""The status page, from memory; the rollback by its button shows the plan first and asks for a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, quote

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from lockstep.agent.access import DeniedError, Role, WaitError
from lockstep.agent.api import ForbiddenError, allow
from lockstep.agent.assembly import Agent
from lockstep.agent.overview import ModelView, Overview, Tone, WayBack
from lockstep.agent.refresher import plan_way
from lockstep.agent.rendering import assets, ended, render
from lockstep.agent.sessions import COOKIE, Session, same_origin
from lockstep.errors import LockstepError, NotFoundError
from lockstep.operations.hold import release
from lockstep.operations.reasons import checked_reason
from lockstep.rules.alerts.intent import Intent, State
from lockstep.rules.deeds import Deed, Ending
from lockstep.rules.state import DesiredState

AT_ONCE: Final = 6
PLAN_SECONDS: Final = 15.0  # that a page waits for a fresh plan
CHECK_SECONDS: Final = 5.0  # that the button waits for one, to see that it is still what was shown
FIELDS: Final = 20  # of a form
STOP_POLLING: Final = 286  # htmx's own status
#: What the page says of an intent's state.
SAID: Final[Mapping[State, str]] = {
    State.ACCEPTED: "accepted; it begins in a moment",
    State.CONFIRMING: "looking whether the trouble is there",
    State.RUNNING: "under way on every cloud",
    State.DONE: "done: every cloud was verified",
    State.SPLIT: "SPLIT: some clouds could not follow; reconciling goes on with them",
    State.FAILED: "failed",
    State.NOT_CONFIRMED: "not confirmed: a fresh look found nothing wrong",
    State.HELD: "held: rollouts are stopped",
    State.NOTIFIED: "people were told; nothing was changed",
}


class NoSessionError(DeniedError):
    """Nobody is signed in."""


@dataclass(frozen=True)
class Row:
    """A deed for the table of them."""

    model: str
    began: float
    operation: str
    version: str
    reason: str
    actor: str
    ending: Ending
    ended: str
    error: str
    entries: tuple[int, ...]


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
    """The routes of the page."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    turn = CapacityLimiter(AT_ONCE)
    titles = {name: cloud.title for name, cloud in agent.fleets.clouds.items()}

    def page(name: str, session: Session, here: str, **given: object) -> HTMLResponse:
        return HTMLResponse(render(name, session=session, here=here, **given))

    def view_of(model: str) -> ModelView:
        agent.config.model(model)
        found = agent.refresher.overview.models.get(model)
        return found or ModelView(model, 0.0, DesiredState(model, None), problem="it was not looked at yet")

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
        view, given = view_of(model), fields or {}
        answer = page(
            "rollback.html",
            session,
            "models",
            view=view,
            way=way or view.way,
            champion=view.desired.champion,
            to=given.get("to", ""),
            reason=given.get("reason", ""),
            problem=problem,
            bad_reason=status == 422,
        )
        answer.status_code = status
        return answer

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
        view = view_of(model)
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
        view = view_of(model)
        agent.refresher.watch(model)
        return HTMLResponse(render("model_part.html", view=view, deeds=rows(view)))

    @router.get("/models/{model}/plan")
    async def plan(request: Request, model: str, to: str = "") -> Response:
        allow(session_of(agent, request).person, Role.OPERATOR)
        view = view_of(model)
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
        if intent.open or (view is not None and view.at < intent.ended):
            agent.refresher.poke(intent.model)
        return {"intent": intent, "said": SAID[intent.state], "view": view}

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
            agent.telemetry.sign_ins.labels("wrong").inc()
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

    @router.get("/static/{name}")
    async def static(name: str, v: str = "") -> Response:
        asset = assets().get(name)
        if asset is None:
            raise NotFoundError("there is no such file")
        kept = "public, max-age=31536000, immutable" if v == asset.mark else "no-cache"
        return Response(asset.content, media_type=asset.type, headers={"Cache-Control": kept})

    return router


def local(following: str) -> str:
    """A path of this site to go on to; "/" for anything else."""
    plain = following.startswith("/") and not following.startswith(("//", "/\\"))
    return following if plain and following.isprintable() and "\\" not in following else "/"


def rows(view: ModelView) -> list[Row]:
    """The model's newest deeds."""
    return [_row(view.model, deed) for deed in view.deeds]


def newest_rows(overview: Overview) -> list[Row]:
    """Those of all models."""
    found = [row for view in overview.models.values() for row in rows(view)]
    return sorted(found, key=lambda row: -row.began)[:12]


def _row(model: str, deed: Deed) -> Row:
    entries = tuple(number for number in deed.entries if number >= 0)
    return Row(
        model,
        deed.began,
        deed.operation,
        deed.version,
        deed.reason,
        deed.actor,
        deed.ending,
        ended(deed),
        deed.error,
        entries,
    )


def summary(overview: Overview) -> dict[str, object]:
    """One sentence about all models, how bad it is, and a mark that is another one when it says something else."""
    views = [overview.models[name] for name in overview.names if name in overview.models]
    worst = max((view.tone for view in views), key=list(Tone).index, default=Tone.NOTHING)
    named = {tone: [view.model for view in views if view.tone is tone] for tone in Tone}
    waiting = len(overview.names) - len(views)
    parts = [
        f"{tone.value}: {', '.join(named[tone])}" for tone in reversed(Tone) if named[tone] and tone is not Tone.IN_STEP
    ]
    if named[Tone.IN_STEP]:
        count = len(named[Tone.IN_STEP])
        every = count == len(overview.names)
        parts.append("every model is in step" if every else f"{count} in step")
    if waiting:
        parts.append(f"{waiting} not looked at yet")
    if asked := [f"{one.model} {one.version}" for one in overview.approvals]:
        parts.append(f"waiting for an approval: {', '.join(asked)}")
    text = "; ".join(parts) or "no model is configured"
    text = text[0].upper() + text[1:]
    return {"text": text, "tone": worst, "mark": hashlib.sha256(text.encode()).hexdigest()[:12]}
