"""A CloudWatch alarm as SNS delivers it in `Message`: metric alarms, metric math and composite alarms.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html and, for the notification
around it, https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_FIELDS,
    MAX_NAME,
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    joined,
    mapping,
    moment,
    required,
    text,
)


def read(document: object, source: str) -> tuple[Alert, ...]:
    """The alarm's change of state; nothing for INSUFFICIENT_DATA, which shows no trouble; raises AlertFormatError."""
    alarm = mapping(document, "the alarm")
    state = required(alarm, "NewStateValue", "the alarm")
    status = status_of(state)
    if status is None:
        return ()
    arn, changed = required(alarm, "AlarmArn", "the alarm"), required(alarm, "StateChangeTime", "the alarm")
    trigger = alarm.get("Trigger")
    trigger = trigger if isinstance(trigger, dict) else {}
    told = {
        "alarm": text(alarm.get("AlarmName")),
        "account": text(alarm.get("AWSAccountId")),
        "region": text(alarm.get("Region")),
        "metric": text(trigger.get("MetricName")),
        "namespace": text(trigger.get("Namespace")),
        "old-state": text(alarm.get("OldStateValue")),
    }
    described = text(alarm.get("AlarmDescription"), MAX_TEXT)
    alert = Alert(
        source=source,
        id=identity(arn, changed, state),
        incident=arn,
        status=status,
        title=text(alarm.get("AlarmName"), MAX_TITLE) or arn,
        text=text("\n".join(filter(None, (described, text(alarm.get("NewStateReason"), MAX_TEXT)))), MAX_TEXT),
        at=moment(changed),
        fields=joined(told, dimensions(trigger)),
    )
    return (alert,)


def status_of(state: str) -> Status | None:
    """What an alarm's state means; raises AlertFormatError for a state that there is not."""
    match state:
        case "ALARM":
            return Status.FIRING
        case "OK":
            return Status.RESOLVED
        case "INSUFFICIENT_DATA":
            return None
        case _:
            raise AlertFormatError("the alarm's state is none of ALARM, OK and INSUFFICIENT_DATA")


def dimensions(trigger: Mapping[str, object]) -> dict[str, str]:
    """`dimensions.<name>` of the metric, or of all metrics of an expression; the first one's word counts."""
    found: dict[str, str] = {}
    for name, value in _dimensions(trigger):
        if len(found) < MAX_FIELDS:
            found.setdefault(f"dimensions.{name.lower()}", value)
    return found


def _dimensions(trigger: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    yield from _pairs(trigger.get("Dimensions"))
    metrics = trigger.get("Metrics")
    for metric in metrics if isinstance(metrics, list) else ():
        stat = metric.get("MetricStat") if isinstance(metric, dict) else None
        of = stat.get("Metric") if isinstance(stat, dict) else None
        if isinstance(of, dict):
            yield from _pairs(of.get("Dimensions"))


def _pairs(given: object) -> Iterator[tuple[str, str]]:
    for pair in given if isinstance(given, list) else ():
        if isinstance(pair, dict):
            name, value = text(pair.get("name"), MAX_NAME), text(pair.get("value"))
            if name and value:
                yield name, value
