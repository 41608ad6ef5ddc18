"""Cloud Storage's address: which API a request is for, the bearer check, and errors in each API's own form.

Signed-out requests are served, as clients that follow STORAGE_EMULATOR_HOST send them; a wrong token is refused.
"""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.errors import GoogleError
from sandbox.gcp.gcs_json import JsonApi
from sandbox.gcp.gcs_objects import StorageError, Store
from sandbox.gcp.gcs_xml import XmlApi
from sandbox.gcp.identity import Identity
from sandbox.gcp.permissions import Guard
from sandbox.web import Target

JSON_PREFIXES = ("/storage/v1/", "/upload/storage/v1/", "/download/storage/v1/", "/resumable/upload/", "/batch/")


class StorageService:
    """The JSON and the XML API on one address, as storage.googleapis.com has them."""

    cloud = "gcp"

    def __init__(self, store: Store, identity: Identity, guard: Guard) -> None:
        self._identity = identity
        self._guard = guard
        self._json = JsonApi(store, guard)
        self._xml = XmlApi(store)

    def identify(self, request: Request) -> Target:
        """`storage.objects.get`, `storage.buckets.list` and so on for both APIs; the resource is `bucket/object`."""
        operation, resource = self._api(request).identify(request)
        return Target(operation, resource, quiet=operation.startswith("storage.objects."))

    def _api(self, request: Request) -> JsonApi | XmlApi:
        return self._json if request.path.startswith(JSON_PREFIXES) else self._xml

    def respond(self, request: Request, target: Target) -> Response:
        """Answer through the API that the path belongs to."""
        try:
            self._identity.check(request, anonymous=True)
            self._admit(request, target)
            return self._api(request).respond(request, target.operation)
        except GoogleError as error:
            return self._error(request, StorageError(401, "authError", "AuthenticationRequired", error.message))
        except StorageError as error:
            return self._error(request, error)

    def _admit(self, request: Request, target: Target) -> None:
        permission = self._guard.lacking(target.operation)
        if permission and "Authorization" in request.headers:
            what = "object" if target.operation.startswith("storage.objects.") else "bucket"
            text = (
                f"{self._identity.email} does not have {permission} access to the Google Cloud Storage {what}. "
                f"Permission '{permission}' denied on resource (or it may not exist)."
            )
            raise StorageError(403, "forbidden", "AccessDenied", text)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """`backendError` or, for a throttle, `rateLimitExceeded`."""
        if fault.kind == "throttle":
            message = "The object exceeded the rate limit for object mutation operations. Please reduce your rate."
            return self._error(request, StorageError(429, "rateLimitExceeded", "SlowDown", message))
        message = "We encountered an internal error. Please try again."
        return self._error(request, StorageError(fault.status, "backendError", "InternalError", message))

    def _error(self, request: Request, error: StorageError) -> Response:
        while request.stream.read(1024 * 1024):  # a client in the middle of sending would see a reset otherwise
            pass
        if error.status == 304:
            return Response(status=304)
        if self._api(request) is self._xml:
            body = (
                f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{error.code}</Code>"
                f"<Message>{escape(error.message)}</Message></Error>"
            )
            return Response(body, error.status, content_type="application/xml; charset=UTF-8")
        detail = {"message": error.message, "domain": "global", "reason": error.reason}
        content = {"error": {"code": error.status, "message": error.message, "errors": [detail]}}
        return Response(json.dumps(content), error.status, content_type="application/json; charset=UTF-8")
