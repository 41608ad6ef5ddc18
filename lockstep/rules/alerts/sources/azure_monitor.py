"""Azure Monitor's common alert schema: https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-common-schema."""

from __future__ import annotations

from collections.abc import Mapping

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
    labels,
    mapping,
    moment,
    required,
    text,
)


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The alert that fired or was resolved.

    Its custom properties are `labels.<name>`, what was measured `dimensions.<name>`, the essentials
    `essentials.<name>`, the rest `context.<name>`. Raises AlertFormatError.
    """
    body = mapping(document, "the body")
    if body.get("schemaId") != "azureMonitorCommonAlertSchema":
        raise AlertFormatError("the body is not of the common alert schema: switch it on in the action group")
    data = mapping(body.get("data"), "data")
    essentials = mapping(data.get("essentials"), "data.essentials")
    status = _status(essentials.get("monitorCondition"))
    alert_id = required(essentials, "alertId", "data.essentials")
    fired = text(essentials.get("firedDateTime"), 64)
    context = data.get("alertContext")
    own = labels(data.get("customProperties"), "labels")
    found = Alert(
        source=source,
        id=identity(alert_id, fired, status.value),
        incident=alert_id,
        status=status,
        title=text(essentials.get("alertRule"), MAX_TITLE) or alert_id,
        text=text(essentials.get("description"), MAX_TEXT),
        severity=text(essentials.get("severity"), MAX_SEVERITY),
        at=moment(essentials.get("firedDateTime")),
        fields=joined(own, _dimensions(context), labels(essentials, "essentials"), labels(context, "context")),
    )
    return (found,)


def _status(condition: object) -> Status:
    match condition:
        case "Fired":
            return Status.FIRING
        case "Resolved":
            return Status.RESOLVED
        case _:
            raise AlertFormatError("data.essentials.monitorCondition is neither Fired nor Resolved")


def _dimensions(context: object) -> dict[str, str]:
    condition = context.get("condition") if isinstance(context, Mapping) else None
    met = condition.get("allOf") if isinstance(condition, Mapping) else None
    found: dict[str, str] = {}
    for part in met if isinstance(met, list) else ():
        pairs = part.get("dimensions") if isinstance(part, Mapping) else None
        for pair in pairs if isinstance(pairs, list) else ():
            if isinstance(pair, Mapping) and len(found) < MAX_FIELDS:
                name, value = text(pair.get("name"), MAX_NAME).lower(), text(pair.get("value"))
                if name and value:
                    found.setdefault(f"dimensions.{name}", value)
    return found
