"""Commands about versions: register, list, lock, replicate, build an image for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.integrity import Accept
from lockstep.commands.options import (
    AsJson,
    DryRun,
    Model,
    WhichVersion,
    emit,
    load_config,
    opened,
    options,
)
from lockstep.errors import RefusedError

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet
    from lockstep.rules.state import Version

Source = Annotated[str, typer.Argument(help="runs:/RUN/PATH, models:/m-ID, or a folder with an MLflow model.")]


def register(
    model: Model,
    source: Source,
    code: Annotated[Path | None, typer.Option(help="Folder in the git repository that trained it.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Training data: PATH, or URI[@SNAPSHOT]=PATH of a copy. May be repeated.")
    ] = None,
    parent: Annotated[
        list[str] | None, typer.Option(help="Version that it was made from: number, alias or digest. May be repeated.")
    ] = None,
    lock: Annotated[
        Path | None, typer.Option(help="Its hash-pinned requirements, where the model does not bring its own.")
    ] = None,
    platform: Annotated[str, typer.Option(help="Platform that it is served on.")] = "linux/amd64",
    as_json: AsJson = False,
) -> None:
    """Seal a trained model as a version: its bytes, code, data and environment, signed and kept in MLflow."""
    from lockstep.operations.journal import record, sealed
    from lockstep.operations.register import register as run

    with opened(model, as_json) as fleet, record(fleet, "register", None, source=source) as outcome:
        version = run(
            fleet.registry,
            model,
            source,
            keys=fleet.keys,
            code=code,
            data=data or (),
            parents=parent or (),
            lock=lock,
            images={cloud.name: cloud.image for cloud in fleet.clouds},
            platform=platform,
            progress=lambda text, done, total: fleet.say(text, "", done, total),
        )
        manifest = fleet.registry.manifest(version)
        outcome.update(sealed(version, manifest))
    if as_json:
        named = {"model": version.model, "version": version.label, "run_id": version.run_id}
        emit({**named, "digest": version.digest, "content": manifest.content})
    else:
        typer.echo(f"{version.model} version {version.label}  {version.digest}")


def versions(model: Model, as_json: AsJson = False) -> None:
    """List the sealed versions of a model and what becomes of them; while MLflow cannot be asked, as last known."""
    from lockstep import terminal
    from lockstep.operations.desired import read_known

    with opened(model, as_json) as fleet:
        found = read_known(fleet)
        known = found.record
        desired = known.desired
        roles = {
            version.label: role
            for role, version in (
                ("fallback", desired.fallback),
                ("challenger", desired.challenger),
                ("champion", desired.champion),
            )
            if version is not None
        }
        rows: list[dict[str, str]] = []
        for one in known.versions:
            version = one.version
            rows.append(
                {
                    "version": version.label,
                    "digest": version.digest,
                    "content": _content(fleet, version) if as_json and not found.silent else "",
                    "run_id": version.run_id,
                    "role": roles.get(version.label, ""),
                    "verdict": one.verdict,
                    "known_good": one.known_good,
                    "condemned": one.condemned,
                    "from_memory": found.silent,
                }
            )
    if as_json:
        emit(rows)
    else:
        headings = ("version", "digest", "role", "verdict", "known good since", "condemned")
        shown = [
            [
                row["version"],
                row["digest"][:12],
                row["role"],
                row["verdict"],
                _since(row["known_good"]),
                row["condemned"],
            ]
            for row in rows
        ]
        terminal.show_rows(f"{model}: versions", headings, shown)
        if found.silent:
            typer.echo(f"this is from memory, as was last known; MLflow cannot be asked: {found.silent}")


def _since(instant: str) -> str:
    """A narrow table breaks it between day and time, and nowhere else."""
    return instant.replace("T", " ")


def _content(fleet: Fleet, version: Version) -> str:
    """Digest of the files alone; "" where the manifest is not what was sealed, which `lockstep verify` explains."""
    try:
        return fleet.registry.manifest(version).content
    except RefusedError:
        return ""


def lock(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("requirements.lock"),
    platform: Annotated[str, typer.Option(help="Platform that the model is served on.")] = "linux/amd64",
    as_json: AsJson = False,
) -> None:
    """Resolve a model's requirements, and what they need in turn, to exact versions with hashes (uses uv)."""
    from lockstep.operations.lock import lock_source
    from lockstep.stores.registry import Registry

    options.json = as_json

    def registry() -> Registry:
        config = load_config()
        return Registry(config.mlflow.tracking_uri, config.mlflow.timeout)

    lines = lock_source(registry, source, platform, out)
    emit({"lock": str(out), "packages": len(lines)}) if as_json else typer.echo(f"{out}: {len(lines)} packages")


def replicate(
    model: Model,
    version: WhichVersion,
    repair: Annotated[bool, typer.Option(help="Put the right bytes back where a replica was changed.")] = False,
    accept_broken_seal: Accept = "",
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
            lines = [f"{cloud}: {what}" for cloud, what in missing.items()] or [
                "present on every cloud (no bytes were read: `lockstep verify` reads them)"
            ]
            emit(missing) if as_json else typer.echo("\n".join(lines))
            return
        records = run(fleet, found, repair=repair, accept_broken_seal=accept_broken_seal)
    if as_json:
        emit({record.cloud: {"resource": record.resource, "console": record.console_url} for record in records})
    else:
        for record in records:
            typer.echo(f"{record.cloud:>6}  {record.resource}")


def image(
    model: Model,
    version: Annotated[
        str, typer.Argument(help="MLflow number, alias, digest, or the SOURCE of a model that is not registered yet.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("image"),
    lock: Annotated[Path | None, typer.Option(help="Hash-pinned requirements of a SOURCE without its own.")] = None,
    platform: Annotated[str, typer.Option(help="Platform that a SOURCE is to be served on.")] = "linux/amd64",
) -> None:
    """Write the Dockerfile and the lock of a version's serving image, one for all registries."""
    from lockstep.operations.image import write_image, write_source_image
    from lockstep.operations.origin import is_source

    with opened(model, quiet=False) as fleet:
        if is_source(version):
            written = write_source_image(fleet.registry, model, version, out, lock, platform)
        else:
            written = write_image(fleet.registry, fleet.registry.find(model, version), out)
        for path in written:
            typer.echo(str(path))
