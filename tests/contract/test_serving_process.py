"""How the container's server ends, in a process of its own: uvicorn passes a signal on when it has ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
import uvicorn
from serving.server import Server
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
class Told(Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Told(uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", timeout_graceful_shutdown=1)).run()
"""


@pytest.mark.parametrize(
    "half", [b"", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12"], ids=["idle", "half a body"]
)
def test_a_signal_ends_it_within_the_grace(half: bytes) -> None:
    server = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(half)
            server.terminate()
            assert server.wait(60) == -signal.SIGTERM
    finally:
        server.kill()
        server.wait()
