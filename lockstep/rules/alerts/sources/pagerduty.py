"""PagerDuty's webhooks, version 3: https://developer.pagerduty.com/docs/webhooks-overview."""

from __future__ import annotations

from typing import Final

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_SEVERITY,
    MAX_TITLE,
    identity,
    joined,
    labels,
    mapping,
    moment,
    required,
    text,
)

#: What else happens to an incident (who has seen it, who is called next) neither begins nor ends the trouble.
_MEANS: Final = {
    "incident.triggered": Status.FIRING,
    "incident.reopened": Status.FIRING,
    "incident.resolved": Status.RESOLVED,
}


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The incident that was triggered, reopened or resolved; nothing for other events; raises AlertFormatError."""
    event = mapping(mapping(document, "the body").get("event"), "event")
    kind = required(event, "event_type", "event")
    status = _MEANS.get(kind)
    if status is None:
        return ()
    data = mapping(event.get("data"), "event.data")
    incident = required(data, "id", "event.data")
    service, priority = _summary(data.get("service")), _summary(data.get("priority"))
    told = {
        "service": service,
        "priority": priority,
        "urgency": text(data.get("urgency"), MAX_SEVERITY),
        "key": text(data.get("incident_key")),
        "link": text(data.get("html_url")),
        "event": text(event.get("event_type")),
    }
    alert = Alert(
        source=source,
        id=identity(incident, required(event, "id", "event")),
        incident=incident,
        status=status,
        title=text(data.get("title"), MAX_TITLE) or incident,
        severity=text(priority, MAX_SEVERITY) or text(data.get("urgency"), MAX_SEVERITY),
        at=moment(event.get("occurred_at") if kind == "incident.reopened" else data.get("created_at")),
        fields=joined(told, labels(data, "incident")),
    )
    return (alert,)


def occurred_at(document: object) -> float:
    """When PagerDuty made the event, in seconds since 1970; 0.0 if it does not tell. Raises AlertFormatError."""
    return moment(mapping(mapping(document, "the body").get("event"), "event").get("occurred_at"))


def _summary(reference: object) -> str:
    return text(reference.get("summary")) if isinstance(reference, dict) else ""
