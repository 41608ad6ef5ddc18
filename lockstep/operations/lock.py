"""The one environment of a version: every package at one version with its archives' hashes, the same on every cloud."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lockstep.errors import ConfigError, LockstepError, NotFoundError, RefusedError
from lockstep.operations.model_folder import read_mlmodel, read_needs
from lockstep.operations.origin import files_of, find_origin
from lockstep.rules.requirements import PLATFORMS, bare, lock_problems, package, requirement_lines, unhashed, unpinned
from lockstep.stores.captures import LOCK

if TYPE_CHECKING:
    from lockstep.stores.registry import Registry

REQUIREMENTS: Final = "requirements.txt"
DEFAULT_PLATFORM: Final = "linux/amd64"
#: What the serving container needs beside the model's own requirements.
SERVER_PACKAGES: Final = ("mlflow", "fastapi", "google-cloud-storage", "uvicorn")
#: As uv names the platforms: Debian 12 and later, and all that are as new.
UV_PLATFORMS: Final[Mapping[str, str]] = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
}
TIMEOUT: Final = 600.0  # seconds to resolve in
LONGEST: Final = 2000  # characters of uv's own words


def check_platform(platform: str) -> None:
    """Refuse a platform that a lock cannot be made and checked for."""
    if platform not in PLATFORMS:
        raise RefusedError(f"platform {platform!r} is not known", hint=f"name one of: {', '.join(PLATFORMS)}")


def find_lock(folder: Path, given: Path | None, source: str, model: str, python: str, platform: str) -> bytes:
    """The lock of the model in `folder`: the `given` file, its own `requirements.lock`, or its hashed requirements.

    Raises RefusedError, with the command that makes one, when there is none or it does not pin what the model pins.
    """
    requirements = folder / REQUIREMENTS
    lines = requirement_lines(requirements.read_text(encoding="utf-8"))
    hint = (
        f"make one: lockstep lock {source} -o {LOCK} --platform {platform}, then: "
        f"lockstep register {model} {source} --lock {LOCK}"
    ).replace(f" --platform {DEFAULT_PLATFORM}", "")
    if given is not None:
        path = given
        if not path.is_file():
            raise NotFoundError(f"there is no lock {given}", hint=hint)
    elif (folder / LOCK).is_file():
        path = folder / LOCK
    elif not unhashed(lines):
        path = requirements
    else:
        raise RefusedError(
            f"{source} has no lock: nothing says which versions its requirements need in turn, nor which archives",
            hint=hint,
        )
    content = path.read_bytes()
    try:
        found = requirement_lines(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} is not UTF-8 text", hint=hint) from error
    if problems := lock_problems(found, lines, python, platform):
        what = f"{source}: its {path.name}" if path.parent == folder else f"the lock {given}"
        raise RefusedError(f"{what} cannot be its environment: {'; '.join(problems)}", hint=hint)
    return content


def lock_source(registry: Callable[[], Registry], source: str, platform: str, out: Path) -> tuple[str, ...]:
    """Lock the model at `source`, as `register` takes it; returns the lock's lines, written to `out`.

    `registry` is asked for only where the model lies in MLflow.
    """
    check_platform(platform)
    with contextlib.ExitStack() as stack:
        folder = Path(source.removeprefix("file://")).expanduser()
        local = folder.is_dir()
        if not local:
            found = registry()
            folder = stack.enter_context(files_of(found, find_origin(found, source)))
        description = read_mlmodel(folder, source)
        needs = read_needs(folder, description, source, local=local)
        return make_lock(needs.requirements, str(description.get("mlflow_version") or ""), needs.python, platform, out)


def make_lock(requirements: tuple[str, ...], mlflow: str, python: str, platform: str, out: Path) -> tuple[str, ...]:
    """Resolve a model's requirements and the server's with uv, write the lock to `out`, and return its lines.

    Packages come from the index that uv or pip is set to on this machine; the result names none. Raises ConfigError
    without uv, RefusedError when there is no solution.
    """
    check_platform(platform)
    if loose := unpinned(requirements):
        raise RefusedError(
            f"requirements without one exact version: {', '.join(map(bare, loose))}",
            hint="a lock pins what the model was trained with: name each as package==version",
        )
    named = {package(line) for line in requirements}
    server = [f"mlflow=={mlflow}" if name == "mlflow" and mlflow else name for name in SERVER_PACKAGES]
    wanted = [*map(bare, requirements), *(line for line in server if package(line) not in named)]
    with tempfile.TemporaryDirectory(prefix="lockstep-lock-") as scratch:
        asked, made = Path(scratch) / REQUIREMENTS, Path(scratch) / LOCK
        asked.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        _run_uv([str(asked), "--output-file", str(made)], python, platform)
        text = made.read_text(encoding="utf-8")
    lines = requirement_lines(text)
    if problems := lock_problems(lines, requirements, python, platform):
        raise LockstepError(f"uv wrote no lock: {'; '.join(problems)}", hint="look at `uv pip compile --help`")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8", newline="\n")
    return lines


def _run_uv(arguments: list[str], python: str, platform: str) -> None:
    command = [
        _uv(), "pip", "compile", *arguments, "--generate-hashes", "--python-version", python,
        "--python-platform", UV_PLATFORMS[platform], "--no-header", "--no-annotate", "--no-emit-index-url",
        "--no-emit-find-links", "--quiet", "--no-progress", "--color", "never",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LockstepError(
            f"uv did not resolve the requirements within {TIMEOUT:.0f} s", hint="is its package index reachable?"
        ) from error
    if done.returncode:
        # An address that carries a password must not get into anybody's log.
        said = re.sub(r"://[^/\s@]+@", "://", (done.stderr or done.stdout).strip())[-LONGEST:]
        raise RefusedError(
            f"the requirements have no solution for Python {python} on {platform}: {said}",
            hint="change what conflicts where the model is trained, or let uv reach the package index",
        )


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise ConfigError(
            "uv, which resolves requirements for another platform, is not installed",
            hint=f"pip install uv; or, on the platform that serves: pip-compile --generate-hashes -o {LOCK} "
            "requirements.txt",
        )
    return found
