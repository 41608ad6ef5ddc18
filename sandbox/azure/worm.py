"""Version-level immutability, which Azurite does not have, for one container in front of it.

Every write or deletion of a blob leaves the state before it as a previous version, with the policy that it had; a
version under a policy can be neither deleted nor given other metadata before its time, and a locked policy can only be
extended. Azurite holds the current versions, the previous ones are held here.
Source: Azure Storage's documentation, "Version-level WORM policies for immutable blob data", and the REST reference of
Put Blob, Delete Blob, List Blobs and Set Blob Immutability Policy.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from werkzeug.http import http_date
from werkzeug.wrappers import Request, Response

from sandbox.azure.shared_key import is_signed
from sandbox.web import Target

if TYPE_CHECKING:
    from sandbox.azure.azurite import Azurite

ENABLED: Final = "x-ms-immutable-storage-with-versioning-enabled"
UNTIL: Final = "x-ms-immutability-policy-until-date"
MODE: Final = "x-ms-immutability-policy-mode"
VERSION: Final = "x-ms-version-id"
OVERWRITES: Final = ("PutBlob", "PutBlockList", "CopyBlob")
Forward = Callable[[], Response]
Refuse = Callable[[int, str, str], Response]


@dataclass(frozen=True)
class Held:
    """One version of a blob: `number` is its id, a time; `until` the end of its policy, None without one."""

    number: str
    made: datetime
    until: datetime | None = None
    locked: bool = False
    content: bytes = b""

    @property
    def protected(self) -> bool:
        """Whether a policy holds it now."""
        return self.until is not None and self.until > datetime.now(UTC)


class Worm:
    """The versions of one container's blobs."""

    def __init__(self, azurite: Azurite, container: str, refuse: Refuse) -> None:
        self.container: Final = container
        self._azurite = azurite
        self._refuse = refuse
        self._lock = threading.RLock()
        self._current: dict[str, Held] = {}
        self._previous: dict[str, list[Held]] = {}
        self._newest = datetime.now(UTC)

    def respond(self, request: Request, target: Target, forward: Forward) -> Response:
        """Answer a request to the container or to one of its blobs; `forward` asks Azurite."""
        name = target.resource.partition("/")[2]
        wanted = request.args.get("versionid", "")
        with self._lock:
            if not is_signed(request, self._azurite.account, self._azurite.key):
                return forward()  # Azurite says why not
            if target.operation in OVERWRITES:
                return self._written(request, name, forward)
            if target.operation == "DeleteBlob":
                return self._deleted(name, wanted, forward)
            if target.operation == "DeleteContainer" and (self._current or self._previous):
                return self._refused()
            if target.operation == "SetBlobMetadata" and name in self._current and self._current[name].protected:
                return self._refused()
            if request.args.get("comp") == "immutabilityPolicies":
                return self._policy(request, name, wanted)
            if target.operation in ("GetBlob", "GetBlobProperties") and wanted:
                return self._read(request, name, wanted, forward)
            answer = forward()
            if target.operation == "GetContainerProperties":
                answer.headers[ENABLED] = "true"
            if target.operation == "ListBlobs" and answer.status_code == 200 and "versions" in _included(request):
                return self._listed(request, answer)
            return answer

    def _written(self, request: Request, name: str, forward: Forward) -> Response:
        before = self._keepsake(name)
        until = request.headers.get(UNTIL)
        answer = forward()
        if answer.status_code == 201:
            self._shift(name, before)
            ends = parsedate_to_datetime(until) if until else None
            locked = request.headers.get(MODE, "").lower() == "locked"
            self._current[name] = replace(self._version(), until=ends, locked=locked)
            answer.headers[VERSION] = self._current[name].number
        return answer

    def _deleted(self, name: str, wanted: str, forward: Forward) -> Response:
        held = self._find(name, wanted) if wanted else None
        if wanted and held is None:
            return self._absent()
        if held is not None and held.protected:
            return self._refused()
        if held is not None and held in self._previous.get(name, []):
            self._previous[name].remove(held)
            return Response(b"", 202)
        before = self._keepsake(name)
        answer = forward()
        if answer.status_code == 202:
            self._shift(name, None if wanted else before)
        return answer

    def _policy(self, request: Request, name: str, wanted: str) -> Response:
        held = self._find(name, wanted)
        if held is None:
            return self._absent()
        given = request.headers.get(UNTIL)
        until = parsedate_to_datetime(given) if request.method == "PUT" and given else None
        shorter = until is None or (held.until is not None and until < held.until)
        if held.locked and shorter:
            return self._refused()
        locked = held.locked or request.headers.get(MODE, "").lower() == "locked"
        changed = replace(held, until=until, locked=locked and until is not None)
        if self._current.get(name) is held:
            self._current[name] = changed
        else:
            self._previous[name][self._previous[name].index(held)] = changed
        return Response(b"", 200, {UNTIL: given or "", MODE: "locked" if changed.locked else "unlocked"})

    def _read(self, request: Request, name: str, wanted: str, forward: Forward) -> Response:
        held = self._find(name, wanted)
        if held is None:
            return self._absent()
        if self._current.get(name) is held:
            return forward()
        size = len(held.content)
        headers = {**_looks(held), VERSION: held.number, "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return Response(b"", 200, {**headers, "Content-Length": str(size)})
        span = request.headers.get("x-ms-range") or request.headers.get("Range")
        if not span or not size:
            return Response(held.content, 200, headers)
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = held.content[int(first) : int(last or size) + 1]
        shown = f"bytes {first}-{int(first) + len(part) - 1}/{size}"
        return Response(part, 206, {**headers, "Content-Range": shown})

    def _listed(self, request: Request, answer: Response) -> Response:
        """Azurite's page with ids, and with the previous versions of the names that belong onto it."""
        tree = ElementTree.fromstring(answer.get_data())  # noqa: S314 - Azurite's own
        blobs, more = tree.find("Blobs"), tree.findtext("NextMarker") or ""
        assert blobs is not None
        shown: list[tuple[str, str, ElementTree.Element]] = []
        for blob in list(blobs):
            name = blob.findtext("Name") or ""
            held = self._current.get(name)
            if held is not None:
                ElementTree.SubElement(blob, "VersionId").text = held.number
                ElementTree.SubElement(blob, "IsCurrentVersion").text = "true"
            shown.append((name, held.number if held else "", blob))
            blobs.remove(blob)
        last = max((name for name, _, _ in shown), default="")
        begin, prefix = request.args.get("marker", ""), request.args.get("prefix", "")
        for name, versions in self._previous.items():
            if name.startswith(prefix) and name > begin and (not more or name <= last):
                shown += [(name, held.number, _element(name, held)) for held in versions]
        for _, _, blob in sorted(shown, key=lambda each: each[:2]):
            blobs.append(blob)
        headers = {key: value for key, value in answer.headers.items() if key.lower() != "content-length"}
        return Response(ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True), 200, headers)

    # -- versions ----------------------------------------------------------------------------------------------

    def _version(self) -> Held:
        """A new id, later than any before."""
        self._newest = max(datetime.now(UTC), self._newest + timedelta(microseconds=1))
        return Held(self._newest.strftime("%Y-%m-%dT%H:%M:%S.%f0Z"), self._newest)

    def _keepsake(self, name: str) -> Held | None:
        """The current version with its bytes, for when it is the current one no more."""
        held = self._current.get(name)
        if held is None:
            return None
        blob = self._azurite.client().get_blob_client(self.container, name)
        return replace(held, content=blob.download_blob().readall())

    def _shift(self, name: str, before: Held | None) -> None:
        self._current.pop(name, None)
        if before is not None:
            self._previous.setdefault(name, []).append(before)

    def _find(self, name: str, wanted: str) -> Held | None:
        return next((held for held in self._all(name) if not wanted or held.number == wanted), None)

    def _all(self, name: str) -> Iterator[Held]:
        if name in self._current:
            yield self._current[name]
        yield from reversed(self._previous.get(name, []))

    def _refused(self) -> Response:
        return self._refuse(
            409, "BlobImmutableDueToPolicy", "This operation is not permitted as the blob is immutable due to a policy."
        )

    def _absent(self) -> Response:
        return self._refuse(404, "BlobNotFound", "The specified blob does not exist.")


def _included(request: Request) -> tuple[str, ...]:
    return tuple(request.args.get("include", "").split(","))


def _looks(held: Held) -> dict[str, str]:
    digest = hashlib.sha256(held.number.encode()).hexdigest()[:15].upper()
    kind = {"Content-Type": "application/octet-stream"}
    return {"Last-Modified": http_date(held.made), "ETag": f'"0x{digest}"', **kind}


def _element(name: str, held: Held) -> ElementTree.Element:
    blob = ElementTree.Element("Blob")
    ElementTree.SubElement(blob, "Name").text = name
    ElementTree.SubElement(blob, "VersionId").text = held.number
    properties = ElementTree.SubElement(blob, "Properties")
    looks = {"Last-Modified": http_date(held.made), "Etag": _looks(held)["ETag"].strip('"')}
    for key, value in {**looks, "Content-Length": str(len(held.content)), "BlobType": "BlockBlob"}.items():
        ElementTree.SubElement(properties, key).text = value
    return blob
