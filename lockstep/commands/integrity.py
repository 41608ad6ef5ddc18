"""Commands that ask whether versions are still what was sealed."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.commands.options import AsJson, complete_model, emit, opened

Accept = Annotated[
    str,
    typer.Option(
        "--accept-broken-seal",
        metavar="REASON",
        help="Go on with a version whose seal does not hold, when no other known-good one is intact; recorded.",
    ),
]


def verify(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL[@VERSION]", help="Model, or one of its versions.", autocompletion=complete_model),
    ],
    sample: Annotated[float, typer.Option(help="Share of the bytes to read: the day's share, such as 0.2.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Compare versions with what was sealed: in MLflow, the stores, the native registries, and at the endpoints.

    Exits with 3 when something differs and with 5 when something could not be looked at; names every file and field.
    """
    from lockstep import terminal
    from lockstep.operations.verify import verify as run

    name, _, version = model.partition("@")
    with opened(name, as_json) as fleet:
        found = run(fleet, version or None, sample)
    if as_json:
        emit(found.document())
    else:
        headings, rows = found.table()
        terminal.show_rows(f"{name}: is it what was sealed?", headings, rows)
        for line in found.altered:
            typer.echo(f"ALTERED {line}")
        for line in found.unknown:
            typer.echo(f"unknown {line}")
        if found.intact:
            typer.echo(f"{name}: everything is as it was sealed")
    if found.error is not None:
        raise typer.Exit(found.error.exit_status)
