"""Commands that stop rollouts of a model, and let them begin again."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.commands.options import AsJson, Model, emit, opened
from lockstep.rules.printable import visible

Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]


def hold(model: Model, reason: Reason, as_json: AsJson = False) -> None:
    """Stop rollouts: none begins, and one that runs is taken back; rollbacks go on."""
    from lockstep.operations.hold import hold as run

    with opened(model, as_json) as fleet:
        placed = run(fleet, reason)
    if as_json:
        was = {"reason": placed.was.reason, "since": placed.was.since} if placed.was else None
        emit({"model": model, "held": True, "reason": placed.reason, "since": placed.since, "was": was})
    else:
        if placed.was:
            typer.echo(f"{model} was {visible(str(placed.was))}; the new reason stands from now on, the log keeps both")
        typer.echo(f"{model} is held: lockstep release {model} --reason REASON lets rollouts begin again")


def release(model: Model, reason: Reason, as_json: AsJson = False) -> None:
    """Let rollouts of a model begin again."""
    from lockstep.operations.hold import release as run

    with opened(model, as_json) as fleet:
        before = run(fleet, reason)
    if as_json:
        emit({"model": model, "held": False, "was": before.reason if before else None})
    else:
        typer.echo(f"{model} is released; it was {visible(str(before))}" if before else f"{model} was not held")
