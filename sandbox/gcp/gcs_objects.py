"""What Cloud Storage keeps: buckets, object generations, and the rules about changing them.

Reads and writes are strongly consistent, as the real service's are. Bytes lie in files (one per generation), their
metadata in memory. The JSON and the XML API in front of it share this one store and its rules.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

import google_crc32c

CHUNK: Final = 1024 * 1024
BUCKET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{1,220}[a-z0-9]")


class StorageError(Exception):
    """An HTTP status, the JSON API's `reason`, the XML API's `Code`, and a message."""

    def __init__(self, status: int, reason: str, code: str, message: str) -> None:
        super().__init__(message)
        self.status: Final = status
        self.reason: Final = reason
        self.code: Final = code
        self.message: Final = message


def no_object(bucket: str, name: str) -> StorageError:
    """The object (or that generation of it) does not exist."""
    return StorageError(404, "notFound", "NoSuchKey", f"No such object: {bucket}/{name}")


def bad_request(message: str) -> StorageError:
    """The request makes no sense."""
    return StorageError(400, "invalid", "InvalidArgument", message)


@dataclass(frozen=True)
class Conditions:
    """Preconditions of one request; a generation of 0 means "no live object"."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    def check(self, live: StoredObject | None, *, reading: bool = False) -> None:
        """Raise 412 (or 304 for a read) unless the live object meets them."""
        generation = live.generation if live else 0
        metageneration = live.metageneration if live else 0
        wanted = ((self.generation, generation), (self.metageneration, metageneration))
        for value, actual in wanted:
            if value is not None and value != actual:
                raise StorageError(
                    412,
                    "conditionNotMet",
                    "PreconditionFailed",
                    "At least one of the pre-conditions you specified did not hold.",
                )
        unwanted = ((self.not_generation, generation), (self.not_metageneration, metageneration))
        for value, actual in unwanted:
            if value is not None and value == actual:
                status = 304 if reading else 412
                raise StorageError(status, "conditionNotMet", "PreconditionFailed", "The object has not changed.")


@dataclass(frozen=True)
class Digests:
    """Size and checksums as Google reports them: base64 of MD5 and of the big-endian CRC32C."""

    size: int
    md5: str | None
    crc32c: str


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object; times are Unix seconds, `mode` is "Unlocked" or "Locked" where it is retained."""

    bucket: str
    name: str
    generation: int
    path: Path
    digests: Digests
    content_type: str
    created: float
    updated: float
    metageneration: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    temporary_hold: bool = False
    event_based_hold: bool = False
    retention_mode: str | None = None
    retain_until: float | None = None
    deleted: float | None = None
    parts: int | None = None

    @property
    def etag(self) -> str:
        """The JSON API's etag of this generation and metageneration."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()


@dataclass
class Bucket:
    """One bucket; `retention_seconds` is its retention policy."""

    name: str
    created: float
    versioning: bool = False
    object_retention: bool = False
    retention_seconds: int | None = None
    retention_locked: bool = False
    retention_since: float = 0.0
    default_hold: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    metageneration: int = 1
    updated: float = 0.0
    internal: bool = False
    live: dict[str, StoredObject] = field(default_factory=dict)
    old: dict[str, list[StoredObject]] = field(default_factory=dict)

    def expiry(self, stored: StoredObject) -> float | None:
        """Unix time until which the bucket's policy keeps an object; None without a policy."""
        return None if self.retention_seconds is None else stored.created + self.retention_seconds


class Upload:
    """Bytes on their way in: written to a file and digested as they come.

    An object made of parts has no MD5, as a composite object has none on the real service: `md5=False`.
    """

    def __init__(self, path: Path, *, md5: bool = True) -> None:
        self.path: Final = path
        self.size = 0
        self._file = path.open("wb")
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None
        self._crc = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append."""
        for chunk in chunks:
            self._file.write(chunk)
            if self._md5 is not None:
                self._md5.update(chunk)
            self._crc.update(chunk)  # type: ignore[no-untyped-call]
            self.size += len(chunk)

    def finish(self) -> Digests:
        """Close the file; what was written."""
        self._file.close()
        md5 = base64.b64encode(self._md5.digest()).decode() if self._md5 is not None else None
        crc32c: bytes = self._crc.digest()  # type: ignore[no-untyped-call]
        return Digests(self.size, md5, base64.b64encode(crc32c).decode())

    def discard(self) -> None:
        """Give up."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def chunks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """A stream in pieces of 1 MiB."""
    while chunk := stream.read(CHUNK):
        yield chunk


class Store:
    """All buckets. Every method that changes something checks the rules and is atomic."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.RLock()
        self._last = 0

    def _number(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            return self._last

    def upload(self, *, md5: bool = True) -> Upload:
        """A new place for bytes."""
        return Upload(self._folder / str(self._number()), md5=md5)

    # --- buckets

    def buckets(self) -> list[Bucket]:
        """Buckets of the user's project, by name; Google-managed ones belong to a tenant project and are not listed."""
        with self._lock:
            return sorted((b for b in self._buckets.values() if not b.internal), key=lambda b: b.name)

    def bucket(self, name: str) -> Bucket:
        """The bucket; 404 when there is none."""
        try:
            return self._buckets[name]
        except KeyError:
            raise StorageError(
                404, "notFound", "NoSuchBucket", f"The specified bucket does not exist: {name}"
            ) from None

    def create_bucket(self, name: str, *, internal: bool = False) -> Bucket:
        """A new bucket; 409 when the name is taken."""
        if not BUCKET_NAME.fullmatch(name) or name.startswith("goog"):
            raise bad_request(f"Invalid bucket name: '{name}'")
        with self._lock:
            if name in self._buckets:
                raise StorageError(
                    409,
                    "conflict",
                    "BucketAlreadyOwnedByYou",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                )
            bucket = Bucket(name, time.time(), internal=internal, updated=time.time())
            self._buckets[name] = bucket
            return bucket

    def change_bucket(self, name: str, changes: Mapping[str, object], metageneration: int | None = None) -> Bucket:
        """Set attributes of a bucket; a locked retention policy can be lengthened only."""
        with self._lock:
            bucket = self.bucket(name)
            if metageneration is not None and metageneration != bucket.metageneration:
                raise StorageError(412, "conditionNotMet", "PreconditionFailed", "Precondition Failed")
            if "retention_seconds" in changes and bucket.retention_locked:
                wanted = changes["retention_seconds"]
                if not isinstance(wanted, int) or wanted < (bucket.retention_seconds or 0):
                    raise StorageError(
                        403,
                        "forbidden",
                        "AccessDenied",
                        f"Cannot reduce retention duration of a locked Retention Policy for bucket '{name}'.",
                    )
            for attribute, value in changes.items():
                setattr(bucket, attribute, value)
            if "retention_seconds" in changes:
                bucket.retention_since = time.time()
            bucket.metageneration += 1
            bucket.updated = time.time()
            return bucket

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket."""
        with self._lock:
            bucket = self.bucket(name)
            if bucket.live or bucket.old:
                raise StorageError(409, "conflict", "BucketNotEmpty", "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    # --- objects

    def get(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        """The live object, or one generation of it; 404 otherwise."""
        with self._lock:
            place = self.bucket(bucket)
            live = place.live.get(name)
            candidates: list[StoredObject] = [*([live] if live else []), *place.old.get(name, ())]
            for found in candidates:
                if found.generation == generation or (generation is None and found is live):
                    return found
        raise no_object(bucket, name)

    def live(self, bucket: str, name: str) -> StoredObject | None:
        """The live object, if any."""
        return self.bucket(bucket).live.get(name)

    def put(self, upload: Upload, draft: StoredObject, conditions: Conditions) -> StoredObject:
        """Make finished bytes the live generation of `draft.name`."""
        with self._lock:
            bucket = self.bucket(draft.bucket)
            conditions.check(bucket.live.get(draft.name))
            self._retire(bucket, draft.name, overwriting=True)
            now = time.time()
            stored = replace(
                draft,
                generation=self._number(),
                path=upload.path,
                created=now,
                updated=now,
                event_based_hold=draft.event_based_hold or bucket.default_hold,
            )
            bucket.live[draft.name] = stored
            return stored

    def copy(self, source: StoredObject, draft: StoredObject, conditions: Conditions) -> StoredObject:
        """Copy the bytes as they lie now, together with the checksums that the source was stored with."""
        self.bucket(draft.bucket)
        target = self.upload()
        target.discard()
        shutil.copyfile(source.path, target.path)
        return self.put(target, replace(draft, digests=source.digests, parts=source.parts), conditions)

    def change(self, stored: StoredObject, conditions: Conditions, **changes: Any) -> StoredObject:
        """New metadata for one generation."""
        with self._lock:
            current = self.get(stored.bucket, stored.name, stored.generation)
            conditions.check(current)
            self._check_retention_change(current, changes)
            newer = {"metageneration": current.metageneration + 1, "updated": time.time(), **changes}
            updated: StoredObject = replace(current, **newer)
            bucket = self.bucket(stored.bucket)
            if bucket.live.get(stored.name) is current:
                bucket.live[stored.name] = updated
            else:
                generations = bucket.old[stored.name]
                generations[generations.index(current)] = updated
            return updated

    @staticmethod
    def _check_retention_change(current: StoredObject, changes: Mapping[str, object]) -> None:
        if current.retention_mode != "Locked" or not {"retention_mode", "retain_until"} & set(changes):
            return
        until = changes.get("retain_until")
        if changes.get("retention_mode") != "Locked" or not isinstance(until, float):
            raise _retained(current, "is subject to a locked object retention and it cannot be removed or unlocked")
        if until < (current.retain_until or 0.0):
            raise _retained(current, "is subject to a locked object retention and it cannot be shortened")

    def delete(self, bucket: str, name: str, generation: int | None, conditions: Conditions) -> None:
        """Delete the live object (kept as noncurrent where versioning is on), or one generation for good."""
        with self._lock:
            stored = self.get(bucket, name, generation)
            conditions.check(stored)
            place = self.bucket(bucket)
            if generation is None:
                self._retire(place, name, overwriting=False)
                return
            self._check_kept(place, stored)
            if place.live.get(name) is stored:
                del place.live[name]
            else:
                place.old[name].remove(stored)
                if not place.old[name]:
                    del place.old[name]
            stored.path.unlink(missing_ok=True)

    def _retire(self, bucket: Bucket, name: str, *, overwriting: bool) -> None:
        stored = bucket.live.get(name)
        if stored is None:
            return
        if not bucket.versioning:
            self._check_kept(bucket, stored)
        elif stored.temporary_hold or stored.event_based_hold:
            self._check_holds(stored)
        del bucket.live[name]
        if bucket.versioning:
            bucket.old.setdefault(name, []).append(replace(stored, deleted=time.time()))
        else:
            stored.path.unlink(missing_ok=True)

    @staticmethod
    def _check_holds(stored: StoredObject) -> None:
        for kind, held in (("temporary", stored.temporary_hold), ("event-based", stored.event_based_hold)):
            if held:
                raise _retained(stored, f"is under active {kind} hold and cannot be deleted, overwritten or archived")

    def _check_kept(self, bucket: Bucket, stored: StoredObject) -> None:
        self._check_holds(stored)
        for until, what in (
            (bucket.expiry(stored), "bucket's retention policy"),
            (stored.retain_until, "object's retention"),
        ):
            if until is not None and until > time.time():
                when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
                raise _retained(
                    stored, f"is subject to {what} and cannot be deleted, overwritten or archived until {when}"
                )

    def listing(self, bucket: str, *, versions: bool = False) -> list[StoredObject]:
        """Every object by name and, with `versions`, every generation from the oldest on."""
        with self._lock:
            place = self.bucket(bucket)
            found = list(place.live.values())
            if versions:
                found += [stored for generations in place.old.values() for stored in generations]
        return sorted(found, key=lambda o: (o.name.encode(), o.generation))

    def everything(self) -> list[StoredObject]:
        """All live objects of all buckets."""
        with self._lock:
            return [stored for bucket in self._buckets.values() for stored in bucket.live.values()]


def _retained(stored: StoredObject, why: str) -> StorageError:
    return StorageError(403, "retentionPolicyNotMet", "AccessDenied", f"Object '{stored.bucket}/{stored.name}' {why}.")
