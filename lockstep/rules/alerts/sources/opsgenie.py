"""Opsgenie's outgoing webhook: https://docs.opsgenie.com/docs/webhook-integration and /docs/marid-alert-action-data."""

from __future__ import annotations

from typing import Final

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_SEVERITY,
    MAX_TEXT,
    MAX_TITLE,
    identity,
    joined,
    labels,
    mapping,
    required,
    seconds,
    text,
)
from lockstep.rules.alerts.sources.datadog import tags

#: Other actions (a note, an acknowledgement, an escalation) neither begin nor end the trouble.
_MEANS: Final = {"Create": Status.FIRING, "Close": Status.RESOLVED, "Delete": Status.RESOLVED}


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The alert that was created, closed or deleted; nothing for other actions; raises AlertFormatError.

    Its details are `labels.<name>`, its `key:value` tags as well.
    """
    body = mapping(document, "the body")
    action = required(body, "action", "the body")
    status = _MEANS.get(action)
    if status is None:
        return ()
    given = mapping(body.get("alert"), "alert")
    name = required(given, "alertId", "alert")
    told = {
        "alias": text(given.get("alias")),
        "entity": text(given.get("entity")),
        "priority": text(given.get("priority"), MAX_SEVERITY),
        "integration": text(body.get("integrationName")),
        "action": action,
    }
    alert = Alert(
        source=source,
        id=identity(name, action),
        incident=name,
        status=status,
        title=text(given.get("message"), MAX_TITLE) or name,
        text=text(given.get("description"), MAX_TEXT),
        severity=text(given.get("priority"), MAX_SEVERITY),
        at=seconds(given.get("createdAt"), per_second=1000.0),
        fields=joined(labels(given.get("details"), "labels"), tags(given.get("tags")), told),
    )
    return (alert,)
