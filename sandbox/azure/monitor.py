"""Azure Monitor's batch address for metrics: `POST /subscriptions/{s}/metrics:getBatch`, API version 2024-02-01."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.azure.arm import ArmError, answer, bad_request, not_implemented, refusal
from sandbox.azure.endpoints import endpoint_key
from sandbox.azure.metrics import METRICS, NAMESPACE, Metrics, Sample, grains
from sandbox.azure.schema import seconds
from sandbox.azure.store import Store
from sandbox.azure.tokens import METRICS as AUDIENCE
from sandbox.azure.tokens import InvalidTokenError, Tokens
from sandbox.faults import Fault, Faults
from sandbox.web import Target

API_VERSION: Final = "2024-02-01"
GRAINS: Final = ("PT1M", "PT5M", "PT15M", "PT30M", "PT1H", "PT6H", "PT12H", "P1D")
AGGREGATIONS: Final = ("average", "minimum", "maximum", "total", "count")
PARAMETERS: Final = frozenset(
    ("api-version", "starttime", "endtime", "interval", "metricnamespace", "metricnames", "aggregation", "top",
     "filter")
)  # fmt: skip
RESOURCES: Final = 50
CONDITION: Final = re.compile(r"\(*\s*([A-Za-z]+)\s+eq\s+'([^']*)'\s*\)*", re.IGNORECASE)


@dataclass(frozen=True)
class Query:
    """What is asked of every resource: Unix seconds, and the dimensions to split by with their values (`*`: all)."""

    metrics: tuple[str, ...]
    start: float
    end: float
    interval: str
    aggregations: tuple[str, ...]
    dimensions: Mapping[str, frozenset[str]]
    top: int


class Monitor:
    """Answers for the online endpoints of the workspace."""

    cloud = "azure"

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        tokens: Tokens,
        faults: Faults,
        subscription: str,
        region: str,
        admit: Callable[[str, str, str], None],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._tokens = tokens
        self._faults = faults
        self._admit = admit
        self._path = f"/subscriptions/{subscription}/metrics:getbatch"
        self._region = region

    def identify(self, request: Request) -> Target:
        """`Metrics_Batch`."""
        return Target("Metrics_Batch" if request.path.lower() == self._path.lower() else f"Monitor {request.path}")

    def respond(self, request: Request, target: Target) -> Response:
        """One entry for each resource."""
        try:
            self._check(request, target)
            query = _query(request.args)
            body = request.get_json(silent=True)
            identifiers = body.get("resourceids") if isinstance(body, dict) else None
            if not isinstance(identifiers, list) or not 0 < len(identifiers) <= RESOURCES:
                raise bad_request(f"The body must name 1 to {RESOURCES} 'resourceids'.")
            return answer({"values": [self._resource(str(identifier), query) for identifier in identifiers]})
        except ArmError as error:
            return refusal(error)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """429 with Retry-After when throttled, else InternalServerError."""
        if fault.kind == "throttle":
            return refusal(ArmError(429, "TooManyRequests", "Too many metrics queries.", {"Retry-After": "1"}))
        return refusal(ArmError(fault.status, "InternalServerError", "An internal server error occurred."))

    def _check(self, request: Request, target: Target) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            claims = self._tokens.check(token if scheme.lower() == "bearer" else "", AUDIENCE)
        except InvalidTokenError as error:
            raise ArmError(401, "InvalidAuthenticationToken", str(error), {"WWW-Authenticate": "Bearer"}) from error
        if target.operation != "Metrics_Batch" or request.method != "POST":
            raise not_implemented(f"{request.method} {request.path}")
        self._admit(target.operation, str(claims["appid"]), request.path)
        if request.args.get("api-version") != API_VERSION:
            raise not_implemented(f"api-version {request.args.get('api-version')} of Metrics_Batch")
        unknown = sorted(set(request.args) - PARAMETERS)
        if unknown:
            raise not_implemented(f"query parameter {unknown[0]!r} of Metrics_Batch")

    def _resource(self, identifier: str, query: Query) -> dict[str, Any]:
        name = identifier.rstrip("/").rsplit("/", 1)[-1]
        found = self._store.get(endpoint_key(name))
        if found is None or found["id"].lower() != identifier.rstrip("/").lower():
            raise ArmError(404, "ResourceNotFound", f"The resource '{identifier}' was not found.")
        samples = self._metrics.samples(name, query.start, query.end, self._faults.lag("azure"))
        return {
            "starttime": _stamp(query.start),
            "endtime": _stamp(query.end),
            "interval": query.interval,
            "namespace": NAMESPACE,
            "resourceregion": self._region,
            "resourceid": identifier,
            "value": [_metric(identifier, metric, samples, query) for metric in query.metrics],
        }


def _metric(identifier: str, metric: str, samples: list[Sample], query: Query) -> dict[str, Any]:
    name, unit, known, _ = METRICS[metric]
    dimensions = {d: wanted for d in known for asked, wanted in query.dimensions.items() if asked == d.lower()}
    if len(dimensions) < len(query.dimensions):
        missing = sorted(set(query.dimensions) - {d.lower() for d in dimensions})
        raise bad_request(f"Metric: {name} does not support requested dimension combination: {missing[0]}.")
    series: dict[tuple[str, ...], list[Sample]] = {}
    for sample in samples:
        values = tuple(sample.dimension(d) for d in dimensions)
        if all("*" in wanted or v.lower() in wanted for v, wanted in zip(values, dimensions.values(), strict=True)):
            series.setdefault(values, []).append(sample)
    step = seconds(query.interval)
    return {
        "id": f"{identifier}/providers/Microsoft.Insights/metrics/{name}",
        "type": "Microsoft.Insights/metrics",
        "name": {"value": name, "localizedValue": name},
        "displayDescription": name,
        "unit": unit,
        "errorCode": "Success",
        "timeseries": [
            {
                "metadatavalues": [
                    {"name": {"value": d.lower(), "localizedValue": d.lower()}, "value": v}
                    for d, v in zip(dimensions, values, strict=True)
                ],
                "data": [
                    {"timeStamp": _stamp(at), **{a: v for a, v in numbers.items() if a in query.aggregations}}
                    for at, numbers in grains(metric, inside, query.start, query.end, step)
                ],
            }
            for values, inside in itertools.islice(sorted(series.items()), query.top)
        ],
    }


def _query(args: Mapping[str, str]) -> Query:
    if args.get("metricnamespace", "").lower() != NAMESPACE:
        raise not_implemented(f"metric namespace {args.get('metricnamespace')!r}")
    names = tuple(name.strip().lower() for name in args.get("metricnames", "").split(","))
    for name in names:
        if name not in METRICS:
            valid = ", ".join(m[0] for m in METRICS.values())
            raise bad_request(f"Failed to find metric configuration for metric: {name}. Valid metrics: {valid}")
    end = _time(args["endtime"]) if "endtime" in args else time.time()
    start = _time(args["starttime"]) if "starttime" in args else end - 3600.0
    if start >= end:
        raise bad_request("The start of the time span must lie before its end.")
    interval = args.get("interval", "PT1M").upper()
    if interval not in GRAINS:
        raise bad_request(f"Invalid time grain {interval}: use one of {', '.join(GRAINS)}.")
    asked = tuple(a.strip().lower() for a in args.get("aggregation", "average").split(","))
    if not set(asked) <= set(AGGREGATIONS):
        raise bad_request(f"Invalid aggregation: use some of {', '.join(AGGREGATIONS)}.")
    top = args.get("top", "10")
    if not top.isdecimal() or int(top) < 1:
        raise bad_request("The parameter 'top' must be a number of at least 1.")
    return Query(names, start, end, interval, asked, _filter(args.get("filter", "")), int(top))


def _filter(text: str) -> dict[str, frozenset[str]]:
    """`deployment eq 'a' or deployment eq 'b' and statusCodeClass eq '*'`: dimension -> values, lower-case."""
    wanted: dict[str, frozenset[str]] = {}
    for group in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else ():
        values = set()
        names = set()
        for part in re.split(r"\s+or\s+", group, flags=re.IGNORECASE):
            match = CONDITION.fullmatch(part.strip())
            if match is None:
                raise bad_request(f"The filter {text!r} is not understood: use dimension eq 'value'.")
            names.add(match[1].lower())
            values.add(match[2].lower())
        if len(names) != 1 or names & set(wanted):
            raise bad_request(f"The filter {text!r} joins different dimensions by 'or', or names one twice.")
        wanted[names.pop()] = frozenset(values)
    return wanted


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise bad_request(f"'{text}' is not an ISO 8601 time.") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
