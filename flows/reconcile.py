"""Flow: bring every cloud to what MLflow says."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow

from flows import connections
from flows.opening import explained, load_fleet, open_in_flow, parameters
from lockstep.errors import LockstepError, SplitError
from lockstep.operations.fleet import Fleet
from lockstep.operations.reconcile import Reconciled
from lockstep.operations.reconcile import reconcile as look
from lockstep.operations.reconcile_until import reconcile_until
from tasks.artifacts import bullets, links, publish, traffic_table

#: What finishes that which another run left, and for how many seconds it goes on trying.
DEPLOYMENT = "lockstep-reconcile/reconcile"
FOLLOW = 600


def _run_name() -> str:
    given = parameters()
    dry = " (dry run)" if given.get("dry_run") else ""
    return f"reconcile {given.get('model') or 'every model of ' + str(given.get('fleet'))}{dry}"


@flow(name="lockstep-reconcile", flow_run_name=_run_name)
@explained
def reconcile(
    model: str | None = None,
    fleet: str = "default",
    dry_run: bool = False,
    accept_surprise: str = "",
    remove_foreign: bool = False,
    wait: float = 0.0,
) -> tuple[Reconciled, ...]:
    """Compare every cloud with what MLflow says, show the plan, and mend what differs.

    Ends as Failed when something is left that is not in step; the artifact of each model names it.

    Args:
        model: Name of the model in MLflow; every model of the fleet, when left out.
        fleet: Name of the Fleet block.
        dry_run: Only say what differs and what would be done.
        accept_surprise: Why a plan that changes more than usual is right; kept in the ledger.
        remove_foreign: Remove slots that were made by hand, too.
        wait: Seconds for which clouds that are busy are tried again.
    """
    block = load_fleet(fleet)
    adapters = connections.adapters(block)
    names = [model] if model is not None else list(block.models)
    fleets = [open_in_flow(block, name, "reconcile", adapters) for name in names]
    if dry_run:
        done = look(fleets, dry_run=True, remove_foreign=remove_foreign)
    else:
        done = reconcile_until(fleets, wait, accept_surprise=accept_surprise, remove_foreign=remove_foreign)
    for opened, one in zip(fleets, done, strict=True):
        if not one.in_step or one.found.work:
            _report(opened, one)
    if not dry_run:
        _raise_if_left(done)
    return done


def _report(opened: Fleet, one: Reconciled) -> None:
    left = len(one.left) + len(one.failed)
    summary = "brought in step" if one.in_step else one.found.held or f"{left} differences are left"
    text = f"# {opened.model}: {summary}\n\n## Found\n\n{bullets(map(str, one.found.differences))}"
    if one.found.work:
        text += f"\n## Plan\n\n{bullets(one.found.explain())}"
    if one.failed or one.error:
        text += f"\n## Not done\n\n{bullets(one.failed)}{bullets([one.error.reason] if one.error else [])}"
    if one.tell:
        text += f"\nSomebody changed it by hand; tell {one.tell}.\n"
    publish(
        "reconcile", opened.model, f"{text}\n{traffic_table(opened, one.before, one.after)}\n{links(opened)}", summary
    )


def _raise_if_left(done: Sequence[Reconciled]) -> None:
    """Models that a live operation holds are left to it, and to the next run."""
    open_ones = [one for one in done if not one.in_step and not one.found.held]
    errors: list[LockstepError] = [one.error for one in open_ones if one.error is not None]
    if len(open_ones) == 1 and errors:
        raise errors[0]
    if open_ones:
        told = "; ".join(f"{one.model}: {one.error or '; '.join(map(str, one.left))}" for one in open_ones)
        raise SplitError(f"{len(open_ones)} models are not in step: {told}", hint="see the artifact of each model")
