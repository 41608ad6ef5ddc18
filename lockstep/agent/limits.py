"""What the agent bears: how large and how slow a request may be, how many at once, and how many from one place.

`Limits` stands before the application and reads the body for it, so that nothing behind it can be held up by a sender.
What is too much is answered at once and costs nothing more: 413, 408, 429, 503, the last two with Retry-After.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockstep.agent.access import neighbourhood

PLACES: Final = 4096  # of which the rate is remembered
DRAINED: Final = 8  # times the limit that is still read, and dropped, so that the sender gets to see the answer


@dataclass(frozen=True)
class Bounds:
    """`body` and all `bodies` together in bytes, `seconds` for one, `at_once` requests; `rate` a second and `burst`.

    The last two are of one sender at one source. One neighbourhood gets a share of `bodies` and of `at_once`, one of so
    many, and at least one body and one request: half by default, since a storm of alerts mostly has one sender.
    """

    body: int = 1_048_576
    bodies: int = 67_108_864
    seconds: float = 10.0
    at_once: int = 512
    rate: float = 500.0
    burst: int = 2000
    shares: int = 2

    @property
    def bodies_of_one(self) -> int:
        """Bytes of bodies that one neighbourhood may have held."""
        return max(self.body, self.bodies // self.shares)

    @property
    def at_once_of_one(self) -> int:
        """Requests of one neighbourhood."""
        return max(1, self.at_once // self.shares)


class Rates:
    """A bucket of requests for each place, filled at a steady rate. Bounded in memory; for one thread."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # what is left, and when

    def take(self, place: tuple[str, str]) -> float:
        """Take one; 0.0, or the seconds after which there is one again."""
        now = self._clock()
        left, at = self._buckets.pop(place, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._rate)
        wait = 0.0 if left >= 1.0 else (1.0 - left) / self._rate
        self._buckets[place] = (left if wait else left - 1.0, now)
        if len(self._buckets) > PLACES:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)


@dataclass
class _Neighbour:
    """What one neighbourhood has: requests under way, and bytes of their bodies."""

    running: int = 0
    size: int = 0


@dataclass
class _Held:
    """Bytes of a body that are held for one request, of that neighbourhood."""

    neighbour: _Neighbour
    size: int = 0


class Limits:
    """The application within bounds; `refused` is told the status of each request that was not let through.

    Each of `sources` has a rate of its own; the hooks of all that are unknown share one.
    """

    def __init__(
        self, app: ASGIApp, bounds: Bounds, refused: Callable[[int], None], sources: Container[str] = ()
    ) -> None:
        self._app = app
        self._bounds = bounds
        self._sources = sources
        self._rates = Rates(bounds.rate, bounds.burst)
        self._refused = refused
        self._running = 0
        self._bytes = 0  # of bodies that are held
        self._neighbours: dict[str, _Neighbour] = {}  # by neighbourhood, of those that have a request under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what is no HTTP is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._running >= self._bounds.at_once:
            await self._refuse(send, 503, "too many requests at once", 1.0)
            return
        client = scope.get("client")
        peer = neighbourhood(client[0]) if client else ""
        wait = self._rates.take((peer, self._source(scope)))
        if wait:
            await self._refuse(send, 429, "too many requests from there", wait)
            return
        neighbour = self._neighbours.setdefault(peer, _Neighbour())
        if neighbour.running >= self._bounds.at_once_of_one:
            await self._refuse(send, 503, "too many requests at once from there", 1.0)
            return
        held = _Held(neighbour)
        self._running += 1
        neighbour.running += 1
        try:
            await self._within(scope, receive, send, held)
        finally:
            self._running -= 1
            self._bytes -= held.size
            neighbour.running -= 1
            neighbour.size -= held.size
            if not neighbour.running:
                del self._neighbours[peer]

    def _source(self, scope: Scope) -> str:
        """Which source the request is for, "?" for one that is unknown, "" for none at all."""
        path = str(scope.get("path", ""))
        if not path.startswith("/hooks/"):
            return ""
        source = path.removeprefix("/hooks/")
        return source if source in self._sources else "?"

    async def _within(self, scope: Scope, receive: Receive, send: Send, held: _Held) -> None:
        try:
            async with asyncio.timeout(self._bounds.seconds):
                body = await self._read(receive, held)
        except MemoryError:
            await self._refuse(send, 503, "too many large requests at once", 1.0)
            return
        except TimeoutError:
            await self._refuse(send, 408, f"the body did not come within {self._bounds.seconds:g} s")
            return
        except ConnectionError:
            return  # nobody is there to be answered
        if body is None:
            await self._refuse(send, 413, f"the body is larger than {self._bounds.body} bytes")
            return
        await self._app(scope, _once(body, receive), send)

    async def _read(self, receive: Receive, held: _Held) -> bytes | None:
        """The body; None for one that is too large.

        Raises ConnectionError when the sender went away, and MemoryError when all bodies together, or those of the
        neighbourhood, are too large.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ConnectionError
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= self._bounds.body:
                theirs = held.neighbour.size + len(part)
                if self._bytes + len(part) > self._bounds.bodies or theirs > self._bounds.bodies_of_one:
                    raise MemoryError
                parts.append(part)
                held.size += len(part)
                held.neighbour.size += len(part)
                self._bytes += len(part)
            if not message.get("more_body", False) or size > DRAINED * self._bounds.body:
                return b"".join(parts) if size <= self._bounds.body else None

    async def _refuse(self, send: Send, status: int, problem: str, wait: float = 0.0) -> None:
        self._refused(status)
        hint = f"send it again in {max(1, math.ceil(wait))} s" if wait else ""
        body = json.dumps({"error": problem, "hint": hint}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # what is left of the request is not read
            *([(b"retry-after", str(max(1, math.ceil(wait))).encode())] if wait else []),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then what comes next."""
    sent = False

    async def give() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give
