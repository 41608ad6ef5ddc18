"""The demo's models bring their lock: the lines of this repository's own requirements.lock that they need."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from lockstep.operations.lock import SERVER_PACKAGES
from lockstep.rules.requirements import package, requirement_lines

REPOSITORY_LOCK: Final = Path(__file__).resolve().parent.parent / "requirements.lock"
#: What a model of the demo needs in order to be loaded.
MODEL_PACKAGES: Final = ("mlflow", "scikit-learn", "numpy", "pandas", "scipy", "cloudpickle")


def pinned_requirements() -> list[str]:
    """What the model needs in order to be loaded, each at the version that it was trained with."""
    return [f"{name}=={version(name)}" for name in MODEL_PACKAGES]


@functools.cache
def environment_lock(names: tuple[str, ...] = MODEL_PACKAGES) -> str:
    """A lock of these packages, of the server's, and of all that they need in turn; no network is asked.

    As `lockstep lock` would make it: every line one exact version with the hashes of its archives.
    """
    wanted = _with_dependencies((*names, *SERVER_PACKAGES))
    lines = requirement_lines(REPOSITORY_LOCK.read_text(encoding="utf-8"))
    return "".join(f"{line}\n" for line in lines if package(line) in wanted)


def _with_dependencies(names: tuple[str, ...]) -> frozenset[str]:
    """Packages as installed here, by their one spelling, extras that are asked for included."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (package(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = [Requirement(line) for line in requires(wanted.name) or ()]
        except PackageNotFoundError:  # another platform's
            continue
        found.add(key[0])
        extras = wanted.extras or {""}
        waiting += [
            need
            for need in needs
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
        ]
    return frozenset(found)
