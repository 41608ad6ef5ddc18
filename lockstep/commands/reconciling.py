"""The command that brings every cloud to what MLflow says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.options import AsJson, DryRun, complete_model, emit, load_config, options

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet, Observer
    from lockstep.operations.reconcile import Reconciled

Models = Annotated[
    list[str] | None, typer.Argument(help="Models (default: all that are configured).", autocompletion=complete_model)
]


def reconcile(
    models: Models = None,
    dry_run: DryRun = False,
    accept_surprise: Annotated[
        str, typer.Option(help="Why a plan that changes more than usual is right; it goes into the ledger.")
    ] = "",
    remove_foreign: Annotated[
        bool, typer.Option("--remove-foreign", help="Remove slots that were made by hand, too.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds for which clouds that are busy are tried again.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare every cloud with what MLflow says, and mend what differs; exits with 6 when something is left."""
    from lockstep import terminal
    from lockstep.operations.reconcile import reconcile as run
    from lockstep.operations.reconcile_until import reconcile_until

    if len(accept_surprise) > 1000:
        raise typer.BadParameter("a reason has at most 1000 characters")
    options.json = as_json
    with terminal.progress(quiet=as_json) as observer:
        fleets = open_all(models or [], observer)
        if dry_run:
            done = run(fleets, dry_run=True, remove_foreign=remove_foreign)
        else:
            done = reconcile_until(fleets, wait, accept_surprise=accept_surprise, remove_foreign=remove_foreign)
    if as_json:
        emit({"models": {one.model: as_document(one) for one in done}})
    else:
        show(done, dry_run=dry_run)
    if not all(one.in_step for one in done):
        raise typer.Exit(6)


def open_all(models: Sequence[str], observer: Observer) -> tuple[Fleet, ...]:
    """The fleets of the models, all configured ones for none, over one set of adapters."""
    from lockstep.operations.fleet import open_fleet

    config = load_config()
    names = list(dict.fromkeys(models)) or list(config.models)
    for name in names:
        config.model(name)
    clouds = {name: settings.connect(name) for name, settings in config.clouds.items()}
    return tuple(open_fleet(config, name, clouds=clouds, observer=observer) for name in names)


def as_document(one: Reconciled) -> dict[str, object]:
    """One model for a program."""
    from lockstep import terminal

    return {
        "in_step": one.in_step,
        "held": one.found.held,
        "differences": [
            {
                "cloud": difference.cloud,
                "what": difference.told,
                "healed": not difference.waits and difference not in one.left,
                "waits": difference.waits,
                "hint": difference.hint,
                "by_hand": difference.by_hand,
                "before": difference.before,
                "after": difference.after,
            }
            for difference in one.found.differences
        ],
        "plan": list(one.found.explain()) if one.found.work else [],
        "failed": dict(one.failed),
        "error": str(one.error) if one.error else "",
        "tell": one.tell,
        "clouds": terminal.state_as_json(one.after or one.before),
    }


def show(done: Sequence[Reconciled], *, dry_run: bool) -> None:
    """A line a model, and what is left under it."""
    for one in done:
        typer.echo(f"{one.model}: {_state(one, dry_run=dry_run)}")
        for difference in one.found.differences if dry_run else one.left:
            typer.echo(f"  {difference}")
        for line in one.found.explain() if dry_run and one.found.work else ():
            typer.echo(f"  would do: {line}")
        if one.error is not None:
            typer.echo(f"  {one.error.reason}")
        if one.tell:
            typer.echo(f"  changed by hand: tell {one.tell}")


def _state(one: Reconciled, *, dry_run: bool) -> str:
    if one.found.held:
        return f"left alone: {one.found.held}"
    if one.in_step:
        return "brought in step" if one.after is not None and one.found.work else "in step"
    if one.error is not None and not one.failed:
        return "could not be reconciled"
    return "differs" if dry_run else "not in step"
