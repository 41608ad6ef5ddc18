"""Requests checked and answers shaped by the service description that ships with botocore.

The checks and texts are those that SageMaker gives for a malformed request: `1 validation error detected: Value 'x' at
'endpointName' failed to satisfy constraint: Member must …`. botocore's own validator leaves out maximum, pattern
and enum.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import botocore.session
import regex
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from sandbox.aws.errors import AwsError, not_implemented

TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float, str, datetime),
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
}
#: Required by the description, yet absent for a package that has a group: only its ARN names it.
LEFT_OUT: Final = (("DescribeModelPackageOutput", "ModelPackageName"),)


@functools.cache
def service(name: str) -> ServiceModel:
    """Botocore's description of a service."""
    return botocore.session.get_session().get_service_model(name)


@functools.cache
def _pattern(text: str) -> regex.Pattern[str]:
    # The descriptions are written for Java: \z is its end of input, and a pattern must match the whole value.
    return regex.compile(text.replace(r"\z", r"\Z"))


def check(model: ServiceModel, operation: str, given: Mapping[str, Any], code: str = "ValidationException") -> None:
    """Refuse a request that breaks the service description; raises AwsError(code) with the texts that AWS gives."""
    if operation not in model.operation_names:
        raise AwsError("UnknownOperationException", f"unknown operation {operation}")
    shape = model.operation_model(operation).input_shape
    if shape is None:
        return
    problems = list(_problems(shape, given, ""))
    if problems:
        errors = "error" if len(problems) == 1 else "errors"
        raise AwsError(code, f"{len(problems)} validation {errors} detected: {'; '.join(problems)}")


def project(shape: Shape | None, value: Any) -> Any:
    """What of `value` the shape knows, ready for JSON (times in Unix seconds); a missing required member is a bug."""
    if isinstance(shape, StructureShape):
        missing = [
            name for name in shape.required_members if value.get(name) is None and (shape.name, name) not in LEFT_OUT
        ]
        if missing:
            raise KeyError(f"answer {shape.name} lacks {missing[0]}")
        return {
            name: project(member, value[name]) for name, member in shape.members.items() if value.get(name) is not None
        }
    if isinstance(shape, ListShape):
        return [project(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: project(shape.value, item) for key, item in value.items()}
    return value.timestamp() if isinstance(value, datetime) else value


def refuse_unsupported(given: Mapping[str, Any], names: tuple[str, ...], operation: str) -> None:
    """Answer 501 for the first member of `names` that a request uses."""
    for name in names:
        if given.get(name):
            raise not_implemented(f"{operation} with {name}")


def _problems(shape: Shape, value: Any, where: str) -> Iterator[str]:
    expected = TYPES.get(shape.type_name)
    if expected is not None and (not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)):
        raise AwsError("SerializationException", f"{type(value).__name__} can not be converted to {shape.name}")
    yield from _constraints(shape, value, where)
    if isinstance(shape, StructureShape):
        unknown = sorted(set(value) - set(shape.members))
        if unknown:
            raise AwsError("SerializationException", f"{shape.name} has no member {unknown[0]}")
        for name in shape.required_members:
            if value.get(name) is None:
                yield _problem("null", _join(where, name), "Member must not be null")
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _problems(member, value[name], _join(where, name))
    elif isinstance(shape, ListShape):
        for number, item in enumerate(value, 1):
            yield from _problems(shape.member, item, f"{where}.{number}.member")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _problems(shape.key, key, where)
            yield from _problems(shape.value, item, f"{where}.{key}")


def _constraints(shape: Shape, value: Any, where: str) -> Iterator[str]:
    limits = shape.metadata
    numeric = shape.type_name in ("integer", "long", "float", "double")
    size = value if numeric else len(value) if isinstance(value, str | list | dict) else None
    what = "Member must have" + (" value" if numeric else " length")
    if size is not None and "min" in limits and size < limits["min"]:
        yield _problem(f"'{value}'", where, f"{what} greater than or equal to {limits['min']}")
    if size is not None and "max" in limits and size > limits["max"]:
        yield _problem(f"'{value}'", where, f"{what} less than or equal to {limits['max']}")
    if isinstance(value, str):
        if "enum" in limits and value not in limits["enum"]:
            choices = ", ".join(limits["enum"])
            yield _problem(f"'{value}'", where, f"Member must satisfy enum value set: [{choices}]")
        if "pattern" in limits and not _pattern(limits["pattern"]).fullmatch(value):
            yield _problem(f"'{value}'", where, f"Member must satisfy regular expression pattern: {limits['pattern']}")


def _problem(value: str, where: str, rule: str) -> str:
    return f"Value {value} at '{where}' failed to satisfy constraint: {rule}"


def _join(where: str, name: str) -> str:
    member = name[:1].lower() + name[1:]
    return f"{where}.{member}" if where else member
