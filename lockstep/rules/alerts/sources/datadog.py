"""Datadog's webhooks integration.

It sends what one writes into its payload; for Lockstep that is:

    {"id": "$ID", "alert": "$ALERT_ID", "cycle": "$ALERT_CYCLE_KEY", "transition": "$ALERT_TRANSITION",
     "type": "$ALERT_TYPE", "priority": "$ALERT_PRIORITY", "title": "$EVENT_TITLE", "text": "$TEXT_ONLY_MSG",
     "metric": "$ALERT_METRIC", "scope": "$ALERT_SCOPE", "tags": "$TAGS", "date": "$DATE", "link": "$LINK"}

https://docs.datadoghq.com/integrations/webhooks/ tells what stands for each variable.
"""

from __future__ import annotations

from typing import Final

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_FIELDS,
    MAX_NAME,
    MAX_SEVERITY,
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    joined,
    mapping,
    required,
    seconds,
    text,
)

_FIRING: Final = frozenset({"triggered", "re-triggered", "renotify", "warn", "re-warn"})
_RESOLVED: Final = frozenset({"recovered"})
#: A monitor that gets no data shows no trouble.
_NO_DATA: Final = frozenset({"no data", "re-no data"})
_TOLD: Final = ("alert", "transition", "type", "priority", "metric", "scope", "link")


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The monitor's transition; tags and scope (`model:tumour`) are `labels.<name>`; raises AlertFormatError."""
    body = mapping(document, "the body")
    cycle = required(body, "cycle", "the body")
    transition = required(body, "transition", "the body").lower()
    if transition in _NO_DATA:
        return ()
    if transition not in _FIRING | _RESOLVED:
        raise AlertFormatError("the transition is none that Datadog's monitors make")
    alert = Alert(
        source=source,
        id=identity(cycle, transition, required(body, "id", "the body")),
        incident=cycle,
        status=Status.RESOLVED if transition in _RESOLVED else Status.FIRING,
        title=text(body.get("title"), MAX_TITLE) or cycle,
        text=text(body.get("text"), MAX_TEXT),
        severity="warning" if "warn" in transition else text(body.get("priority"), MAX_SEVERITY),
        at=seconds(body.get("date"), per_second=1000.0),
        fields=joined(
            {name: text(body.get(name)) for name in _TOLD},
            tags(body.get("scope")),
            tags(body.get("tags")),
        ),
    )
    return (alert,)


def tags(given: object) -> dict[str, str]:
    """`key:value` tags, in an array or joined by commas, as `labels.<key>`; a tag without a value is left out."""
    listed = given if isinstance(given, list) else text(given, MAX_TEXT).split(",")
    found: dict[str, str] = {}
    for tag in listed[:MAX_FIELDS]:
        name, colon, value = text(tag).partition(":")
        if colon and name.strip() and value.strip():
            found.setdefault(f"labels.{name.strip().lower()}"[:MAX_NAME], value.strip())
    return found
