"""Errors as AWS words them, and how each of its wire protocols carries them."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

#: Services that speak XML; all others are told by the request's headers.
XML: Final[Mapping[str, str]] = {"s3": "s3", "sns": "query", "sts": "query", "iam": "query", "route53": "query"}


class AwsError(Exception):
    """A refusal: `code` is the vendor's error code, `status` the HTTP status, `fields` what else the shape holds."""

    def __init__(self, code: str, message: str, status: int = 400, **fields: object) -> None:
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.status: Final = status
        self.fields: Final = fields


def invalid(message: str) -> AwsError:
    """SageMaker's one answer to everything that it refuses, a missing resource included."""
    return AwsError("ValidationException", message)


def not_implemented(operation: str) -> AwsError:
    """What is not emulated says so."""
    return AwsError("NotImplemented", f"not implemented by the sandbox: {operation}", 501)


def protocol_of(service: str, headers: Mapping[str, str]) -> str:
    """The wire protocol of a request; CloudWatch is spoken to in three, by the age of the SDK."""
    if "rpc-v2-cbor" in headers.get("Smithy-Protocol", ""):
        return "cbor"
    if "X-Amz-Target" not in headers and "x-www-form-urlencoded" in headers.get("Content-Type", ""):
        return "query"
    return XML.get(service, "json")


def error_response(protocol: str, error: AwsError, resource: str = "") -> Response:
    """Render an error as `protocol` (json, cbor, query or s3) carries it."""
    request_id = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": request_id, "x-amz-request-id": request_id}
    if protocol == "json":
        body = json.dumps({"__type": error.code, "message": error.message, "Message": error.message, **error.fields})
        headers["x-amzn-ErrorType"] = error.code
        return Response(body, error.status, headers, content_type="application/x-amz-json-1.1")
    if protocol == "cbor":
        headers["smithy-protocol"] = "rpc-v2-cbor"
        content = _cbor_map({"__type": error.code, "message": error.message})
        return Response(content, error.status, headers, content_type="application/cbor")
    code, message = escape(error.code), escape(error.message)
    if protocol == "s3":
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            f"<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId></Error>"
        )
    else:
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return Response(text, error.status, headers, content_type="text/xml")


def _cbor_map(values: Mapping[str, str]) -> bytes:
    """A CBOR map of text strings (RFC 8949, major types 5 and 3), enough for an error."""
    parts = [bytes([0xA0 | len(values)])]
    for name, value in values.items():
        parts += [_cbor_text(name), _cbor_text(value)]
    return b"".join(parts)


def _cbor_text(text: str) -> bytes:
    content = text.encode()
    return b"\x7a" + struct.pack(">I", len(content)) + content
