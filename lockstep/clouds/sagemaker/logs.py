"""The end of a container's log, from CloudWatch Logs."""

from __future__ import annotations

from typing import Any, Final

GROUP: Final = "/aws/sagemaker/Endpoints/{endpoint}"
LINES: Final = 20


def last_lines(logs: Any, endpoint: str, slot: str) -> str:
    """Last lines of the newest log of a slot; "" where there is none or it may not be read."""
    from botocore.exceptions import BotoCoreError, ClientError

    group = GROUP.format(endpoint=endpoint)
    try:
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{slot}/", limit=50)["logStreams"]
        if not streams:
            return ""
        newest = max(streams, key=lambda stream: stream.get("lastEventTimestamp", stream.get("creationTime", 0)))
        events = logs.get_log_events(
            logGroupName=group, logStreamName=newest["logStreamName"], limit=LINES, startFromHead=False
        )["events"]
    except (ClientError, BotoCoreError):
        return ""  # the log explains a failure; that it cannot be read must not hide the failure
    return "\n".join(str(event["message"]).rstrip() for event in events)
