"""Commands about the ledger as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands import copies
from lockstep.commands.options import AsJson, emit, load_config, options
from lockstep.errors import LockstepError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockstep.config import Config
    from lockstep.stores.ledger import Audit, Ledger

ledger = typer.Typer(help="The ledger: what was done, by whom and why.", no_args_is_help=True)


@ledger.command()
def copy(as_json: AsJson = False) -> None:
    """Bring every cloud's copy of the ledger up to date; says what protects each from change."""
    options.json = as_json
    config = load_config()
    opened = open_configured(config)
    unsigned = opened.checkpoint() is None
    reports = copies.bring_up(config, opened)
    if as_json:
        emit({"signed": not unsigned, "copies": copies.reports_as_json(reports)})
    else:
        copies.show_reports(reports)
        if unsigned:
            typer.echo("nothing was copied: no entry is signed yet (`lockstep keys create`)", err=True)
    raise typer.Exit(copies.status_of(reports))


@ledger.command()
def verify(
    copied: Annotated[bool, typer.Option("--copies/--no-copies", help="Compare with the clouds' copies too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Recompute every hash and signature, compare with every cloud's copy; names the first bad entry."""
    options.json = as_json
    config = load_config()
    opened = open_configured(config)
    audit = opened.verify()
    unknown = _unknown_keys(config, opened)
    checks = copies.check(config, opened) if copied else ()
    if not (audit.size or audit.flaws or any(one.size or one.problems for one in checks)):
        raise NotFoundError(
            f"there is no ledger yet: {opened.name} holds no entry",
            hint="it begins with a registration: lockstep register MODEL SOURCE",
        )
    if as_json:
        emit(
            {
                "entries": audit.size,
                "root": audit.root.hex(),
                "signed": audit.checkpoint.size if audit.checkpoint else 0,
                "checkpoints": audit.checkpoints,
                "holds": not audit.flaws,
                "flaws": [{"entry": one.index, "event_id": one.event_id, "what": one.what} for one in audit.flaws],
                "notes": [*audit.notes, *unknown],
                "copies": copies.checks_as_json(checks),
            }
        )
    else:
        _show(audit, unknown)
        if checks:
            copies.show_checks(checks)
    raise typer.Exit(3 if audit.flaws else copies.status_of(checks))


@ledger.command()
def forget(
    name: Annotated[str, typer.Argument(help="The person, as `lockstep log` shows them.")], as_json: AsJson = False
) -> None:
    """Erase a person's name: entries stay, under a pseudonym that nothing leads back from."""
    from lockstep.operations.fleet import default_actor

    options.json = as_json
    forgotten = open_configured(load_config()).forget(name, default_actor())
    if not forgotten:
        raise NotFoundError(f"the ledger knows nobody named {name!r}", hint="`lockstep log MODEL` shows who did what")
    if as_json:
        emit({"pseudonyms": list(forgotten)})
    else:
        typer.echo(f"{name} is forgotten; the ledger knows {', '.join(forgotten)} from now on")


@ledger.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; an older export there is continued.")],
    as_json: AsJson = False,
) -> None:
    """Write the ledger as files that any tool for C2SP tlog-tiles can check."""
    from lockstep.stores.ledger.export import export as write

    options.json = as_json
    opened = open_configured(load_config())
    exported = write(opened, folder)
    keys = [verifier.vkey for verifier in opened.verifiers]
    if as_json:
        emit({"entries": exported.checkpoint.size, "written": exported.written, "verifiers": keys})
    else:
        typer.echo(f"{folder}: {exported.checkpoint.size} entries, {exported.written} new files; checked with")
        for key in keys:
            typer.echo(key)


def _unknown_keys(config: Config, ledger: Ledger) -> list[str]:
    """Keys that are trusted though no entry tells of them: whoever has such a key can sign what this trusts."""
    from lockstep.operations.history import ALL
    from lockstep.operations.key_events import KINDS, unrecorded
    from lockstep.stores.keys import load_keys

    try:
        entries = ledger.entries("", KINDS, ALL)
    except LockstepError:  # the audit tells what is wrong with it
        return []
    keys = load_keys(config.keys, config.ledger.origin)
    return [
        f"{name} is trusted, but no entry tells of it: made by an earlier release (`lockstep keys create` records the "
        "keys in use), or put there by hand"
        for name in unrecorded(keys, entries)
    ]


def _show(audit: Audit, unknown: Sequence[str]) -> None:
    signed = f"{audit.checkpoint.size} of them signed" if audit.checkpoint else "none of them signed"
    typer.echo(f"{audit.size} entries, {signed}, {audit.checkpoints} checkpoints, root {audit.root.hex()[:16]}…")
    for note in (*audit.notes, *unknown):
        typer.echo(f"note: {note}")
    for flaw in sorted(audit.flaws, key=lambda flaw: flaw.index):
        typer.echo(f"problem: {flaw}", err=True)
    typer.echo("the ledger does not hold" if audit.flaws else "the ledger holds")


def open_configured(config: Config) -> Ledger:
    """The ledger with the keys that there are."""
    from lockstep.stores.keys import load_keys
    from lockstep.stores.ledger import open_ledger

    keys = load_keys(config.keys, config.ledger.origin)
    return open_ledger(config.ledger, keys)
