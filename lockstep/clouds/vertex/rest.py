"""Light calls to Google's REST APIs: one authorized session, time-outs, long-running operations, what errors mean.

Error answers are `google.rpc.Status` as JSON (https://cloud.google.com/apis/design/errors). Long-running operations
are `google.longrunning.Operation` (https://google.aip.dev/151).
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import requests

from lockstep.errors import (
    BusyError,
    CloudRejectedError,
    ConfigError,
    CredentialsError,
    LockstepError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
    ThrottledError,
    UnreachableError,
)

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession

JsonObject = dict[str, Any]

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
#: google.rpc.Code by number: an operation's error carries the number alone.
CODES: Final[Mapping[int, tuple[str, int]]] = {
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}
LOGIN: Final = "set credentials_file or GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"


class VertexError(Exception):
    """An error answer: its canonical status (`NOT_FOUND`), its HTTP status, and Google's text."""

    def __init__(self, status: str, http: int, message: str) -> None:
        super().__init__(f"{status or http}: {message}")
        self.status = status
        self.http = http
        self.message = message

    @property
    def is_busy(self) -> bool:
        """Whether another change of the same resource stands in the way."""
        text = self.message.lower()
        waits = "operation" in text and ("running" in text or "in progress" in text)
        return self.status == "ABORTED" or (self.status == "FAILED_PRECONDITION" and waits)

    @property
    def is_passing(self) -> bool:
        """Whether the same call may well succeed in a moment."""
        return self.http == 429 or self.http in (500, 502, 503, 504)


class OperationFailedError(VertexError):
    """A long-running operation ended with an error; asking about it went well."""


def delays() -> Iterator[float]:
    """Seconds to wait between two looks: a tenth during the first second, then one."""
    yield from [0.1] * 10
    while True:
        yield 1.0


class Rest:
    """Thread-safe client. `timeout` is the time in seconds that one call may take; nothing is opened before the first.

    `cloud` is the name that errors bear.

    `credentials_file` is a key file or a workload identity configuration; without it google-auth's default chain is
    used.
    """

    def __init__(self, cloud: str, credentials_file: str | None, timeout: float) -> None:
        self._cloud = cloud
        self._file = credentials_file
        self._timeout = timeout
        self._lock = threading.Lock()
        self._renewal = threading.Lock()
        self._session: AuthorizedSession | None = None

    def call(
        self,
        method: str,
        url: str,
        *,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> JsonObject:
        """One call, answered as JSON; raises VertexError for an error answer."""
        answer = self.send(method, url, body=body, query=query, headers=headers, repeatable=repeatable)
        return json_of(answer)

    def send(
        self,
        method: str,
        url: str,
        *,
        body: object = None,
        content: bytes | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> requests.Response:
        """One call with `body` as JSON or `content` as it is; raises VertexError for an error answer.

        A call that may be made twice without harm is repeated once when the connection breaks: a kept-alive
        connection may be closed by the other side at the moment that it is used again.
        """
        data = content if body is None else json.dumps(body, default=_plain).encode()
        sent = {**(headers or {}), **({"Content-Type": "application/json"} if body is not None else {})}
        session = self._authorized()
        again = method in ("GET", "PATCH") if repeatable is None else repeatable
        while True:
            try:
                answer: requests.Response = session.request(  # type: ignore[no-untyped-call]
                    method,
                    url,
                    data=data,
                    params=query,
                    headers=sent,
                    timeout=self._timeout,
                    max_allowed_time=2 * self._timeout,
                )
                break
            except requests.Timeout:
                raise
            except requests.ConnectionError:
                if not again:
                    raise
                again = False
        if not answer.ok:
            raise error_of(answer)
        return answer

    def pages(self, url: str, key: str, query: Mapping[str, str | int] | None = None) -> Iterator[JsonObject]:
        """The items under `key` of a listing, page after page."""
        token = ""
        while True:
            page = self.call("GET", url, query={**(query or {}), **({"pageToken": token} if token else {})})
            yield from page.get(key, ())
            token = str(page.get("nextPageToken", ""))
            if not token:
                return

    def finish(self, base: str, operation: JsonObject, deadline: float, what: str) -> JsonObject:
        """Wait for a long-running operation; returns its response, raises VertexError for its error.

        `deadline` is in `time.monotonic()` seconds; RetryLaterError names `what` when it passes. Looks that fail for a
        passing reason are repeated, as long as one of them succeeds every two call time-outs.
        """
        heard = time.monotonic()
        for delay in delays():
            if operation.get("done"):
                break
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"{what} is not finished yet",
                    hint=f"the same request joins it later; look at it with GET {base}/{operation['name']}",
                    cloud=self._cloud,
                )
            time.sleep(delay)
            try:
                operation = self.call("GET", f"{base}/{operation['name']}")
                heard = time.monotonic()
            except (VertexError, requests.RequestException) as error:
                passing = error.is_passing if isinstance(error, VertexError) else True
                if not passing or time.monotonic() - heard > 2 * self._timeout:
                    raise
        if "error" in operation:
            status, http = CODES.get(int(operation["error"].get("code", 2)), ("UNKNOWN", 500))
            raise OperationFailedError(status, http, str(operation["error"].get("message", "")))
        response = operation.get("response", {})
        assert isinstance(response, dict)
        return response

    def credentials(self) -> Credentials:
        """The credentials of all calls."""
        found: Credentials = self._authorized().credentials
        return found

    def token(self) -> JsonObject:
        """An access token for obstore: `{"token": str, "expires_at": aware datetime}`, renewed when it is about to end.

        See https://developmentseed.org/obstore/latest/authentication/ for the form.
        """
        credentials = self._authorized().credentials
        with self._renewal:
            expiry = credentials.expiry
            soon = datetime.now(UTC) + timedelta(minutes=4)
            if not credentials.token or (expiry is not None and expiry.replace(tzinfo=UTC) < soon):
                credentials.refresh(_with_timeout(_signing_in(), self._timeout))
                expiry = credentials.expiry
        return {"token": credentials.token, "expires_at": expiry.replace(tzinfo=UTC) if expiry is not None else None}

    def _authorized(self) -> AuthorizedSession:
        with self._lock:
            if self._session is None:
                self._session = self._open()
            return self._session

    def _open(self) -> AuthorizedSession:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        if self._file is None:
            credentials, _ = google.auth.default(scopes=SCOPES)
        else:
            with warnings.catch_warnings():
                # The warning is about configurations that a stranger hands in; this one is named by the operator.
                warnings.simplefilter("ignore", DeprecationWarning)
                load: Callable[..., tuple[Credentials, object]] = google.auth.load_credentials_from_file
                credentials, _ = load(self._file, scopes=SCOPES)
        # A request object of our own: the default one repeats a dead token endpoint three times.
        session: AuthorizedSession = AuthorizedSession(  # type: ignore[no-untyped-call]
            credentials, auth_request=_signing_in(), max_refresh_attempts=1
        )
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=32, max_retries=0)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session


def json_of(answer: requests.Response) -> JsonObject:
    """An answer's JSON object; VertexError for anything else, such as a proxy's page."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise VertexError("", answer.status_code, f"{answer.url} answered without JSON: {answer.text[:200]}")
    return content


def _signing_in() -> Callable[..., object]:
    """google-auth's own request, but for a gateway's 502, which it takes for a word against the credentials."""
    from google.auth.exceptions import TransportError
    from google.auth.transport.requests import Request

    ask: Callable[..., Any] = Request()

    def asked(*given: object, **named: object) -> object:
        answer = ask(*given, **named)
        if answer.status == 502:
            raise TransportError(f"it answers with HTTP status {answer.status}")  # type: ignore[no-untyped-call]
        return answer

    return asked


def _with_timeout(request: Callable[..., object], seconds: float) -> Callable[..., object]:
    def limited(*given: object, **named: object) -> object:
        return request(*given, **{**named, "timeout": seconds})

    return limited


def _plain(value: object) -> object:
    """NumPy's and pandas' scalars as JSON numbers."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a row holds a {type(value).__name__}, which JSON cannot carry")
    return item()


def error_of(answer: requests.Response) -> VertexError:
    """What an error answer says; its text as it is where it is not Google's."""
    try:
        error = answer.json()["error"]
        return VertexError(str(error.get("status", "")), answer.status_code, str(error.get("message", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return VertexError("", answer.status_code, answer.text[:500] or answer.reason)


def translate(error: Exception, action: str, cloud: str) -> LockstepError | None:
    """What an error of this module, of requests or of google-auth means to Lockstep; None for a programming error."""
    from google.auth import exceptions

    if isinstance(error, VertexError):
        return _translate_answer(error, action, cloud)
    if isinstance(error, exceptions.TransportError):
        return UnreachableError(
            f"cannot {action}: the token endpoint does not answer: {error}",
            hint="check network and proxy; a key file's token_uri must be reachable from here",
            cloud=cloud,
        )
    if isinstance(error, exceptions.RefreshError) and error.retryable:
        return UnreachableError(f"cannot {action}: no access token: {error}", hint="try again", cloud=cloud)
    if isinstance(error, exceptions.GoogleAuthError):
        return CredentialsError(f"cannot {action}: {error}", hint=LOGIN, cloud=cloud)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return ConfigError(f"cannot {action}: {error}", hint="api_endpoint must look like https://host", cloud=cloud)
    if isinstance(error, requests.RequestException):
        return UnreachableError(
            f"cannot {action}: no answer: {error}",
            hint="check network and proxy, location and api_endpoint, and https://status.cloud.google.com",
            cloud=cloud,
        )
    return None


def _translate_answer(error: VertexError, action: str, cloud: str) -> LockstepError:
    problem = f"cannot {action}: {error}"
    if error.is_busy:
        return BusyError(problem, hint="another change is in progress; ask again when it has ended", cloud=cloud)
    if error.status == "UNAUTHENTICATED" or error.http == 401:
        return CredentialsError(problem, hint=LOGIN, cloud=cloud)
    if error.status == "PERMISSION_DENIED" or error.http == 403:
        hint = (
            "grant the account roles/aiplatform.user, roles/monitoring.viewer and, on the bucket, "
            "roles/storage.objectUser; the APIs aiplatform and monitoring must be enabled in the project"
        )
        return CredentialsError(problem, hint=hint, cloud=cloud)
    if error.http == 404:
        return NotFoundError(problem, hint="check project and location; has the version been prepared?", cloud=cloud)
    if error.status == "ALREADY_EXISTS":
        return RefusedError(problem, hint="look at the resource of that name in the console", cloud=cloud)
    if error.http == 429:
        return ThrottledError(
            problem, hint="ask again in a moment; raise the quota under IAM & Admin > Quotas if it recurs", cloud=cloud
        )
    if error.http in (502, 503, 504):
        return UnreachableError(problem, hint="ask again; see https://status.cloud.google.com", cloud=cloud)
    if error.http >= 500 and error.http != 501:
        return RetryLaterError(problem, hint="ask again; see https://status.cloud.google.com", cloud=cloud)
    return CloudRejectedError(problem, hint="correct the setting that the text names", cloud=cloud)
