"""Requests and responses checked against Google's own discovery documents, as google-api-python-client ships them.

The JSON mapping is protobuf's: field names in lowerCamelCase or as in the proto, 64-bit integers as strings, enums by
name or, where the client asks for it (`$alt=json;enum-encoding=int`), by number. Discovery documents list enums by
name only, so the numbers of those that Lockstep's calls carry are kept here.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from sandbox.gcp.errors import GoogleError, invalid, not_emulated

#: an enum, named by its first value, and its numbers in the proto
ENUM_NUMBERS: Final[Mapping[str, Mapping[str, int]]] = {
    "DEPLOYMENT_RESOURCES_TYPE_UNSPECIFIED": {
        "DEDICATED_RESOURCES": 1,
        "AUTOMATIC_RESOURCES": 2,
        "SHARED_RESOURCES": 3,
    },
    "DEPLOYMENT_STAGE_UNSPECIFIED": {
        "STARTING_DEPLOYMENT": 5,
        "PREPARING_MODEL": 6,
        "CREATING_SERVING_CLUSTER": 7,
        "ADDING_NODES_TO_CLUSTER": 8,
        "GETTING_CONTAINER_IMAGE": 9,
        "STARTING_MODEL_SERVER": 3,
        "FINISHING_UP": 4,
        "DEPLOYMENT_TERMINATED": 10,
        "SUCCESSFULLY_DEPLOYED": 11,
        "FAILED_TO_DEPLOY": 12,
    },
    "MODEL_SOURCE_TYPE_UNSPECIFIED": {"AUTOML": 1, "CUSTOM": 2, "BQML": 3, "MODEL_GARDEN": 4, "GENIE": 5},
    "ACCELERATOR_TYPE_UNSPECIFIED": {
        "NVIDIA_TESLA_P100": 2,
        "NVIDIA_TESLA_V100": 3,
        "NVIDIA_TESLA_P4": 4,
        "NVIDIA_TESLA_T4": 5,
        "TPU_V2": 6,
        "TPU_V3": 7,
        "NVIDIA_TESLA_A100": 8,
        "NVIDIA_A100_80GB": 9,
        "TPU_V4_POD": 10,
        "NVIDIA_L4": 11,
        "TPU_V5_LITEPOD": 12,
        "NVIDIA_H100_80GB": 13,
        "NVIDIA_H100_MEGA_80GB": 14,
        "NVIDIA_H200_141GB": 15,
    },
}
PACKAGE: Final = "type.googleapis.com/google.cloud.aiplatform.v1."


@cache
def document(name: str) -> Discovery:
    """The discovery document `name`, `aiplatform.v1` for example, loaded once."""
    package = importlib.util.find_spec("googleapiclient")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("google-api-python-client is not installed; install the extra 'sandbox'")
    folder = Path(package.submodule_search_locations[0]) / "discovery_cache" / "documents"
    return Discovery(json.loads((folder / f"{name}.json").read_bytes()))


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), name)


class Discovery:
    """One discovery document, read-only."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._schemas: Final[Mapping[str, Any]] = content["schemas"]
        self._common: Final = frozenset(content["parameters"]) | {"$alt", "$prettyPrint", "$fields", "$userProject"}
        self._methods: Final[dict[str, Mapping[str, Any]]] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._collect(content)
        self._paths = [
            (m["httpMethod"], re.compile("/" + re.sub(r"\\\{[^}]*\\\}", "[^/:]+", re.escape(m["flatPath"]))), name)
            for name, m in self._methods.items()
            if "flatPath" in m
        ]

    def _collect(self, part: Mapping[str, Any]) -> None:
        for method in part.get("methods", {}).values():
            self._methods[method["id"]] = method
        for child in part.get("resources", {}).values():
            self._collect(child)

    def method_at(self, http_method: str, path: str) -> str | None:
        """The method that Google offers at a path, or None: what tells "not emulated" from "does not exist"."""
        return next((name for verb, at, name in self._paths if verb == http_method and at.fullmatch(path)), None)

    def check_query(self, method_id: str, given: Mapping[str, str]) -> dict[str, str]:
        """Query parameters by their camelCase names; raises INVALID_ARGUMENT for one that the method does not have."""
        method = self._methods[method_id]
        known = {n for n, p in method.get("parameters", {}).items() if p.get("location") == "query"} | self._common
        by_snake = {_snake(n): n for n in known}
        found: dict[str, str] = {}
        for name, value in given.items():
            camel = name if name in known else by_snake.get(name)
            if camel is None:
                raise invalid(
                    f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter. '
                    f"Field '{name}' could not be found in request message."
                )
            found[camel] = value
        return found

    def read_request(self, method_id: str, body: Any) -> dict[str, Any]:
        """The request's body in camelCase, read-only fields dropped as the service drops them."""
        method = self._methods[method_id]
        if "request" not in method:
            return {}
        value = self._read(method["request"], body, "")
        assert isinstance(value, dict)
        return value

    def response_schema(self, method_id: str) -> str:
        """The name of the schema that a method answers with."""
        return str(self._methods[method_id]["response"]["$ref"])

    def _fields(self, schema: str) -> dict[str, str]:
        if schema not in self._names:
            fields = self._schemas[schema].get("properties", {})
            self._names[schema] = {**{_snake(n): n for n in fields}, **{n: n for n in fields}}
        return self._names[schema]

    def _read(self, kind: Mapping[str, Any], value: Any, at: str) -> Any:
        if "$ref" in kind:
            return self._read_message(str(kind["$ref"]), value, at)
        wanted = kind.get("type")
        if wanted == "array":
            if not isinstance(value, list):
                raise _mismatch(at, "list", value)
            return [self._read(kind["items"], item, f"{at}[{n}]") for n, item in enumerate(value)]
        if wanted == "object":
            if not isinstance(value, dict):
                raise _mismatch(at, "map", value)
            inner = kind.get("additionalProperties", {"type": "any"})
            return {k: self._read(inner, v, f"{at}[{k!r}]") for k, v in value.items()}
        if "enum" in kind:
            return self._read_enum(kind["enum"], value, at)
        return _read_scalar(str(wanted), kind.get("format"), value, at)

    def _read_message(self, schema: str, value: Any, at: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(at, schema, value)
        names = self._fields(schema)
        properties = self._schemas[schema].get("properties", {})
        found: dict[str, Any] = {}
        for given, item in value.items():
            if given not in names:
                where = f" at '{at}'" if at else ""
                raise invalid(f'Invalid JSON payload received. Unknown name "{given}"{where}: Cannot find field.')
            name = names[given]
            if item is None or properties[name].get("readOnly"):
                continue
            found[name] = self._read(properties[name], item, f"{at}.{_snake(name)}" if at else _snake(name))
        return found

    def _read_enum(self, names: list[str], value: Any, at: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            numbers = {number: name for name, number in ENUM_NUMBERS.get(names[0], {}).items()}
            if value == 0:
                return names[0]
            if value not in numbers:
                raise not_emulated(f"value {value} of {at}")
            return numbers[value]
        if value not in names:
            raise _mismatch(at, "enum", value)
        return str(value)

    def write(self, schema: str, value: Any, *, enums_as_int: bool) -> Any:
        """`value` as the answer's JSON; raises TypeError where it would not be one that Google could have sent."""
        return self._write({"$ref": schema}, value, schema, enums_as_int)

    def _write(self, kind: Mapping[str, Any], value: Any, at: str, as_int: bool) -> Any:
        if "$ref" in kind:
            properties = self._schemas[kind["$ref"]].get("properties", {})
            unknown = sorted(set(value) - set(properties))
            if unknown:
                raise TypeError(f"{at} has no field {unknown[0]!r}")
            return {k: self._write(properties[k], v, f"{at}.{k}", as_int) for k, v in value.items()}
        wanted = kind.get("type")
        if wanted == "array":
            return [self._write(kind["items"], item, at, as_int) for item in value]
        if wanted == "object":
            if "@type" in value:
                schema = "GoogleCloudAiplatformV1" + value["@type"].removeprefix(PACKAGE)
                if schema not in self._schemas:
                    return value
                fields = {k: v for k, v in value.items() if k != "@type"}
                return {"@type": value["@type"], **self._write({"$ref": schema}, fields, schema, as_int)}
            inner = kind.get("additionalProperties", {"type": "any"})
            return {k: self._write(inner, v, f"{at}[{k}]", as_int) for k, v in value.items()}
        if "enum" in kind:
            if value not in kind["enum"]:
                raise TypeError(f"{at} cannot be {value!r}")
            return ENUM_NUMBERS[kind["enum"][0]][value] if as_int else value
        try:
            _read_scalar(str(wanted), kind.get("format"), value, at)
        except GoogleError as error:
            raise TypeError(error.message) from None
        return value


def _mismatch(at: str, wanted: str, value: Any) -> GoogleError:
    return invalid(f"Invalid value at '{at}' (TYPE_{wanted.upper()}), {json.dumps(value)[:200]}")


def _read_scalar(wanted: str, form: str | None, value: Any, at: str) -> Any:
    if wanted == "any":
        return value
    if wanted == "string" and form in ("int64", "uint64"):
        if not re.fullmatch(r"-?\d+", str(value)):
            raise _mismatch(at, "int64", value)
        return str(value)
    if wanted == "string" and not isinstance(value, str):
        raise _mismatch(at, "string", value)
    if wanted == "boolean" and not isinstance(value, bool):
        raise _mismatch(at, "bool", value)
    if wanted == "integer":
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+(\.0+)?", str(value)):
            raise _mismatch(at, form or "int32", value)
        return int(float(value))
    if wanted == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise _mismatch(at, form or "double", value)
    return value
