"""The agent's HTTP server: bound before anything is started, ended by a signal or by hand."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

import uvicorn

from lockstep.agent.app import create_app
from lockstep.agent.assembly import Agent
from lockstep.agent.connections import PromptProtocol
from lockstep.agent.limits import Bounds
from lockstep.errors import ConfigError

LOG: Final = logging.getLogger("lockstep.agent")
CONNECTIONS: Final = 1024  # open at the same time; more are told to come later
DRAIN: Final = 10.0  # seconds that requests under way, and then the desk, may take to end


class _Server(uvicorn.Server):
    """uvicorn's server without its own handling of signals: see `Server.serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One agent on one address. `serve` runs it in this thread; `start` and `stop` in one of its own."""

    def __init__(self, agent: Agent, bounds: Bounds | None = None) -> None:
        """Raises ConfigError when the address cannot be listened on; nothing was started then."""
        settings = agent.config.agent
        self.agent = agent
        self._socket = listen(settings.address, settings.port)
        host, port = self._socket.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = _Server(
            uvicorn.Config(
                create_app(agent, bounds),
                http=PromptProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,  # addresses of hooks may hold tokens
                server_header=False,
                date_header=True,
                proxy_headers=bool(settings.proxies),
                forwarded_allow_ips=list(settings.proxies),
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(DRAIN),
                h11_max_incomplete_event_size=65_536,
            )
        )
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the agent and answer in a thread."""
        self.agent.start()
        self._thread = threading.Thread(target=self._run, name="agent's server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer what is under way, then end; what the desk has not done goes on after the next start."""
        self.end()
        if self._thread is not None:
            self._thread.join(DRAIN * 2)
        self.agent.stop(DRAIN)

    def serve(self) -> None:
        """Start the agent and answer until `end` is called, by a signal's handler say."""
        self.agent.start()
        try:
            self._run()
        finally:
            self.agent.stop(DRAIN)

    def end(self, *_: int | FrameType | None) -> None:
        """Let it end; may be the handler of a signal. Called again it waits for no request any more."""
        if self._server.should_exit:
            self._server.force_exit = True
        self._server.should_exit = True

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
        self._socket.close()


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens there; raises ConfigError, which says who can be meant, when it cannot."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # By name: asyncio switches Nagle's algorithm off for connections of TCP only, and an answer in two writes would
    # else wait 40 ms for the other side's acknowledgement of the first.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address, port))
        found.listen(512)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"the agent cannot listen on {address}:{port}: {os.strerror(error.errno) if error.errno else error}",
            hint="stop what uses it (another agent?), or set agent.port in lockstep.yaml or --port",
        ) from error
    return found
