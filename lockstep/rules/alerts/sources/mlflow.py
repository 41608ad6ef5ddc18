"""MLflow's webhooks of its model and prompt registry: https://mlflow.org/docs/latest/ml/webhooks/.

MLflow sends events, not alerts: which of them means trouble (a tag `quality` set to `bad`, say) is a rule's to tell.
"""

from __future__ import annotations

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_TEXT,
    MAX_TITLE,
    identity,
    joined,
    labels,
    mapping,
    moment,
    required,
    text,
)


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The event; what was deleted (the tag that told the trouble, say) is resolved. Raises AlertFormatError.

    `entity`, `action` and everything in `data` are fields by their names; `model` is the registered model's name.
    """
    body = mapping(document, "the body")
    entity, action = required(body, "entity", "the body"), required(body, "action", "the body")
    data = mapping(body.get("data"), "data")
    name, version = text(data.get("name")), text(data.get("version"))
    thing = text(data.get("key")) or text(data.get("alias"))
    told = {"entity": entity, "action": action, "workspace": text(body.get("workspace"))}
    if entity.startswith(("model_version", "registered_model")) and name:
        told["model"] = name
    alert = Alert(
        source=source,
        id=identity(entity, action, required(body, "timestamp", "the body"), name, version, thing),
        incident=identity(entity, name, version, thing),
        status=Status.RESOLVED if action == "deleted" else Status.FIRING,
        title=text(" ".join(filter(None, (entity, action, name, version, thing))), MAX_TITLE),
        text=text(data.get("description"), MAX_TEXT),
        at=moment(body.get("timestamp")),
        fields=joined(told, labels(data)),
    )
    return (alert,)
