"""Commands about alerts: which came and what came of them, what a sample would do, what others were not told."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.options import AsJson, complete_model, emit, load_config, options
from lockstep.errors import NotFoundError

if TYPE_CHECKING:
    from lockstep.agent.rehearsal import Rehearsed

alerts = typer.Typer(
    help="Alerts that roll back: which came, what a sample would do, what others were not told.", no_args_is_help=True
)


@alerts.command("test")
def try_out(
    file: Annotated[Path, typer.Argument(help="A body as the source's vendor sends it.", metavar="FILE")],
    source: Annotated[str, typer.Option(help="The source that sends it (default: the one that can read it).")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a sample of an alert would do now; proves nothing of its sender, and does nothing."""
    from lockstep.agent.alert_rules import load_alert_rules
    from lockstep.agent.rehearsal import Unset, read_sample, rehearse
    from lockstep.config import AgentNeeds

    options.json = as_json
    config = load_config(AgentNeeds.SETTINGS)
    rules = load_alert_rules(Path(config.agent.alerts), Unset(os.environ))
    try:
        body = file.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{file} cannot be read: {error.strerror}", hint="name a file with a body") from error
    found = rehearse(config, rules, read_sample(rules, source, body), time.time(), body)
    if as_json:
        emit({"alerts": [_as_json(one) for one in found]})
        return
    if not found:
        typer.echo("it holds no alert")
    for one in found:
        typer.echo(f"{one.alert.status.value} {one.alert.title!r} ({one.alert.source}, id {one.alert.id})")
        if one.alert.doubt:
            typer.echo(f"  note: {one.alert.doubt}")
        for rule, why in one.route.missed:
            typer.echo(f"  not {rule}: {why}")
        about = ", ".join(
            f"{name} {value}"
            for name, value in (("model", one.route.model), ("version", one.route.version), ("cloud", one.route.cloud))
            if value
        )
        typer.echo(f"  rule: {one.route.rule or 'none fits'}{f' ({about})' if about else ''}")
        typer.echo(f"  would do: {one.told}")


@alerts.command()
def log(
    model: Annotated[
        str, typer.Argument(help="Only alerts about this model.", autocompletion=complete_model, show_default=False)
    ] = "",
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the alerts that the ledger holds, the newest first, each with what came of it; needs no agent."""
    from lockstep import terminal
    from lockstep.commands.history import end_with
    from lockstep.commands.ledger import open_configured
    from lockstep.operations.alert_log import alert_log
    from lockstep.rules.alerts.log import as_json as plain
    from lockstep.rules.alerts.log import tell

    options.json = as_json
    config = load_config()
    ledger = open_configured(config)
    found = alert_log(ledger, model, last)
    if model and not found:
        config.model(model)  # a name that is misspelt is told
    doubts = ledger.contradictions()
    if as_json:
        emit({"alerts": [plain(one) for one in found]})
    else:
        for one in found:
            terminal.show_deed(tell(one))
        if not found:
            typer.echo(f"the ledger holds no alert{f' about {model}' if model else ''}")
    end_with(doubts)


@alerts.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of alerts.yaml, for editors: every kind of source, every key, what may stand there."""
    from lockstep.agent.alert_rules import AlertRules

    emit(AlertRules.model_json_schema())


@alerts.command("dead-letters")
def dead_letters(
    again: Annotated[bool, typer.Option("--again", help="Have all of them sent again by the agent.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what could not be told to a receiver, the newest first."""
    from lockstep.agent import outbox
    from lockstep.agent.group_commit import GroupCommit
    from lockstep.agent.inbox import SCHEMA
    from lockstep.config import AgentNeeds
    from lockstep.rules.moments import show_moment

    options.json = as_json
    config = load_config(AgentNeeds.SETTINGS)
    if not config.inbox.exists():
        if as_json:
            emit({"dead_letters": [], "again": 0})
        else:
            typer.echo(f"no agent has accepted anything yet: {config.inbox} is not there")
        return
    database = GroupCommit(config.inbox, SCHEMA)
    try:
        with database.reading() as connection:
            found = outbox.dead_letters(connection)
        count = database.write(lambda connection: outbox.send_again(connection, time.time())) if again else 0
    finally:
        database.close()
    if as_json:
        letters = [
            {
                **{"receiver": one.receiver, "event": one.event, "attempts": one.attempts, "error": one.error},
                **{"title": one.notice.title, "at": one.notice.at, "id": one.notice.id},
            }
            for one in found
        ]
        emit({"dead_letters": letters, "again": count})
        return
    for one in found:
        tries = "1 attempt" if one.attempts == 1 else f"{one.attempts} attempts"
        typer.echo(
            f"{show_moment(one.notice.at)}  {one.receiver}: {one.event}: {one.notice.title} ({tries}: {one.error})"
        )
    typer.echo(f"{count} are sent again" if again else f"{len(found)} could not be told")


def _as_json(one: Rehearsed) -> dict[str, object]:
    return {
        **{"source": one.alert.source, "id": one.alert.id, "incident": one.alert.incident, "title": one.alert.title},
        **{"status": one.alert.status.value, "rule": one.route.rule or None, "told": one.told},
        "missed": [{"rule": rule, "why": why} for rule, why in one.route.missed],
        **{"model": one.route.model or None, "version": one.route.version or None, "cloud": one.route.cloud or None},
        "action": one.action.value if one.action is not None else None,
        "decision": type(one.decision).__name__.lower() if one.decision is not None else "duplicate",
        "fields": dict(one.alert.fields),
        "note": one.alert.doubt or None,
    }
