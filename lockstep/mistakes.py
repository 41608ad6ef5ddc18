"""What pydantic finds wrong in a file of ours, in the file's words: lists and mappings, variables, secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

VARIABLE: Final = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
IN_WORDS: Final[Mapping[str, str]] = {
    "tuple_type": "a list is expected",
    "list_type": "a list is expected",
    "dict_type": "a mapping is expected",
    "mapping_type": "a mapping is expected",
    "model_type": "a mapping is expected",
    "extra_forbidden": "there is no such key",
    "missing": "it is missing",
    "string_type": "a text is expected",
}


def told(found: ErrorDetails, raw: object, path: Sequence[str | int]) -> tuple[str, str]:
    """The mistake, and what to do about it where more can be said than of any; `raw` is the file as it stands."""
    names = _variables(raw, path)
    given = found["input"]
    if found["type"] == "too_short":
        least = found["ctx"]["min_length"]
        if not isinstance(given, str):
            return f"at least {least} must stand here", ""
        whose = f"environment variable {names[0]}" if names else "the secret"
        what = f"is {len(given)} characters long" if given.strip() else "is empty"
        hint = f"export {names[0]}=$(openssl rand -hex 24)" if names else "openssl rand -hex 24 makes one"
        return f"{whose} {what}; at least {least} characters are needed", hint
    if found["type"] == "union_tag_not_found":
        return f"it has no {found['ctx']['discriminator'].strip(chr(39))}, which says what it is", ""
    message = IN_WORDS.get(found["type"]) or found["msg"].removeprefix("Value error, ")
    return f"{message} (by environment variable {', '.join(names)})" if names else message, ""


def _variables(raw: object, path: Sequence[str | int]) -> list[str]:
    """Environment variables that stand at that place of the file."""
    for step in path:
        if isinstance(raw, dict):
            raw = raw.get(step)
        elif isinstance(raw, list) and isinstance(step, int) and step < len(raw):
            raw = raw[step]
        else:
            return []
    return [match["name"] for match in VARIABLE.finditer(raw)] if isinstance(raw, str) else []
