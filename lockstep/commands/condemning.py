"""Commands about what must not serve."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.commands.options import AsJson, Model, WhichVersion, emit, opened
from lockstep.rules.printable import visible

Reason = Annotated[str, typer.Option(help="Why; kept in the ledger and on the version.")]


def condemn(model: Model, version: WhichVersion, reason: Reason, as_json: AsJson = False) -> None:
    """Mark a version as one that must not serve: it is neither deployed nor rolled back to."""
    from lockstep.operations.condemn import condemn as run

    with opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        done = run(fleet, found, reason)
    fallback = done.fallback
    if as_json:
        told = {"version": found.label, "digest": found.digest, "condemned": reason}
        emit({**told, "before": done.before or None, "fallback": fallback.label if fallback else None})
    else:
        typer.echo(f"{found} is condemned" + (f" (it was already: {visible(done.before)})" if done.before else ""))
        typer.echo(f"the fallback is {fallback}" if fallback else "there is no fallback")


def lift(model: Model, version: WhichVersion, reason: Reason, as_json: AsJson = False) -> None:
    """Take back that a version is condemned: it may be deployed and rolled back to again."""
    from lockstep.operations.condemn import lift as run

    with opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        before = run(fleet, found, reason)
    if as_json:
        emit({"version": found.label, "digest": found.digest, "before": before or None})
    else:
        typer.echo(f"{found} is no longer condemned: {visible(before)}" if before else f"{found} was not condemned")
