"""UploadModel, CreateEndpoint and DeployModel through the generated clients of google-cloud-aiplatform.

Requests go in and answers come out as the JSON of the REST API v1, like everywhere in this package; errors come out as
the VertexError that the same answer means to `rest.py`. Operations are returned, not awaited: `Rest.finish` waits for
those that were started here and those that a killed attempt left behind alike.

The package is imported when the first of these calls is made: that takes seconds, and what only looks or moves traffic
never needs it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from lockstep.clouds.vertex.rest import JsonObject, Rest, VertexError, error_of

#: One import in the process at a time: two threads in the package's cycles could meet a module that is half there.
_IMPORTING: Final = threading.Lock()


@dataclass(frozen=True)
class _Clients:
    """The two service clients, and the request types that their methods take."""

    models: Any
    endpoints: Any
    types: Any


class Sdk:
    """Thread-safe. `host` is the API's address without its version, `timeout` the seconds that one call may take.

    Credentials are those of `rest`. Nothing is imported or opened before the first call.
    """

    def __init__(self, rest: Rest, host: str, timeout: float) -> None:
        self._rest = rest
        self._host = host
        self._timeout = timeout
        self._lock = threading.Lock()
        self._opened: _Clients | None = None

    def upload_model(self, body: JsonObject) -> JsonObject:
        """`UploadModelRequest` (with `parent`); returns the operation."""
        clients = self._clients()
        return self._start(clients.models.upload_model, clients.types.UploadModelRequest, body)

    def create_endpoint(self, body: JsonObject) -> JsonObject:
        """`CreateEndpointRequest` (with `parent`); returns the operation."""
        clients = self._clients()
        return self._start(clients.endpoints.create_endpoint, clients.types.CreateEndpointRequest, body)

    def deploy_model(self, body: JsonObject) -> JsonObject:
        """`DeployModelRequest` (with `endpoint`); returns the operation."""
        clients = self._clients()
        return self._start(clients.endpoints.deploy_model, clients.types.DeployModelRequest, body)

    def get_model(self, name: str) -> JsonObject:
        """The model version of a resource name; VertexError 404 without one."""
        clients = self._clients()
        return self._call(clients.models.get_model, clients.types.GetModelRequest, {"name": name}, _was_cut)

    def _start(self, method: Callable[..., Any], request: Any, body: JsonObject) -> JsonObject:
        return self._call(lambda **given: method(**given).operation, request, body, _was_not_sent)

    def _call(
        self, method: Callable[..., Any], request: Any, body: JsonObject, again: Callable[[Exception], bool]
    ) -> JsonObject:
        from google.api_core.retry import Retry
        from google.protobuf import json_format

        asked = json_format.ParseDict(body, request.pb(request()))
        # Explicit, since the generated methods have no time-out of their own and would wait for ever.
        retry = Retry(predicate=again, initial=0.1, maximum=1.0, timeout=self._timeout)
        with _as_vertex_error():
            answer = method(request=request.wrap(asked), timeout=self._timeout, retry=retry)
        message = getattr(answer, "_pb", answer)  # operations are plain messages, all else is wrapped by proto-plus
        shown: JsonObject = json_format.MessageToDict(message)
        return shown

    def _clients(self) -> _Clients:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> _Clients:
        with _IMPORTING:
            from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient, types

        def client(service: Any) -> Any:
            # The transport is made by hand: the client would make it with self-signed tokens for key files, which are
            # other credentials than those of every other call. Its host carries the scheme, so plain http works too.
            transport = service.get_transport_class("rest")
            return service(
                transport=transport(host=self._host, credentials=self._rest.credentials()),
                client_options={"api_endpoint": self._host},
            )

        return _Clients(client(ModelServiceClient), client(EndpointServiceClient), types)


@contextlib.contextmanager
def _as_vertex_error() -> Iterator[None]:
    """The package's errors as those of `rest.py`; what requests and google-auth raise passes through it as it is."""
    from google.api_core import exceptions
    from google.protobuf.json_format import ParseError

    try:
        yield
    except exceptions.RetryError as error:
        raise error.cause from error
    except exceptions.GoogleAPICallError as error:
        raise _vertex_error(error) from error
    except ParseError as error:
        raise VertexError("", 200, f"an answer is not the JSON that was expected: {error}") from error
    except AttributeError as error:  # what the package makes of an error answer that is JSON, but not Google's
        raise VertexError("", 502, f"something between here and Google answered with an error: {error}") from error


def _vertex_error(error: Any) -> VertexError:
    if isinstance(error.response, requests.Response):
        return error_of(error.response)
    status = error.grpc_status_code
    return VertexError(status.name if status is not None else "", int(error.code or 500), str(error.message))


def _was_not_sent(error: Exception) -> bool:
    """Whether no connection came about: only then may a call that starts something be repeated."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _was_cut(error: Exception) -> bool:
    """Whether the connection broke: a look may be repeated."""
    return isinstance(error, requests.ConnectionError) and not isinstance(error, requests.Timeout)
