"""What every flow does around its one operation: open the fleet, say who asked, end a refused run understandably."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.utilities.urls import url_for

import blocks
from flows import connections
from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, NotFoundError
from lockstep.operations.fleet import Fleet, default_actor, open_fleet
from tasks.artifacts import explain_failure, kept
from tasks.observing import FlowObserver
from tasks.runner import runner_for

P = ParamSpec("P")
R = TypeVar("R")


def explained(flow_function: Callable[P, R]) -> Callable[P, R]:
    """End the run as Failed with message and hint when Lockstep says no; other errors fail it as Prefect shows them.

    Called from Python, the flow raises the LockstepError itself.
    """

    @functools.wraps(flow_function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return flow_function(*args, **kwargs)
        except LockstepError as error:
            operation = flow_function.__name__
            model = str(parameters().get("model") or "")
            get_run_logger().error("%s%s", error, f"\nWhat to do: {error.hint}" if error.hint else "")
            explain_failure(operation, model, error)
            message = f"{error} – what to do: {error.hint}" if error.hint else str(error)
            return cast("R", Failed(message=message, data=error))  # Prefect raises the error to whoever called

    # Resolved here: Prefect would look for the names of types in this module instead of the flow's.
    run.__signature__ = inspect.signature(flow_function, eval_str=True)  # type: ignore[attr-defined]
    return run


def open_in_flow(block: blocks.Fleet, model: str, operation: str, adapters: Mapping[str, Cloud] | None = None) -> Fleet:
    """The fleet of a model, whose steps become task runs and whose events go to the flow run's log.

    `adapters` are the block's, where several models share them.
    """
    config = block.to_config()
    opened = open_fleet(
        config,
        model,
        clouds=connections.adapters(block) if adapters is None else adapters,
        runner=runner_for(config),
        observer=FlowObserver(operation),
        actor=actor(),
        via=flow_run_name(),
        alert=alert(),
    )
    return replace(opened, link=flow_run_link())


def load_fleet(name: str) -> blocks.Fleet:
    """The Fleet block of that name; raises NotFoundError saying how it gets there."""
    try:
        loaded = blocks.Fleet.load(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise
        raise NotFoundError(
            f"Prefect has no Fleet block named {name!r}",
            hint="run `lockstep init` to save lockstep.yaml as blocks, or choose a block that is listed under Blocks",
        ) from error
    assert isinstance(loaded, blocks.Fleet)  # outside of an event loop Prefect waits for the answer itself
    return loaded


def actor() -> str:
    """Who or what asked, for the ledger: the alert, the schedule, the person, else this flow run."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if context is None or run is None:
        return default_actor()
    given = alert()
    if given:
        return f"alert:{given['id']}"
    created = run.created_by.display_value if run.created_by is not None else None
    if run.created_by is not None and run.created_by.type == "AUTOMATION":
        return f"alert:{created or run.created_by.id}"
    if run.auto_scheduled:
        return f"schedule:{context.flow.name if context.flow else run.deployment_id}"
    return created or f"flow:{run.name}"


def alert() -> Mapping[str, str]:
    """The alert that the run's parameters name, with the time at which it was given as far as they tell."""
    given = parameters()
    if not given.get("alert"):
        return {}
    at = str(given.get("alert_at") or "")
    return {"id": str(given["alert"]), **({"at": at} if at else {})}


def flow_run_name() -> str:
    """Name and id of this flow run, empty outside of one."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return "" if run is None else f"Prefect flow run {run.name} ({run.id})"


def flow_run_link() -> str:
    """Address of this flow run in Prefect's UI, empty outside of one and where it is not known."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return "" if run is None else url_for("flow-run", obj_id=run.id) or ""


def waited_for() -> float | None:
    """Seconds from when this flow run should have begun until it did; None outside of one, and if Prefect is silent.

    Both times are Prefect's: its server stamps a state when it accepts it. This machine's clock may be another one.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.expected_start_time is None or run.state is None:
        return None
    return run.state.timestamp.timestamp() - run.expected_start_time.timestamp()


def rename(name: str) -> None:
    """Call this run what it turned out to do."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
        return
    with kept("name of the run"):
        context.client.set_flow_run_name(context.flow_run.id, name)


def parameters() -> Mapping[str, Any]:
    """The parameters of the run that is about to be named or is running."""
    return dict(flow_run.parameters or {})
