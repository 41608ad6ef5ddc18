"""Container output in CloudWatch Logs, where SageMaker puts it: one group per endpoint, one stream per container."""

from __future__ import annotations

import time
from typing import Final

from moto.logs.models import LogsBackend, logs_backends

from sandbox.aws.state import ACCOUNT, REGION
from sandbox.containers import Container


def group_of(endpoint: str) -> str:
    """The endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def stream_of(variant: str, container: Container) -> str:
    """The container's log stream: the variant and an instance id."""
    return f"{variant}/i-{container.port:017x}"


class ContainerLogs:
    """Publishes what a container wrote. It is published once, when the container ends: there is no live tail."""

    def __init__(self) -> None:
        self._backend: Final[LogsBackend] = logs_backends[ACCOUNT][REGION]

    def publish(self, endpoint: str, variant: str, container: Container) -> None:
        """Add a container's output, at most the last 64 KiB."""
        lines = container.logs().splitlines()
        at = int(time.time() * 1000)
        if group_of(endpoint) not in self._backend.groups:
            self._backend.create_log_group(group_of(endpoint), {})
        self._backend.ensure_log_stream(group_of(endpoint), stream_of(variant, container))
        events = [{"timestamp": at, "message": line} for line in lines if line]
        if events:
            self._backend.put_log_events(group_of(endpoint), stream_of(variant, container), events)
