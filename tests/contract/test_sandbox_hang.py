"""A call that hangs in the sandbox: it keeps no other waiting, and is let go with its fault or its client."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest
from werkzeug.wrappers import Request, Response

from sandbox.calls import Calls
from sandbox.faults import Fault, Faults
from sandbox.web import FaultyApp, Target, WebServer

SOON = 20.0  # seconds after which a client gives up: a server that holds calls for ever fails the test


class Echo:
    """A service that answers everything."""

    cloud = "aws"

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)

    def identify(self, request: Request) -> Target:
        self.asked.release()
        return Target(request.path.strip("/"))

    def respond(self, request: Request, target: Target) -> Response:
        return Response(target.operation)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        return Response(fault.kind, fault.status)


class Place:
    """One server of one thread."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.stop = threading.Event()
        self.service = Echo()
        self.app = FaultyApp(self.service, self.faults, Calls(), self.stop)
        self.server = WebServer(self.app, threads=1)

    def ask(self, operation: str) -> http.client.HTTPConnection:
        """Send a request, and return when the server has it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=SOON)
        connection.request("GET", f"/{operation}")
        assert self.service.asked.acquire(timeout=SOON)
        return connection

    def answers(self, operation: str) -> bool:
        return self.ask(operation).getresponse().read() == operation.encode()


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.stop.set()
    place.server.stop()


def test_others_are_answered_while_calls_hang(place: Place) -> None:
    place.faults.add(Fault("aws", "hang", "Hang", seconds=600))
    hanging = [place.ask("Hang") for _ in range(3)]
    assert place.answers("Else")
    assert place.faults.table()
    for connection in hanging:
        connection.close()


def test_calls_that_hang_are_let_go_when_the_fault_is_taken_off(place: Place) -> None:
    number = place.faults.add(Fault("aws", "hang"))  # used up by the one call that it holds
    hanging = place.ask("Hang")
    assert not place.faults.table()
    place.faults.clear(number)
    with pytest.raises(http.client.RemoteDisconnected):
        hanging.getresponse()
    assert place.answers("Hang")


def test_calls_that_hang_are_let_go_when_the_faults_seconds_are_over(place: Place) -> None:
    place.faults.add(Fault("aws", "hang", seconds=0.3))
    with pytest.raises(http.client.RemoteDisconnected):
        place.ask("Hang").getresponse()
    assert place.answers("Hang")


def test_a_client_that_went_away_is_not_waited_for(place: Place) -> None:
    place.faults.add(Fault("aws", "hang", "Hang", seconds=600))
    gone = threading.Event()

    def watched(request: Request, target: Target) -> Response:
        try:
            return answer(request, target)
        finally:
            gone.set()

    answer = place.app._answer
    place.app._answer = watched  # type: ignore[method-assign]
    place.ask("Hang").close()
    assert gone.wait(SOON)
