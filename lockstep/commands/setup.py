"""Commands about the surroundings: check, describe the configuration, save it to Prefect, show it all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.keys import make_keys
from lockstep.commands.options import (
    AsJson,
    emit,
    load_config,
    options,
    run_module,
)
from lockstep.errors import LockstepError

if TYPE_CHECKING:
    from lockstep.clouds.base import Cloud


def check(as_json: AsJson = False) -> None:
    """Prove that MLflow, every cloud, its store and its archive can be reached with the credentials at hand."""
    from lockstep.stores.registry import Registry

    options.json = as_json
    config = load_config()
    problems: dict[str, str] = {}
    registry = Registry(config.mlflow.tracking_uri, config.mlflow.timeout)
    clouds = {name: settings.connect(name) for name, settings in config.clouds.items()}
    attempts: dict[str, Callable[[], None]] = {"mlflow": registry.check}
    attempts |= {name: partial(_check_cloud, cloud) for name, cloud in clouds.items()}
    for name, attempt in attempts.items():
        try:
            attempt()
        except LockstepError as error:
            problems[name] = error.reason
        if not as_json:
            typer.echo(f"{name:>6}  {problems.get(name, 'ok')}")
    if as_json:
        emit({"problems": problems})
    if problems:
        raise typer.Exit(5)


def _check_cloud(cloud: Cloud) -> None:
    from lockstep.operations.fleet import open_replicas

    cloud.check()
    open_replicas(cloud).check_access()
    archive = cloud.archive()
    if archive is not None:
        archive.protection()


def schema() -> None:
    """Print the JSON Schema of lockstep.yaml, for editors."""
    from lockstep.config import schema as build

    emit(build())


def init(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the keys that are missing, then save lockstep.yaml to a Prefect server; shows the difference first."""
    import os

    options.json = as_json
    make_keys(load_config())  # a mistake in the file is told before anything is started
    chosen = options.config or Path(os.environ.get("LOCKSTEP_CONFIG", "lockstep.yaml"))
    run_module("flows.init", "--config", str(chosen), *(["--yes"] if yes else []), *(["--json"] if as_json else []))


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for what was measured.", dir_okay=False)
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="SVG file for a picture of the traffic.", dir_okay=False)] = None,
) -> None:
    """Show the whole life of a model on three clouds on this machine: deploy, canary, promote, alert, rollback."""
    arguments = ["--keep"] if keep else []
    arguments += ["--json", str(json_file)] if json_file else []
    arguments += ["--picture", str(picture)] if picture else []
    run_module("demo", *arguments)
