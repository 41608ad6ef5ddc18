"""Azure Resource Manager's front door: paths, API versions, bearer tokens, errors, and which handler answers.

A path below `…/providers/Microsoft.MachineLearningServices` alternates kinds and names; the kinds together with the
method are the operation (names as in Azure's published specification). Beside it there is the group's own list of
`resources`. What no handler has claimed answers 501.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.azure.tokens import InvalidTokenError, Tokens
from sandbox.faults import Fault
from sandbox.web import Target

API_VERSIONS: Final = frozenset(
    (
        "2021-04-01",
        "2022-02-01-preview",
        "2022-05-01",
        "2022-10-01",
        "2022-10-01-preview",
        "2023-02-01-preview",
        "2023-04-01",
        "2023-04-01-preview",
        "2023-06-01-preview",
        "2023-08-01-preview",
        "2023-10-01",
        "2024-01-01-preview",
        "2024-04-01",
        "2024-04-01-preview",
        "2024-10-01",
        "2024-10-01-preview",
        "2025-01-01-preview",
        "2025-06-01",
        "2025-12-01",
    )
)
PROVIDER: Final = "microsoft.machinelearningservices"
#: The API version of the list of a caller's permissions alone, which is asked for at the end of any resource's path.
PERMISSIONS_VERSION: Final = "2022-04-01"
PERMISSIONS: Final = ["providers", "microsoft.authorization", "permissions"]


class ArmError(Exception):
    """An error as Resource Manager words it: `{"error": {"code", "message"}}`."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def not_found(kind: str, name: str) -> ArmError:
    """404 for a resource of this provider."""
    return ArmError(
        404, "ResourceNotFound", f"The Resource 'Microsoft.MachineLearningServices/{kind}/{name}' was not found."
    )


def bad_request(message: str) -> ArmError:
    """400 with the code that the service gives to requests that it cannot accept."""
    return ArmError(400, "BadRequest", message)


def not_implemented(what: str) -> ArmError:
    """501: loud, so that nobody takes the sandbox's silence for Azure's consent."""
    return ArmError(501, "NotImplemented", f"not implemented by the sandbox: {what}")


@dataclass(frozen=True)
class Ask:
    """One request, taken apart. `names` are the path's names, outermost first, without subscription and group."""

    operation: str
    names: tuple[str, ...]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    host: str
    parent: str
    stale: bool = False


@dataclass(frozen=True)
class Operation:
    """What serves one operation. `query` are the parameters that it knows beside api-version, of these `versions`."""

    name: str
    handler: Callable[[Ask], Response]
    query: frozenset[str] = field(default_factory=frozenset)
    versions: frozenset[str] = API_VERSIONS


class ResourceManager:
    """Serves the operations that were `add`ed, for one subscription and one resource group."""

    cloud = "azure"

    def __init__(
        self,
        tokens: Tokens,
        subscription: str,
        group: str,
        is_stale: Callable[[str], bool],
        admit: Callable[[str, str, str], None],
    ) -> None:
        """`admit` raises for an operation, a client and a scope that the client may not use it on."""
        self._tokens = tokens
        self._admit = admit
        self._scope = (subscription.lower(), group.lower())
        self._is_stale = is_stale
        self._operations: dict[tuple[str, str], Operation] = {}
        self.audiences: tuple[str, ...] = ()

    def add(self, method: str, shape: str, operation: Operation) -> None:
        """Serve `method` on paths of `shape`: kinds and `*` for names, such as `workspaces/*/models/*`."""
        self._operations[method, shape.lower()] = operation

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations that are served."""
        return frozenset(operation.name for operation in self._operations.values())

    def identify(self, request: Request) -> Target:
        """The operation's name in the specification and the innermost names (`endpoint` or `endpoint/deployment`)."""
        parts = _below_provider(request.path)
        operation = self._operations.get((request.method, _shape(parts)))
        if operation is None:
            return Target(f"{request.method} {request.path}")
        names = parts[1::2]
        return Target(operation.name, "/".join(names[1:]) or "/".join(names))

    def respond(self, request: Request, target: Target) -> Response:
        """Check, dispatch, and turn errors into Resource Manager's form."""
        try:
            client = self._check_token(request)
            operation = self._operation(request)
            self._admit(operation.name, client, request.path)
            return _stamped(operation.handler(self._ask(request, target)))
        except ArmError as error:
            return refusal(error)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """429 with Retry-After when throttled, else InternalServerError."""
        if fault.kind == "throttle":
            message = "The request was throttled: too many requests for this subscription. Please retry later."
            return refusal(ArmError(429, "TooManyRequests", message, {"Retry-After": "1"}))
        return refusal(
            ArmError(fault.status, "InternalServerError", "An internal server error occurred. Please retry.")
        )

    def _check_token(self, request: Request) -> str:
        """The client that the request's token was given to."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        challenge = {"WWW-Authenticate": 'Bearer authorization_uri="https://login.microsoftonline.com"'}
        if scheme.lower() != "bearer":
            message = "Authentication failed. The 'Authorization' header is missing."
            raise ArmError(401, "AuthenticationFailed", message, challenge)
        try:
            return str(self._tokens.check(token, self.audiences)["appid"])
        except InvalidTokenError as error:
            code = "ExpiredAuthenticationToken" if "expiry" in str(error) else "InvalidAuthenticationToken"
            raise ArmError(401, code, str(error), challenge) from error

    def _operation(self, request: Request) -> Operation:
        operation = self._operations.get((request.method, _shape(_below_provider(request.path))))
        if operation is None:
            raise not_implemented(f"{request.method} {request.path}")
        version = request.args.get("api-version")
        if version is None:
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        if version not in operation.versions:
            raise not_implemented(f"api-version {version} of {operation.name}")
        unknown = sorted(set(request.args) - operation.query - {"api-version"})
        if unknown:
            raise not_implemented(f"query parameter {unknown[0]!r} of {operation.name}")
        return operation

    def _ask(self, request: Request, target: Target) -> Ask:
        segments = [part for part in request.path.split("/") if part]
        self._check_scope(segments)
        body: Mapping[str, Any] = {}
        if request.get_data():
            try:
                body = json.loads(request.get_data())
            except ValueError as error:
                message = f"The request content was invalid and could not be deserialized: {error}"
                raise ArmError(400, "InvalidRequestContent", message) from error
            if not isinstance(body, dict):
                raise ArmError(400, "InvalidRequestContent", "The request content must be a JSON object.")
        names = tuple(_below_provider(request.path)[1::2])
        stale = request.method == "GET" and self._is_stale(target.operation)
        parent = "/" + "/".join(segments)
        return Ask(target.operation, names, request.args, body, request.host_url.rstrip("/"), parent, stale)

    def _check_scope(self, segments: list[str]) -> None:
        if segments[1].lower() != self._scope[0]:
            message = f"The subscription '{segments[1]}' could not be found."
            raise ArmError(404, "SubscriptionNotFound", message)
        if segments[2].lower() == "resourcegroups" and segments[3].lower() != self._scope[1]:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{segments[3]}' could not be found.")


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; None is an empty body."""
    content = b"" if body is None else json.dumps(body).encode()
    return Response(content, status, dict(headers or {}), content_type="application/json; charset=utf-8")


def _below_provider(path: str) -> list[str]:
    segments = [part for part in path.split("/") if part]
    lowered = [part.lower() for part in segments]
    if len(segments) > 6 and lowered[0] == "subscriptions" and lowered[-3:] == PERMISSIONS:
        return ["permissionsofresource" if len(segments) > 7 else "permissionsofresourcegroup"]
    if len(segments) == 5 and lowered[::2] == ["subscriptions", "resourcegroups", "resources"]:
        return segments[4:]
    if len(segments) > 4 and lowered[0] == "subscriptions":
        for at in (2, 4):
            if lowered[at : at + 2] == ["providers", PROVIDER] and (at == 2 or lowered[2] == "resourcegroups"):
                return segments[at + 2 :]
    return []


def _shape(parts: list[str]) -> str:
    return "/".join("*" if number % 2 else part.lower() for number, part in enumerate(parts))


def refusal(error: ArmError) -> Response:
    """An error's answer."""
    body = {"error": {"code": error.code, "message": error.message}}
    return _stamped(answer(body, error.status, error.headers))


def _stamped(response: Response) -> Response:
    request_id = str(uuid.uuid4())
    response.headers["x-ms-request-id"] = request_id
    response.headers["x-ms-correlation-request-id"] = request_id
    return response
