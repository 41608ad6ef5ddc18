"""What Cloud Storage's two APIs share on the wire: bodies of objects with ranges, and checksums in headers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from email.utils import formatdate
from typing import BinaryIO, Final
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from sandbox.gcp.gcs_objects import (
    CHUNK,
    Conditions,
    Digests,
    StorageError,
    StoredObject,
    Upload,
    bad_request,
    no_object,
)

RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


def raw_path(request: Request) -> str:
    """The path as it was sent: it tells a "/" inside an object's name (%2F) from one between two parts of the path."""
    return str(request.environ.get("REQUEST_URI") or quote(request.path)).partition("?")[0]


def media(request: Request, stored: StoredObject) -> Response:
    """The object's bytes, or the one range asked for, with the headers that both APIs send."""
    try:
        file = stored.path.open("rb")  # opened now: it stays readable if the object is deleted meanwhile
    except FileNotFoundError:
        raise no_object(stored.bucket, stored.name) from None
    size = os.fstat(file.fileno()).st_size
    headers = object_headers(stored)
    begin, end, status = 0, size, 200
    wanted = RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted and (wanted[1] or wanted[2]):
        status = 206
        if wanted[1]:
            begin = int(wanted[1])
            end = min(size, int(wanted[2]) + 1) if wanted[2] else size
        else:
            begin = max(0, size - int(wanted[2]))
        if begin >= end:
            file.close()
            message = f"The requested range cannot be satisfied: {wanted[0]} of {size} bytes."
            raise StorageError(416, "requestedRangeNotSatisfiable", "InvalidRange", message)
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - begin)
    if request.method == "HEAD":
        file.close()
    body = () if request.method == "HEAD" else _pieces(file, begin, end)
    response = Response(body, status, headers, content_type=stored.content_type, direct_passthrough=True)
    response.automatically_set_content_length = False
    return response


def _pieces(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(begin)
        left = end - begin
        while left and (piece := file.read(min(left, CHUNK))):
            left -= len(piece)
            yield piece


def object_headers(stored: StoredObject) -> dict[str, str]:
    """Generation, checksums and custom metadata as headers."""
    hashes = f"crc32c={stored.digests.crc32c}" + (f",md5={stored.digests.md5}" if stored.digests.md5 else "")
    return {
        "Accept-Ranges": "bytes",
        "ETag": xml_etag(stored),
        "Last-Modified": formatdate(stored.updated, usegmt=True),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": hashes,
        "x-goog-storage-class": "STANDARD",
        "x-goog-stored-content-length": str(stored.digests.size),
        "x-goog-stored-content-encoding": stored.fields.get("contentEncoding", "identity"),
        **{f"x-goog-meta-{name}": value for name, value in stored.metadata.items()},
        **{header: stored.fields[key] for key, header in FIELD_HEADERS.items() if key in stored.fields},
    }


#: the JSON API's name of a fixed-key metadata entry -> its header
FIELD_HEADERS: Final = {
    "cacheControl": "Cache-Control",
    "contentDisposition": "Content-Disposition",
    "contentEncoding": "Content-Encoding",
    "contentLanguage": "Content-Language",
}


def xml_etag(stored: StoredObject) -> str:
    """The XML API's ETag, in its quotes: it names the generation, so that it fits preconditions."""
    return f'"{stored.etag}"'


def whole_number(text: str | None, name: str) -> int | None:
    """An optional integer parameter; 400 when it is not one."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f"Invalid argument: {name}={text}") from None


def conditions_from(values: dict[str, str | None]) -> Conditions:
    """Preconditions from their four raw values."""
    return Conditions(**{name: whole_number(value, name) for name, value in values.items()})


def finish_checked(upload: Upload, promised: dict[str, str]) -> Digests:
    """Close an upload and compare with the checksums (`md5`, `crc32c` in base64) that the client sent; 400 if wrong."""
    digests = upload.finish()
    for kind, actual in (("md5", digests.md5), ("crc32c", digests.crc32c)):
        wanted = promised.get(kind)
        if wanted and wanted != actual:
            upload.discard()
            name = kind.upper()
            message = f'Provided {name} hash "{wanted}" doesn\'t match calculated {name} hash "{actual}".'
            raise StorageError(400, "invalid", "BadDigest", message)
    return digests


def promised_hashes(request: Request) -> dict[str, str]:
    """Checksums of the body from `x-goog-hash` and `Content-MD5`."""
    found: dict[str, str] = {}
    for part in ",".join(request.headers.getlist("x-goog-hash")).split(","):
        kind, _, value = part.strip().partition("=")
        if value:
            found[kind] = value
    if "Content-MD5" in request.headers:
        found["md5"] = request.headers["Content-MD5"]
    return found
