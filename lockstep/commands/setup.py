"""Commands about the surroundings: check, describe the configuration, save it to Prefect, show it all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.keys import make_keys
from lockstep.commands.options import AsJson, emit, load_config, options, run_module
from lockstep.errors import CredentialsError

if TYPE_CHECKING:
    from lockstep.clouds.base import Cloud
    from lockstep.operations.permissions import Asked


def check(as_json: AsJson = False) -> None:
    """Prove that MLflow, clouds, stores and archives can be reached, and ask each cloud what the credentials may do."""
    from lockstep.operations.permissions import ask_permissions, models_by_cloud
    from lockstep.operations.running import Job, ThreadRunner
    from lockstep.stores.registry import Registry

    options.json = as_json
    config = load_config()
    registry = Registry(config.mlflow.tracking_uri, config.mlflow.timeout)
    clouds = [settings.connect(name) for name, settings in config.clouds.items()]
    attempts: dict[str, Callable[[], None]] = {"mlflow": registry.check}
    attempts |= {cloud.name: partial(_check_cloud, cloud) for cloud in clouds}
    reached = ThreadRunner().run([Job(name, f"check {name}", attempt, 0) for name, attempt in attempts.items()])
    errors = {outcome.cloud: outcome.error for outcome in reached if outcome.error is not None}
    problems = {name: error.reason for name, error in errors.items()}
    # A cloud that refuses the read is asked all the same: a missing permission may be why.
    willing = [cloud for cloud in clouds if isinstance(errors.get(cloud.name), CredentialsError | None)]
    answers = ask_permissions(willing, models_by_cloud(config))
    if as_json:
        emit({"problems": problems, "permissions": {name: one.as_json() for name, one in answers.items()}})
    else:
        for name in attempts:
            for line in _lines(problems.get(name, ""), answers.get(name)):
                typer.echo(f"{name:>6}  {line}")
    if problems:
        raise typer.Exit(5)
    if any(one.lacking for one in answers.values()):
        raise typer.Exit(3)


def _lines(problem: str, asked: Asked | None) -> tuple[str, ...]:
    """Why it cannot be reached, then what it does not grant; an error that keeps it from both is said once."""
    told = asked.told() if asked is not None and (asked.permissions is not None or not problem) else ()
    return ((problem, *told) if problem else told) or ("ok",)


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
    despite_permissions: Annotated[
        bool, typer.Option("--despite-permissions", help="Save although a cloud does not grant what is needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the keys that are missing, check permissions, save lockstep.yaml to Prefect; shows the difference first."""
    import os

    options.json = as_json
    make_keys(load_config())  # a mistake in the file is told before anything is started
    chosen = options.config or Path(os.environ.get("LOCKSTEP_CONFIG", "lockstep.yaml"))
    given = {"--yes": yes, "--despite-permissions": despite_permissions, "--json": as_json}
    run_module("flows.init", "--config", str(chosen), *(name for name, on in given.items() if on))


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
