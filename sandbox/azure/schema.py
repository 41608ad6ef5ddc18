"""Which fields a request body may have: those that Azure's client libraries send, with their JSON types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

from sandbox.azure.arm import ArmError

Fields: TypeAlias = "Mapping[str, type | Fields]"

_ASSET: Final[Fields] = {
    "description": str,
    "properties": dict,
    "tags": dict,
    "isArchived": bool,
    "isAnonymous": bool,
    "stage": str,
    "autoDeleteSetting": dict,
}
CONTAINER: Final[Fields] = {"properties": {"description": str, "properties": dict, "tags": dict, "isArchived": bool}}
MODEL: Final[Fields] = {
    "properties": {
        **_ASSET,
        "flavors": dict,
        "jobName": str,
        "modelType": str,
        "modelUri": str,
        "datasets": list,
    }
}
_ROUTE: Final[Fields] = {"path": str, "port": int}
ENVIRONMENT: Final[Fields] = {
    "properties": {
        **_ASSET,
        "autoRebuild": str,
        "build": dict,
        "condaFile": str,
        "image": str,
        "inferenceConfig": {"livenessRoute": _ROUTE, "readinessRoute": _ROUTE, "scoringRoute": _ROUTE},
        "osType": str,
    }
}
_ENVELOPE: Final[Fields] = {"location": str, "tags": dict, "kind": str, "identity": dict, "id": str, "name": str}
_READ_BACK: Final[Fields] = {"type": str, "systemData": dict, "sku": dict}
ENDPOINT: Final[Fields] = {
    **_ENVELOPE,
    **_READ_BACK,
    "properties": {
        "authMode": str,
        "description": str,
        "keys": {"primaryKey": str, "secondaryKey": str},
        "properties": dict,
        "compute": str,
        "mirrorTraffic": dict,
        "publicNetworkAccess": str,
        "traffic": dict,
        "provisioningState": str,
        "scoringUri": str,
        "swaggerUri": str,
    },
}
_PROBE: Final[Fields] = {
    "failureThreshold": int,
    "initialDelay": str,
    "period": str,
    "successThreshold": int,
    "timeout": str,
}
DEPLOYMENT: Final[Fields] = {
    **_ENVELOPE,
    "type": str,
    "systemData": dict,
    "sku": {"name": str, "tier": str, "capacity": int, "size": str, "family": str},
    "properties": {
        "codeConfiguration": dict,
        "description": str,
        "environmentId": str,
        "environmentVariables": dict,
        "properties": dict,
        "appInsightsEnabled": bool,
        "dataCollector": {"collections": dict, "rollingRate": str, "requestLogging": {"captureHeaders": list}},
        "egressPublicNetworkAccess": str,
        "endpointComputeType": str,
        "instanceType": str,
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "startupProbe": _PROBE,
        "model": str,
        "modelMountPath": str,
        "requestSettings": {"maxConcurrentRequestsPerInstance": int, "maxQueueWait": str, "requestTimeout": str},
        "scaleSettings": {"scaleType": str},
        "provisioningState": str,
    },
}
ENDPOINT_PATCH: Final[Fields] = {"tags": dict, "identity": dict}
DEPLOYMENT_PATCH: Final[Fields] = {"tags": dict, "sku": DEPLOYMENT["sku"]}
KEYS: Final[Fields] = {"keyType": str, "keyValue": str}
LOGS: Final[Fields] = {"containerType": str, "tail": int}

_DURATION: Final = re.compile(
    r"P(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


def check(body: Mapping[str, Any], fields: Fields, where: str = "") -> None:
    """Raise a 400 ArmError for a field that does not exist or has the wrong JSON type; null counts as absent."""
    for name, value in body.items():
        path = f"{where}.{name}" if where else name
        if name not in fields:
            raise ArmError(400, "InvalidRequestContent", f"Could not find member '{path}' on the request's object.")
        expected = fields[name]
        if value is None:
            continue
        kind = expected if isinstance(expected, type) else dict
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ArmError(400, "InvalidRequestContent", f"The value of '{path}' must be of type {kind.__name__}.")
        if not isinstance(expected, type) and isinstance(value, dict):
            check(value, expected, path)


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fields that are null."""
    return {name: value for name, value in values.items() if value is not None}


def check_name(kind: str, name: str) -> None:
    """Names of endpoints and deployments: 3 to 32 characters, a letter first, letters, digits and single dashes."""
    if not 3 <= len(name) <= 32 or not re.fullmatch(r"[A-Za-z](?:-?[A-Za-z0-9])*", name):
        raise ArmError(
            400,
            "BadRequest",
            f"{kind} name '{name}' is invalid: it must be 3 to 32 characters long, begin with a letter, and consist of "
            "letters, digits and single dashes, not ending with a dash.",
        )


def seconds(duration: str) -> float:
    """An ISO 8601 duration such as `PT5S` in seconds; raises a 400 ArmError."""
    match = _DURATION.fullmatch(duration)
    if match is None or duration in ("P", "PT"):
        raise ArmError(400, "InvalidRequestContent", f"'{duration}' is not an ISO 8601 duration such as PT5S.")
    return timedelta(**{unit: float(number) for unit, number in match.groupdict().items() if number}).total_seconds()
