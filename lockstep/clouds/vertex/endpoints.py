"""Endpoints as they are now: reading them, the operations that run on them, and what their slots hold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from lockstep.clouds.vertex import records
from lockstep.clouds.vertex.records import DeployedModel, EndpointRecord
from lockstep.clouds.vertex.rest import JsonObject, OperationFailedError, Rest, VertexError
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.errors import BusyError, RetryLaterError

PAGE: Final = {"pageSize": 100}
CONSOLE: Final = "https://console.cloud.google.com/vertex-ai"


class Endpoints:
    """One endpoint per Lockstep model. Its id follows from its name, so that two attempts mean the same endpoint."""

    def __init__(self, cloud: str, settings: VertexSettings, rest: Rest) -> None:
        self._cloud = cloud
        self._settings = settings
        self._rest = rest
        self._lock = threading.Lock()
        self._slots: dict[str, dict[str, str]] = {}  # model -> deployed-model id -> slot
        self._latest: dict[str, datetime] = {}  # model -> newest update time of its endpoint that was seen
        self._identities: dict[tuple[str, str], tuple[str, str]] = {}  # (model, deployed id) -> label, digest

    def name(self, model: str) -> str:
        """What the endpoint is called."""
        return self._settings.endpoint_name.format(model=model)

    def id(self, model: str) -> str:
        """Its id: the last part of its resource name."""
        return records.resource_id(self.name(model))

    def url(self, model: str) -> str:
        """Its address in the API."""
        return f"{self._settings.api}/{self._settings.parent}/endpoints/{self.id(model)}"

    def console_url(self, model: str) -> str:
        """Its page under Online prediction."""
        given = self._settings
        return (
            f"{CONSOLE}/online-prediction/locations/{given.location}/endpoints/{self.id(model)}?project={given.project}"
        )

    def read(self, model: str) -> EndpointRecord:
        """The endpoint now; VertexError 404 without one."""
        record = records.read_endpoint(self._rest.call("GET", self.url(model)))
        self.remember(model, record)
        return record

    def find(self, model: str) -> EndpointRecord | None:
        """The endpoint now; None without one."""
        try:
            return self.read(model)
        except VertexError as error:
            if error.http == 404:
                return None
            raise

    def find_many(self, models: Collection[str]) -> dict[str, EndpointRecord]:
        """The endpoints that there are now, by model, from one list."""
        wanted = {self.id(model): model for model in models}
        found = {}
        for content in self._rest.pages(f"{self._settings.api}/{self._settings.parent}/endpoints", "endpoints", PAGE):
            model = wanted.get(str(content["name"]).rpartition("/")[2])
            if model is not None:
                found[model] = records.read_endpoint(content)
                self.remember(model, found[model])
        return found

    def remember(self, model: str, record: EndpointRecord) -> None:
        """Keep the names of its slots and how new it is."""
        with self._lock:
            known = self._slots.setdefault(model, {})
            known.update({deployed.id: deployed.slot for deployed in record.deployed})
            latest = self._latest.get(model)
            if record.updated is not None and (latest is None or record.updated > latest):
                self._latest[model] = record.updated

    def is_stale(self, model: str, record: EndpointRecord) -> bool:
        """Whether `record` is from before a change that was seen already."""
        with self._lock:
            latest = self._latest.get(model)
        return latest is not None and record.updated is not None and record.updated < latest

    def slots(self, model: str) -> dict[str, str]:
        """Slots by deployed-model id, as far as they were seen: also of those removed since."""
        with self._lock:
            return dict(self._slots.get(model, {}))

    def identity(self, model: str, deployed: DeployedModel) -> tuple[str, str]:
        """Label and digest that a deployed model's container was given: immutable, so asked for once."""
        key = (model, deployed.id)
        with self._lock:
            known = self._identities.get(key)
        if known is None:
            name = f"{self._settings.parent}/models/{deployed.model}@{deployed.version_id}"
            try:
                environment = records.container_env(self._rest.call("GET", f"{self._settings.api}/{name}"))
            except VertexError as error:
                if error.http != 404:
                    raise
                return "", ""
            known = environment.get("LOCKSTEP_VERSION", ""), environment.get("LOCKSTEP_DIGEST", "")
            with self._lock:
                self._identities[key] = known
        return known

    def known_identity(self, model: str, deployed: DeployedModel) -> tuple[str, str]:
        """The same as far as it was asked for before; empty texts else."""
        with self._lock:
            return self._identities.get((model, deployed.id), ("", ""))

    def running(self, resource: str) -> list[JsonObject]:
        """Operations on a resource, given by its address, that have not ended."""
        try:
            listed = list(self._rest.pages(f"{resource}/operations", "operations", {"pageSize": 100}))
        except VertexError as error:
            if error.http == 404:  # its own creation has not come far enough
                return []
            raise
        return [operation for operation in listed if not operation.get("done")]

    def await_others(self, running: Sequence[JsonObject], deadline: float, what: str) -> None:
        """Wait until operations that others have started end, well or not; BusyError says what cannot go on."""
        for operation in running:
            try:
                with contextlib.suppress(OperationFailedError):  # its end is for whoever asked for it
                    self._rest.finish(self._settings.api, operation, deadline, "an earlier change")
            except RetryLaterError as error:
                raise BusyError(
                    f"{what}: {operation['name']} is still running", hint=error.hint, cloud=self._cloud
                ) from error

    def settled(self, model: str, deadline: float) -> EndpointRecord:
        """The endpoint once no change is running: an earlier attempt's deployment is joined by waiting for its end."""
        while running := self.running(self.url(model)):
            self.await_others(running, deadline, f"{model} cannot be changed")
        return self.read(model)
