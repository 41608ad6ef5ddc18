"""S3 in front of moto: what moto lacks.

Checksums are verified, ranges read only what was asked for, conditional creation is atomic; Object Lock's rules stand
in `s3_lock.py`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote

import google_crc32c
from moto.s3.models import FakeKey
from werkzeug.http import http_date
from werkzeug.wrappers import Request, Response

from sandbox.aws import s3_lock
from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.moto_host import MotoHost, read_range
from sandbox.aws.state import CLOUD
from sandbox.world import World

RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
DIGESTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: google_crc32c.value(data).to_bytes(4, "big"),
}
CHECKSUM: Final = "x-amz-checksum-"
#: Query parameters that make a request on an object or bucket another operation, in the order of their weight.
SUBRESOURCES: Final = (
    "retention",
    "legal-hold",
    "tagging",
    "acl",
    "attributes",
    "versioning",
    "versions",
    "object-lock",
    "lifecycle",
    "policy",
    "location",
    "delete",
)
DATA: Final = ("GetObject", "HeadObject", "PutObject", "UploadPart")


def operation_of(request: Request) -> tuple[str, str]:
    """The API's name of an S3 request, and `bucket/key`."""
    resource = unquote(request.path).lstrip("/")
    key = resource.partition("/")[2]
    query = request.args
    verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete", "HEAD": "Head", "POST": "Post"}.get(
        request.method, request.method.title()
    )
    for name in SUBRESOURCES:
        if name in query:
            what = "".join(part.title() for part in name.split("-"))
            if name == "versions":
                return "ListObjectVersions", resource
            if name == "delete":
                return "DeleteObjects", resource
            if name == "object-lock":
                return f"{verb}ObjectLockConfiguration", resource
            return f"{verb}{'Object' if key else 'Bucket'}{what}", resource
    if key:
        if "uploads" in query:
            return "CreateMultipartUpload", resource
        if "uploadId" in query:
            multipart = {
                "PUT": "UploadPart",
                "POST": "CompleteMultipartUpload",
                "DELETE": "AbortMultipartUpload",
                "GET": "ListParts",
            }
            return multipart.get(request.method, verb), resource
        if request.method == "PUT" and "x-amz-copy-source" in request.headers:
            return "CopyObject", resource
        return f"{verb}Object", resource
    if not resource:
        return "ListBuckets", resource
    if request.method == "GET":
        if "uploads" in query:
            return "ListMultipartUploads", resource
        return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects", resource
    return f"{'Create' if request.method == 'PUT' else verb}Bucket", resource


class S3:
    """Answers one S3 request."""

    def __init__(self, world: World, moto: MotoHost) -> None:
        self._world = world
        self._moto = moto
        self._creating = threading.Lock()

    def respond(self, request: Request, operation: str, resource: str) -> Response:
        """Answer; refusals are raised as AwsError."""
        bucket, _, key = resource.partition("/")
        if operation == "GetObject" and "Range" in request.headers:
            answer = self._ranged(request, bucket, key)
            if answer is not None:
                return answer
        if operation in ("PutObject", "UploadPart"):
            return self._put(request, operation, resource)
        if operation == "PutObjectRetention":
            s3_lock.check_retention(request, self._moto, bucket, key)
        if operation == "PutBucketVersioning":
            s3_lock.check_versioning(request, self._moto, bucket)
        if operation == "ListObjectVersions" and "delimiter" not in request.args:
            return s3_lock.list_versions(request, self._moto, bucket)
        if operation == "CompleteMultipartUpload" and "If-None-Match" in request.headers:
            with self._creating:
                return self._moto.respond(request)
        return self._moto.respond(request)

    def _put(self, request: Request, operation: str, resource: str) -> Response:
        s3_lock.check_put(request, self._moto, resource.partition("/")[0])
        sent = request.get_data(cache=True)
        data, trailers = _unchunk(request, sent)
        checksums = {name.lower(): value for name, value in request.headers if name.lower().startswith(CHECKSUM)}
        checksums.update(trailers)
        verify(request, data, checksums)
        if self._world.faults.take(CLOUD, operation, ("ignore",), resource) is not None:
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
            return Response(b"", 200, {"ETag": f'"{etag}"'})
        headers = {"HTTP_X_AMZ_DECODED_CONTENT_LENGTH": "", "HTTP_X_AMZ_TRAILER": "", "HTTP_TRANSFER_ENCODING": ""}
        if data is not sent:
            encodings = [e.strip() for e in request.headers.get("Content-Encoding", "").split(",")]
            headers["HTTP_CONTENT_ENCODING"] = ",".join(e for e in encodings if e and e != "aws-chunked")
            headers["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"
        for name, value in checksums.items():
            if name.removeprefix(CHECKSUM) in DIGESTS:
                headers["HTTP_" + name.upper().replace("-", "_")] = value
                headers["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = name.removeprefix(CHECKSUM).upper()
        headers = {name: value for name, value in headers.items() if value or name in request.environ}
        if request.headers.get("If-None-Match") is not None:
            with self._creating:  # moto looks and then writes: two creators could both win
                return self._moto.respond(request, data, headers)
        return self._moto.respond(request, data, headers)

    def _ranged(self, request: Request, bucket: str, name: str) -> Response | None:
        """Answer a plain ranged read; None where moto's longer way is needed."""
        match = RANGE.fullmatch(request.headers["Range"])
        # SDKs pin the parts of one download by If-Match; every other condition is left to moto.
        conditional = any(name.lower().startswith("if-") and name.lower() != "if-match" for name, _ in request.headers)
        if match is None or conditional or "partNumber" in request.args or "Authorization" not in request.headers:
            return None
        key = self._moto.object(bucket, name, request.args.get("versionId"))
        if key is None or request.headers.get("If-Match", key.etag).strip('"') != key.etag.strip('"'):
            return None
        first, last = match.groups()
        size = key.contentsize
        if first:
            begin, end = int(first), min(int(last), size - 1) if last else size - 1
        elif last:
            begin, end = max(0, size - int(last)), size - 1
        else:
            return None
        if begin >= size or (not first and last == "0"):
            raise AwsError("InvalidRange", "The requested range is not satisfiable", 416)
        if end < begin:
            return None
        headers = _headers(key)
        headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        return Response(read_range(key, begin, end - begin + 1), 206, headers)


def verify(request: Request, data: bytes, checksums: Mapping[str, str]) -> None:
    """Compare every checksum that came with the data; raises AwsError (BadDigest) at the first that differs."""
    md5 = request.headers.get("Content-MD5")
    if md5 is not None:
        if len(_decoded(md5, "Content-MD5")) != 16:
            raise AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode() != md5:
            raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")
    payload = request.headers.get("x-amz-content-sha256", "")
    if re.fullmatch(r"[0-9a-f]{64}", payload) and hashlib.sha256(data).hexdigest() != payload:
        raise AwsError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        )
    for name, value in checksums.items():
        algorithm = name.removeprefix(CHECKSUM)
        if algorithm in ("algorithm", "type", "mode"):
            continue
        if algorithm not in DIGESTS:
            raise not_implemented(f"S3 checksum {algorithm}")
        digest = DIGESTS[algorithm](data)
        if len(_decoded(value, name)) != len(digest):
            raise AwsError("InvalidRequest", f"Value for {name} header is invalid.")
        if base64.b64encode(digest).decode() != value:
            raise AwsError("BadDigest", f"The {algorithm.upper()} you specified did not match the calculated checksum.")


def _decoded(value: str, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AwsError("InvalidDigest", f"The {name} you specified was invalid.") from error


def _unchunk(request: Request, sent: bytes) -> tuple[bytes, dict[str, str]]:
    """Undo aws-chunked framing: the data, and the checksums that trail it."""
    streaming = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    if not streaming and "aws-chunked" not in request.headers.get("Content-Encoding", ""):
        return sent, {}
    source, parts, trailers = io.BytesIO(sent), [], {}
    while True:
        size = int(source.readline().split(b";")[0].strip() or b"0", 16)
        if size == 0:
            break
        parts.append(source.read(size))
        source.readline()
    for line in source:
        name, _, value = line.decode("latin-1").strip().partition(":")
        if name.lower().startswith(CHECKSUM):
            trailers[name.lower()] = value
    return b"".join(parts), trailers


def _headers(key: FakeKey) -> dict[str, str]:
    headers = {str(name): str(value) for name, value in key.metadata.items()}
    headers["ETag"] = key.etag
    headers["Last-Modified"] = http_date(key.last_modified)
    headers["Accept-Ranges"] = "bytes"
    if key.version_id != "null":
        headers["x-amz-version-id"] = key.version_id
    return headers
