"""Copies of the ledger in S3: every object is locked in COMPLIANCE mode, where the bucket has Object Lock.

A locked version can be neither overwritten nor deleted before its time by anyone, the account's root user included; a
new version or a delete marker may be laid over it, and is ignored here: the oldest version counts.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from lockstep.clouds.archive import Archive, Protection, StoredVersion, Translated
from lockstep.clouds.sagemaker.clients import Clients
from lockstep.clouds.sagemaker.errors import code_of
from lockstep.errors import BusyError

NO_LOCK: Final = "ObjectLockConfigurationNotFoundError"


class S3Archive(Archive):
    """A folder in one bucket, through boto3."""

    def __init__(self, cloud: str, bucket: str, folder: str, clients: Clients, translated: Translated) -> None:
        super().__init__(cloud, f"s3://{bucket}/{folder}", translated)
        self._bucket = bucket
        self._folder = f"{folder}/"
        self._clients = clients
        self._lock = threading.Lock()
        self._known: Mapping[str, Any] | None = None

    def _protection(self) -> Protection:
        found = self._ask()
        if found.get("ObjectLockEnabled") != "Enabled":
            return Protection(False, "not write-once: the bucket has no S3 Object Lock")
        default = found.get("Rule", {}).get("DefaultRetention", {})
        period = f"{default['Days']} days" if default.get("Days") else f"{default.get('Years')} years"
        also = f"; the bucket's default is {default['Mode']}, {period}" if default.get("Mode") else ""
        return Protection(True, f"S3 Object Lock, COMPLIANCE mode on every copy{also}")

    def _ask(self) -> Mapping[str, Any]:
        """The bucket's configuration of Object Lock; without one an empty mapping."""
        try:
            answer = self._clients.s3.get_object_lock_configuration(Bucket=self._bucket)
        except Exception as error:
            if code_of(error) != NO_LOCK:
                raise
            answer = {}
        found: Mapping[str, Any] = answer.get("ObjectLockConfiguration", {})
        with self._lock:
            self._known = found
        return found

    def _locks(self) -> bool:
        # Object Lock cannot be taken from a bucket that has it, so one look is enough.
        with self._lock:
            known = self._known
        return (self._ask() if known is None else known).get("ObjectLockEnabled") == "Enabled"

    def _create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        # A bucket without Object Lock refuses the fields; `protection` says that nothing is enforced there.
        lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": retain_until} if self._locks() else {}
        try:
            self._clients.s3.put_object(
                Bucket=self._bucket,
                Key=self._folder + name,
                Body=content,
                ContentType="application/octet-stream",
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",  # a request with a retention period must carry a checksum
                **lock,
            )
        except Exception as error:
            if code_of(error) == "PreconditionFailed":
                return False
            if code_of(error) == "ConditionalRequestConflict":
                raise BusyError(
                    f"somebody else is writing {name} to {self.place}", cloud=self.cloud, hint="try again in a moment"
                ) from error
            raise
        return True

    def _read(self, version: StoredVersion) -> bytes:
        answer = self._clients.s3.get_object(
            Bucket=self._bucket, Key=self._folder + version.name, VersionId=version.number
        )
        content: bytes = answer["Body"].read()
        return content

    def _versions(self, prefix: str, *, after: str = "", exact: bool = False) -> Iterator[StoredVersion]:
        """S3 lists by key, a key's newest version first, and the marks of deletion in a list of their own."""
        wanted = self._folder + prefix
        query: dict[str, Any] = {"Bucket": self._bucket, "Prefix": wanted}
        if exact:
            query["MaxKeys"] = 10  # of the keys that begin with the name, the name itself comes first
        if after:
            query["KeyMarker"] = self._folder + after
        found: list[Mapping[str, Any]] = []
        while True:
            page = self._clients.s3.list_object_versions(**query)
            versions, marks = page.get("Versions", []), page.get("DeleteMarkers", [])
            found += versions
            found += ({**mark, "Deleted": True} for mark in marks)
            beyond = exact and any(each["Key"] != wanted for each in (*versions, *marks))
            if beyond or not page.get("IsTruncated"):
                break
            query.update(KeyMarker=page["NextKeyMarker"], VersionIdMarker=page["NextVersionIdMarker"])
        for each in reversed(found):
            yield StoredVersion(
                each["Key"].removeprefix(self._folder),
                each["VersionId"],
                current=bool(each.get("IsLatest")) and "Deleted" not in each,
                readable="Deleted" not in each,
            )
