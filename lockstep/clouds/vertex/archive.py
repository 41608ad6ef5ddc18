"""Copies of the ledger in Cloud Storage: kept by the bucket's retention policy, each object's own, or both.

A locked retention policy lets nobody delete or replace an object before its time, and nobody shorten the policy. Where
the bucket allows objects a retention of their own, each copy gets a locked one. With versioning a newer generation may
be laid over a kept one, and is ignored here: the oldest generation counts.
https://cloud.google.com/storage/docs/bucket-lock, https://cloud.google.com/storage/docs/object-lock
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from lockstep.clouds.archive import Archive, Protection, StoredVersion, Translated
from lockstep.clouds.vertex.rest import JsonObject, Rest, VertexError
from lockstep.errors import CredentialsError, NotFoundError

DAY: Final = 86_400
SHOWN: Final = "objectRetention,retentionPolicy"


class GcsArchive(Archive):
    """A folder in one bucket, through Cloud Storage's JSON API.

    `storage` is the API's address. https://cloud.google.com/storage/docs/json_api/v1
    """

    def __init__(self, cloud: str, storage: str, bucket: str, folder: str, rest: Rest, translated: Translated) -> None:
        super().__init__(cloud, f"gs://{bucket}/{folder}", translated)
        self._storage = storage
        self._bucket = bucket
        self._folder = f"{folder}/"
        self._rest = rest
        self._lock = threading.Lock()
        self._per_object: bool | None = None

    def _protection(self) -> Protection:
        found = self._ask()
        policy = found.get("retentionPolicy", {})
        period = _period(int(policy.get("retentionPeriod", 0)))
        said = []
        if policy:
            lock = "locked" if policy.get("isLocked") else "not locked: whoever may change the bucket can remove it"
            said.append(f"Cloud Storage retention policy of {period}, {lock}")
        if _allows_own(found):
            said.append("Cloud Storage object retention, locked on every copy")
        if not said:
            return Protection(False, "not write-once: the bucket has neither a retention policy nor object retention")
        return Protection(bool(policy.get("isLocked")) or _allows_own(found), "; ".join(said))

    def _ask(self) -> JsonObject:
        with self._named():
            found = self._rest.call("GET", f"{self._storage}/storage/v1/b/{self._bucket}", query={"fields": SHOWN})
        with self._lock:
            self._per_object = _allows_own(found)
        return found

    def _locks(self) -> bool:
        # Object retention cannot be taken from a bucket that has it, so one look is enough.
        with self._lock:
            known = self._per_object
        return _allows_own(self._ask()) if known is None else known

    def _create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        checksum = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        metadata: JsonObject = {"md5Hash": checksum}
        if self._locks():
            until = retain_until.astimezone(UTC).isoformat(timespec="seconds")
            metadata["retention"] = {"mode": "Locked", "retainUntilTime": until}
        boundary = secrets.token_hex(16)  # must not occur in the content; 128 random bits do not
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(metadata).encode(),
                f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        try:
            with self._named():
                self._rest.send(
                    "POST",
                    f"{self._storage}/upload/storage/v1/b/{self._bucket}/o",
                    content=body,
                    query={"uploadType": "multipart", "name": self._folder + name, "ifGenerationMatch": 0},
                    headers={"Content-Type": f"multipart/related; boundary={boundary}"},
                    repeatable=True,  # the condition lets only one of two succeed
                )
        except VertexError as error:
            if error.http != 412:
                raise
            return False
        return True

    def _read(self, version: StoredVersion) -> bytes:
        path = quote(self._folder + version.name, safe="")
        with self._named():
            answer = self._rest.send(
                "GET",
                f"{self._storage}/storage/v1/b/{self._bucket}/o/{path}",
                query={"alt": "media", "generation": version.number},
            )
        return answer.content

    def _versions(self, prefix: str, *, after: str = "", exact: bool = False) -> Iterator[StoredVersion]:
        """Cloud Storage lists by name; generations rise with time."""
        wanted = self._folder + prefix
        query: dict[str, str | int] = {
            "versions": "true",
            "prefix": wanted,
            "fields": "items(name,generation,timeDeleted),nextPageToken",
        }
        if exact:
            query["maxResults"] = 10  # of the names that begin with the name, the name itself comes first
        if after:
            query["startOffset"] = self._folder + after
        found = []
        with self._named():
            for each in self._rest.pages(f"{self._storage}/storage/v1/b/{self._bucket}/o", "items", query):
                if exact and each["name"] != wanted:
                    break
                found.append((str(each["name"]), int(each["generation"]), "timeDeleted" not in each))
        for name, generation, current in sorted(found):
            yield StoredVersion(name.removeprefix(self._folder), str(generation), current)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What a missing bucket or permission means here, where Vertex AI's own hints would lead astray."""
        try:
            yield
        except VertexError as error:
            problem = f"Cloud Storage refuses access to {self.place}: {error}"
            if error.http == 404:
                hint = "create the bucket as docs/clouds.md says, or correct archive_bucket"
                raise NotFoundError(problem, hint=hint, cloud=self.cloud) from error
            if error.http == 403:
                hint = "grant the account what docs/clouds.md lists for the archive's bucket"
                raise CredentialsError(problem, hint=hint, cloud=self.cloud) from error
            raise


def _allows_own(bucket: JsonObject) -> bool:
    return str(bucket.get("objectRetention", {}).get("mode", "")) == "Enabled"


def _period(seconds: int) -> str:
    return f"{seconds // DAY} days" if seconds >= DAY else f"{seconds} seconds"
