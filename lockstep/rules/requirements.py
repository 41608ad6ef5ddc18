"""Requirements and locks as text: which lines name one exact version, which carry hashes, whether a lock fits.

A lock is a requirements file as pip's `--require-hashes` takes it: every line one exact version and the SHA-256 of
each of its archives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

PINNED: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?==[^=*\s;]+(\s*;.*)?$")
HASH: Final = re.compile(r"\s--hash=\S+")
GOOD_HASH: Final = re.compile(r"\s--hash=sha(256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})(?=\s|$)")
#: What a marker may ask of each platform that a manifest can name.
PLATFORMS: Final[Mapping[str, Mapping[str, str]]] = {
    "linux/amd64": {"platform_machine": "x86_64"},
    "linux/arm64": {"platform_machine": "aarch64"},
}


def requirement_lines(text: str) -> tuple[str, ...]:
    """The lines of a requirements file: continuations joined, comments, blanks and repetitions left out."""
    joined = re.sub(r"\\\r?\n\s*", " ", text)
    lines = (" ".join(re.sub(r"(^|\s)#.*$", "", line).split()) for line in joined.splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))


def unpinned(requirements: Iterable[str]) -> tuple[str, ...]:
    """The requirement lines that do not name one exact version (`name==1.2.3`), in order; hashes are no matter."""
    return tuple(line for line in requirements if not PINNED.match(bare(line)))


def unhashed(requirements: Iterable[str]) -> tuple[str, ...]:
    """The lines without a hash, or with one that is not a whole SHA-256, 384 or 512."""
    return tuple(
        line
        for line in requirements
        if not HASH.search(line) or len(HASH.findall(line)) != len(GOOD_HASH.findall(line))
    )


def bare(line: str) -> str:
    """A requirement without its hashes."""
    return HASH.sub("", line).strip()


def package(line: str) -> str:
    """The package that a line names, in the one spelling that PyPI's rules give it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=;<>!~@\s]", line.strip(), maxsplit=1)[0]).lower()


def pins(lines: Iterable[str], python: str, platform: str) -> Mapping[str, str]:
    """Exact version by package of the lines that count for this interpreter and platform."""
    found = {}
    for line in lines:
        requirement, _, marker = bare(line).partition(";")
        if not marker.strip() or _applies(marker.strip(), python, platform):
            found[package(requirement)] = requirement.partition("==")[2].strip()
    return found


def lock_problems(lock: tuple[str, ...], requirements: tuple[str, ...], python: str, platform: str) -> tuple[str, ...]:
    """Why the lock cannot be the environment of a model with these requirements; empty for one that can."""
    if not lock:
        return ("it is empty",)
    problems = []
    if options := [line for line in lock if line.startswith("-")]:
        # Where packages come from is the matter of whoever installs, and an address may hold a password.
        problems.append(f"it holds options: {', '.join(option.split('=')[0].split()[0] for option in options)}")
    lines = tuple(line for line in lock if not line.startswith("-"))
    if loose := unpinned(lines):
        problems.append(f"without one exact version: {', '.join(map(bare, loose))}")
    if bald := [line for line in unhashed(lines) if line not in loose]:
        problems.append(f"without a whole hash: {', '.join(map(bare, bald))}")
    locked, wanted = pins(lines, python, platform), pins(requirements, python, platform)
    for name, version in wanted.items():
        if name not in locked:
            problems.append(f"{name} is not in it")
        elif locked[name] != version:
            problems.append(f"it has {name}=={locked[name]}, the model's requirements.txt {name}=={version}")
    return tuple(problems)


def _applies(marker: str, python: str, platform: str) -> bool:
    """Whether a line counts there; one whose marker cannot be read counts, so that its version is compared."""
    full = python if python.count(".") >= 2 else f"{python}.0"
    environment = {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": full,
        "implementation_version": full,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_release": "",
        "platform_version": "",
        "extra": "",
        **PLATFORMS.get(platform, PLATFORMS["linux/amd64"]),
    }
    try:
        return Marker(marker).evaluate(environment)
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName):
        return True
