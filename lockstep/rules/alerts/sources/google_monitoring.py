"""Cloud Monitoring's incidents, as its webhook and Pub/Sub channels send them, version 1.2.

https://cloud.google.com/monitoring/support/notification-options#webhooks, #pubsub
"""

from __future__ import annotations

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
    required,
    seconds,
    text,
)


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The incident that opened or closed; nothing for the console's test message; raises AlertFormatError.

    The policy's user labels are `labels.<name>`; the rest of the incident under its dotted names.
    """
    body = mapping(document, "the body")
    version = text(body.get("version"), 16)
    if version == "test":
        return ()
    if not version.startswith("1."):
        raise AlertFormatError(f"the body has {f'version {version}' if version else 'no version'}, not version 1.2")
    incident = mapping(body.get("incident"), "incident")
    status = _status(incident.get("state"))
    name = required(incident, "incident_id", "incident")
    documentation = incident.get("documentation")
    content = documentation.get("content") if isinstance(documentation, dict) else ""
    told = "\n".join(filter(None, (text(incident.get("summary"), MAX_TEXT), text(content, MAX_TEXT))))
    alert = Alert(
        source=source,
        # A notification that is repeated while the incident is open has the same identifier: it is the same alert.
        id=identity(name, text(incident.get("started_at"), 64), status.value),
        incident=name,
        status=status,
        title=text(incident.get("policy_name"), MAX_TITLE) or text(incident.get("condition_name"), MAX_TITLE) or name,
        text=text(told, MAX_TEXT),
        severity=text(incident.get("severity"), MAX_SEVERITY),
        at=seconds(incident.get("started_at")),
        fields=joined(labels(incident.get("policy_user_labels"), "labels"), labels(incident)),
    )
    return (alert,)


def _status(state: object) -> Status:
    match state:
        case "open":
            return Status.FIRING
        case "closed":
            return Status.RESOLVED
        case _:
            raise AlertFormatError("incident.state is neither open nor closed")
