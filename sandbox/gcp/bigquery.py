"""Request-response logging of endpoints and the one BigQuery query that reads it back.

The columns are those of Vertex AI's log table: `endpoint`, `deployed_model_id`, `logging_time`, `request_id` (a number
that the service makes up; no id of the caller's comes there), `request_payload` and `response_payload`. Of BigQuery
there is `jobs.query` alone, and of SQL the one statement below, with its named parameters; anything else is answered
UNIMPLEMENTED. https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/query

Assumed: the columns; a payload is an array with one text per instance or prediction; only answers of 200 are logged; a
table that nothing was logged to yet does not exist. RawPredict is not logged here.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.discovery import Discovery, document
from sandbox.gcp.errors import GoogleError, error_response, invalid, not_emulated, status_for_http
from sandbox.gcp.identity import Identity
from sandbox.gcp.permissions import Guard
from sandbox.gcp.vertex_names import JsonObject
from sandbox.web import Target
from sandbox.world import World

FLUSH: Final = "gcp.capture.flush"
METHOD: Final = "bigquery.jobs.query"
PATH: Final = re.compile(r"/bigquery/v2/projects/([^/]+)/queries")
DESTINATION: Final = re.compile(r"bq://([a-z][a-z0-9-]*)\.(\w+)\.(\w+)")
STATEMENT: Final = re.compile(
    r"SELECT deployed_model_id, logging_time, request_id FROM `([^`]+)` "
    r"WHERE logging_time BETWEEN @since AND @until "
    r"AND \(CAST\(request_id AS STRING\) = @request_id "
    r"OR STRPOS\(TO_JSON_STRING\(request_payload\), @request_id\) > 0\) "
    r"ORDER BY logging_time LIMIT (\d+)"
)
PARAMETERS: Final = {"since": "TIMESTAMP", "until": "TIMESTAMP", "request_id": "STRING"}
COLUMNS: Final = (("deployed_model_id", "STRING"), ("logging_time", "TIMESTAMP"), ("request_id", "NUMERIC"))


@dataclass(frozen=True)
class Row:
    """One logged request; `visible` is when queries begin to see it."""

    endpoint: str
    deployed_model_id: str
    logging_time: float
    request_id: int
    request_payload: tuple[str, ...]
    response_payload: tuple[str, ...]
    visible: float


class RequestLogs:
    """The log tables of one project."""

    def __init__(self, world: World, datasets: Sequence[str]) -> None:
        self._world = world
        self._datasets = frozenset(datasets)
        self._random = random.Random(world.seed + 1)  # noqa: S311 - a draw of samples, repeatable
        self._lock = threading.Lock()
        self._tables: dict[str, list[Row]] = {}

    def check(self, config: JsonObject, project: str) -> None:
        """Refuse a logging configuration that the service would not take, or that is not emulated."""
        uri = str(config.get("bigqueryDestination", {}).get("outputUri", ""))
        found = DESTINATION.fullmatch(uri)
        if found is None:
            raise not_emulated(f"request-response logging to {uri!r}: only to bq://project.dataset.table")
        if found[1] != project or found[2] not in self._datasets:
            raise invalid(f"Not found: Dataset {found[1]}:{found[2]}")
        if not 0.0 < float(config.get("samplingRate", 0.0)) <= 1.0:
            raise invalid("The sampling rate of request-response logging must be in the range (0, 1].")

    def record(
        self, config: JsonObject | None, endpoint: str, deployed: str, instances: Sequence[Any], answers: Sequence[Any]
    ) -> None:
        """Log one request if the endpoint's configuration wants it."""
        if not config or not config.get("enabled") or self._random.random() >= float(config["samplingRate"]):
            return
        now = time.time()
        row = Row(
            endpoint,
            deployed,
            now,
            secrets.randbelow(10**18),
            tuple(json.dumps(one) for one in instances),
            tuple(json.dumps(one) for one in answers),
            now + self._world.delays.seconds(FLUSH),
        )
        with self._lock:
            self._tables.setdefault(config["bigqueryDestination"]["outputUri"].removeprefix("bq://"), []).append(row)

    def find(self, table: str, since: float, until: float, request_id: str, limit: int) -> list[Row]:
        """What the statement selects; NOT_FOUND for a table that does not exist."""
        now = time.time()
        with self._lock:
            rows = [row for row in self._tables.get(table, ()) if row.visible <= now]
        if not rows:
            project, _, rest = table.partition(".")
            raise GoogleError("NOT_FOUND", f"Not found: Table {project}:{rest} was not found")
        matching = [
            row
            for row in rows
            if since <= row.logging_time <= until
            and (str(row.request_id) == request_id or request_id in json.dumps(row.request_payload))
        ]
        return sorted(matching, key=lambda row: row.logging_time)[:limit]


class BigQueryService:
    """BigQuery's REST address for one project."""

    cloud = "gcp"

    def __init__(self, identity: Identity, logs: RequestLogs, project: str, guard: Guard) -> None:
        self._identity = identity
        self._guard = guard
        self._logs = logs
        self._project = project
        self._discovery: Discovery = document("bigquery.v2")

    def identify(self, request: Request) -> Target:
        """`jobs.query`, the only call."""
        known = request.method == "POST" and PATH.fullmatch(request.path)
        return Target("jobs.query" if known else "unknown")

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """INTERNAL, what belongs to the fault's status, or RESOURCE_EXHAUSTED for a throttle."""
        if fault.kind == "throttle":
            return error_response("RESOURCE_EXHAUSTED", "Quota exceeded for bigquery.googleapis.com requests.")
        return error_response(status_for_http(fault.status), "Internal error encountered.", fault.status)

    def respond(self, request: Request, target: Target) -> Response:
        """Answer one request."""
        try:
            self._identity.check(request)
            self._guard.admit(target.operation, f"projects/{self._project}")
            self._check_place(request, target)
            asked = self._discovery.read_request(METHOD, request.get_json(silent=True) or {})
            answer = self._discovery.write("QueryResponse", self._query(asked), enums_as_int=False)
            return Response(json.dumps(answer), 200, content_type="application/json; charset=UTF-8")
        except GoogleError as error:
            return error_response(error.status, error.message)

    def _check_place(self, request: Request, target: Target) -> None:
        found = PATH.fullmatch(request.path)
        if found is None or target.operation == "unknown":
            raise not_emulated(f"BigQuery {request.method} {request.path}")
        if found[1] != self._project:
            raise GoogleError("PERMISSION_DENIED", f"Access Denied: Project {found[1]}")

    def _query(self, asked: JsonObject) -> JsonObject:
        statement = STATEMENT.fullmatch(str(asked.get("query", "")))
        if statement is None:
            raise not_emulated(f"the statement {asked.get('query')!r}")
        if asked.get("useLegacySql", True):
            raise invalid("Query parameters are not allowed in legacy SQL.")
        if not (asked.get("formatOptions") or {}).get("useInt64Timestamp"):
            raise not_emulated("timestamps as floating point numbers")
        given = _parameters(asked)
        since, until = (_seconds(given[name]) for name in ("since", "until"))
        rows = self._logs.find(statement[1], since, until, given["request_id"], int(statement[2]))
        return {
            "kind": "bigquery#queryResponse",
            "jobComplete": True,
            "schema": {"fields": [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in COLUMNS]},
            "totalRows": str(len(rows)),
            "rows": [
                {
                    "f": [
                        {"v": row.deployed_model_id},
                        {"v": str(int(row.logging_time * 1_000_000))},
                        {"v": str(row.request_id)},
                    ]
                }
                for row in rows
            ],
        }


def _parameters(asked: JsonObject) -> Mapping[str, str]:
    if str(asked.get("parameterMode", "")).upper() != "NAMED":
        raise not_emulated("query parameters by position")
    kinds = {one["name"]: one["parameterType"].get("type") for one in asked.get("queryParameters", ())}
    if kinds != PARAMETERS:
        raise invalid(f"Query parameters {sorted(PARAMETERS)} are needed, not {sorted(kinds)}.")
    return {one["name"]: one["parameterValue"]["value"] for one in asked["queryParameters"]}


def _seconds(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise invalid(f"Invalid TIMESTAMP {text!r}") from None
