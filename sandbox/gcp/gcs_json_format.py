"""How Cloud Storage's JSON API writes and reads buckets, times and bodies."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.gcp.gcs_http import FIELD_HEADERS
from sandbox.gcp.gcs_objects import Bucket, StorageError, bad_request

OBJECT_FIELDS: Final = {*FIELD_HEADERS, "name", "contentType", "metadata", "md5Hash", "crc32c", "temporaryHold"} | {
    "eventBasedHold",
    "retention",
    "storageClass",
    "bucket",
    "size",
}
BUCKET_FIELDS: Final = {
    "name",
    "versioning",
    "retentionPolicy",
    "objectRetention",
    "labels",
    "defaultEventBasedHold",
} | {
    "location",
    "storageClass",
    "iamConfiguration",
    "id",
}


def flag(request: Request, name: str) -> bool:
    """A boolean query parameter."""
    return request.args.get(name, "").lower() == "true"  # Google's Python client writes True


def json_response(answer: dict[str, Any]) -> Response:
    """A good answer."""
    return Response(json.dumps(answer), 200, content_type="application/json; charset=UTF-8")


def time_text(seconds: float) -> str:
    """Unix seconds as an RFC 3339 timestamp with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cursor(token: str | None) -> tuple[str, int]:
    """The (name, generation) after which a page begins."""
    if not token:
        return ("", 0)
    name, generation = json.loads(base64.urlsafe_b64decode(token))
    return (str(name), int(generation))


def body_of(request: Request, known: set[str]) -> dict[str, Any]:
    """The request's JSON, with fields that are not emulated refused."""
    return checked(request.get_data(), known)


def checked(content: bytes, known: set[str]) -> dict[str, Any]:
    """Parse JSON; 400 when it is none, 501 for a field that is not emulated."""
    try:
        body = json.loads(content or b"{}")
    except ValueError:
        raise StorageError(400, "parseError", "InvalidArgument", "Parse Error") from None
    if not isinstance(body, dict):
        raise StorageError(400, "parseError", "InvalidArgument", "Parse Error")
    unknown = sorted(set(body) - known)
    if unknown:
        message = f"not implemented by the sandbox: field {unknown[0]!r}"
        raise StorageError(501, "notImplemented", "NotImplemented", message)
    return body


def multipart(request: Request) -> tuple[dict[str, Any], bytes]:
    """The metadata and the media of a `multipart/related` body (RFC 2387)."""
    header = Message()
    header["Content-Type"] = request.headers.get("Content-Type", "")
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise bad_request("A multipart upload needs a Content-Type of multipart/related with a boundary.")
    mark = b"--" + boundary.encode()
    body = request.get_data()
    pieces = body.split(b"\r\n" + mark)
    pieces[0] = pieces[0].removeprefix(mark)
    if len(pieces) != 3 or not pieces[2].startswith(b"--"):
        raise bad_request("A multipart upload has two parts: metadata and media.")
    parsed = [piece.removeprefix(b"\r\n").partition(b"\r\n\r\n") for piece in pieces[:2]]
    kind = BytesParser().parsebytes(parsed[1][0] + b"\r\n\r\n").get("Content-Type")
    metadata = checked(parsed[0][2], OBJECT_FIELDS)
    metadata.setdefault("contentType", kind)
    return metadata, parsed[1][2]


def bucket_changes(body: dict[str, Any]) -> dict[str, Any]:
    """Attributes of a Bucket from the API's fields."""
    changes: dict[str, Any] = {}
    if "versioning" in body:
        changes["versioning"] = bool((body["versioning"] or {}).get("enabled"))
    if "retentionPolicy" in body:
        period = (body["retentionPolicy"] or {}).get("retentionPeriod")
        changes["retention_seconds"] = int(period) if period else None
    if "defaultEventBasedHold" in body:
        changes["default_hold"] = bool(body["defaultEventBasedHold"])
    if "labels" in body:
        changes["labels"] = {k: v for k, v in (body["labels"] or {}).items() if v is not None}
    return changes


def bucket_json(bucket: Bucket) -> dict[str, Any]:
    """A bucket as the API shows it."""
    answer: dict[str, Any] = {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "location": "US-CENTRAL1",
        "locationType": "region",
        "storageClass": "STANDARD",
        "metageneration": str(bucket.metageneration),
        "timeCreated": time_text(bucket.created),
        "updated": time_text(bucket.updated),
        "etag": base64.b64encode(str(bucket.metageneration).encode()).decode(),
    }
    if bucket.versioning:
        answer["versioning"] = {"enabled": True}
    if bucket.labels:
        answer["labels"] = dict(bucket.labels)
    if bucket.default_hold:
        answer["defaultEventBasedHold"] = True
    if bucket.object_retention:
        answer["objectRetention"] = {"mode": "Enabled"}
    if bucket.retention_seconds is not None:
        answer["retentionPolicy"] = {
            "retentionPeriod": str(bucket.retention_seconds),
            "effectiveTime": time_text(bucket.retention_since),
            **({"isLocked": True} if bucket.retention_locked else {}),
        }
    return answer
