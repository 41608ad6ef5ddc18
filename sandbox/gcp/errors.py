"""Google's errors: a canonical status, the HTTP status that carries it, and the JSON around both."""

from __future__ import annotations

import json
from typing import Any, Final

from werkzeug.wrappers import Response

#: canonical status -> (HTTP status, google.rpc.Code)
STATUSES: Final = {
    "CANCELLED": (499, 1),
    "INVALID_ARGUMENT": (400, 3),
    "DEADLINE_EXCEEDED": (504, 4),
    "NOT_FOUND": (404, 5),
    "ALREADY_EXISTS": (409, 6),
    "PERMISSION_DENIED": (403, 7),
    "RESOURCE_EXHAUSTED": (429, 8),
    "FAILED_PRECONDITION": (400, 9),
    "ABORTED": (409, 10),
    "UNIMPLEMENTED": (501, 12),
    "INTERNAL": (500, 13),
    "UNAVAILABLE": (503, 14),
    "UNAUTHENTICATED": (401, 16),
}


class GoogleError(Exception):
    """An error as Google's control planes report it: a canonical status and a message."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status: Final = status
        self.message: Final = message

    @property
    def rpc(self) -> dict[str, Any]:
        """The google.rpc.Status that a failed long-running operation carries."""
        return {"code": STATUSES[self.status][1], "message": self.message}


def invalid(message: str) -> GoogleError:
    """An INVALID_ARGUMENT error."""
    return GoogleError("INVALID_ARGUMENT", message)


def precondition(message: str) -> GoogleError:
    """A FAILED_PRECONDITION error."""
    return GoogleError("FAILED_PRECONDITION", message)


def not_emulated(operation: str) -> GoogleError:
    """The loud answer for what this sandbox does not do."""
    return GoogleError("UNIMPLEMENTED", f"not implemented by the sandbox: {operation}")


def status_for_http(code: int) -> str:
    """The canonical status for an HTTP status, as Google's front end maps a container's answer."""
    by_http = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        409: "ABORTED",
        429: "RESOURCE_EXHAUSTED",
        499: "CANCELLED",
        501: "UNIMPLEMENTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    return by_http.get(code, "INTERNAL" if code >= 500 else "FAILED_PRECONDITION")


def error_response(status: str, message: str, http: int | None = None) -> Response:
    """`{"error": {"code", "message", "status"}}` with the HTTP status that belongs to `status` (or `http`)."""
    code = http or STATUSES[status][0]
    body = {"error": {"code": code, "message": message, "status": status}}
    return Response(json.dumps(body), code, content_type="application/json; charset=UTF-8")
