"""Write what a serving image is built from: the server's sources, the version's lock, and a Dockerfile.

The image holds no model: the three clouds put it beside the running container, or have the container fetch it. So
versions with the same interpreter and the same lock share one image, and the files written are the same to the byte.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final

from lockstep.errors import ConfigError, RefusedError
from lockstep.operations.lock import DEFAULT_PLATFORM, SERVER_PACKAGES, check_platform, find_lock
from lockstep.operations.model_folder import read_mlmodel, read_needs
from lockstep.operations.origin import files_of, find_origin
from lockstep.rules.requirements import pins, requirement_lines
from lockstep.rules.state import Version
from lockstep.stores.captures import LOCK
from lockstep.stores.registry import Registry

SERVING: Final = "serving"
DOCKERFILE: Final = "Dockerfile"
PARTS: Final = ("__main__.py", "contract.py", "verify.py")
#: What earlier releases wrote.
LEFT_OVER: Final = ("requirements.txt", "requirements-serving.txt")
FIRST_LINE: Final = "# Serving image, written by `lockstep image`."


def write_image(
    registry: Registry, version: Version, folder: Path, base: str = "python:{python}-slim"
) -> tuple[Path, ...]:
    """Write the build context for the version's serving image into `folder`; returns the files, sorted.

    `{python}` in `base` stands for the version's interpreter. Builds with `docker build FOLDER`; the one image is
    pushed to the registries of all clouds. Raises RefusedError for a folder that holds something else, for a version
    that was sealed without a lock, and for a lock without what the server needs.
    """
    env, lock = registry.manifest(version).env, registry.lock(version)
    return _write_context(str(version), env.python, env.platform, lock, folder, base)


def write_source_image(
    registry: Registry,
    model: str,
    source: str,
    folder: Path,
    lock: Path | None = None,
    platform: str = DEFAULT_PLATFORM,
    base: str = "python:{python}-slim",
) -> tuple[Path, ...]:
    """The same for a model that is not registered yet: so its version can name the image that was built for it."""
    check_platform(platform)
    origin = find_origin(registry, source)
    with files_of(registry, origin) as files:
        needs = read_needs(files, read_mlmodel(files, source), source, local=origin.folder is not None)
        locked = find_lock(files, lock, source, model, needs.python, platform)
    return _write_context(source, needs.python, platform, locked, folder, base)


def _write_context(what: str, python: str, platform: str, lock: bytes, folder: Path, base: str) -> tuple[Path, ...]:
    locked = pins(requirement_lines(lock.decode("utf-8")), python, platform)
    if missing := sorted(set(SERVER_PACKAGES) - set(locked)):
        raise RefusedError(
            f"the lock of {what} has no {', '.join(missing)}, which the server in the container needs",
            hint=f"`lockstep lock` adds it: make a lock of the model's source and register it with --lock {LOCK}",
        )
    serving = find_serving()
    try:
        _claim(folder)
        shutil.rmtree(folder / SERVING, ignore_errors=True)
        for path in sorted(serving.rglob("*.py")):
            _write(folder / SERVING / path.relative_to(serving), path.read_bytes())
        _write(folder / LOCK, lock)
        _write(folder / DOCKERFILE, dockerfile(base.format(python=python), platform).encode())
    except OSError as error:
        raise RefusedError(
            f"{error.filename or folder} cannot be written: {error.strerror}", hint="name another folder: --out"
        ) from error
    return tuple(sorted([folder / DOCKERFILE, folder / LOCK, *(folder / SERVING).rglob("*.py")]))


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


def dockerfile(base: str, platform: str) -> str:
    """The Dockerfile's text; pip takes nothing but the archives whose hashes the lock holds.

    The lock is already resolved, so pip does not resolve again: with hashes it gives up on a requirement with extras
    whose newest release is not the pinned one. `pip check` finds a lock that lacks something.
    """
    return "\n".join(
        [
            FIRST_LINE,
            f"FROM --platform={platform} {base}",
            "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1",
            "RUN useradd --create-home --uid 10001 serving",
            "WORKDIR /home/serving/app",
            f"COPY {LOCK} ./",
            "RUN python -m pip install --no-cache-dir --disable-pip-version-check --no-input "
            f"--no-deps --require-hashes -r {LOCK} && python -m pip check",
            f"COPY {SERVING} ./{SERVING}",
            "USER 10001",
            "EXPOSE 8080",
            'ENTRYPOINT ["python", "-m", "serving"]',
            "",
        ]
    )


def _claim(folder: Path) -> None:
    """Make the folder; refuses one that holds something else than an earlier build context."""
    ours = folder / DOCKERFILE
    if folder.exists() and not folder.is_dir():
        raise RefusedError(f"{folder} is not a folder", hint="name a new or an empty folder")
    if folder.exists() and any(folder.iterdir()):
        if not ours.is_file() or not ours.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE):
            raise RefusedError(f"{folder} holds other files", hint="name a new or an empty folder")
        for name in LEFT_OVER:
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
