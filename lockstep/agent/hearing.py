"""What a genuine delivery says, for the kinds where that is more than a document: a time, a confirmation, headers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lockstep.agent.authenticity.signed import refuse_old
from lockstep.agent.authenticity.sns import SnsMessage
from lockstep.agent.delivery import Delivery, ForgedError, Said
from lockstep.agent.source_settings import CloudEventsSource
from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.reading import AlertFormatError, parse, seconds
from lockstep.rules.alerts.sources import cloudevents, cloudwatch, eventbridge, pagerduty

#: A reader of documents, as in lockstep.rules.alerts.sources.
Read = Callable[[object, str], tuple[Alert, ...]]
Hear = Callable[[Delivery], Said]


def document(name: str, read: Read) -> Hear:
    """The alerts in a body that is JSON."""
    return lambda delivery: Said(alerts=read(parse(delivery.body, "the body"), name))


def signed_document(name: str, read: Read, time_header: str) -> Hear:
    """The same of a sender that signs a time, which tells one alert from the next where the alert tells no time."""

    def hear(delivery: Delivery) -> Said:
        signed = seconds(delivery.headers.get(time_header, ""))
        alerts = read(parse(delivery.body, "the body"), name)
        return Said(alerts=tuple(replace(alert, at=alert.at or signed) for alert in alerts))

    return hear


def pagerduty_event(name: str, window: float) -> Hear:
    """The alert of an event that occurred within the window: PagerDuty signs no other time."""

    def hear(delivery: Delivery) -> Said:
        event = parse(delivery.body, "the body")
        alerts = pagerduty.read(event, name)
        refuse_old(name, pagerduty.occurred_at(event), delivery.at, window)
        return Said(alerts=alerts)

    return hear


def sns_message(name: str, verifier: SnsMessage) -> Hear:
    """The alarm in a notification, or the address that confirms the subscription."""

    def hear(delivery: Delivery) -> Said:
        message = verifier.message(delivery)
        match message.get("Type"):
            case "Notification":
                return Said(alerts=_notified(message.get("Message"), name))
            case "SubscriptionConfirmation":
                address = message.get("SubscribeURL")
                if not isinstance(address, str) or not verifier.is_confirmation(address):
                    raise ForgedError(f"source {name}: the confirmation's address is not on the pinned host")
                return Said(answer="the subscription is being confirmed", confirm=address)
            case "UnsubscribeConfirmation":
                return Said(answer="the subscription has ended")
            case _:
                # No message that is verified comes here; a person's sample may be the alarm without what is around it.
                return Said(alerts=_alarm(message, name))

    return hear


def cloud_events(name: str, settings: CloudEventsSource) -> Hear:
    """The alerts of a request in structured, batched or binary mode."""

    def hear(delivery: Delivery) -> Said:
        found = cloudevents.document(delivery.headers, delivery.body)
        return Said(alerts=cloudevents.read(found, name, settings.types, settings.resolved_types))

    return hear


def _notified(message: object, name: str) -> tuple[Alert, ...]:
    inner = message.encode(errors="replace") if isinstance(message, str) else b""
    return _alarm(parse(inner, "the message in the notification"), name)


def _alarm(found: object, name: str) -> tuple[Alert, ...]:
    if isinstance(found, dict) and "detail-type" in found:
        return eventbridge.read(found, name)
    if isinstance(found, dict) and "AlarmName" in found:
        return cloudwatch.read(found, name)
    raise AlertFormatError("the message in the notification is neither an alarm nor an event")
