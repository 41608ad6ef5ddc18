"""Production variants as running containers: model data from S3 to disk, start, health check, and an end without loss.

A variant of N instances runs as ONE container here; the instance count is kept as state.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.aws.logs import ContainerLogs
from sandbox.aws.models import data_location
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.state import CLOUD, REGION, Document
from sandbox.containers import Container
from sandbox.world import World

HEALTH_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 65.0
#: What of a production variant can change without a new container.
SCALING: Final = ("InitialVariantWeight", "InitialInstanceCount")


class DeploymentError(Exception):
    """A variant could not be brought up; the text is the endpoint's FailureReason."""


class Slot:
    """A variant's container, with a count of the requests that it is answering."""

    def __init__(self, container: Container, identity: str) -> None:
        self.container: Final = container
        self.identity: Final = identity
        self._busy = 0
        self._closed = False
        self._idle = threading.Condition()

    @contextmanager
    def request(self) -> Iterator[bool]:
        """Hold the container for one request; yields False when it takes none any more."""
        with self._idle:
            admitted = not self._closed
            self._busy += admitted
        try:
            yield admitted
        finally:
            if admitted:
                with self._idle:
                    self._busy -= 1
                    self._idle.notify_all()

    def drain(self) -> None:
        """Take no more requests and let those under way end."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._busy, timeout=DRAIN_SECONDS)


@dataclass(frozen=True)
class Wanted:
    """A variant as it shall run: its definition in the endpoint configuration, its model, weight and count."""

    definition: Document
    model: Document
    weight: float
    count: int

    @property
    def name(self) -> str:
        """The variant's name."""
        return str(self.definition["VariantName"])

    @property
    def image(self) -> str:
        """The image as specified."""
        return str(self.model["deployed"]["Image"])

    @property
    def identity(self) -> str:
        """Equal for two variants that the same container can serve."""
        fixed = sorted((k, str(v)) for k, v in self.definition.items() if k not in SCALING)
        return f"{fixed} {self.model['ModelArn']} {self.model['CreationTime']} {self.image}"


@dataclass(frozen=True)
class Placed:
    """A variant that runs."""

    wanted: Wanted
    slot: Slot
    weight: float
    count: int

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.wanted.name


def resolved_image(image: str) -> str:
    """The image by digest. There is no image registry here: a tag's digest is made from its name."""
    if "@" in image:
        return image
    return f"{image.rpartition(':')[0] or image}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


class Deployer:
    """Brings variants up."""

    def __init__(self, world: World, moto: MotoHost) -> None:
        self._world = world
        self._moto = moto
        self._logs = ContainerLogs()

    def start(self, endpoint: str, wanted: Wanted) -> Slot:
        """Start a variant's container and wait until it is healthy; raises DeploymentError."""
        began = time.time()
        folder = self._world.containers.new_folder()
        model = folder / "model"
        model.mkdir()
        try:
            self._download(wanted, model)
        except DeploymentError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # A container finds its model in /opt/ml/model. One file system is shared here, so it is told where that is.
        environment = {
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            **wanted.model["deployed"].get("Environment", {}),
            "SM_MODEL_DIR": str(model),
        }
        container = self._world.containers.start(environment, files=folder)
        limit = min(
            HEALTH_SECONDS,
            float(wanted.definition.get("ContainerStartupHealthCheckTimeoutInSeconds", HEALTH_SECONDS)),
        )
        if not container.wait_healthy("/ping", limit, self._world.stop):
            self._logs.publish(endpoint, wanted.name, container)
            container.stop()
            raise DeploymentError(
                f"The primary container for production variant {wanted.name} did not pass the ping health check. "
                "Please check CloudWatch logs for this endpoint."
            )
        self._world.calls.event(CLOUD, "deploy", endpoint, began, wanted.name)
        return Slot(container, wanted.identity)

    def retire(self, endpoint: str, placed: Placed) -> None:
        """Drain and stop a variant that no traffic is led to any more."""
        began = time.time()
        placed.slot.drain()
        self._logs.publish(endpoint, placed.name, placed.slot.container)
        placed.slot.container.stop()
        self._world.calls.event(CLOUD, "undeploy", endpoint, began, placed.name)

    def _download(self, wanted: Wanted, folder: Path) -> None:
        """Place the model data as it lies in S3 now; raises DeploymentError."""
        location = data_location(wanted.model["deployed"])
        if location is None:
            return
        bucket, prefix = location
        objects = self._moto.objects(bucket, prefix)
        url = f"s3://{bucket}/{prefix}"
        if not objects:
            raise DeploymentError(
                f'Failed to download model data for container "container_1" from URL: "{url}". Please ensure that '
                "there is an object located at the URL and that the role passed to CreateModel has permissions to "
                "download the object."
            )
        names = {key.name.removeprefix(prefix) for key in objects}
        for name in sorted(names):
            marker = name.endswith("/") or not name
            if marker or any(parent in names for parent in map(str, Path(name).parents)) or ".." in Path(name).parts:
                raise DeploymentError(
                    f'Failed to download model data for container "container_1" from URL: "{url}". '
                    f'The key "{prefix}{name}" cannot be placed as a file: remove folder markers and names that are '
                    "both a file and a folder."
                )
        for key in objects:
            target = folder / key.name.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(key.value)
