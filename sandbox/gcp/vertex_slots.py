"""A deployed model's container: started over the bytes that lie in the store at that moment, proxied to, evicted.

Vertex copies a model's artifacts to a bucket of its own, and the container fetches them from there by AIP_STORAGE_URI:
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements. One container stands for all
replicas of a deployed model; the replica count is kept as state.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from sandbox.containers import Container
from sandbox.gcp.errors import GoogleError, precondition
from sandbox.gcp.gcs_objects import Conditions, StorageError, Store
from sandbox.gcp.vertex_names import JsonObject
from sandbox.world import World

HEALTHY_WITHIN: Final = 60.0
REFERENCE: Final = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True)
class Place:
    """Where a container runs and what it may know of it."""

    project_number: str
    location: str
    endpoint_id: str
    storage_url: str
    logs_url: str


@dataclass(frozen=True)
class Routing:
    """Which slots get traffic: cumulative percents and slots, replaced as a whole when a switch takes effect."""

    split: Mapping[str, int]
    ladder: tuple[tuple[int, Slot], ...] = ()

    def slot(self, percent: float) -> Slot | None:
        """The slot for a number in [0, 100)."""
        return next((slot for upper, slot in self.ladder if percent < upper), None)


class Slot:
    """One deployed model. `spot` slots can be evicted; `available` is False while no container serves."""

    def __init__(self, world: World, store: Store, place: Place, deployed_id: str, model: JsonObject, *, spot: bool):
        self.id: Final = deployed_id
        self.model: Final = model
        self.spot: Final = spot
        self.spec: Final[JsonObject] = model["containerSpec"]
        default_route = f"/v1/endpoints/{place.endpoint_id}/deployedModels/{deployed_id}"
        self.predict_route: Final = str(self.spec.get("predictRoute") or default_route + ":predict")
        self.health_route: Final = str(self.spec.get("healthRoute") or default_route)
        self.status_message = ""
        self.status_time = time.time()
        self._world = world
        self._store = store
        self._place = place
        self._container: Container | None = None
        self._last_logs = ""
        self._bucket = f"caip-tenant-{uuid.uuid4()}"
        self._running = 0
        self._closed = False
        self._condition = threading.Condition()

    # --- life

    def copy_artifacts(self) -> None:
        """Copy the model's bytes, as they lie now, to the bucket that the platform keeps for this deployment."""
        uri = self.model.get("artifactUri")
        if uri is None:
            return
        bucket, _, prefix = str(uri).removeprefix("gs://").partition("/")
        folder = prefix.rstrip("/") + "/" if prefix else ""
        self._store.create_bucket(self._bucket, internal=True)
        try:
            found = [stored for stored in self._store.listing(bucket) if stored.name.startswith(folder)]
            for stored in found:
                name = f"{self.id}/artifacts/{stored.name.removeprefix(folder)}"
                draft = replace(stored, bucket=self._bucket, name=name, metadata={}, retention_mode=None)
                draft = replace(draft, retain_until=None, temporary_hold=False, event_based_hold=False)
                self._store.copy(stored, draft, Conditions())
        except StorageError as error:
            raise precondition(f'Could not copy the artifacts from "{uri}": {error.message}') from None
        if not found:
            raise precondition(f'There are no files under "{uri}" to copy.')

    def launch(self) -> None:
        """Start the container and wait until it is healthy; raises what the deployment's operation then shows."""
        if self._world.stop.is_set():
            raise GoogleError("CANCELLED", "The sandbox is stopping.")
        container = self._world.containers.start(self._environment())
        healthy = container.wait_healthy(self.health_route, HEALTHY_WITHIN, self._world.stop)
        with self._condition:
            if healthy and not self._closed:
                self._container = container
                self._say("")
                return
        exited = container.exit_status is not None
        self._last_logs = container.logs()
        container.stop()
        what = (
            "Model server exited unexpectedly."
            if exited
            else "Model server never became ready. Please validate that your model file or container configuration are "
            "valid."
        )
        raise precondition(f"{what} Model server logs can be found at {self._place.logs_url}/{self.id}")

    def close(self) -> None:
        """Take no further request, finish those that were routed here, then stop the container and free its bytes."""
        with self._condition:
            self._closed = True
            self._condition.wait_for(lambda: self._running == 0 or self._world.stop.is_set(), timeout=60)
            container, self._container = self._container, None
        if container is not None:
            self._last_logs = container.logs()
            container.stop()
        self._drop_artifacts()

    def _drop_artifacts(self) -> None:
        try:
            for stored in self._store.listing(self._bucket):
                self._store.delete(self._bucket, stored.name, stored.generation, Conditions())
            self._store.delete_bucket(self._bucket)
        except StorageError:
            return  # there were none

    def kill(self, message: str) -> bool:
        """The machine is gone with the requests on it; False when there was no container."""
        with self._condition:
            container, self._container = self._container, None
            self._say(message)
        if container is not None:
            self._last_logs = container.logs()
            container.stop()
        return container is not None

    def _say(self, message: str) -> None:
        self.status_message = message
        self.status_time = time.time()

    # --- use

    @property
    def available(self) -> bool:
        """Whether a container serves now."""
        return self._container is not None

    @property
    def closed(self) -> bool:
        """Whether it was undeployed."""
        return self._closed

    def logs(self) -> str:
        """The container's output; that of the last one when none runs."""
        container = self._container
        return container.logs() if container is not None else self._last_logs

    @contextmanager
    def serving(self) -> Iterator[Container | None]:
        """The container for one request, kept until the request is answered; None when there is none.

        Raises LookupError when the slot was undeployed since it was chosen: choose again.
        """
        with self._condition:
            if self._closed:
                raise LookupError(self.id)
            self._running += 1
            container = self._container
        try:
            yield container
        finally:
            with self._condition:
                self._running -= 1
                if self._running == 0:
                    self._condition.notify_all()

    def crashed(self) -> bool:
        """Whether the container's process has ended by itself."""
        container = self._container
        return container is not None and container.exit_status is not None

    def _environment(self) -> dict[str, str]:
        """The container's variables: the platform's, then those of the model, which may refer to them as $(NAME)."""
        place = self._place
        environment = {
            "AIP_MODE": "PREDICTION",
            "AIP_MODE_VERSION": "1.0.0",
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
            "AIP_ACCELERATOR_TYPE": "none",
            "AIP_MACHINE_TYPE": str(self.model.get("machineType", "n1-standard-2")),
            "AIP_HTTP_PORT": "$(PORT)",
            "AIP_HEALTH_ROUTE": self.health_route,
            "AIP_PREDICT_ROUTE": self.predict_route,
            "AIP_PROJECT_NUMBER": place.project_number,
            "AIP_ENDPOINT_ID": place.endpoint_id,
            "AIP_DEPLOYED_MODEL_ID": self.id,
            "AIP_MODEL_NAME": str(self.model["name"]).rpartition("/")[2],
            "AIP_VERSION_NAME": str(self.model["versionId"]),
            "CLOUD_ML_PROJECT_ID": place.project_number,
            "CLOUD_ML_REGION": place.location,
            "STORAGE_EMULATOR_HOST": place.storage_url,
        }
        if "artifactUri" in self.model:
            environment["AIP_STORAGE_URI"] = f"gs://{self._bucket}/{quote(self.id)}/artifacts"
        for variable in self.spec.get("env", ()):
            environment[variable["name"]] = _expanded(str(variable.get("value", "")), environment)
        return environment


def _expanded(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by a variable that is known, left alone otherwise; `$$` is an escaped dollar."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] is None else known.get(found[1], found[0])

    return REFERENCE.sub(value, text)
