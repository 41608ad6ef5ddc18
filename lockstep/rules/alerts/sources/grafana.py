"""Grafana Alerting's webhook contact point.

https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
Its shape is Alertmanager's with more in it: the organisation, the values that were measured, addresses of its pages.
"""

from __future__ import annotations

from dataclasses import replace

from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.reading import AlertFormatError, joined, labels, mapping, sequence, text
from lockstep.rules.alerts.sources import alertmanager


def read(document: object, source: str) -> tuple[Alert, ...]:
    """One Alert per entry of `alerts`, with what was measured as `values.<name>`; raises AlertFormatError."""
    body = mapping(document, "the body")
    if "orgId" not in body:
        raise AlertFormatError("the body has no orgId: it is not Grafana's, or an alert with a payload of your own")
    group = {
        "receiver": text(body.get("receiver")),
        "group": text(body.get("groupKey")),
        "organisation": text(body.get("orgId")),
    }
    found = []
    for place, entry in enumerate(sequence(body.get("alerts"), "alerts")):
        what = f"alerts[{place}]"
        part = mapping(entry, what)
        alert = alertmanager.entry(part, source, group, what)
        more = {"dashboard": text(part.get("dashboardURL")), "panel": text(part.get("panelURL"))}
        found.append(replace(alert, fields=joined(alert.fields, labels(part.get("values"), "values"), more)))
    return tuple(found)
