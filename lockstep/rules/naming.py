"""Which version a person means, and how versions are named in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from lockstep.errors import NotFoundError, RefusedError
from lockstep.rules.state import ModelRecord, Version

DIGEST_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
LABEL: Final = re.compile(r"v?([0-9]+)")


def find_version(record: ModelRecord, text: str) -> Version:
    """The version meant by a label (`3`, `v3`), an alias (`champion`, `@champion`) or 8 or more digits of a digest.

    Raises NotFoundError when nothing fits and RefusedError when several versions do; both list them.
    """
    versions = [one.version for one in record.versions]
    label, alias = LABEL.fullmatch(text), record.aliases.get(text.removeprefix("@"))
    meant = [
        version
        for version in versions
        if alias == version.label
        or (label is not None and label[1] == version.label)
        or (DIGEST_PREFIX.fullmatch(text) and version.digest.startswith(text))
    ]
    if len(meant) == 1:
        return meant[0]
    if len(meant) > 1:
        raise RefusedError(
            f"{text!r} fits several versions of {record.model}: {described(meant)}",
            hint="name one of them by its number or by more digits of its digest",
        )
    if alias is not None:
        raise unsealed_alias(record.model, text.removeprefix("@"), alias)
    raise NotFoundError(
        f"{record.model} has no version {text!r}; it has {described(versions)}, "
        f"aliases: {listed(sorted(record.aliases))}",
        hint="name a number, an alias, or at least 8 digits of a digest",
    )


def unsealed_alias(model: str, alias: str, label: str) -> RefusedError:
    """An alias that points at a version which Lockstep did not register."""
    return RefusedError(
        f"alias {alias!r} of {model} points at version {label}, which is not sealed", hint=seal_hint(model)
    )


def seal_hint(model: str) -> str:
    """How a version comes to be sealed."""
    return f"register it: lockstep register {model} runs:/<run_id>/<path>"


def listed(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(names) or "none"


def described(versions: Iterable[Version]) -> str:
    """Versions for a sentence."""
    return listed(f"{version.label} ({version.digest[:12]})" for version in versions)
