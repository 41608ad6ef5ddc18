"""What a push subscription of Pub/Sub delivers: https://cloud.google.com/pubsub/docs/push#receive_push.

Wrapped, the message is JSON with its data in base64; unwrapped (https://cloud.google.com/pubsub/docs/payload-unwrapping),
the body is the data itself. The data is Cloud Monitoring's (lockstep.rules.alerts.sources.google_monitoring).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.reading import AlertFormatError, joined, labels, mapping, parse, text
from lockstep.rules.alerts.sources import google_monitoring


def read(document: object, source: str, subscriptions: tuple[str, ...] = ()) -> tuple[Alert, ...]:
    """The incident inside; the message's attributes are fields `attributes.<name>`; raises AlertFormatError.

    `subscriptions` are those that are believed, every one when empty; an unwrapped message does not tell its own in
    the body, so with subscriptions only wrapped ones are read.
    """
    body = mapping(document, "the body")
    if "message" not in body:
        if subscriptions:
            raise AlertFormatError("the body is no wrapped message, so it does not name its subscription")
        return google_monitoring.read(body, source)
    if subscriptions and body.get("subscription") not in subscriptions:
        raise AlertFormatError("the message is of a subscription that this source does not believe")
    message = mapping(body.get("message"), "message")
    data = message.get("data")
    if not isinstance(data, str):
        raise AlertFormatError("message.data is missing")
    try:
        inner = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise AlertFormatError("message.data is not base64") from None
    more = {**labels(message.get("attributes"), "attributes"), "subscription": text(body.get("subscription"))}
    found = google_monitoring.read(parse(inner, "message.data"), source)
    return tuple(replace(alert, fields=joined(alert.fields, more)) for alert in found)
