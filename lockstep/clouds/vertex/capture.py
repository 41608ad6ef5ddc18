"""Requests that Vertex AI logged: rows in BigQuery, some time later.

The columns are `endpoint`, `deployed_model_id`, `logging_time`, `request_id`, `request_payload`, `response_payload`.
`request_id` is a number that the service makes up, and no header of the caller's is documented to reach the row. So an
id is found in two ways: it is that number, which is certain; or its text stands in the payload, where an application
that sends its own id as a column of the row puts it, which is as certain as the text is unlike any other.

`deployed_model_id` names the slot as long as it is deployed; of one that was removed since, the id itself is given.
Source: `PredictRequestResponseLoggingConfig` and `BigQueryDestination` of the v1 API, `jobs.query` of BigQuery's v2.
Assumed: the columns, which Google's reference for custom models does not list.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lockstep.clouds.vertex.rest import JsonObject, Rest, VertexError
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.errors import RetryLaterError
from lockstep.rules.measurement import CapturedRequest

#: The field of an endpoint that says what is logged.
LOGGING: Final = "predictRequestResponseLoggingConfig"
MOST_ROWS: Final = 100
#: Bytes that one question may read, so that nobody is billed for a scan of years.
MOST_BYTES: Final = 100 * 2**30
EPOCH: Final = datetime.fromtimestamp(0, UTC)
STATEMENT: Final = (
    "SELECT deployed_model_id, logging_time, request_id FROM `{table}` "
    "WHERE logging_time BETWEEN @since AND @until "
    "AND (CAST(request_id AS STRING) = @request_id OR STRPOS(TO_JSON_STRING(request_payload), @request_id) > 0) "
    "ORDER BY logging_time LIMIT {rows}"
)


def logging_config(settings: VertexSettings, endpoint_id: str) -> JsonObject | None:
    """An endpoint's `predictRequestResponseLoggingConfig`; None when nothing is to be captured."""
    if not settings.capture_percent:
        return None
    return {
        "enabled": True,
        "samplingRate": settings.capture_percent / 100.0,
        "bigqueryDestination": {"outputUri": f"bq://{table_of(settings, endpoint_id)}"},
    }


def table_of(settings: VertexSettings, endpoint_id: str) -> str:
    """`project.dataset.table` of an endpoint's captures."""
    return f"{settings.project}.{settings.capture_dataset}.requests_{endpoint_id.replace('-', '_')}"


def find_captured(
    rest: Rest,
    cloud: str,
    settings: VertexSettings,
    table: str,
    slots: Mapping[str, str],
    request_id: str,
    since: datetime,
    until: datetime,
) -> tuple[CapturedRequest, ...]:
    """Logged requests with this id between two aware times; `slots` are known by deployed-model id."""
    given = {
        "since": ("TIMESTAMP", _text(since)),
        "until": ("TIMESTAMP", _text(until)),
        "request_id": ("STRING", request_id),
    }
    body = {
        "query": STATEMENT.format(table=table, rows=MOST_ROWS),
        "useLegacySql": False,
        "parameterMode": "NAMED",
        "queryParameters": [
            {"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}}
            for name, (kind, value) in given.items()
        ],
        "timeoutMs": int(settings.call_timeout * 800),
        "maximumBytesBilled": str(MOST_BYTES),
        "formatOptions": {"useInt64Timestamp": True},
    }
    try:
        answer = rest.call("POST", settings.queries, body=body, repeatable=True)
    except VertexError as error:
        if error.http == 404 and "table" in error.message.lower():
            return ()  # it is made with its first row
        raise
    if not answer.get("jobComplete"):
        raise RetryLaterError(
            f"BigQuery is still looking through {table}", cloud=cloud, hint="name the time of the request: --time"
        )
    return tuple(_row(row, cloud, table, slots, request_id) for row in answer.get("rows", ()))


def _row(row: Mapping[str, Any], cloud: str, table: str, slots: Mapping[str, str], request_id: str) -> CapturedRequest:
    deployed, logged, number = (str(cell.get("v")) for cell in row["f"])
    at = EPOCH + timedelta(microseconds=int(logged))
    return CapturedRequest(cloud, slots.get(deployed, deployed), request_id, at, f"bq://{table}, request_id {number}")


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
