"""Write what a serving image is built from: the server's sources, exact requirements, and a Dockerfile.

The image holds no model: the three clouds put it beside the running container, or have the container fetch it. So
versions with the same interpreter and the same requirements share one image, and the files written are the same to
the byte.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Final

from lockstep.errors import ConfigError, RefusedError
from lockstep.rules.requirements import bare, package, requirement_lines, unpinned
from lockstep.rules.state import Version
from lockstep.stores.registry import Registry

SERVING: Final = "serving"
DOCKERFILE: Final = "Dockerfile"
REQUIREMENTS: Final = "requirements.txt"
SERVER_REQUIREMENTS: Final = "requirements-serving.txt"
PARTS: Final = ("__main__.py", "contract.py", "verify.py")
SERVER_PACKAGES: Final = ("uvicorn", "fastapi", "google-cloud-storage")
FIRST_LINE: Final = "# Serving image, written by `lockstep image`."


def write_image(
    registry: Registry, version: Version, folder: Path, base: str = "python:{python}-slim"
) -> tuple[Path, ...]:
    """Write the build context for the version's serving image into `folder`; returns the files, sorted.

    `{python}` in `base` stands for the version's interpreter. Builds with `docker build FOLDER`; the one image is
    pushed to the registries of all clouds. Raises RefusedError for a folder that holds something else, or for a
    version whose environment is not known exactly, ConfigError when a package that the server needs is not installed.
    """
    manifest = registry.manifest(version)
    with tempfile.TemporaryDirectory(prefix="lockstep-image-") as scratch:
        files = registry.fetch(version, Path(scratch)) / "files"
        path = files / REQUIREMENTS
        requirements = requirement_lines(path.read_text(encoding="utf-8")) if path.is_file() else ()
        mlflow = _logged_with(version, requirements, files)
    if not manifest.env.python or not requirements:
        raise RefusedError(
            f"{version} was sealed without its interpreter and requirements, so no image can be built for it",
            hint=f"register it again: lockstep register {version.model} runs:/<run_id>/<path>",
        )
    if wrong := unpinned(requirements):
        raise RefusedError(f"{version} has requirements without one exact version: {', '.join(map(bare, wrong))}")
    serving = find_serving()
    model_lines = tuple(sorted(requirements, key=str.lower))
    server_lines = server_requirements(requirements, mlflow)
    hashed = all("--hash=" in line for line in model_lines)
    texts = (
        {REQUIREMENTS: model_lines, SERVER_REQUIREMENTS: server_lines}
        if hashed
        else {REQUIREMENTS: tuple(sorted((*model_lines, *server_lines), key=str.lower))}
    )
    _claim(folder)
    for name, lines in texts.items():
        _write(folder / name, "".join(f"{line}\n" for line in lines))
    shutil.rmtree(folder / SERVING, ignore_errors=True)
    for path in sorted(serving.rglob("*.py")):
        _write(folder / SERVING / path.relative_to(serving), path.read_text(encoding="utf-8"))
    _write(folder / DOCKERFILE, dockerfile(base.format(python=manifest.env.python), hashed=hashed))
    sources = (folder / SERVING).rglob("*.py")
    return tuple(sorted([folder / DOCKERFILE, *(folder / name for name in texts), *sources]))


def find_serving() -> Path:
    """Folder of the `serving` package; raises ConfigError where it is not to be found."""
    spec = importlib.util.find_spec(SERVING)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        if all((Path(place) / part).is_file() for part in PARTS):
            return Path(place)
    raise ConfigError(
        "Lockstep's serving package is not on the Python path"
        + (f" (the {SERVING!r} found at {spec.origin} is another one)" if spec is not None and spec.origin else ""),
        hint="run `lockstep image` in a checkout of Lockstep: the installed wheel holds the command line alone",
    )


def server_requirements(requirements: tuple[str, ...], mlflow: str) -> tuple[str, ...]:
    """Exact pins of what the server needs beside the model's own requirements, in order of name."""
    named = {package(line) for line in requirements}
    wanted = {"mlflow": mlflow} | {name: _installed(name) for name in SERVER_PACKAGES if name not in named}
    return tuple(f"{name}=={wanted[name]}" for name in sorted(wanted) if name not in named)


def dockerfile(base: str, *, hashed: bool) -> str:
    """The Dockerfile's text; with `hashed`, pip checks every downloaded model requirement against its hash."""
    install = "RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-input"
    steps = [f"COPY {REQUIREMENTS} ./", f"{install} {'--require-hashes ' if hashed else ''}-r {REQUIREMENTS}"]
    if hashed:
        steps += [f"COPY {SERVER_REQUIREMENTS} ./", f"{install} -r {SERVER_REQUIREMENTS}"]
    return "\n".join(
        [
            FIRST_LINE,
            f"FROM {base}",
            "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1",
            "RUN useradd --create-home --uid 10001 serving",
            "WORKDIR /home/serving/app",
            *steps,
            f"COPY {SERVING} ./{SERVING}",
            "USER 10001",
            "EXPOSE 8080",
            'ENTRYPOINT ["python", "-m", "serving"]',
            "",
        ]
    )


def _logged_with(version: Version, requirements: tuple[str, ...], files: Path) -> str:
    """MLflow's version that the model was logged with, from its requirements or else from its MLmodel file."""
    import yaml

    for line in requirements:
        if package(line) in ("mlflow", "mlflow-skinny"):
            return bare(line).partition("==")[2].partition(";")[0].strip()
    found = yaml.safe_load((files / "MLmodel").read_text(encoding="utf-8")).get("mlflow_version")
    if not found:
        raise RefusedError(
            f"{version} does not say which MLflow it was logged with",
            hint="add mlflow==<version> to its requirements and register it again",
        )
    return str(found)


def _claim(folder: Path) -> None:
    """Make the folder; refuses one that holds something else than an earlier build context."""
    ours = folder / DOCKERFILE
    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"{folder} is not a folder", hint="name a new or an empty folder")
    if folder.exists() and any(folder.iterdir()):
        if not ours.is_file() or not ours.read_text(encoding="utf-8").startswith(FIRST_LINE):
            raise RefusedError(f"{folder} holds other files", hint="name a new or an empty folder")
        (folder / SERVER_REQUIREMENTS).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"{package} is not installed, so its version for the serving image is not known",
            hint="pip install 'lockstep[gcp]'" if package.startswith("google") else f"pip install {package}",
        ) from None
