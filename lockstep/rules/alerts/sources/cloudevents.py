"""CloudEvents 1.0 over HTTP: https://github.com/cloudevents/spec, spec.md and bindings/http-protocol-binding.md.

In structured mode the body is the event, in batched mode an array of them; in binary mode the attributes are headers
`ce-<name>` (percent-encoded, section 3.1.3.2) and the body is the data.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_SEVERITY,
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    joined,
    labels,
    mapping,
    moment,
    parse,
    required,
    sequence,
    text,
)

_STRUCTURED: Final = "application/cloudevents+json"
_BATCHED: Final = "application/cloudevents-batch+json"
#: Values of a `status` or `state` in the data that say that the trouble is over, whatever the event's type.
_OVER: Final = frozenset({"resolved", "closed", "ok", "recovered", "inactive"})


def read(
    document: object, source: str, types: tuple[str, ...] = (), resolved: tuple[str, ...] = ()
) -> tuple[Alert, ...]:
    """The event, or the events of an array, of `types` (any when empty); raises AlertFormatError."""
    events = sequence(document, "the batch") if isinstance(document, list) else [document]
    found = []
    for place, given in enumerate(events):
        what = f"events[{place}]" if isinstance(document, list) else "the event"
        event = mapping(given, what)
        if event.get("specversion") != "1.0":
            raise AlertFormatError(f"{what} is not of specversion 1.0")
        kind = required(event, "type", what)
        if not types or kind in types or kind in resolved:
            found.append(_event(event, kind, source, kind in resolved, what))
    return tuple(found)


def document(headers: Mapping[str, str], body: bytes) -> object:
    """The event or events that a request holds, by its content type; raises AlertFormatError."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in (_STRUCTURED, _BATCHED):
        read_body = parse(body, "the body")
        if isinstance(read_body, list) != (content_type == _BATCHED):
            raise AlertFormatError(f"the body is not what its content type {content_type} says")
        return read_body
    if "ce-specversion" not in headers:
        raise AlertFormatError(
            "the request holds no CloudEvent: neither its content type nor a header says so",
            hint="send the header Content-Type: application/cloudevents+json, or ce-specversion and the others",
        )
    event: dict[str, object] = {
        name.removeprefix("ce-"): unquote(value, errors="replace")
        for name, value in headers.items()
        if name.startswith("ce-")
    }
    is_json = content_type.endswith("+json") or content_type == "application/json"
    event["data"] = parse(body, "the body") if is_json and body else text(body.decode(errors="replace"), MAX_TEXT)
    return event


def handshake(headers: Mapping[str, str], origins: tuple[str, ...], rate: int) -> Mapping[str, str] | None:
    """The answer to a request for permission to deliver, by https://github.com/cloudevents/spec, http-webhook.md, 4.

    None, which is no permission, for an origin that is not one of `origins`. `rate` is the most deliveries a minute
    that are allowed. A callback address in the request is not fetched: nothing that arrives is.
    """
    origin = headers.get("webhook-request-origin", "")
    if not origin or origin not in origins:
        return None
    asked = headers.get("webhook-request-rate", "").strip()
    allowed = min(rate, int(asked)) if asked.isascii() and asked.isdigit() and 0 < len(asked) < 10 else rate
    return {
        "Allow": "OPTIONS, POST",
        "WebHook-Allowed-Origin": origin,
        "WebHook-Allowed-Rate": str(max(1, allowed)),
    }


def _event(event: Mapping[str, object], kind: str, source: str, over: bool, what: str) -> Alert:
    origin, name = required(event, "source", what), required(event, "id", what)
    subject = text(event.get("subject"), MAX_TITLE)
    data = _data(event, what)
    told = {"type": kind, "source": origin, "subject": subject}
    return Alert(
        source=source,
        id=identity(origin, name),
        incident=identity(origin, subject) if subject else identity(origin, name),
        status=Status.RESOLVED if over or _says_over(data) else Status.FIRING,
        title=text(" ".join(filter(None, (kind, subject))), MAX_TITLE),
        text=text(data, MAX_TEXT),
        severity=_field(data, "severity"),
        at=moment(event.get("time")),
        fields=joined(told, labels(data, "data"), _extensions(event)),
    )


def _data(event: Mapping[str, object], what: str) -> object:
    encoded = event.get("data_base64")
    if encoded is None:
        return event.get("data")
    try:
        return parse(base64.b64decode(text(encoded, 1 << 20), validate=True), f"{what}: data_base64")
    except (binascii.Error, ValueError):
        raise AlertFormatError(f"{what}: data_base64 is not base64") from None


def _extensions(event: Mapping[str, object]) -> dict[str, str]:
    known = {"id", "source", "specversion", "type", "subject", "time", "data", "data_base64"}
    return labels({name: value for name, value in event.items() if name not in known}, "extension")


def _says_over(data: object) -> bool:
    return _field(data, "status").lower() in _OVER or _field(data, "state").lower() in _OVER


def _field(data: object, name: str) -> str:
    return text(data.get(name), MAX_SEVERITY) if isinstance(data, dict) else ""
