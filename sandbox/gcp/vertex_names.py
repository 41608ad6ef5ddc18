"""Resource names, ids and the small rules about them: https://cloud.google.com/vertex-ai/docs/reference/rest/v1."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.gcp.errors import invalid, not_emulated

JsonObject = dict[str, Any]

ALIAS: Final = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
MODEL_ID: Final = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
ENDPOINT_ID: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}")
LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,64}")


def now_text() -> str:
    """The present time as Google's JSON has it, in UTC with microseconds."""
    return time_text(time.time())


def time_text(seconds: float) -> str:
    """Unix seconds as a timestamp with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def etag_of(content: Mapping[str, Any]) -> str:
    """An etag that changes with the content."""
    text = json.dumps({k: v for k, v in content.items() if k != "etag"}, sort_keys=True)
    return "AMEw9y" + hashlib.sha256(text.encode()).hexdigest()[:32]


def check_display_name(value: object, what: str) -> None:
    """A display name is required and has at most 128 characters."""
    if not isinstance(value, str) or not value.strip():
        raise invalid(f"The display name is required for a {what}.")
    if len(value) > 128:
        raise invalid(f"The display name of a {what} can be up to 128 characters long, got {len(value)}.")


def check_labels(labels: Mapping[str, str]) -> None:
    """At most 64 labels of lower-case letters, digits, `_` and `-`, at most 64 characters each."""
    if len(labels) > 64:
        raise invalid(f"No more than 64 user labels can be associated with one resource, got {len(labels)}.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise invalid(
                f'Label key "{key}" is invalid: it starts with a lower-case letter and holds at most 64 lower-case '
                "letters, digits, underscores and dashes."
            )
        if not LABEL_VALUE.fullmatch(value):
            raise invalid(
                f'Label value "{value}" of key "{key}" is invalid: it holds at most 64 lower-case letters, digits, '
                "underscores and dashes."
            )


def mask_fields(mask: str | None, allowed: Iterable[str]) -> list[str]:
    """The camelCase fields of an update mask; INVALID_ARGUMENT when it is missing or names another field."""
    if not mask:
        raise invalid("The update mask is required and it must not be empty: `update_mask`.")
    known = set(allowed)
    found = []
    for path in mask.split(","):
        camel = re.sub(r"_([a-z])", lambda m: m[1].upper(), path.strip())
        if camel not in known:
            raise invalid(f'Update mask path "{path}" is not supported. Supported paths: {", ".join(sorted(known))}.')
        found.append(camel)
    return found


def apply_read_mask(content: JsonObject, mask: str | None) -> JsonObject:
    """Only the top-level fields of a read mask; everything without one."""
    if not mask or mask == "*":
        return content
    wanted = {re.sub(r"_([a-z])", lambda m: m[1].upper(), path.strip().split(".")[0]) for path in mask.split(",")}
    return {name: value for name, value in content.items() if name in wanted}


TERM: Final = re.compile(r'\s*(?:(labels(?:\.[a-z0-9_-]+)?)|(\w+))\s*(!=|=|:)\s*("(?:[^"\\]|\\.)*"|[^\s()]+)\s*')


def filter_of(text: str | None, fields: Mapping[str, str], request: str) -> Callable[[JsonObject], bool]:
    """A predicate for `field="value" AND labels.key="value"`; what goes beyond is answered with 501.

    `fields` maps what the filter may name to the field of the resource; `labels.key:*` asks whether a label is there.
    """
    terms: list[tuple[str, str, str]] = []
    rest = text or ""
    while rest.strip():
        found = TERM.match(rest)
        if found is None:
            raise not_emulated(f"{request} with the filter {text!r}")
        name = found[1] or found[2]
        if name not in fields and not name.startswith("labels."):
            raise invalid(f'Unsupported filter field "{name}". Supported: labels, {", ".join(sorted(fields))}.')
        terms.append((name, found[3], found[4].strip('"')))
        rest = rest[found.end() :]
        if rest.strip():
            if not re.match(r"AND\b", rest, re.IGNORECASE):
                raise not_emulated(f"{request} with the filter {text!r}")
            rest = rest[3:]

    def matches(content: JsonObject) -> bool:
        return all(_holds(content, fields, *term) for term in terms)

    return matches


def _holds(content: JsonObject, fields: Mapping[str, str], name: str, operator: str, value: str) -> bool:
    labels: Mapping[str, str] = content.get("labels", {})
    if name.startswith("labels."):
        key = name.removeprefix("labels.")
        if operator == ":" and value == "*":
            return key in labels
        actual = labels.get(key, "")
    else:
        actual = str(content.get(fields[name], ""))
        if fields[name] == "name":
            actual = actual.rpartition("/")[2]
    return (actual != value) if operator == "!=" else (actual == value)


def ordered(found: Sequence[JsonObject], order: str | None, request: str) -> list[JsonObject]:
    """Sorted by `display_name`, `create_time` or `update_time` (with `desc`); newest first without an order."""
    keys = {"display_name": "displayName", "create_time": "createTime", "update_time": "updateTime"}
    items = sorted(found, key=lambda item: str(item.get("createTime", "")), reverse=True)
    for part in reversed([p.split() for p in (order or "").split(",") if p.strip()]):
        if part[0] not in keys or part[1:] not in ([], ["desc"], ["asc"]):
            raise not_emulated(f"{request} ordered by {order!r}")
        field = keys[part[0]]
        items.sort(key=lambda item: str(item.get(field, "")), reverse=part[1:] == ["desc"])
    return items


def page_of(found: Sequence[JsonObject], query: Mapping[str, str], key: str, limit: int = 100) -> JsonObject:
    """One page of a listing, with the token of the next."""
    try:
        size, begin = int(query.get("pageSize") or limit), int(query.get("pageToken") or 0)
    except ValueError:
        raise invalid("Invalid page size or page token.") from None
    if size < 0 or begin < 0:
        raise invalid("Invalid page size or page token.")
    size = min(size or limit, limit)
    page = [apply_read_mask(item, query.get("readMask")) for item in found[begin : begin + size]]
    answer: JsonObject = {key: page} if page else {}
    if begin + size < len(found):
        answer["nextPageToken"] = str(begin + size)
    return answer
