"""Prometheus Alertmanager's webhook, version 4: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.

Grafana sends the same shape with more in it (lockstep.rules.alerts.sources.grafana).
"""

from __future__ import annotations

from collections.abc import Mapping

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_FIELD,
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
    sequence,
    text,
)


def read(document: object, source: str) -> tuple[Alert, ...]:
    """One Alert per entry of `alerts`, with `labels.<name>` and `annotations.<name>`; raises AlertFormatError."""
    body = mapping(document, "the body")
    version = text(body.get("version"), 16)
    if version != "4":
        raise AlertFormatError(f"the body has {f'version {version}' if version else 'no version'}, not version 4")
    group = {"receiver": text(body.get("receiver")), "group": text(body.get("groupKey"))}
    return tuple(
        entry(mapping(found, f"alerts[{place}]"), source, group, f"alerts[{place}]")
        for place, found in enumerate(sequence(body.get("alerts"), "alerts"))
    )


def entry(found: Mapping[str, object], source: str, group: Mapping[str, str], what: str) -> Alert:
    """One entry of `alerts`.

    The fingerprint is that of the labels, so the same for ever; `startsAt` tells one time of trouble from the next.
    """
    fingerprint = required(found, "fingerprint", what)
    own, notes = labels(found.get("labels"), "labels"), labels(found.get("annotations"), "annotations")
    status = status_of(found.get("status"), what)
    title = notes.get("annotations.summary") or own.get("labels.alertname") or fingerprint
    return Alert(
        source=source,
        id=identity(fingerprint, text(found.get("startsAt"), 64), status.value),
        incident=fingerprint,
        status=status,
        title=text(title, MAX_TITLE),
        text=text(_annotation(found, "description"), MAX_TEXT),
        severity=own.get("labels.severity", "")[:MAX_SEVERITY],
        at=moment(found.get("startsAt")),
        fields=joined(own, group, {"generator": text(found.get("generatorURL"), MAX_FIELD)}, notes),
    )


def status_of(value: object, what: str) -> Status:
    """`firing` or `resolved`; raises AlertFormatError for anything else."""
    match value:
        case "firing":
            return Status.FIRING
        case "resolved":
            return Status.RESOLVED
        case _:
            raise AlertFormatError(f"{what} has a status that is neither firing nor resolved")


def _annotation(found: Mapping[str, object], name: str) -> object:
    notes = found.get("annotations")
    return notes.get(name) if isinstance(notes, dict) else None
