"""A model's folder in MLflow's format: is it one that can be served and built again elsewhere?"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from lockstep.errors import RefusedError
from lockstep.rules.requirements import HASH, bare, requirement_lines, unpinned

PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Needs:
    """What the model was trained with: the interpreter's version and the lines of its requirements file."""

    python: str
    requirements: tuple[str, ...]


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


def read_needs(folder: Path, description: Mapping[str, Any], source: str, *, local: bool) -> Needs:
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
    return Needs(str(python), lines)


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
