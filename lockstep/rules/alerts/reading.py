"""Reading what a stranger sent: bounded, strict, and with two ways to end only - a value, or AlertFormatError.

Bodies are RFC 8259 JSON in UTF-8 without what parsers disagree about (RFC 7493): no key twice, no NaN or infinity, no
half of a surrogate pair. Texts are cut and cleaned here, so that what is stored or shown is printable everywhere.

What people named themselves (labels, tags, custom properties) are fields `labels.<name>` with every vendor, so that one
rule fits several of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NoReturn

from lockstep.errors import RefusedError

#: Brackets within brackets; the deepest vendor's body has 8.
MAX_DEPTH: Final = 32
#: Alerts of one delivery; Alertmanager and Grafana group without a limit of their own.
MAX_ALERTS: Final = 500
#: Texts to route by, of one alert.
MAX_FIELDS: Final = 128
MAX_NAME: Final = 128
MAX_ID: Final = 512
MAX_SEVERITY: Final = 32
MAX_TITLE: Final = 512
MAX_FIELD: Final = 1024
MAX_TEXT: Final = 4096
#: Where a text was cut.
CUT: Final = "…"
#: Control characters (databases and terminals stumble over them) and halves of surrogate pairs (no encoding has them).
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
#: Marks that have what follows read backwards, and hide what a text says from who reads it.
_DIRECTIONS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINE_BREAKS: Final = re.compile("[\r\n\u2028\u2029]+")
#: More digits than any number of nanoseconds has; Python refuses to read thousands of them, and slowly reads less.
_LONGEST_NUMBER: Final = 40
#: No calendar goes on from here.
_YEAR_10000: Final = 253402300800.0


class AlertFormatError(RefusedError):
    """A delivery that is genuine, but not of the format that its source is configured for."""


def parse(body: bytes, what: str) -> object:
    """The JSON document in `body`; `what` names it in errors. Raises AlertFormatError."""
    if not body.strip():
        raise AlertFormatError(f"{what} is empty")
    try:
        document: object = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except AlertFormatError as error:
        raise AlertFormatError(f"{what}: {error.problem}") from None
    except UnicodeDecodeError:
        raise AlertFormatError(f"{what} is not UTF-8") from None
    except RecursionError:
        raise AlertFormatError(f"{what} is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise AlertFormatError(f"{what} is not JSON: {error}") from None
    if _deeper_than(document, MAX_DEPTH):
        raise AlertFormatError(f"{what} is nested deeper than {MAX_DEPTH}")
    return document


def mapping(value: object, what: str) -> Mapping[str, object]:
    """`value` as an object of JSON; raises AlertFormatError naming `what`."""
    if not isinstance(value, dict):
        raise AlertFormatError(f"{what} is {kind_of(value)}, not an object")
    return value


def sequence(value: object, what: str, limit: int = MAX_ALERTS) -> Sequence[object]:
    """`value` as an array of at most `limit`; raises AlertFormatError naming `what`."""
    if not isinstance(value, list):
        raise AlertFormatError(f"{what} is {kind_of(value)}, not an array")
    if len(value) > limit:
        raise AlertFormatError(f"{what} has {len(value)} entries, more than the {limit} that one delivery may hold")
    return value


def required(document: Mapping[str, object], key: str, what: str) -> str:
    """A text that must be there and not empty, as long as an identifier may be; raises AlertFormatError."""
    found = text(document.get(key), MAX_ID + 1)
    if not found:
        raise AlertFormatError(f"{what} has no {key}")
    if len(found) > MAX_ID:
        raise AlertFormatError(f"{what} has a {key} of more than {MAX_ID} characters")
    return found


def text(value: object, limit: int = MAX_FIELD) -> str:
    """A scalar as clean text of at most `limit` characters, cut with a mark; "" for null, arrays and objects.

    One line, where it is shorter than a whole message: titles become subjects, and lines of logs.
    """
    match value:
        case str():
            found = value
        case bool():
            found = "true" if value else "false"
        case int() | float():
            found = str(value)
        case _:
            return ""
    if len(found) > limit:
        found = found[: limit - 1] + CUT
    if limit < MAX_TEXT:
        found = _LINE_BREAKS.sub(" ", found)
    return _DIRECTIONS.sub("�", _UNPRINTABLE.sub("�", found)).strip()


def labels(value: object, prefix: str = "") -> dict[str, str]:
    """Every scalar below `value` under its lower-case dotted name, at most MAX_FIELDS of them.

    `{"Labels": {"Model": "tumour"}}` comes out as `{"labels.model": "tumour"}`; an array of scalars as one text,
    joined by commas; arrays of anything else are left out. Nothing that is no object gives nothing.
    """
    return {name: found for name, found in _walk(value, prefix) if found}


def joined(*parts: Mapping[str, str]) -> dict[str, str]:
    """The parts together without empty values, an earlier one's word before a later one's, at most MAX_FIELDS."""
    found: dict[str, str] = {}
    for part in parts:
        for name, value in part.items():
            if len(found) >= MAX_FIELDS:
                return found
            if value and len(name) <= MAX_NAME:
                found.setdefault(name, value)
    return found


def moment(value: object) -> float:
    """Seconds since 1970 of an RFC 3339 text (UTC where no zone is told); 0.0 for anything else."""
    if not isinstance(value, str) or len(value) > 64:
        return 0.0
    try:
        read = datetime.fromisoformat(value)
        seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return seconds if 0 < seconds < _YEAR_10000 else 0.0


def seconds(value: object, per_second: float = 1.0) -> float:
    """Seconds since 1970 of a number, or of a text that is one; 0.0 for anything else."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    told = number / per_second
    return told if 0 < told < _YEAR_10000 else 0.0


def identity(*parts: str) -> str:
    """Parts joined to an identifier that no other parts give; a long one ends in its SHA-256."""
    whole = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)
    if len(whole) <= MAX_ID:
        return whole
    digest = sha256(whole.encode()).hexdigest()
    return f"{whole[: MAX_ID - len(digest) - 1]}~{digest}"


def kind_of(value: object) -> str:
    """What a value of JSON is, for errors; never the value itself, which a stranger wrote."""
    match value:
        case None:
            return "missing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "an array"
        case _:
            return "an object"


def _walk(value: object, prefix: str) -> Iterator[tuple[str, str]]:
    """Depth first and without recursion; parse() has bounded the depth, but documents come from elsewhere, too."""
    waiting: list[tuple[str, object]] = [(prefix, value)]
    told = 0
    while waiting and told < MAX_FIELDS:
        name, found = waiting.pop()
        if isinstance(found, dict):
            dot = f"{name}." if name else ""
            inner = [(dot + text(key, MAX_NAME).lower(), item) for key, item in list(found.items())[:MAX_FIELDS]]
            waiting.extend(reversed(inner))
        elif name and len(name) <= MAX_NAME:
            told += 1
            if isinstance(found, list):
                if not any(isinstance(item, dict | list) for item in found):
                    yield name, text(", ".join(text(item) for item in found[:MAX_FIELDS]))
            else:
                yield name, text(found)


def _deeper_than(document: object, limit: int) -> bool:
    level: list[object] = [document]
    for _ in range(limit + 1):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return False
    return True


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AlertFormatError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise AlertFormatError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise AlertFormatError("a number has too many digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise AlertFormatError("a number is too large")
    return number
