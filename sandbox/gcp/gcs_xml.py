"""Cloud Storage's XML API, path style: https://cloud.google.com/storage/docs/xml-api/overview; what obstore speaks."""

from __future__ import annotations

import base64
import hashlib
import secrets
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from werkzeug.wrappers import Request, Response

from sandbox.gcp.gcs_http import (
    FIELD_HEADERS,
    conditions_from,
    finish_checked,
    media,
    object_headers,
    promised_hashes,
    raw_path,
    whole_number,
    xml_etag,
)
from sandbox.gcp.gcs_objects import (
    Conditions,
    Digests,
    StorageError,
    Store,
    StoredObject,
    Upload,
    bad_request,
    chunks_of,
)

CONDITIONS: Final = {
    "generation": "x-goog-if-generation-match",
    "not_generation": "x-goog-if-generation-not-match",
    "metageneration": "x-goog-if-metageneration-match",
    "not_metageneration": "x-goog-if-metageneration-not-match",
}
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
UNSUPPORTED: Final = {"acl", "cors", "lifecycle", "logging", "tagging", "website", "compose", "delete", "encryption"}


@dataclass
class Multipart:
    """One multipart upload: parts by number, each with its bytes and digests."""

    bucket: str
    name: str
    draft: StoredObject
    parts: dict[int, tuple[Upload, Digests]] = field(default_factory=dict)


class XmlApi:
    """The XML API over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads: dict[str, Multipart] = {}

    def identify(self, request: Request) -> tuple[str, str]:
        """The JSON API's name of the operation, and `bucket/object`."""
        bucket, name = _names(request)
        resource = f"{bucket}/{name}" if name else bucket
        if not name:
            return ("storage.objects.list" if bucket and request.method == "GET" else "unknown"), resource
        verbs = {"GET": "get", "HEAD": "get", "PUT": "insert", "POST": "insert", "DELETE": "delete"}
        if request.method not in verbs or UNSUPPORTED & set(request.args):
            return "unknown", resource
        return f"storage.objects.{verbs[request.method]}", resource

    def respond(self, request: Request, operation: str) -> Response:
        """Answer one request; raises StorageError."""
        bucket, name = _names(request)
        if operation == "storage.objects.list" and not UNSUPPORTED & set(request.args):
            return self._list(request, bucket)
        if operation == "storage.objects.get":
            return self._get(request, bucket, name)
        if operation == "storage.objects.delete":
            return self._delete(request, bucket, name)
        if operation == "storage.objects.insert":
            return self._write(request, bucket, name)
        message = f"not implemented by the sandbox: XML API {request.method} {request.full_path}"
        raise StorageError(501, "notImplemented", "NotImplemented", message)

    def _write(self, request: Request, bucket: str, name: str) -> Response:
        number = request.args.get("uploadId")
        if request.method == "POST" and "uploads" in request.args:
            return self._begin(request, bucket, name)
        if number is not None:
            upload = self._uploads.get(number)
            if upload is None or (upload.bucket, upload.name) != (bucket, name):
                raise StorageError(404, "notFound", "NoSuchUpload", "The requested upload was not found.")
            if request.method == "PUT":
                return self._part(request, upload)
            return self._complete(request, number, upload)
        if request.method == "POST":
            raise StorageError(501, "notImplemented", "NotImplemented", "not implemented by the sandbox: form upload")
        if "x-goog-copy-source" in request.headers:
            return self._copy(request, bucket, name)
        upload_now = self._store.upload()
        upload_now.write(chunks_of(request.stream))
        digests = finish_checked(upload_now, promised_hashes(request))
        try:
            draft = _draft(request, bucket, name, digests)
            stored = self._store.put(upload_now, draft, self._conditions(request, bucket, name))
        except StorageError:
            upload_now.discard()
            raise
        return Response(status=200, headers=object_headers(stored))

    def _get(self, request: Request, bucket: str, name: str) -> Response:
        stored = self._store.get(bucket, name, whole_number(request.args.get("generation"), "generation"))
        conditions_from({k: request.headers.get(v) for k, v in CONDITIONS.items()}).check(stored, reading=True)
        etag, unless = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        if etag is not None and etag not in ("*", xml_etag(stored)):
            raise StorageError(412, "conditionNotMet", "PreconditionFailed", "The If-Match precondition failed.")
        since = request.if_unmodified_since
        if since is not None and int(stored.updated) > since.timestamp():
            raise StorageError(412, "conditionNotMet", "PreconditionFailed", "The object was modified since.")
        if unless is not None and unless in ("*", xml_etag(stored)):
            raise StorageError(304, "notModified", "NotModified", "Not modified.")
        newer = request.if_modified_since
        if unless is None and newer is not None and int(stored.updated) <= newer.timestamp():
            raise StorageError(304, "notModified", "NotModified", "Not modified.")
        return media(request, stored)

    def _delete(self, request: Request, bucket: str, name: str) -> Response:
        number = request.args.get("uploadId")
        if number is not None:
            upload = self._uploads.pop(number, None)
            for part, _ in upload.parts.values() if upload else ():
                part.discard()
            return Response(status=204 if upload else 404)
        generation = whole_number(request.args.get("generation"), "generation")
        self._store.delete(bucket, name, generation, self._conditions(request, bucket, name))
        return Response(status=204)

    def _copy(self, request: Request, bucket: str, name: str) -> Response:
        from_bucket, _, from_name = unquote(request.headers["x-goog-copy-source"]).lstrip("/").partition("/")
        generation = whole_number(request.headers.get("x-goog-copy-source-generation"), "generation")
        source = self._store.get(from_bucket, from_name, generation)
        draft = _draft(request, bucket, name, source.digests)
        if request.headers.get("x-goog-metadata-directive", "COPY").upper() == "COPY":
            draft = replace(
                draft, content_type=source.content_type, metadata=source.metadata, fields=dict(source.fields)
            )
        stored = self._store.copy(source, draft, self._conditions(request, bucket, name))
        root = ET.Element("CopyObjectResult", xmlns=NAMESPACE)
        ET.SubElement(root, "LastModified").text = _time(stored.updated)
        ET.SubElement(root, "ETag").text = xml_etag(stored)
        return _xml(root, {"x-goog-generation": str(stored.generation)})

    def _conditions(self, request: Request, bucket: str, name: str) -> Conditions:
        conditions = conditions_from({k: request.headers.get(v) for k, v in CONDITIONS.items()})
        live = self._store.live(bucket, name)
        if request.headers.get("If-None-Match") == "*":
            conditions = replace(conditions, generation=0)
        if "If-Match" in request.headers:
            if live is None or request.headers["If-Match"] not in ("*", xml_etag(live)):
                raise StorageError(412, "conditionNotMet", "PreconditionFailed", "The If-Match precondition failed.")
            conditions = replace(conditions, generation=live.generation)
        return conditions

    # --- multipart

    def _begin(self, request: Request, bucket: str, name: str) -> Response:
        self._store.bucket(bucket)
        number = secrets.token_urlsafe(24)
        self._uploads[number] = Multipart(bucket, name, _draft(request, bucket, name, Digests(0, None, "")))
        root = ET.Element("InitiateMultipartUploadResult", xmlns=NAMESPACE)
        for tag, text in (("Bucket", bucket), ("Key", name), ("UploadId", number)):
            ET.SubElement(root, tag).text = text
        return _xml(root)

    def _part(self, request: Request, upload: Multipart) -> Response:
        number = whole_number(request.args.get("partNumber"), "partNumber") or 0
        if not 1 <= number <= 10_000:
            raise bad_request("Part number must be an integer between 1 and 10000, inclusive.")
        part = self._store.upload()
        part.write(chunks_of(request.stream))
        digests = finish_checked(part, promised_hashes(request))
        previous = upload.parts.get(number)
        upload.parts[number] = (part, digests)
        if previous is not None:
            previous[0].discard()
        hashes = f"crc32c={digests.crc32c},md5={digests.md5}"
        return Response(status=200, headers={"ETag": _part_etag(digests), "x-goog-hash": hashes})

    def _complete(self, request: Request, number: str, upload: Multipart) -> Response:
        wanted = _parts_in(request.get_data())
        whole = self._store.upload(md5=False)
        for position, (part_number, etag) in enumerate(wanted):
            part = upload.parts.get(part_number)
            if part is None or etag.strip('"') != _part_etag(part[1]).strip('"'):
                whole.discard()
                raise StorageError(400, "invalid", "InvalidPart", f"Part {part_number} was not found or has changed.")
            if part[1].size < 5 * 1024 * 1024 and position < len(wanted) - 1:
                whole.discard()
                message = f"Part {part_number} is smaller than the minimum allowed size of 5 MiB."
                raise StorageError(400, "invalid", "EntityTooSmall", message)
            with part[0].path.open("rb") as file:
                whole.write(chunks_of(file))
        digests = finish_checked(whole, promised_hashes(request))
        conditions = self._conditions(request, upload.bucket, upload.name)
        draft = replace(upload.draft, digests=digests, parts=len(wanted))
        stored = self._store.put(whole, draft, conditions)
        self._uploads.pop(number, None)
        for finished, _ in upload.parts.values():
            finished.discard()
        root = ET.Element("CompleteMultipartUploadResult", xmlns=NAMESPACE)
        for tag, text in (("Bucket", upload.bucket), ("Key", upload.name), ("ETag", xml_etag(stored))):
            ET.SubElement(root, tag).text = text
        headers = {"x-goog-generation": str(stored.generation), "x-goog-hash": f"crc32c={digests.crc32c}"}
        return _xml(root, headers)

    # --- listing

    def _list(self, request: Request, bucket: str) -> Response:
        prefix, delimiter = request.args.get("prefix", ""), request.args.get("delimiter", "")
        limit = whole_number(request.args.get("max-keys"), "max-keys") or 1000
        token = request.args.get("continuation-token")
        after = base64.urlsafe_b64decode(token).decode() if token else request.args.get("start-after", "")
        found: list[StoredObject] = []
        folders: list[str] = []
        last, cut_off = "", False
        for stored in self._store.listing(bucket):
            if not stored.name.startswith(prefix) or stored.name <= after:
                continue
            cut = stored.name.find(delimiter, len(prefix)) if delimiter else -1
            folder = stored.name[: cut + len(delimiter)] if cut >= 0 else None
            if folder is not None and (folder in folders or (token and after.startswith(folder))):
                last = stored.name
                continue
            if len(found) + len(folders) >= limit:
                cut_off = True
                break
            last = stored.name
            if folder is None:
                found.append(stored)
            else:
                folders.append(folder)
        root = ET.Element("ListBucketResult", xmlns=NAMESPACE)
        fields = {"Name": bucket, "Prefix": prefix, "Delimiter": delimiter, "KeyCount": str(len(found) + len(folders))}
        fields["IsTruncated"] = str(cut_off).lower()
        if cut_off:
            fields["NextContinuationToken"] = base64.urlsafe_b64encode(last.encode()).decode()
        for tag, text in fields.items():
            ET.SubElement(root, tag).text = text
        for stored in found:
            entry = ET.SubElement(root, "Contents")
            for tag, text in (
                ("Key", stored.name),
                ("Generation", str(stored.generation)),
                ("MetaGeneration", str(stored.metageneration)),
                ("LastModified", _time(stored.updated)),
                ("ETag", xml_etag(stored)),
                ("Size", str(stored.digests.size)),
            ):
                ET.SubElement(entry, tag).text = text
        for folder in folders:
            ET.SubElement(ET.SubElement(root, "CommonPrefixes"), "Prefix").text = folder
        return _xml(root)


def _names(request: Request) -> tuple[str, str]:
    # The raw path: obstore sends slashes inside object names as %2F, which the server leaves undecoded.
    bucket, _, name = unquote(raw_path(request)).removeprefix("/").partition("/")
    return bucket, name


def _draft(request: Request, bucket: str, name: str, digests: Digests) -> StoredObject:
    prefix = "x-goog-meta-"
    return StoredObject(
        bucket,
        name,
        0,
        Path(),
        digests,
        request.headers.get("Content-Type") or "binary/octet-stream",
        0.0,
        0.0,
        metadata={k.lower().removeprefix(prefix): v for k, v in request.headers if k.lower().startswith(prefix)},
        fields={key: request.headers[header] for key, header in FIELD_HEADERS.items() if header in request.headers},
    )


def _parts_in(body: bytes) -> list[tuple[int, str]]:
    try:
        root = ET.fromstring(body)  # noqa: S314  # the sandbox's own clients are its only senders
    except ET.ParseError:
        raise StorageError(400, "invalid", "MalformedXML", "The XML you provided was not well-formed.") from None
    found = []
    for part in root.iter():
        if part.tag.rpartition("}")[2] == "Part":
            values = {child.tag.rpartition("}")[2]: child.text or "" for child in part}
            found.append((int(values.get("PartNumber", "0")), values.get("ETag", "")))
    if not found or [n for n, _ in found] != sorted({n for n, _ in found}):
        raise StorageError(400, "invalid", "InvalidPartOrder", "The list of parts was not in ascending order.")
    return found


def _part_etag(digests: Digests) -> str:
    md5 = base64.b64decode(digests.md5 or "")
    return f'"{md5.hex() or hashlib.md5(usedforsecurity=False).hexdigest()}"'


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _xml(root: ET.Element, headers: dict[str, str] | None = None) -> Response:
    body = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return Response(body, 200, headers, content_type="application/xml; charset=UTF-8")
