"""HTTP serving for the sandbox: a keep-alive WSGI server, with the fault board asked before every answer."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from sandbox.calls import Call, Calls
from sandbox.faults import Fault, Faults, Hit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Linux tells that the other side has closed without reading what may still lie before the end.
HUNG_UP: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
LOOK: Final = 0.2  # seconds between two looks at the client of a call that is held
HANGS: Final = 3600.0  # seconds, unless the fault says otherwise
CONNECTION: Final = "sandbox.connection"
GENERIC: Final = ("down", "hang", "slow", "fail", "throttle")


@dataclass(frozen=True)
class Target:
    """What a request is about, as far as faults and the log need to know.

    `operation` is the vendor's own name (`UpdateEndpoint`, `onlineEndpoints.put`, `storage.objects.get`),
    `resource` the endpoint's, model's or object's name ("" when there is none), `quiet` keeps it out of the log
    (scoring and object traffic).
    """

    operation: str
    resource: str = ""
    quiet: bool = False


class Service(Protocol):
    """What a vendor's server must offer to be served."""

    cloud: str

    def identify(self, request: Request) -> Target:
        """Name the operation without changing anything and without failing."""

    def respond(self, request: Request, target: Target) -> Response:
        """Answer the request; the generic faults have already been dealt with."""

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """The vendor's own answer for a `fail` (fault.status) or `throttle` fault."""


class ConnectionDropped(ConnectionResetError):  # noqa: N818 - done on purpose
    """The cloud is down: close the connection without an answer (cheroot lets a reset pass in silence)."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "dropped on purpose")


class FaultyApp:
    """WSGI application around one `Service`: faults first, then the service, then the log."""

    def __init__(self, service: Service, faults: Faults, calls: Calls, stop: threading.Event) -> None:
        self._service = service
        self._faults = faults
        self._calls = calls
        self._stop = stop

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        target = self._service.identify(request)
        began = time.time()
        response = self._answer(request, target)
        if not target.quiet:
            self._calls.add(
                Call(
                    self._service.cloud,
                    target.operation,
                    target.resource,
                    response.status_code,
                    began,
                    time.time() - began,
                )
            )
        return response(environ, start_response)

    def _answer(self, request: Request, target: Target) -> Response:
        hit = self._faults.hit(self._service.cloud, target.operation, GENERIC, target.resource)
        if hit is not None:
            fault = hit.fault
            if fault.kind == "down":
                raise ConnectionDropped
            if fault.kind == "hang":
                self._hold(request, hit, min(time.monotonic() + (fault.delay or HANGS), hit.until))
                raise ConnectionDropped
            if fault.kind == "slow":
                self._hold(request, hit, time.monotonic() + fault.delay)
            else:
                request.get_data()  # drain the body: a client in the middle of sending would see a reset instead
                return self._service.failure(request, target, fault)
        try:
            return self._service.respond(request, target)
        except HTTPException as error:
            return Response(str(error), error.code or 500)

    def _hold(self, request: Request, hit: Hit, until: float) -> None:
        """Keep silent until then; not longer than the fault is on the board, nor for a client that went away."""
        connection = request.environ[CONNECTION]
        with connection.server.held():
            while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
                if hit.over.wait(min(left, LOOK)):
                    return
                if _hung_up(connection.socket):
                    raise ConnectionDropped


def _hung_up(connection: socket.socket) -> bool:
    look = select.poll()
    look.register(connection, HUNG_UP)
    return any(event & HUNG_UP for _, event in look.poll(0))


class _Gateway(wsgi.Gateway_10):
    """Tells the application which connection it answers."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]  # the stubs say None
        known: dict[str, Any] = super().get_environ()  # type: ignore[no-untyped-call]
        return {**known, CONNECTION: self.req.conn}


class _Server(wsgi.Server):
    """cheroot's server, quiet about clients that hang up and about connections dropped on purpose."""

    _holding = 0
    _counting = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A call that is held keeps no other waiting: as many threads as ever answer beside those that hold one."""
        with self._counting:
            self._holding += 1
            if len(self.requests._threads) < self.requests.min + self._holding:
                self.requests.grow(1)
        try:
            yield
        finally:
            with self._counting:
                self._holding -= 1

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        import sys

        error = sys.exc_info()[0]
        if error is not None and issubclass(error, (ConnectionDropped, ConnectionError, ssl.SSLError, TimeoutError)):
            return
        super().error_log(msg, level, traceback)


class WebServer:
    """One listening address on 127.0.0.1 at a free port, served by a pool of threads until `stop()`."""

    def __init__(
        self, app: Callable[..., Any], *, threads: int = 24, certificate: tuple[str, str] | None = None, port: int = 0
    ) -> None:
        self._server = _Server(
            ("127.0.0.1", port), app, numthreads=threads, max=-1, request_queue_size=256, timeout=60, shutdown_timeout=1
        )
        self._server.gateway = _Gateway
        if certificate is not None:
            self._server.ssl_adapter = BuiltinSSLAdapter(*certificate)
        self._scheme = "https" if certificate else "http"
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name=f"web-{self.port}", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.bind_addr[1])

    @property
    def url(self) -> str:
        """`http(s)://127.0.0.1:PORT`, without a slash at the end."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop listening and end the threads."""
        self._server.stop()
        self._thread.join(timeout=5)
