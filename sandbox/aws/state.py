"""What the SageMaker control plane remembers: tables of documents, replaced as a whole and never changed in place.

A document is what the resource's Describe operation answers. Since none is ever altered, a snapshot for stale reads
is a copy of the tables alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.aws.errors import AwsError
from sandbox.world import World

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
CLOUD: Final = "aws"
MAX_TAGS: Final = 50

Document = Mapping[str, Any]


def arn(kind: str, name: str, service: str = "sagemaker") -> str:
    """An ARN in the sandbox's account; SageMaker's hold names in lower case."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{kind}/{name.lower()}"


def now() -> datetime:
    """The time as documents hold it."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Tables:
    """Resource name (for tags and packages: ARN) -> document."""

    groups: dict[str, Document] = field(default_factory=dict)
    packages: dict[str, Document] = field(default_factory=dict)
    models: dict[str, Document] = field(default_factory=dict)
    configs: dict[str, Document] = field(default_factory=dict)
    endpoints: dict[str, Document] = field(default_factory=dict)
    tags: dict[str, Document] = field(default_factory=dict)


class State:
    """The tables in force and, while a `stale` fault lasts, the tables that reads see. `lock` guards every write."""

    def __init__(self, world: World) -> None:
        self.lock: Final = threading.RLock()
        self.now: Final = Tables()
        self._world = world
        self._frozen = Tables()

    def freeze(self) -> None:
        """Remember the tables for stale reads."""
        with self.lock:
            self._frozen = replace(
                self.now, **{column.name: dict(getattr(self.now, column.name)) for column in fields(Tables)}
            )

    def reading(self, operation: str) -> Tables:
        """The tables that a read sees."""
        return self._frozen if self._world.faults.since(CLOUD, "stale", operation) is not None else self.now

    def tag(self, resource: str, tags: list[dict[str, str]] | None) -> None:
        """Add tags to an ARN; raises AwsError beyond 50."""
        with self.lock:
            merged = {**self.now.tags.get(resource, {}), **{tag["Key"]: tag["Value"] for tag in tags or []}}
            if len(merged) > MAX_TAGS:
                raise AwsError(
                    "ResourceLimitExceeded", f"Too many tags on {resource}: {len(merged)}, at most {MAX_TAGS}"
                )
            self.now.tags[resource] = merged
