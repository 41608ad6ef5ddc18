"""A sender that costs little: whole requests, made before the clock starts, over connections that are kept open.

An HTTP client for all cases takes more of the machine than the server that is measured; on shared cores that counts
against the server. This one writes bytes and reads a status, nothing else.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

CONNECTIONS: Final = 100  # open at the same time; a request that finds none free waits, and its waiting counts
PATIENCE: Final = 30.0  # seconds for one answer
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass
class Answers:
    """By request: status (0 for none), and seconds from the moment that it was due."""

    statuses: list[int]
    seconds: list[float]
    took: float = 0.0

    @classmethod
    def of(cls, count: int) -> Answers:
        """Room for so many."""
        return cls([0] * count, [0.0] * count)


def request(method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """The bytes of one request."""
    parts = urlsplit(url)
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


@dataclass
class _Due:
    number: int
    at: float
    data: bytes


@dataclass
class _Pool:
    """Connections that are free, and requests that wait for one."""

    host: str
    port: int
    answers: Answers
    free: list[_Connection] = field(default_factory=list)
    waiting: deque[_Due] = field(default_factory=deque)
    open: int = 0
    left: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, due: _Due) -> None:
        if self.free:
            self.free.pop().send(due)
            return
        self.waiting.append(due)
        if self.open < CONNECTIONS:
            self.open += 1
            task = asyncio.ensure_future(self._connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError:
            self.open -= 1
            if self.waiting:
                self.settle(self.waiting.popleft(), 0)

    def settle(self, due: _Due, status: int) -> None:
        self.answers.statuses[due.number] = status
        self.answers.seconds[due.number] = time.monotonic() - due.at
        self.left -= 1
        if not self.left:
            self.done.set()


class _Connection(asyncio.Protocol):
    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._due: _Due | None = None
        self._got = b""
        self._late: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def send(self, due: _Due) -> None:
        assert self._transport is not None
        self._due = due
        self._late = asyncio.get_running_loop().call_later(PATIENCE, self._transport.abort)
        self._transport.write(due.data)

    def close(self) -> None:
        """Close it, with nothing under way."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        if not end or (found is not None and len(body) < int(found[1])):
            return
        status = int(head.split(b" ", 2)[1])
        self._got = b""
        self._settle(status)
        assert self._transport is not None
        if _CLOSE.search(head) or self._transport.is_closing():
            self._transport.close()
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        pool = self._pool
        if self in pool.free:
            pool.free.remove(self)
        pool.open -= 1
        self._settle(0)
        if pool.waiting:
            pool.send(pool.waiting.popleft())

    def _next(self) -> None:
        if self._pool.waiting:
            self.send(self._pool.waiting.popleft())
        else:
            self._pool.free.append(self)

    def _settle(self, status: int) -> None:
        if self._late is not None:
            self._late.cancel()
        due, self._due = self._due, None
        if due is not None:
            self._pool.settle(due, status)


async def send(address: str, requests: Sequence[bytes], rate: float) -> Answers:
    """Send them at a steady rate, whatever the answers take."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    answers = Answers.of(len(requests))
    pool = _Pool(parts.hostname, parts.port, answers, left=len(requests))
    began = time.monotonic()
    for number, data in enumerate(requests):
        due = began + number / rate
        if (pause := due - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        pool.send(_Due(number, due, data))
    await pool.done.wait()
    answers.took = time.monotonic() - began
    for connection in list(pool.free):
        connection.close()
    return answers
