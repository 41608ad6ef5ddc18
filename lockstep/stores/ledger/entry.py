"""One line of the ledger: what is handed in, the exact bytes that the tree holds, and what is read back.

The bytes are RFC 8785 JSON: `format`, `event_id`, `at` (UTC with microseconds), `kind`, `model`, `actor`, `body`, and
`late`, `migrated` or `unvouched` where they are true. They are shorter than 65,536 bytes, since a bundle of entries
gives a length two bytes; what would be longer is cut, with the digest of the whole body in its member `cut`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import rfc8785

FORMAT: Final = "lockstep/entry/v1"
LIMIT: Final = 65_536  # bytes; every entry is shorter
NAME_LIMIT: Final = 500  # characters of a kind, a model, an actor: they are indexed
SHOWN: Final = 300  # characters that are left of what is cut
ROOM: Final = 200  # bytes for the note about it
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECOND: Final = 1_000_000  # microseconds
SAFE_INTEGER: Final = 2**53 - 1  # beyond it RFC 8785 knows no number
DEEPEST: Final = 100  # levels of a body: whatever reads it needs so much of the stack and no more


@dataclass(frozen=True)
class Event:
    """What is to be appended. `at` is in Unix seconds, None for now; `late` says that it was kept in the spool.

    `unvouched` is one that the ledger's key did not sign when it was kept there: anybody may have put it in.
    """

    event_id: str
    kind: str
    model: str
    actor: str
    body: Mapping[str, object] = field(default_factory=dict)
    at: float | None = None
    late: bool = False
    migrated: bool = False
    unvouched: bool = False


@dataclass(frozen=True)
class Entry:
    """One line as it stands: `number` counts from 0 (below: kept in the spool so far), `at` in Unix seconds.

    `kind` is `<operation>.intent` or `.outcome`, `actor` the person's name as long as it is not forgotten, else the
    pseudonym. `late` entries were appended after they happened, for `unvouched` ones see Event; `body` holds plain
    JSON values.
    """

    number: int
    event_id: str
    at: float
    kind: str
    model: str
    actor: str
    body: Mapping[str, object]
    late: bool = False
    migrated: bool = False
    unvouched: bool = False


def encode(event: Event, at: float, actor: str) -> bytes:
    """The entry's bytes; `actor` is what may stand there for ever. Takes any body, and cuts one that is too large."""
    body = plain(event.body)
    assert isinstance(body, dict)
    content: dict[str, object] = {
        "format": FORMAT,
        "event_id": event.event_id,
        "at": show_time(micros(at)),
        "kind": event.kind,
        "model": event.model,
        "actor": actor,
        "body": body,
    }
    content |= {name: True for name in ("late", "migrated", "unvouched") if getattr(event, name)}
    encoded = canonical(content)
    if len(encoded) < LIMIT:
        return encoded
    whole = canonical(body)
    mark = {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    cut = canonical(content | {"body": _cut(body, len(encoded) - LIMIT + ROOM) | {"cut": mark}})
    if len(cut) < LIMIT:
        return cut
    return canonical(content | {"body": {"cut": mark, "begins": whole.decode()[:SHOWN]}})


def _cut(body: Mapping[str, object], excess: int) -> dict[str, object]:
    """The body without `excess` bytes: the largest values go first, and of each its beginning stays."""
    written = {name: canonical(value) for name, value in body.items()}
    kept = dict(body)
    for name in sorted(written, key=lambda name: len(written[name]), reverse=True):
        if excess <= 0:
            break
        kept[name] = {"begins": written[name].decode()[:SHOWN]}
        excess -= len(written[name]) - len(canonical(kept[name]))
    return kept


def decode(number: int, leaf: bytes, names: Mapping[str, str] | None = None) -> Entry:
    """The entry in `leaf`, with persons' names for their pseudonyms as far as `names` has them.

    Raises ValueError for bytes that are no entry.
    """
    try:
        content = json.loads(leaf)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
        actor = str(content["actor"])
        return Entry(
            number,
            str(content["event_id"]),
            parse_time(content["at"]) / SECOND,
            str(content["kind"]),
            str(content["model"]),
            (names or {}).get(actor, actor),
            dict(content["body"]),
            content.get("late", False) is True,
            content.get("migrated", False) is True,
            content.get("unvouched", False) is True,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested deeper than anything that was ever appended") from error


def canonical(value: object) -> bytes:
    """RFC 8785 JSON of what `plain` gives."""
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def plain(value: object, room: int = DEEPEST) -> object:
    """The same as RFC 8785 can write: what it cannot is told as text, since an event is never refused for its looks."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _well_formed(value)
    if isinstance(value, int):
        return value if abs(value) <= SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if room == 0 and isinstance(value, Mapping | list | tuple | set | frozenset):
        return f"left out: nested more than {DEEPEST} deep"
    if isinstance(value, Mapping):
        return {_well_formed(str(name)): plain(one, room - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, room - 1) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(one, room - 1) for one in value), key=str)
    return _well_formed(str(value))


def nested(value: object) -> int:
    """How deep lists and objects lie in each other; 0 for anything else. Needs no stack, whatever it is given."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, Mapping | list)]:
        level = [inner for one in level for inner in (one.values() if isinstance(one, Mapping) else one)]
        depth += 1
    return depth


def text(name: str) -> str:
    """A name as databases take it: no NUL, no half characters, at most NAME_LIMIT characters."""
    return _well_formed(name).replace("\x00", "\N{REPLACEMENT CHARACTER}")[:NAME_LIMIT]


def micros(at: float) -> int:
    """Unix seconds as whole microseconds."""
    return round(at * SECOND)


def show_time(at: int) -> str:
    """Microseconds since 1970 as `2026-11-22T16:42:11.000001Z`."""
    return (EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(shown: str) -> int:
    """Microseconds since 1970; raises ValueError."""
    return (datetime.strptime(shown, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def _well_formed(value: str) -> str:
    """Without lone surrogates, which a file name or a cloud's answer that is no UTF-8 may bring along."""
    return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value
