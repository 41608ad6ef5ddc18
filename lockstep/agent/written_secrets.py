"""Secrets that stand in alerts.yaml itself, instead of the name of the environment variable that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
#: Keys of lockstep.agent.source_settings whose values are secrets.
SECRET_KEYS: Final = frozenset({"tokens", "secrets", "password"})


def written_secrets(raw: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a source as it stands in the file (before `${NAME}` is looked up) a secret is written out."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            if key in SECRET_KEYS:
                yield from _not_references(value, (*path, str(key)))
            else:
                yield from written_secrets(value, (*path, str(key)))
    elif isinstance(raw, list):
        for place, value in enumerate(raw):
            yield from written_secrets(value, (*path, place))


def _not_references(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from _not_references(one, (*path, place))
    elif not (isinstance(value, str) and REFERENCE.fullmatch(value.strip())):
        yield path
