"""The command line. Runs an operation directly in its own process, without any server but MLflow and the clouds.

Exit statuses: 0 done, 1 unexpected, 2 wrong usage, 3 refused or configuration wrong, 4 not found, 5 a cloud or MLflow
could not do it, 6 clouds are not in step, 7 judged bad: a canary was taken back, or `monitor` found a
breach in what serves (rolled back or not).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.errors import ConfigError, LockstepError

if TYPE_CHECKING:
    from lockstep.clouds.base import Cloud
    from lockstep.config import Config
    from lockstep.operations.fleet import Fleet
    from lockstep.operations.monitor import Report

app = typer.Typer(
    name="lockstep",
    help="AI model versioning and rollback across AWS, Azure and Google Cloud, in step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@dataclass
class _Options:
    config: Path | None = None
    json: bool = False


options = _Options()


def _complete_model(incomplete: str) -> list[str]:
    from lockstep.config import load

    try:
        return [name for name in load(options.config).models if name.startswith(incomplete)]
    except LockstepError:
        return []


Model = Annotated[str, typer.Argument(help="Name of the registered model.", autocompletion=_complete_model)]
WhichVersion = Annotated[str, typer.Argument(help="MLflow number, alias, or 8 or more digits of the digest.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def common(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file [default: $LOCKSTEP_CONFIG or lockstep.yaml].")
    ] = None,
) -> None:
    """Options of every command."""
    options.config = config


@app.command()
def register(
    model: Model,
    source: Annotated[str, typer.Argument(help="runs:/RUN/PATH, models:/m-ID, or a folder with an MLflow model.")],
    as_json: AsJson = False,
) -> None:
    """Seal a trained model as a version in MLflow."""
    from lockstep.operations.register import register as run

    with _opened(model, as_json) as fleet:
        version = run(
            fleet.registry, model, source, progress=lambda text, done, total: fleet.say(text, "", done, total)
        )
    if as_json:
        _emit({"model": version.model, "version": version.label, "digest": version.digest, "run_id": version.run_id})
    else:
        typer.echo(f"{version.model} version {version.label}  {version.digest}")


@app.command()
def versions(model: Model, as_json: AsJson = False) -> None:
    """List the sealed versions of a model and what becomes of them."""
    from lockstep import terminal
    from lockstep.operations.canary import CONDEMNED_TAG, VERDICT_TAG

    with _opened(model, as_json) as fleet:
        desired = fleet.registry.desired(model)
        roles = {
            version.label: role
            for role, version in (
                ("fallback", desired.fallback),
                ("challenger", desired.challenger),
                ("champion", desired.champion),
            )
            if version is not None
        }
        rows = []
        for version in fleet.registry.versions(model):
            tags = fleet.registry.tags(version)
            rows.append(
                {
                    "version": version.label,
                    "digest": version.digest,
                    "role": roles.get(version.label, ""),
                    "verdict": tags.get(VERDICT_TAG, ""),
                    "condemned": tags.get(CONDEMNED_TAG, ""),
                }
            )
    if as_json:
        _emit(rows)
    else:
        headings = ("version", "digest", "role", "verdict", "condemned")
        shown = [[row["version"], row["digest"][:12], row["role"], row["verdict"], row["condemned"]] for row in rows]
        terminal.show_rows(f"{model}: versions", headings, shown)


@app.command()
def replicate(
    model: Model,
    version: WhichVersion,
    repair: Annotated[bool, typer.Option(help="Put the right bytes back where a replica was changed.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Bring a version to every cloud of the fleet, verified byte for byte, and register it there."""
    from lockstep.operations.replicate import missing_replicas
    from lockstep.operations.replicate import replicate as run

    with _opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        if dry_run:
            missing = missing_replicas(fleet, found)
            lines = [f"{cloud}: {what}" for cloud, what in missing.items()] or ["nothing to do"]
            _emit(missing) if as_json else typer.echo("\n".join(lines))
            return
        records = run(fleet, found, repair=repair)
    if as_json:
        _emit({record.cloud: {"resource": record.resource, "console": record.console_url} for record in records})
    else:
        for record in records:
            typer.echo(f"{record.cloud:>6}  {record.resource}")


@app.command()
def deploy(
    model: Model,
    version: WhichVersion,
    steps: Annotated[str | None, typer.Option(help="Per cents for the canary, such as 5,25,50,100.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deploy a version as a canary on all clouds and promote it when every step passes."""
    from lockstep import terminal
    from lockstep.operations.canary import canary_deploy, check_deployable
    from lockstep.operations.watch import describe
    from lockstep.rules.rollout import plan_stages

    with _opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        wanted = _steps(steps)
        if dry_run:
            check_deployable(fleet, found)
            names = [cloud.name for cloud in fleet.clouds]
            stages = [stage.title for stage in plan_stages(names, wanted or fleet.settings.rollout.steps)]
            stable = fleet.registry.desired(model).champion
            stages = stages if stable and stable.digest != found.digest else ["100 % at once: nothing else serves"]
            _emit({"stages": stages}) if as_json else typer.echo("\n".join(stages))
            return
        done = canary_deploy(fleet, found, steps=wanted)
    if as_json:
        stages_done = [describe(report) for report in done.stages]
        _emit({"version": found.label, "stages": stages_done, "after": terminal.state_as_json(done.after)})
    else:
        terminal.show_state(done.after)
        typer.echo(f"{found} serves everywhere")


@app.command()
def status(
    model: Model,
    prove: Annotated[bool, typer.Option(help="Ask every endpoint for real answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what should serve and what does, on every cloud; exits with 6 when they differ."""
    from lockstep import terminal
    from lockstep.errors import SplitError
    from lockstep.operations.status import status as run

    with _opened(model, as_json) as fleet:
        found = run(fleet, prove=prove)
    if as_json:
        champion = found.desired.champion
        _emit(
            {
                "model": model,
                "champion": champion.label if champion else None,
                "digest": champion.digest if champion else None,
                "clouds": terminal.state_as_json(found.state),
                "answers": {
                    p.cloud: [{"version": a.label, "digest": a.digest} for a in p.answers] for p in found.proofs
                },
                "out_of_step": found.out_of_step,
                "warnings": list(found.warnings),
            }
        )
    else:
        terminal.show_status(found)
    if found.out_of_step:
        raise typer.Exit(SplitError.exit_status)


@app.command()
def monitor(
    model: Model,
    act: Annotated[bool, typer.Option(help="Roll back on a breach.")] = True,
    as_json: AsJson = False,
) -> None:
    """Judge what serves by each cloud's own metrics and the model's outcomes; roll back on a breach."""
    from lockstep.errors import VerdictError
    from lockstep.operations.monitor import monitor as run
    from lockstep.rules.judge import Decision

    with _opened(model, as_json) as fleet:
        report = run(fleet, act=act)
    back = report.rolled_back
    if as_json:
        _emit(
            {
                "verdict": report.verdict.decision.value,
                "reasons": list(report.verdict.reasons),
                "numbers": dict(report.verdict.numbers),
                "warnings": list(report.warnings),
                "rolled_back_to": back.target.label if back else None,
            }
        )
    else:
        _show_report(report)
    if report.verdict.decision is Decision.FAIL:
        raise typer.Exit(VerdictError.exit_status)


def _show_report(report: Report) -> None:
    from lockstep import terminal

    back = report.rolled_back
    rows = [
        [m.cloud, m.slot, m.requests, m.errors, "-" if m.latency_p95 is None else f"{m.latency_p95:.3f}"]
        for m in report.metrics
    ]
    terminal.show_rows(
        f"{report.model}: the last minutes", ("cloud", "slot", "requests", "errors", "p95 seconds"), rows
    )
    typer.echo(f"{report.verdict.decision.value}: {'; '.join(report.verdict.reasons)}")
    for warning in report.warnings:
        typer.echo(f"note: {warning}")
    if back:
        typer.echo(f"rolled back to {back.target} in {back.seconds:.1f} s")


@app.command()
def rollback(
    model: Model,
    to: Annotated[
        str | None,
        typer.Option(help="Version to go back to [default: the champion while a canary runs, else the fallback]."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; goes into the ledger and onto the version left behind.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take every cloud back to the last known-good version, or to a named one, at once."""
    from lockstep import terminal
    from lockstep.operations.rollback import plan_rollback
    from lockstep.operations.rollback import rollback as run

    if len(reason) > 1000:
        raise typer.BadParameter("a reason has at most 1000 characters")
    with _opened(model, as_json) as fleet:
        named = fleet.registry.find(model, to) if to else None
        if dry_run:
            planned = plan_rollback(fleet, named)
            target, unreachable = planned.way.target, dict(planned.before.unreachable)
            if as_json:
                _emit({"target": target.label, "plan": list(planned.plan.explain()), "unreachable": unreachable})
            else:
                typer.echo(f"target: {target}")
                terminal.show_plan(planned.plan)
                for cloud, why in unreachable.items():
                    typer.echo(f"{cloud}: unreachable: {why}")
            return
        done = run(fleet, to=named, reason=reason)
    if as_json:
        _emit(
            {
                "target": done.target.label,
                "digest": done.target.digest,
                "left": [version.label for version in done.left],
                "seconds": done.seconds,
                "clouds": dict(done.result.seconds),
            }
        )
    else:
        terminal.show_state(done.after)
        what = "rolled back to" if done.left or done.plan.changes else "already on"
        typer.echo(f"{what} {done.target}, verified on every cloud after {done.seconds:.1f} s")


@app.command()
def image(
    model: Model,
    version: WhichVersion,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("image"),
) -> None:
    """Write the Dockerfile and pinned requirements of a version's serving image, one for all registries."""
    from lockstep.operations.image import write_image

    with _opened(model, quiet=False) as fleet:
        for path in write_image(fleet.registry, fleet.registry.find(model, version), out):
            typer.echo(str(path))


@app.command()
def check(as_json: AsJson = False) -> None:
    """Prove that MLflow, every cloud and its store can be reached with the credentials at hand."""
    from lockstep.stores.registry import Registry

    options.json = as_json
    config = _load()
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
        _emit({"problems": problems})
    if problems:
        raise typer.Exit(5)


@app.command()
def schema() -> None:
    """Print the JSON Schema of lockstep.yaml, for editors."""
    from lockstep.config import schema as build

    _emit(build())


@app.command()
def init(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Save lockstep.yaml to a Prefect server as blocks and deployments; shows the difference first."""
    import os

    options.json = as_json
    _load()  # a mistake in the file is told before anything is started
    chosen = options.config or Path(os.environ.get("LOCKSTEP_CONFIG", "lockstep.yaml"))
    _run_module("flows.init", "--config", str(chosen), *(["--yes"] if yes else []), *(["--json"] if as_json else []))


@app.command()
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
    _run_module("demo", *arguments)


def main() -> None:
    """Entry point of the `lockstep` command."""
    import logging

    from lockstep import terminal

    # Azure's libraries print a line of their own for each error that is raised, and reported, anyway.
    logging.getLogger("azure").setLevel(logging.ERROR + 1)
    try:
        app()
    except LockstepError as error:
        terminal.show_error(error, as_json=options.json)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


def _check_cloud(cloud: Cloud) -> None:
    from lockstep.operations.fleet import open_replicas

    cloud.check()
    open_replicas(cloud).check_access()


def _load() -> Config:
    from lockstep.config import load

    return load(options.config)


@contextmanager
def _opened(model: str, quiet: bool) -> Iterator[Fleet]:
    """The model's fleet, with progress shown unless `quiet` (which `--json` means)."""
    from lockstep import terminal
    from lockstep.operations.fleet import open_fleet

    options.json = quiet
    with terminal.progress(quiet=quiet) as observer:
        yield open_fleet(_load(), model, observer=observer)


def _run_module(module: str, *arguments: str) -> None:
    """Run what lies beside the package in a checkout (it may import Prefect; this package does not)."""
    import subprocess
    from importlib.util import find_spec

    if find_spec(module.partition(".")[0]) is None:
        raise ConfigError(
            f"{module} is not here: the wheel ships the command line alone",
            hint="run this command from a checkout or an image that holds flows/, tasks/, blocks/ and demo/",
        )
    try:
        status = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


def _steps(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--steps takes whole per cents such as 5,25,50,100, not {text!r}") from None


def _emit(answer: object) -> None:
    from lockstep import terminal

    terminal.emit(answer)


if __name__ == "__main__":
    main()
