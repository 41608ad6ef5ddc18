"""The data collector: requests and answers of a deployment as JSON Lines in the workspace's default blob store.

Blobs are named `modelDataCollector/{endpoint}/{deployment}/{collection}/yyyy/MM/dd/HH/{instance}.jsonl`; a line is one
CloudEvent of the collection `request` or `response` (payload logging: no code in the container has a part in it), and
`xrequestid` and `correlationid` of both are the X-Request-ID that the service gave. Source: "Collect production data
from models for real-time inferencing" in Azure ML's documentation.

Assumed: a header of `requestLogging.captureHeaders` comes as an attribute of the request's event, named like the
documented ones (`x-request-id` is `xrequestid`); only answers of 200 are collected; blobs are written minutes late.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.azure.arm import ArmError, bad_request
from sandbox.azure.azurite import Azurite
from sandbox.world import World

FLUSH: Final = "azure.capture.flush"
FOLDER: Final = "modelDataCollector"
COLLECTIONS: Final = ("request", "response")


class Collector:
    """Draws samples, buffers lines, and writes each buffer once it is old enough."""

    def __init__(self, world: World, azurite: Azurite, container: str, workspace_id: str) -> None:
        self._world = world
        self._azurite = azurite
        self._container = container
        self._workspace_id = workspace_id
        self._random = random.Random(world.seed + 1)  # noqa: S311 - a draw of samples, repeatable
        self._lock = threading.Lock()
        self._buffers: dict[str, list[bytes]] = {}

    def record(
        self,
        config: Mapping[str, Any],
        endpoint: str,
        deployment: str,
        request_id: str,
        headers: Mapping[str, str],
        bodies: tuple[bytes, bytes],
    ) -> None:
        """Collect one request that was answered, as the deployment's `dataCollector` wants it."""
        draw = self._random.random()
        at = datetime.now(UTC)
        source = f"{self._workspace_id}/onlineEndpoints/{endpoint}/deployments/{deployment}"
        for name, body in zip(COLLECTIONS, bodies, strict=True):
            collection = (config.get("collections") or {}).get(name)
            if collection is None or not is_enabled(collection) or draw >= _rate(collection):
                continue
            event = {
                "specversion": "1.0",
                "id": str(uuid.uuid4()),
                "source": source,
                "type": f"azureml.inference.{name}",
                "datacontenttype": "application/json",
                "time": f"{at:%Y-%m-%dT%H:%M:%SZ}",
                "data": json.loads(body),
                "contentrange": f"bytes 0-{len(body) - 1}/{len(body)}",
                "correlationid": request_id,
                "xrequestid": request_id,
            }
            if name == "request":
                event |= {"path": "/score", "method": "POST", **_captured(config, headers)}
            folder = f"{FOLDER}/{endpoint}/{deployment}/{name}/{at:%Y/%m/%d/%H}"
            self._add(folder, json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def _add(self, folder: str, line: bytes) -> None:
        with self._lock:
            waiting = self._buffers.setdefault(folder, [])
            waiting.append(line)
            first = len(waiting) == 1
        seconds = self._world.delays.seconds(FLUSH)

        def late() -> None:
            if not self._world.stop.wait(seconds):
                self._flush(folder)

        if first and seconds:
            threading.Thread(target=late, name="collector", daemon=True).start()
        elif first:
            self._flush(folder)

    def _flush(self, folder: str) -> None:
        with self._lock:
            lines = self._buffers.pop(folder, [])
        if lines:
            container = self._azurite.client().get_container_client(self._container)
            container.upload_blob(f"{folder}/{uuid.uuid4()}.jsonl", b"".join(lines))


def is_enabled(collection: Mapping[str, Any]) -> bool:
    """Whether a collection is collected."""
    return str(collection.get("dataCollectionMode") or "Disabled").lower() == "enabled"


def check_collector(config: Mapping[str, Any]) -> None:
    """Refuse a `dataCollector` that is not understood: 400 for nonsense, 501 for what is not emulated."""
    if not config.get("collections"):
        raise bad_request("The field 'dataCollector.collections' is required.")
    if str(config.get("rollingRate") or "Hour").lower() != "hour":
        raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: rollingRate {config['rollingRate']}")
    for name, collection in config["collections"].items():
        if name not in COLLECTIONS:
            raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: custom logging ({name})")
        if collection.get("dataId") or collection.get("clientId"):
            raise ArmError(501, "NotImplemented", f"not implemented by the sandbox: {name} to a place of its own")
        if not 0.0 <= _rate(collection) <= 1.0:
            raise bad_request(f"The sampling rate of collection '{name}' must be between 0 and 1.")


def _rate(collection: Mapping[str, Any]) -> float:
    rate = collection.get("samplingRate")
    return 1.0 if rate is None else float(rate)


def _captured(config: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, str]:
    wanted = (config.get("requestLogging") or {}).get("captureHeaders") or ()
    given = {name.lower(): value for name, value in headers.items()}
    return {name.lower().replace("-", ""): given[name.lower()] for name in wanted if name.lower() in given}
