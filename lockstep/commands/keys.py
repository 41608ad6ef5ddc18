"""Commands about the keys that sign the ledger and the versions: create, show, rotate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.options import AsJson, emit, load_config, options

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockstep.config import Config
    from lockstep.stores.ledger import Ledger

keys = typer.Typer(help="The keys that sign the ledger and the versions.", no_args_is_help=True)


@keys.command()
def create(as_json: AsJson = False) -> None:
    """Make the keys that are missing; never overwrites one."""
    options.json = as_json
    made = make_keys(load_config())
    if as_json:
        emit({"created": [str(path) for path in made]})
    elif not made:
        typer.echo("nothing to do: all keys are there")


@keys.command()
def show(as_json: AsJson = False) -> None:
    """Print the public keys that others check with, the current one first; never a private one."""
    from lockstep.stores.keys import fingerprint, load_keys

    options.json = as_json
    config = load_config()
    found = load_keys(config.keys, config.ledger.origin)
    verifiers = [verifier.vkey for verifier in found.verifiers]
    if as_json:
        emit(
            {
                "folder": config.keys.folder,
                "ledger": found.ledger.verifier.vkey if found.ledger else None,
                "verifiers": verifiers,
                "signing": fingerprint(found.signing_public[0]) if found.signing else None,
                "signing_public": [pem.decode() for pem in found.signing_public],
                "problems": found.problems,
            }
        )
        return
    for number, vkey in enumerate(verifiers):
        typer.echo(f"ledger    {vkey}{'' if number == 0 and found.ledger else '  (old)'}")
    for number, pem in enumerate(found.signing_public):
        typer.echo(f"versions  sha256:{fingerprint(pem)}{'' if number == 0 and found.signing else '  (old)'}")
    for problem in found.problems:
        typer.echo(f"problem: {problem}", err=True)


@keys.command()
def rotate(
    signing: Annotated[bool, typer.Option("--signing", help="The versions' key instead of the ledger's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a new key in the place of the ledger's; what was signed before still verifies. The ledger records it."""
    from lockstep.operations.fleet import default_actor
    from lockstep.operations.key_events import LEDGER_KEY, SIGNING_KEY, named_keys, record_rotated
    from lockstep.stores.keys import fingerprint, load_keys, rotate_ledger_key, rotate_signing_key

    options.json = as_json
    config = load_config()
    key = SIGNING_KEY if signing else LEDGER_KEY
    old = named_keys(load_keys(config.keys, config.ledger.origin)).get(key, "")
    if signing:
        new = f"sha256:{fingerprint(rotate_signing_key(config.keys))}"
    else:
        new = rotate_ledger_key(config.keys, config.ledger.origin).vkey
    _record(config, lambda ledger: record_rotated(ledger, key, old, new, default_actor()))
    if as_json:
        emit({"new": new})
    else:
        typer.echo(f"{'versions ' if signing else 'ledger   '} {new}")


def make_keys(config: Config) -> tuple[Path, ...]:
    """Make what is missing and record it, saying so on standard error; returns the new files."""
    from lockstep.operations.fleet import default_actor
    from lockstep.operations.key_events import record_created
    from lockstep.stores.keys import create_keys, load_keys

    made = create_keys(config.keys, config.ledger.origin)
    for path in made:
        sys.stderr.write(f"created {path}\n")
    keys = load_keys(config.keys, config.ledger.origin)
    _record(config, lambda ledger: record_created(ledger, keys, default_actor()))
    return made


def _record(config: Config, write: Callable[[Ledger], object]) -> None:
    """The keys are there by now, whatever becomes of their entries: what goes wrong is told and stops nothing."""
    from lockstep.commands.ledger import open_configured
    from lockstep.errors import LockstepError

    opened = open_configured(config)
    try:
        write(opened)
    except LockstepError as error:
        sys.stderr.write(f"the ledger does not tell of the keys: {error.reason}; `lockstep keys create` repeats it\n")
    finally:
        opened.close()
    for problem in opened.problems:
        sys.stderr.write(f"ledger: {problem}\n")
