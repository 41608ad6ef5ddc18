"""What the commands share: options, arguments, opening a model's fleet, and printing JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lockstep.errors import ConfigError, LockstepError

if TYPE_CHECKING:
    from lockstep.config import AgentNeeds, Config
    from lockstep.operations.fleet import Fleet


@dataclass
class Options:
    """Options of every command, set once a process."""

    config: Path | None = None
    json: bool = False


options = Options()


def complete_model(incomplete: str) -> list[str]:
    """Configured models that begin so, for the shell."""
    from lockstep.config import load

    try:
        return [name for name in load(options.config).models if name.startswith(incomplete)]
    except LockstepError:
        return []


Model = Annotated[str, typer.Argument(help="Name of the registered model.", autocompletion=complete_model)]
WhichVersion = Annotated[str, typer.Argument(help="MLflow number, alias, or 8 or more digits of the digest.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def load_config(agent: AgentNeeds | None = None) -> Config:
    """The configuration that this process was pointed at; `agent` is as for `lockstep.config.load`."""
    from lockstep.config import AgentNeeds, load

    return load(options.config, agent=agent or AgentNeeds.NOTHING)


@contextmanager
def opened(model: str, quiet: bool) -> Iterator[Fleet]:
    """The model's fleet, with progress shown unless `quiet` (which `--json` means)."""
    from lockstep import terminal
    from lockstep.operations.fleet import open_fleet

    options.json = quiet
    with terminal.progress(quiet=quiet) as observer:
        yield open_fleet(load_config(), model, observer=observer)


def run_module(module: str, *arguments: str) -> NoReturn:
    """Run what lies beside the package in a checkout (it may import Prefect; this package does not)."""
    from importlib.util import find_spec

    found = find_spec(module.partition(".")[0])
    if found is None or not found.submodule_search_locations:
        raise ConfigError(
            f"{module} is not here: the wheel ships the command line alone",
            hint="run this command from a checkout or an image that holds flows/, tasks/, blocks/ and demo/",
        )
    place = str(Path(found.submodule_search_locations[0]).resolve().parent)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([place, *filter(None, known)])}
    sys.stdout.flush()
    # In this process's place, so that signals reach what has servers to stop. Not from the current folder (-P): a
    # user's own flows/ or demo/ there would be taken for Lockstep's.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *arguments], environment)  # noqa: S606 - no shell


def parse_steps(text: str | None) -> tuple[int, ...] | None:
    """Per cents from `--steps`; None when it is left out."""
    if text is None:
        return None
    from lockstep.rules.rollout import plan_stages

    try:
        steps = tuple(int(part) for part in text.split(","))
        plan_stages(("cloud",), steps)
    except (ValueError, LockstepError):
        raise typer.BadParameter(
            f"--steps takes whole per cents that rise to 100, such as 5,25,50,100, not {text!r}"
        ) from None
    return steps


def emit(answer: object) -> None:
    """One JSON document on standard output."""
    from lockstep import terminal

    terminal.emit(answer)
