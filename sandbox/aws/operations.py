"""The names of AWS's operations, from the service descriptions that ship with botocore."""

from __future__ import annotations

import functools
import re
from typing import Final

from sandbox.aws.shapes import service

SERVICES: Final = ("sagemaker", "sagemaker-runtime", "s3", "sts", "iam", "cloudwatch", "logs", "sns", "route53")


@functools.cache
def names() -> frozenset[str]:
    """Every operation of the services that the sandbox answers for, whether it is emulated or refused."""
    return frozenset(name for each in SERVICES for name in service(each).operation_names)


def route53(method: str, path: str) -> str:
    """Route 53 names its operations by method and path alone; without a match the answer is `METHOD path`."""
    for verb, pattern, name in _route53():
        if verb == method and pattern.fullmatch(path.rstrip("/")):
            return name
    return f"{method} {path}"


@functools.cache
def _route53() -> tuple[tuple[str, re.Pattern[str], str], ...]:
    model = service("route53")
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = http["requestUri"].partition("?")[0].rstrip("/")
        found.append((http["method"], re.compile(re.sub(r"\{\w+\+?\}", "[^/]+", path)), name))
    return tuple(found)
