"""Copies of the ledger in Blob Storage: every blob gets a locked immutability policy, where the container supports it.

Version-level immutability keeps each version of a blob from being changed or deleted before its time; a later version
may be laid over it, and is ignored here: the oldest version counts.
https://learn.microsoft.com/azure/storage/blobs/immutable-storage-overview
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from lockstep.clouds.archive import Archive, Protection, StoredVersion, Translated
from lockstep.clouds.azureml.access import Access

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient, ContainerProperties

EXISTS: Final = "BlobAlreadyExists"


class BlobArchive(Archive):
    """A folder in one container, through azure-storage-blob."""

    def __init__(self, access: Access, container: str, folder: str, translated: Translated) -> None:
        super().__init__(access.name, f"{_account(access)}/{container}/{folder}", translated)
        self._access = access
        self._container = container
        self._folder = f"{folder}/"
        self._lock = threading.Lock()
        self._client: ContainerClient | None = None
        self._versioned: bool | None = None

    def _protection(self) -> Protection:
        found = self._ask()
        if found.immutable_storage_with_versioning_enabled:
            return Protection(True, "Azure version-level immutability, a locked policy on every copy")
        if found.has_immutability_policy:
            return Protection(
                False,
                "Azure immutability policy on the container; Blob Storage does not tell whether it is locked, and one "
                "that is not can be removed",
            )
        return Protection(False, "not write-once: Blob Storage reports no immutability policy on the container")

    def _ask(self) -> ContainerProperties:
        found = self._blobs().get_container_properties()
        with self._lock:
            self._versioned = bool(found.immutable_storage_with_versioning_enabled)
        return found

    def _locks(self) -> bool:
        # The container's support for version-level immutability cannot be taken back, so one look is enough.
        with self._lock:
            known = self._versioned
        return bool(self._ask().immutable_storage_with_versioning_enabled) if known is None else known

    def _create(self, name: str, content: bytes, retain_until: datetime) -> bool:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ImmutabilityPolicy

        policy: dict[str, Any] = {}
        if self._locks():
            policy["immutability_policy"] = ImmutabilityPolicy(expiry_time=retain_until, policy_mode="Locked")
        try:
            self._blobs().upload_blob(
                self._folder + name, content, length=len(content), overwrite=False, validate_content=True, **policy
            )
        except ResourceExistsError as error:
            if getattr(error, "error_code", "") != EXISTS:
                raise
            return False
        return True

    def _read(self, version: StoredVersion) -> bytes:
        blob = self._folder + version.name
        content: bytes = self._blobs().download_blob(blob, version_id=version.number or None).readall()
        return content

    def _versions(self, prefix: str, *, after: str = "", exact: bool = False) -> Iterator[StoredVersion]:
        """Blob Storage lists by name; a version's id is the time of its making, so ids sort by age."""
        wanted = self._folder + prefix
        page = 10 if exact else 5000
        found = []
        for blob in self._blobs().list_blobs(
            name_starts_with=wanted, include=["versions", "deleted"], results_per_page=page
        ):
            if exact and blob.name != wanted:
                break  # of the names that begin with the name, the name itself comes first
            found.append(blob)
        for blob in sorted(found, key=lambda each: (each.name, each.version_id or "")):
            gone = bool(blob.deleted)
            yield StoredVersion(
                str(blob.name).removeprefix(self._folder),
                blob.version_id or "",
                current=not gone and (blob.version_id is None or bool(blob.is_current_version)),
                readable=not gone,
            )

    def _blobs(self) -> ContainerClient:
        with self._lock:
            if self._client is None:
                from azure.storage.blob import ContainerClient, LinearRetry

                settings = self._access.settings
                key = settings.storage_key
                self._client = ContainerClient(
                    _account(self._access),
                    self._container,
                    credential=self._access.credential() if key is None else key.get_secret_value(),
                    # Storage's own policy waits 15 s before its first repetition.
                    retry_policy=LinearRetry(backoff=1, retry_total=1, random_jitter_range=0),
                    **self._access.transport_options(),
                )
            return self._client


def _account(access: Access) -> str:
    """Address of the storage account."""
    settings = access.settings
    public = f"https://{settings.storage_account}.blob.core.windows.net"
    return (settings.blob_endpoint or public).rstrip("/")
