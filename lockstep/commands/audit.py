"""The command that makes a model's audit report, and that checks one anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.history import TIME_HELP, moment_of
from lockstep.commands.options import AsJson, emit, opened, options

if TYPE_CHECKING:
    from lockstep.operations.audit.verify import Verified

VERIFY = "verify"


def audit(
    model: Annotated[str, typer.Argument(help="Name of the model; or `verify`, to check what a report says.")],
    place: Annotated[
        Path | None, typer.Argument(metavar="[REPORT]", help="With `verify`: a report's folder, or a decision's proof.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.", file_okay=False)] = Path("report"),
    since: Annotated[str | None, typer.Option("--from", help=f"Begin of the period. {TIME_HELP}")] = None,
    until: Annotated[str | None, typer.Option("--to", help=f"End of the period. {TIME_HELP}")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="With `verify`: the ledger's verifier key as you know it, or a file of such keys."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live/--no-live", help="Ask MLflow, registries and endpoints what they say now.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write an audit report of a model, readable without Lockstep; or check one: `lockstep audit verify REPORT`."""
    if model == VERIFY and place is not None:
        _verify(place, key or [], as_json)
        return
    if place is not None or key:
        raise typer.BadParameter(f"a report of {model} takes --out; to check one: lockstep audit verify REPORT")
    from lockstep.operations.audit.checks import ledger_checks
    from lockstep.operations.audit.collect import collect
    from lockstep.operations.audit.folder import PAGE, check_place, write_report
    from lockstep.operations.audit.live import attest_now
    from lockstep.operations.audit.verify import verify

    begin = moment_of(since, "--from") if since else None
    end = moment_of(until, "--to") if until else None
    check_place(out)
    with opened(model, as_json) as fleet:
        checks = list(ledger_checks(fleet))
        sound = all(check.holds is not False for check in checks)
        attested = attest_now(fleet) if live else None
        checks += [attested.check()] if attested else []
        said = attested.document() if attested else None
        made = collect(fleet, fleet.ledger, since=begin, until=end, checks=checks, live=said)
        write_report(fleet, fleet.ledger, fleet.ledger.verifiers, made, out, vouch=sound)
    if not sound:
        typer.echo("the ledger does not hold, so nothing was appended that would vouch for this report:", err=True)
        for check in checks:
            if check.holds is False:
                typer.echo(f"problem: {check.what}: {check.found}", err=True)
    checked = verify(out)
    if as_json:
        emit({"report": str(out / PAGE), **_plain(checked), "summary": made.document["summary"]})
    else:
        typer.echo(f"{out / PAGE}: {model} from {made.document['from']} to {made.document['to']}")
        _show(checked)
    _end(checked)


def _verify(place: Path, keys: list[str], as_json: bool) -> None:
    from lockstep.operations.audit.verify import read_keys, verify

    options.json = as_json
    checked = verify(place, read_keys(keys))
    if as_json:
        emit(_plain(checked))
    else:
        _show(checked)
        if not keys and not checked.problems:
            typer.echo("compare the key with the one that you were given, or name that one: --key")
    _end(checked)


def _show(checked: Verified) -> None:
    for name, problem in checked.problems.items():
        typer.echo(f"{name}: {problem}")
    if not checked.problems:
        tree = checked.checkpoint
        covers = f"{checked.entries} entries proven in {tree.origin} of {tree.size} entries; " if tree else ""
        typer.echo(f"{checked.place} holds: {covers}signed by {', '.join(checked.keys)}")


def _plain(checked: Verified) -> dict[str, object]:
    tree = checked.checkpoint
    return {
        "holds": not checked.problems,
        "problems": dict(checked.problems),
        "entries": checked.entries,
        "checkpoint": {"origin": tree.origin, "size": tree.size, "root": tree.root.hex()} if tree else None,
        "keys": list(checked.keys),
    }


def _end(checked: Verified) -> None:
    from lockstep.errors import DigestMismatchError

    if checked.problems:
        raise typer.Exit(DigestMismatchError.exit_status)
