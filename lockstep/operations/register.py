"""Make a trained model a sealed version: look at what MLflow has, refuse what no cloud could serve, seal the rest."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import rfc8785
import yaml

from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.origin import Origin, Progress, find_origin, ignore_progress, upload
from lockstep.rules import manifest as sealed
from lockstep.rules.manifest import FileEntry, Manifest, Tracking, number_text
from lockstep.rules.requirements import HASH, bare, requirement_lines, unpinned
from lockstep.rules.state import Version
from lockstep.stores.folders import measure_files
from lockstep.stores.mlflow_server import ONLY_IN_DOWNLOADS
from lockstep.stores.registry import Registry

# The narrowest of the clouds' rules: an Azure ML endpoint is named after the model.
MODEL_NAME: Final = re.compile(r"(?=.{3,32}$)[A-Za-z](?:-?[A-Za-z0-9])*")
EXPERIMENT: Final = "lockstep"
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Environment:
    """What the model was trained with: the interpreter's version and the lines of its requirements file."""

    python: str
    requirements: tuple[str, ...]


def register(
    registry: Registry,
    model: str,
    source: str,
    *,
    experiment: str = EXPERIMENT,
    progress: Progress = ignore_progress,
) -> Version:
    """Register a trained model as a sealed version of `model`, and return it.

    `source` is `runs:/<run_id>/<path>`, a logged model `models:/m-<id>`, or a local folder in MLflow's format, for
    which a run in `experiment` is made that holds the files. The same source gives the same version each time;
    `progress` is told so, as it is of everything that takes a while: text, bytes done, bytes in all (0: unknown).

    Raises RefusedError, naming what to change, for a model that cannot be served or built again elsewhere: a name
    that a cloud does not take, no signature, requirements that do not name exact versions. Nothing is changed then.
    """
    check_model_name(model)
    origin = find_origin(registry, source)
    with _files_of(registry, origin, progress) as folder:
        description = read_mlmodel(folder, source)
        check_signature(description, source)
        environment = read_environment(folder, description, source, local=origin.folder is not None)
        files = _measure(folder, model, progress)
        if origin.folder is not None or not origin.run_id:
            content = hashlib.sha256(repr((model, origin.uri, files)).encode()).hexdigest()
            origin = upload(registry, model, origin, files, content, experiment, progress)
    parameters, metrics = _training(registry, origin.run_id)
    manifest = Manifest(
        name=model,
        files=files,
        mlflow=Tracking(
            run_id=origin.run_id,
            model_id=origin.uri.removeprefix("models:/") if origin.uri.startswith("models:/m-") else "",
            source=origin.uri,
            mlflow_version=str(description.get("mlflow_version") or ""),
        ),
        params=parameters,
        metrics=metrics,
        signature_sha256=hashlib.sha256(rfc8785.dumps(description["signature"])).hexdigest(),
        env=sealed.Environment(python=environment.python),
    )
    known = _known(registry, model)
    version = registry.seal(manifest, origin.uri, origin.run_id)
    registry.manifest(version)  # read back: what was written is what was meant
    verb = "was already registered" if version in known else "registered"
    progress(f"{version} {verb}", manifest.size, manifest.size)
    return version


def check_model_name(model: str) -> None:
    """Refuse a name that one of the clouds would not take."""
    if not MODEL_NAME.fullmatch(model):
        raise RefusedError(
            f"model name {model!r} would not be taken by every cloud",
            hint="use 3 to 32 letters, digits and single dashes, a letter first and no dash at the end"
            f"{_suggested(model)}",
        )


def read_mlmodel(folder: Path, source: str) -> Mapping[str, Any]:
    """The folder's MLmodel document; refuses a folder that is not a model, or not one that MLflow can serve."""
    path = folder / "MLmodel"
    if not any(folder.iterdir()):
        raise RefusedError(
            f"{source} is empty", hint="log the model again: mlflow.<flavor>.log_model(model, name=...) inside a run"
        )
    if not path.is_file():
        raise RefusedError(
            f"{source} is not an MLflow model: it has no MLmodel file",
            hint="name the folder that mlflow.<flavor>.save_model or log_model wrote, not one above or below it",
        )
    try:
        description = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError(f"{source}: its MLmodel file is not YAML: {error}", hint="save the model again") from error
    flavors = description.get("flavors") if isinstance(description, dict) else None
    if not isinstance(flavors, dict) or "python_function" not in flavors:
        raise RefusedError(
            f"{source} cannot be served: its MLmodel file has no python_function flavor",
            hint="save it with a flavor that has one, or wrap it: mlflow.pyfunc.log_model(python_model=...)",
        )
    return dict(description)


def check_signature(description: Mapping[str, Any], source: str) -> None:
    """Refuse a model that does not say which columns it takes: a wrong request could not be told from a right one."""
    signature = description.get("signature")
    if not isinstance(signature, dict) or not signature.get("inputs"):
        raise RefusedError(
            f"{source} has no signature",
            hint=f"mlflow.{_flavor(description)}.log_model(..., signature=mlflow.models.infer_signature(X, "
            "model.predict(X))), or mlflow.models.set_signature(<model URI>, signature) for one that is logged",
        )


def read_environment(folder: Path, description: Mapping[str, Any], source: str, *, local: bool) -> Environment:
    """Interpreter and requirements of the model; refuses missing files and lines that leave the version open."""
    fix = _pin_hint(description, (), local=local)
    for name in ("requirements.txt", "python_env.yaml"):
        if not (folder / name).is_file():
            raise RefusedError(f"{source} has no {name}, so nobody can build its environment again", hint=fix)
    try:
        lines = requirement_lines((folder / "requirements.txt").read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RefusedError(f"{source}: its requirements.txt is not UTF-8 text", hint=fix) from error
    open_ended = tuple(bare(line) for line in unpinned(lines))
    if open_ended or not lines:
        raise RefusedError(
            f"{source}: requirements without one exact version: {', '.join(open_ended) or 'the file is empty'}",
            hint=_pin_hint(description, lines, local=local),
        )
    hashed = [line for line in lines if HASH.search(line)]
    if hashed and len(hashed) != len(lines):
        raise RefusedError(
            f"{source}: some requirements carry hashes and some do not: "
            f"{', '.join(line for line in lines if line not in hashed)}",
            hint="pip takes all or none: pip-compile --generate-hashes -o requirements.txt requirements.in",
        )
    try:
        described = yaml.safe_load((folder / "python_env.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError(f"{source}: its python_env.yaml is not YAML: {error}", hint=fix) from error
    python = described.get("python", "") if isinstance(described, dict) else ""
    if not re.fullmatch(r"3\.\d+(\.\d+)?", str(python)):
        raise RefusedError(
            f"{source}: its python_env.yaml names no Python version, but {python!r}",
            hint=f"write there: python: {description['flavors']['python_function'].get('python_version', '3.11.7')}",
        )
    return Environment(str(python), lines)


@contextlib.contextmanager
def _files_of(registry: Registry, origin: Origin, progress: Progress) -> Iterator[Path]:
    if origin.folder is not None:
        yield origin.folder
        return
    with tempfile.TemporaryDirectory(prefix="lockstep-register-") as scratch:
        progress(f"downloading {origin.uri}", 0, 0)
        yield registry.download(origin.uri, Path(scratch), f"give the files of {origin.uri}")


def _measure(folder: Path, model: str, progress: Progress) -> tuple[FileEntry, ...]:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(f"hashing the files of {model}", done, total)

    return tuple(entry for entry in measure_files(folder, read) if entry.path != ONLY_IN_DOWNLOADS)


def _training(registry: Registry, run_id: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Parameters and last metrics of the run, as text."""
    with registry.translated(f"read the run {run_id}"):
        data = registry.client.get_run(run_id).data
    return dict(data.params), {name: number_text(value) for name, value in data.metrics.items()}


def _known(registry: Registry, model: str) -> tuple[Version, ...]:
    try:
        return registry.versions(model)
    except NotFoundError:
        return ()


def _flavor(description: Mapping[str, Any]) -> str:
    return next((name for name in description["flavors"] if name != "python_function"), "pyfunc")


def _pin_hint(description: Mapping[str, Any], lines: tuple[str, ...], *, local: bool) -> str:
    pinned = [line if not unpinned((line,)) else f"{_name(line)}=={_installed(_name(line))}" for line in lines]
    listed = ", ".join(f'"{line}"' for line in pinned) or '"<package>==<version>", ...'
    write = "save_model" if local else "log_model"
    hint = f"mlflow.{_flavor(description)}.{write}(..., pip_requirements=[{listed}])"
    if local:
        hint += ", or pin the file in place: pip-compile requirements.in -o requirements.txt"
    return hint


def _name(line: str) -> str:
    found = PLAIN_NAME.match(line)
    return found[0] if found else "<package>"


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "<version>"


def _suggested(model: str) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", model) if word]
    candidate = "-".join(words)[:32].rstrip("-")
    return f", such as {candidate!r}" if MODEL_NAME.fullmatch(candidate) else ""
