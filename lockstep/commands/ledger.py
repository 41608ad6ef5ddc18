"""Commands about the ledger as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lockstep.commands import copies
from lockstep.commands.options import AsJson, emit, load_config, options

if TYPE_CHECKING:
    from lockstep.config import Config
    from lockstep.stores.ledger import Ledger

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


def open_configured(config: Config) -> Ledger:
    """The ledger with the keys that there are."""
    from lockstep.stores.keys import load_keys
    from lockstep.stores.ledger import open_ledger

    keys = load_keys(config.keys, config.ledger.origin)
    return open_ledger(config.ledger, keys)
