"""Rows that a model accepts, made up from the signature in its MLmodel file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

# MLflow's names of scalar column types; dates and bytes are written as its scoring server takes them in JSON.
EXAMPLES: Final[Mapping[str, object]] = {
    "boolean": True,
    "integer": 1,
    "long": 1,
    "float": 1.0,
    "double": 1.0,
    "string": "a",
    "binary": "YQ==",
    "datetime": "2024-01-01T00:00:00",
}


def example_rows(mlmodel: str) -> tuple[Mapping[str, object], ...]:
    """One row by column name for an MLmodel document; empty where the model takes tensors or unnamed columns."""
    signature = (yaml.safe_load(mlmodel) or {}).get("signature") or {}
    columns = json.loads(signature.get("inputs") or "[]")
    if not columns or any("name" not in column or column["type"] == "tensor" for column in columns):
        return ()
    return ({column["name"]: _example(column) for column in columns},)


def _example(column: Mapping[str, Any]) -> object:
    kind = column["type"]
    if kind == "array":
        return [_example(column["items"])]
    if kind == "map":
        return {"a": _example(column["values"])}
    if kind == "object":
        return {name: _example(inner) for name, inner in column["properties"].items()}
    return EXAMPLES.get(kind, "a")
