"""Blob Storage as clients reach it: a streaming reverse proxy in front of Azurite that asks the fault board first."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote

import urllib3
from werkzeug.http import http_date
from werkzeug.wrappers import Request, Response

from sandbox.azure.worm import Worm
from sandbox.faults import Fault, Faults
from sandbox.web import Target

if TYPE_CHECKING:
    from sandbox.azure.azurite import Azurite

HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
)
CHUNK: Final = 256 * 1024
#: (method, comp) -> the operation's name in Storage's own logs, for a blob and for a container.
BLOB: Final = {
    ("PUT", ""): "PutBlob",
    ("PUT", "block"): "PutBlock",
    ("PUT", "blocklist"): "PutBlockList",
    ("PUT", "metadata"): "SetBlobMetadata",
    ("PUT", "properties"): "SetBlobProperties",
    ("PUT", "tags"): "SetBlobTags",
    ("PUT", "lease"): "LeaseBlob",
    ("PUT", "immutabilityPolicies"): "SetBlobImmutabilityPolicy",
    ("PUT", "legalhold"): "SetBlobLegalHold",
    ("GET", ""): "GetBlob",
    ("GET", "blocklist"): "GetBlockList",
    ("GET", "tags"): "GetBlobTags",
    ("HEAD", ""): "GetBlobProperties",
    ("DELETE", ""): "DeleteBlob",
    ("DELETE", "immutabilityPolicies"): "DeleteBlobImmutabilityPolicy",
}
CONTAINER: Final = {
    ("PUT", ""): "CreateContainer",
    ("DELETE", ""): "DeleteContainer",
    ("GET", ""): "GetContainerProperties",
    ("HEAD", ""): "GetContainerProperties",
    ("GET", "list"): "ListBlobs",
    ("POST", "batch"): "BatchBlobs",
}
OPERATIONS: Final = frozenset({*BLOB.values(), *CONTAINER.values(), "ListContainers", "CopyBlob"})
#: Writes that an `ignore` fault can swallow -> the status that pretends they were done.
WRITES: Final = {"PutBlob": 201, "PutBlockList": 201, "DeleteBlob": 202}


class BlobProxy:
    """Forwards each request as it came, so that the client's own signature still holds."""

    cloud = "azure"

    def __init__(
        self, upstream: str, faults: Faults, azurite: Azurite, locked: str, lacking: Callable[[str], str]
    ) -> None:
        """`lacking` is the action that callers without the account's key do not have for an operation, or ""."""
        self._faults = faults
        self._lacking = lacking
        self._worm = Worm(azurite, locked, _error)
        address = urllib3.util.parse_url(upstream)
        self._pool = urllib3.HTTPConnectionPool(
            address.host or "127.0.0.1",
            address.port,
            maxsize=32,
            timeout=urllib3.Timeout(connect=5, read=120),
            retries=False,
            blocksize=CHUNK,
        )

    def identify(self, request: Request) -> Target:
        """The operation's name in Storage's logs and `container/blob`."""
        _, _, rest = request.path.lstrip("/").partition("/")
        container, _, blob = rest.partition("/")
        key = (request.method, request.args.get("comp", ""))
        if not container:
            name = "ListContainers" if key == ("GET", "list") else f"Account_{key[0]}_{key[1]}"
        elif blob:
            copies = key == ("PUT", "") and "x-ms-copy-source" in request.headers
            name = "CopyBlob" if copies else BLOB.get(key, f"Blob_{key[0]}_{key[1]}")
        else:
            name = CONTAINER.get(key, f"Container_{key[0]}_{key[1]}")
        return Target(name, unquote(rest), quiet=True)

    def respond(self, request: Request, target: Target) -> Response:
        """Send the request on and stream the answer back; neither body is held in memory."""
        bearer = request.headers.get("Authorization", "").lower().startswith("bearer ")
        if bearer and self._lacking(target.operation):
            request.get_data()
            text = "This request is not authorized to perform this operation using this permission."
            return _error(403, "AuthorizationPermissionMismatch", text)
        if target.operation in WRITES and self._faults.take("azure", target.operation, ("ignore",), target.resource):
            request.get_data()
            return _written(WRITES[target.operation])
        if target.resource.partition("/")[0] == self._worm.container:
            return self._worm.respond(request, target, lambda: self._passed_on(request))
        return self._passed_on(request)

    def _passed_on(self, request: Request) -> Response:
        # Lower-case: WSGI has lost the names' case, and a blob's metadata takes its names from x-ms-meta-* headers.
        headers = {k.lower(): v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        try:
            answer = self._forward(request, headers)
        except urllib3.exceptions.HTTPError as error:
            return _error(503, "ServerBusy", f"the sandbox's Azurite does not answer: {error}")
        response = Response(_body(answer), answer.status)
        response.headers.clear()
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                response.headers.add(name, value)
        if request.method == "HEAD":
            answer.drain_conn()
        response.call_on_close(answer.close)  # a connection whose body was not read to its end must not be used again
        return response

    def _forward(self, request: Request, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        if request.content_length or request.headers.get("Transfer-Encoding"):
            return self._send(request, headers, request.environ["wsgi.input"])
        try:
            return self._send(request, headers)
        except urllib3.exceptions.ProtocolError:  # an idle connection that Azurite closed just now; nothing was lost
            return self._send(request, headers)

    def _send(
        self, request: Request, headers: dict[str, str], body: IO[bytes] | None = None
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.urlopen(
            request.method,
            request.environ.get("REQUEST_URI") or request.full_path,
            body=body,
            headers=headers,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """Storage's own answers: 503 ServerBusy when throttled, else InternalError."""
        if fault.kind == "throttle":
            return _error(503, "ServerBusy", "The server is currently unable to receive requests. Please retry.")
        return _error(fault.status, "InternalError", "The server encountered an internal error. Please retry.")


def _body(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    yield from answer.stream(CHUNK, decode_content=False)


def _written(status: int) -> Response:
    headers = {
        "ETag": f'"0x{uuid.uuid4().hex[:15].upper()}"',
        "Last-Modified": http_date(),
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-version": "2025-11-05",
        "x-ms-request-server-encrypted": "true",
    }
    return Response(b"", status, headers)


def _error(status: int, code: str, message: str) -> Response:
    request_id = str(uuid.uuid4())
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    headers = {"x-ms-error-code": code, "x-ms-request-id": request_id, "x-ms-version": "2025-11-05"}
    return Response(body, status, headers, content_type="application/xml")
