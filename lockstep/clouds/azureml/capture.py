"""Requests that Azure ML's data collector kept: JSON Lines in the workspace's default datastore, some time later.

Payload logging (the collections `request` and `response`) needs no code in the container. Blobs are named
`modelDataCollector/{endpoint}/{deployment}/{collection}/yyyy/MM/dd/HH/{instance}.jsonl`, a line is one CloudEvent, and
the deployment stands in the name. `xrequestid` and `correlationid` are the id that Azure itself gave the request and
told the caller as X-Request-ID. The caller's own id, x-ms-client-request-id, is collected because it is named under
`captureHeaders`; under which attribute it comes is not documented, so an id is looked for in every attribute but the
data. Azure keeps letters, digits, dashes and underscores of it, and 40 characters.

Source: "Collect production data from models for real-time inferencing" and "Troubleshoot online endpoints" in Azure
ML's documentation. Assumed: custom containers are collected from, too; no documented limit leaves them out.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lockstep.clouds.azureml.arm import Document, Workspace
from lockstep.errors import CloudRejectedError, RefusedError
from lockstep.rules.measurement import CapturedRequest

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from lockstep.clouds.azureml.access import Access
    from lockstep.clouds.azureml.settings import AzureMLSettings

CLIENT_ID: Final = "x-ms-client-request-id"
FOLDER: Final = "modelDataCollector"
COLLECTION: Final = "request"
DATASTORE: Final = "workspaceblobstore"
#: Most blobs named, blobs read, and bytes, for one question.
MAX_NAMED: Final = 20_000
MAX_BLOBS: Final = 2000
MAX_BYTES: Final = 512 * 2**20
READERS: Final = 8
#: A blob may be begun in the hour after the request's.
SLACK: Final = timedelta(hours=1)


def collecting(settings: AzureMLSettings) -> Document:
    """What a deployment's properties say about the collector: nothing when nothing is to be captured."""
    if not settings.capture_percent:
        return {}
    collection = {"dataCollectionMode": "Enabled", "samplingRate": settings.capture_percent / 100.0}
    return {
        "dataCollector": {
            "collections": {"request": collection, "response": collection},
            "rollingRate": "Hour",
            "requestLogging": {"captureHeaders": [CLIENT_ID]},
        }
    }


class Captures:
    """What the collector kept of one workspace's endpoints."""

    def __init__(self, access: Access, workspace: Workspace) -> None:
        self._access = access
        self._name = access.name
        self._workspace = workspace
        self._lock = threading.Lock()
        self._client: ContainerClient | None = None

    def find(
        self, endpoint: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        """Requests with this id (the caller's or Azure's) between two aware times; see `Cloud.captured`."""
        blobs = list(self._blobs(endpoint, since, until))
        if sum(size for _, size in blobs) > MAX_BYTES or len(blobs) > MAX_BLOBS:
            raise self._too_much(endpoint, since, until)
        ids = {request_id, re.sub(r"[^A-Za-z0-9_-]", "", request_id)[:40]}

        def read(name: str) -> list[CapturedRequest]:
            slot, source = name.split("/")[2], f"{self._container().url}/{name}"
            return [
                CapturedRequest(self._name, slot, request_id, at, source)
                for at in _times(self._content(name), ids)
                if since.replace(microsecond=0) <= at <= until  # `time` has whole seconds
            ]

        with ThreadPoolExecutor(READERS) as pool:
            found = [one for part in pool.map(read, [name for name, _ in blobs]) for one in part]
        if not found and not self._collects(endpoint):
            return None
        return tuple(sorted(found, key=lambda one: (one.at, one.source)))

    def _collects(self, endpoint: str) -> bool:
        for deployment in self._workspace.list(f"onlineEndpoints/{endpoint}/deployments"):
            collector = deployment["properties"].get("dataCollector") or {}
            collection = (collector.get("collections") or {}).get(COLLECTION) or {}
            if str(collection.get("dataCollectionMode", "")).lower() == "enabled":
                return True
        return False

    # -- blobs -------------------------------------------------------------------------------------------------

    def _blobs(self, endpoint: str, since: datetime, until: datetime) -> Iterator[tuple[str, int]]:
        """Names and sizes of the hours concerned, of every deployment, those that are gone included."""
        first, last = (f"{moment.astimezone(UTC):%Y/%m/%d/%H}" for moment in (since, until + SLACK))
        shared = "".join(
            a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=True))
        )
        top, named = f"{FOLDER}/{endpoint}/", 0
        for folder in self._container().walk_blobs(name_starts_with=top, delimiter="/"):
            place = f"{folder.name}{COLLECTION}/"
            for blob in self._container().list_blobs(name_starts_with=place + shared):
                named += 1
                if named > MAX_NAMED:
                    raise self._too_much(endpoint, since, until)
                hour = blob.name.removeprefix(place)[: len(first)]
                if hour > last:
                    break  # names sort as time goes
                if hour >= first:
                    yield blob.name, int(blob.size)

    def _content(self, name: str) -> bytes:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            content: bytes = self._container().download_blob(name).readall()
        except ResourceNotFoundError:
            return b""  # a lifecycle rule took it away since the listing
        return content

    def _container(self) -> ContainerClient:
        with self._lock:
            if self._client is None:
                from azure.storage.blob import ContainerClient, LinearRetry

                account, container = self._place()
                settings, key = self._access.settings, self._access.settings.storage_key
                own = account == settings.storage_account
                public = f"https://{account}.blob.core.windows.net"
                self._client = ContainerClient(
                    ((settings.blob_endpoint if own else None) or public).rstrip("/"),
                    container,
                    credential=key.get_secret_value() if own and key is not None else self._access.credential(),
                    # Storage's own policy waits 15 s before its first repetition.
                    retry_policy=LinearRetry(backoff=1, retry_total=1, random_jitter_range=0),
                    **self._access.transport_options(),
                )
            return self._client

    def _place(self) -> tuple[str, str]:
        """Account and container of the datastore that the collector writes to."""
        found = self._workspace.get(f"datastores/{DATASTORE}")
        properties: Mapping[str, Any] = (found or {}).get("properties") or {}
        if not properties.get("accountName") or not properties.get("containerName"):
            raise CloudRejectedError(
                f"the workspace has no blob datastore {DATASTORE}, where Azure ML's data collector writes",
                cloud=self._name,
                hint="name the time of the request: --time",
            )
        return str(properties["accountName"]), str(properties["containerName"])

    def _too_much(self, endpoint: str, since: datetime, until: datetime) -> RefusedError:
        return RefusedError(
            f"{endpoint} captured too much between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC to look for a "
            f"request: more than {MAX_BLOBS} blobs or {MAX_BYTES // 2**20} MiB",
            cloud=self._name,
            hint="name the time of the request: --time",
        )


def _times(content: bytes, ids: set[str]) -> Iterator[datetime]:
    for line in content.splitlines():
        try:
            event = json.loads(line)
            at = datetime.fromisoformat(event["time"]).astimezone(UTC)
        except (ValueError, KeyError, TypeError):
            continue  # no event of the collector's
        if ids & set(_attributes(event)):
            yield at


def _attributes(event: Mapping[str, Any]) -> Iterator[str]:
    """Every text in the event but the data, headers that are kept as an object of their own included."""
    for name, value in event.items():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping) and name != "data":
            yield from (text for text in value.values() if isinstance(text, str))
