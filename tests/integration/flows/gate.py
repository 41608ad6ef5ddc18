"""A way to a server that can be shut and opened again: the server itself goes on, which costs nothing."""

from __future__ import annotations

import contextlib
import socket
import threading


class Gate:
    """Forwards what comes to `port` of 127.0.0.1 to the server's; while it is shut, connections are refused.

    Leave it open: Prefect's own threads go on by it to report what they have not reported yet.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._open: list[socket.socket] = []
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._serve()

    def shut(self) -> None:
        """End every connection, and take no more."""
        # A listener that a thread waits at goes on to take connections until it is shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def open(self) -> None:
        """Take connections again."""
        self._listener = _listen(self.port)
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to), timeout=30)
            except OSError:
                return
            far.settimeout(None)
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := one.recv(65536):
            other.sendall(received)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
