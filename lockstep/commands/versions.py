"""Commands about versions: register, list, replicate, build an image for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep.commands.options import (
    AsJson,
    DryRun,
    Model,
    WhichVersion,
    emit,
    opened,
)


def register(
    model: Model,
    source: Annotated[str, typer.Argument(help="runs:/RUN/PATH, models:/m-ID, or a folder with an MLflow model.")],
    as_json: AsJson = False,
) -> None:
    """Seal a trained model as a version in MLflow."""
    from lockstep.operations.journal import record, sealed
    from lockstep.operations.register import register as run

    with opened(model, as_json) as fleet, record(fleet, "register", None, source=source) as outcome:
        version = run(
            fleet.registry, model, source, progress=lambda text, done, total: fleet.say(text, "", done, total)
        )
        outcome.update(sealed(version, fleet.registry.manifest(version)))
    if as_json:
        emit({"model": version.model, "version": version.label, "digest": version.digest, "run_id": version.run_id})
    else:
        typer.echo(f"{version.model} version {version.label}  {version.digest}")


def versions(model: Model, as_json: AsJson = False) -> None:
    """List the sealed versions of a model and what becomes of them."""
    from lockstep import terminal
    from lockstep.operations.canary import CONDEMNED_TAG, VERDICT_TAG

    with opened(model, as_json) as fleet:
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
        emit(rows)
    else:
        headings = ("version", "digest", "role", "verdict", "condemned")
        shown = [[row["version"], row["digest"][:12], row["role"], row["verdict"], row["condemned"]] for row in rows]
        terminal.show_rows(f"{model}: versions", headings, shown)


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

    with opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        if dry_run:
            missing = missing_replicas(fleet, found)
            lines = [f"{cloud}: {what}" for cloud, what in missing.items()] or ["nothing to do"]
            emit(missing) if as_json else typer.echo("\n".join(lines))
            return
        records = run(fleet, found, repair=repair)
    if as_json:
        emit({record.cloud: {"resource": record.resource, "console": record.console_url} for record in records})
    else:
        for record in records:
            typer.echo(f"{record.cloud:>6}  {record.resource}")


def image(
    model: Model,
    version: WhichVersion,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("image"),
) -> None:
    """Write the Dockerfile and pinned requirements of a version's serving image, one for all registries."""
    from lockstep.operations.image import write_image

    with opened(model, quiet=False) as fleet:
        for path in write_image(fleet.registry, fleet.registry.find(model, version), out):
            typer.echo(str(path))
