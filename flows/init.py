"""`python -m flows.init`: save lockstep.yaml to a Prefect server as blocks and deployments.

Asks every cloud whether it grants what will be needed, and refuses to save when one says no. Shows what would change
first, names of fields only, and asks. A second time there is nothing to do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
import requests
from prefect.settings import get_current_settings
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm

from blocks.saving import Difference, blocks_of, save
from blocks.saving import differences as block_differences
from flows.deploying import deploy
from flows.deploying import differences as deployment_differences
from lockstep import terminal
from lockstep.config import Config, load
from lockstep.errors import ConfigError, LockstepError, UnreachableError
from lockstep.operations.permissions import Asked, ask_permissions, models_by_cloud, refuse_lacking

PATIENCE: Final = 5.0  # seconds for the first answer
SIGNS: Final = {"added": "[green]+[/]", "changed": "[yellow]~[/]", "unchanged": "[dim]=[/]"}


def main(given: list[str] | None = None) -> int:
    """Run the command; returns the exit status that docs of `lockstep` give for each kind of error."""
    options = _arguments(given)
    try:
        return _initialise(options)
    except LockstepError as error:
        terminal.show_error(error, as_json=options.json)
        return error.exit_status
    except (requests.RequestException, httpx.HTTPError) as error:
        terminal.show_error(UnreachableError(f"Prefect stopped answering: {error}"), as_json=options.json)
        return UnreachableError.exit_status


def check_api() -> str:
    """The address of the Prefect API, if it answers within seconds; raises ConfigError or UnreachableError."""
    settings = get_current_settings()
    address = settings.api.url
    if not address:
        raise ConfigError(
            "no Prefect server is configured",
            hint="start one (prefect server start) and export PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    headers = {}
    if settings.api.key is not None:
        headers["Authorization"] = f"Bearer {settings.api.key.get_secret_value()}"
    auth = settings.api.auth_string.get_secret_value().partition(":") if settings.api.auth_string else None
    try:
        answer = requests.get(
            f"{address.rstrip('/')}/admin/version",
            timeout=PATIENCE,
            headers=headers,
            auth=(auth[0], auth[2]) if auth else None,
        )
    except requests.RequestException as error:
        raise UnreachableError(
            f"the Prefect API at {address} gives no answer",
            hint="start it (prefect server start), or set PREFECT_API_URL to where it runs",
        ) from error
    if not answer.ok:
        raise UnreachableError(
            f"the Prefect API at {address} answered {answer.status_code}",
            hint="check PREFECT_API_URL (it ends with /api) and PREFECT_API_AUTH_STRING",
        )
    return address


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lockstep init", description=__doc__)
    parser.add_argument("--config", type=Path, help="configuration file (default: $LOCKSTEP_CONFIG or lockstep.yaml)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--despite-permissions", action="store_true", help="save although a cloud lacks a permission")
    parser.add_argument("--json", action="store_true", help="print one JSON document; changes only with --yes")
    return parser.parse_args(given)


def _initialise(options: argparse.Namespace) -> int:
    config = load(options.config)
    path = options.config or Path(os.environ.get("LOCKSTEP_CONFIG", "lockstep.yaml"))
    address = check_api()
    permissions = _permissions(config, options)
    wanted = blocks_of(config, path.absolute().parent)
    of_blocks, of_deployments = block_differences(wanted), deployment_differences()
    found = (*of_blocks, *of_deployments)
    todo = [one for one in found if one.change != "unchanged"]
    if not options.json:
        _show(address, found)
    agreed = bool(todo) and (options.yes or (not options.json and _ask(len(todo))))
    if agreed:
        if any(one.change != "unchanged" for one in of_blocks):
            save(wanted)
        if any(one.change != "unchanged" for one in of_deployments):
            deploy()
    if options.json:
        changes = [{"what": one.what, "name": one.name, "change": one.change, "fields": one.fields} for one in found]
        asked = {name: one.as_json() for name, one in permissions.items()}
        terminal.emit({"prefect": address, "permissions": asked, "saved": agreed, "changes": changes})
    elif agreed:
        pools = " and ".join(f"prefect worker start --pool {one.name}" for one in found if one.what == "work pool")
        Console().print(f"Saved. Runs need a worker: [bold]{pools}[/]")
    return 0


def _permissions(config: Config, options: argparse.Namespace) -> Mapping[str, Asked]:
    """What the clouds say, shown; raises RefusedError where something is missing, unless that was foreseen."""
    clouds = [settings.connect(name) for name, settings in config.clouds.items()]
    answers = ask_permissions(clouds, models_by_cloud(config))
    if not options.json:
        for name, one in answers.items():
            for line in one.told() or ("grants everything that is needed",):
                Console(highlight=False).print(f"{name}: {line}", markup=False, soft_wrap=True)
    if not options.despite_permissions:
        refuse_lacking(answers)
    return answers


def _show(address: str, found: Sequence[Difference]) -> None:
    console = Console(highlight=False)
    console.print(f"Prefect at {address}")
    for one in found:
        fields = f": {', '.join(one.fields)}" if one.fields else ""
        console.print(f"  {SIGNS[one.change]} {one.what} [bold]{escape(one.name)}[/] {one.change}{escape(fields)}")
    if all(one.change == "unchanged" for one in found):
        console.print("Nothing to do.")


def _ask(count: int) -> bool:
    if not sys.stdin.isatty():
        Console().print("Nothing was saved: nobody is there to ask. Add --yes.")
        return False
    return Confirm.ask(f"Save {count} of them?", default=False)


if __name__ == "__main__":
    sys.exit(main())
