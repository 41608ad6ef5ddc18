"""Events of EventBridge: an endpoint of SageMaker that changed its state, and a CloudWatch alarm that did.

https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    joined,
    labels,
    mapping,
    moment,
    required,
    seconds,
    text,
)
from lockstep.rules.alerts.sources import cloudwatch

ENDPOINT: Final = "SageMaker Endpoint State Change"
ALARM: Final = "CloudWatch Alarm State Change"
#: In EventBridge's spelling and, without underscores, in that of the API; states that are passed through say nothing.
_FAILED: Final = frozenset({"FAILED", "ROLLINGBACK", "UPDATEROLLBACKFAILED", "OUTOFSERVICE"})
_WELL: Final = "INSERVICE"


def read(document: object, source: str, accounts: tuple[str, ...] = ()) -> tuple[Alert, ...]:
    """An endpoint that failed, or is back in service, or an alarm; raises AlertFormatError for any other event.

    `accounts` are those that are believed; every one when empty.
    """
    event = mapping(document, "the event")
    account = text(event.get("account"))
    if accounts and account not in accounts:
        raise AlertFormatError("the event is of an account that this source does not believe")
    detail = mapping(event.get("detail"), "detail")
    match event.get("detail-type"):
        case "SageMaker Endpoint State Change":
            return _endpoint(event, detail, source)
        case "CloudWatch Alarm State Change":
            return _alarm(event, detail, source)
        case _:
            raise AlertFormatError(f"the event's detail-type is neither {ENDPOINT!r} nor {ALARM!r}")


def _endpoint(event: Mapping[str, object], detail: Mapping[str, object], source: str) -> tuple[Alert, ...]:
    state = required(detail, "EndpointStatus", "detail")
    spelt = state.replace("_", "").upper()
    if spelt != _WELL and spelt not in _FAILED:
        return ()
    name = required(detail, "EndpointName", "detail")
    told = {"endpoint": name, "state": state, **_told(event)}
    alert = Alert(
        source=source,
        id=required(event, "id", "the event"),
        incident=identity(text(event.get("account")), text(event.get("region")), name),
        status=Status.RESOLVED if spelt == _WELL else Status.FIRING,
        title=text(f"endpoint {name} is {state}", MAX_TITLE),
        text=text(detail.get("FailureReason"), MAX_TEXT),
        at=_moment(event.get("time")),
        fields=joined(told, labels(detail.get("Tags"), "labels"), labels(detail, "detail")),
    )
    return (alert,)


def _alarm(event: Mapping[str, object], detail: Mapping[str, object], source: str) -> tuple[Alert, ...]:
    state = mapping(detail.get("state"), "detail.state")
    status = cloudwatch.status_of(required(state, "value", "detail.state"))
    if status is None:
        return ()
    name = required(detail, "alarmName", "detail")
    alert = Alert(
        source=source,
        id=required(event, "id", "the event"),
        incident=identity(text(event.get("account")), text(event.get("region")), name),
        status=status,
        title=text(name, MAX_TITLE),
        text=text(state.get("reason"), MAX_TEXT),
        at=_moment(event.get("time")),
        fields=joined({"alarm": name, **_told(event)}, _dimensions(detail), labels(detail, "detail")),
    )
    return (alert,)


def _told(event: Mapping[str, object]) -> dict[str, str]:
    return {"account": text(event.get("account")), "region": text(event.get("region"))}


def _dimensions(detail: Mapping[str, object]) -> dict[str, str]:
    configuration = detail.get("configuration")
    metrics = configuration.get("metrics") if isinstance(configuration, dict) else None
    found: dict[str, str] = {}
    for metric in metrics if isinstance(metrics, list) else ():
        stat = metric.get("metricStat") if isinstance(metric, dict) else None
        of = stat.get("metric") if isinstance(stat, dict) else None
        if isinstance(of, dict):
            found = joined(found, labels(of.get("dimensions"), "dimensions"))
    return found


def _moment(value: object) -> float:
    """RFC 3339 as EventBridge sends it, or milliseconds in a text as SageMaker's documentation shows it."""
    return moment(value) or seconds(value, per_second=1000.0)
