"""The command line. Runs an operation directly in its own process, without any server but MLflow and the clouds.

Exit statuses: 0 done, 1 unexpected, 2 wrong usage, 3 refused or configuration wrong, 4 not found, 5 a cloud or MLflow
could not do it, 6 clouds are not in step, 7 judged bad: a canary was taken back, or `monitor` found a
breach in what serves (rolled back or not), 130 interrupted: a rollout takes its canary back first, a rollback or
reconcile is left open for the next to go on with.
"""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, cast

import typer
from typer.core import TyperGroup

from lockstep.commands.agent import agent
from lockstep.commands.alerts import alerts
from lockstep.commands.audit import audit
from lockstep.commands.condemning import condemn, lift
from lockstep.commands.history import at, decision, log
from lockstep.commands.holding import hold, release
from lockstep.commands.integrity import verify
from lockstep.commands.keys import keys
from lockstep.commands.ledger import ledger
from lockstep.commands.options import options
from lockstep.commands.reconciling import reconcile
from lockstep.commands.serving import deploy, monitor, rollback, status
from lockstep.commands.setup import check, demo, init, schema
from lockstep.commands.versions import image, lock, register, replicate, versions
from lockstep.errors import Interruption, LockstepError, StoppedError, UsageError

#: What Typer raises for a wrong command line: the base of the one such error that has a public name.
MISUSE: Final = cast("type[Exception]", typer.BadParameter.__bases__[0])


class Commands(TyperGroup):
    """All commands: an interrupt is told as an error is, and not only as a status; with --json so is wrong usage."""

    def make_context(self, info_name: str | None, args: Sequence[str], *rest: Any, **extra: Any) -> Any:
        """Read what stands before the command's name."""
        options.json = "--json" in takewhile(lambda word: word != "--", args)
        with misuse_as_json(lambda: str(info_name)):
            return super().make_context(info_name, list(args), *rest, **extra)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Carry a command out."""
        try:
            with misuse_as_json(lambda: " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand)))):
                return super().invoke(ctx)
        except Interruption as told:
            raise StoppedError(told.problem, hint=told.hint, facts=told.facts) from told
        except KeyboardInterrupt as interrupt:
            raise StoppedError("interrupted") from interrupt


@contextmanager
def misuse_as_json(command: Callable[[], str]) -> Iterator[None]:
    """Raise wrong usage as an error that `main` tells like any other; a person gets Typer's own words for it."""
    asked = options.json  # before a command is run: of one that is not understood nothing has set it
    try:
        yield
    except MISUSE as error:
        if not asked:
            raise
        told: Any = error
        named = told.ctx.command_path if told.ctx else command()
        usage = {"usage": told.ctx.get_usage().removeprefix("Usage: ")} if told.ctx else {}
        raise UsageError(told.format_message(), hint=f"{named} --help says how it is called", facts=usage) from error


app = typer.Typer(
    cls=Commands,
    name="lockstep",
    help="AI model versioning and rollback across AWS, Azure and Google Cloud, in step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    """Print the installed release and end."""
    if asked:
        typer.echo(f"lockstep {importlib.metadata.version('lockstep')}")
        raise typer.Exit


@app.callback()
def common(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (default: $LOCKSTEP_CONFIG or lockstep.yaml).")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the release and exit.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command."""
    options.config = config


COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    *(register, versions, replicate, deploy, status, monitor, rollback, reconcile, condemn, lift, hold, release),
    *(verify, log, at, decision, audit),
    *(lock, image, check, schema, init, demo, agent),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(alerts, name="alerts")
app.add_typer(keys, name="keys")
app.add_typer(ledger, name="ledger")


def interrupt(*_: object) -> NoReturn:
    """Handler of a signal; not by way of SIGINT, which a job in the background may have been started to ignore."""
    raise KeyboardInterrupt


@functools.cache
def command_line() -> Any:
    """All commands with their options, read from their signatures once a process."""
    return typer.main.get_command(app)


def main() -> None:
    """Entry point of the `lockstep` command."""
    import logging
    import signal

    from lockstep import terminal
    from lockstep.streams import heedless

    # A rollout that a scheduler or a pipeline ends takes its canary back, as after Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt)

    # Azure's libraries print a line of their own for each error that is raised, and reported, anyway.
    logging.getLogger("azure").setLevel(logging.ERROR + 1)
    with heedless() as told:
        try:
            _run()
        finally:
            lost = told.lost()
            if lost is not None:
                terminal.show_lost(lost, as_json=options.json)


def _run() -> None:
    """Carry the command out; ends with its exit status."""
    from lockstep import terminal
    from lockstep.operations.lastly import told_first

    try:
        with told_first():
            try:
                command_line()()
            except LockstepError as error:
                terminal.show_error(error, as_json=options.json)
                sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
