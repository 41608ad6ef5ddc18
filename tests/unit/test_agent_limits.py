"""What the agent bears: rates, bodies, slow senders, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from lockstep.agent.limits import PLACES, Bounds, Limits, Rates


class Sent:
    """An ASGI exchange: what is received, and what was answered."""

    def __init__(self, *parts: bytes, ends: bool = True) -> None:
        self._parts: Iterator[Message] = iter(
            [
                {"type": "http.request", "body": part, "more_body": not ends or place < len(parts) - 1}
                for place, part in enumerate(parts)
            ]
        )
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def receive(self) -> Message:
        found = next(self._parts, None)
        if found is None:
            await asyncio.Event().wait()  # nothing more comes
        assert found is not None
        return found

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message.get("body", b"")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    assert message["more_body"] is False
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def scope(path: str = "/hooks/grafana", peer: str = "10.0.0.1") -> Scope:
    return {"type": "http", "path": path, "client": (peer, 1), "headers": []}


def ask(bounds: Bounds, sent: Sent, app: Callable[[Scope, Receive, Send], Awaitable[None]] = echo) -> list[int]:
    refused: list[int] = []
    asyncio.run(Limits(app, bounds, refused.append)(scope(), sent.receive, sent.send))
    return refused


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.integers(min_value=1, max_value=120))
def test_a_body_comes_through_whole_or_not_at_all(parts: list[bytes], limit: int) -> None:
    sent = Sent(*parts)
    refused = ask(Bounds(body=limit), sent)
    whole = b"".join(parts)
    if len(whole) <= limit:
        assert (sent.status, sent.body, refused) == (200, whole, [])
    else:
        assert (sent.status, refused) == (413, [413])
        assert sent.headers[b"connection"] == b"close"


def test_a_body_without_end_is_not_read_for_ever() -> None:
    sent = Sent(*[b"x" * 100] * 1000, ends=False)
    assert ask(Bounds(body=100), sent) == [413]


def test_a_slow_body_is_given_up() -> None:
    sent = Sent(b"{", ends=False)
    assert ask(Bounds(seconds=0.01), sent) == [408]
    assert sent.headers[b"connection"] == b"close"


def test_more_at_once_than_is_borne_are_told_to_come_later() -> None:
    async def several() -> tuple[list[int], int]:
        gate = asyncio.Event()

        async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        refused: list[int] = []
        limits = Limits(waiting, Bounds(at_once=2), refused.append)
        first = [Sent(b"a"), Sent(b"b")]
        running = [
            asyncio.create_task(limits(scope(peer=f"10.0.0.{number}"), one.receive, one.send))
            for number, one in enumerate(first)
        ]
        await asyncio.sleep(0)
        late = Sent(b"c")
        await limits(scope(), late.receive, late.send)
        gate.set()
        await asyncio.gather(*running)
        assert [one.status for one in first] == [200, 200]
        assert late.headers[b"retry-after"] == b"1"
        again = Sent(b"d")
        await limits(scope(), again.receive, again.send)
        return refused, again.status

    assert asyncio.run(several()) == ([503], 200)


def test_large_bodies_do_not_fill_the_memory_together() -> None:
    async def several() -> list[int]:
        gate = asyncio.Event()

        async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await echo(scope, receive, send)

        limits = Limits(waiting, Bounds(body=100, bodies=150), lambda status: None)
        first = Sent(b"x" * 100)
        running = asyncio.create_task(limits(scope(), first.receive, first.send))
        await asyncio.sleep(0)
        late = Sent(b"x" * 100)
        await limits(scope(), late.receive, late.send)
        gate.set()
        await running
        again = Sent(b"x" * 100)
        await limits(scope(), again.receive, again.send)
        return [first.status, late.status, again.status]

    assert asyncio.run(several()) == [200, 503, 200]


def test_one_place_cannot_use_up_anothers_share() -> None:
    async def several() -> list[int]:
        limits = Limits(echo, Bounds(rate=0.001, burst=2), lambda status: None, ("grafana", "datadog"))
        statuses = []
        for path, peer in (
            *[("/hooks/grafana", "10.0.0.1")] * 3,
            ("/hooks/datadog", "10.0.0.1"),
            ("/hooks/grafana", "10.0.0.2"),
        ):
            sent = Sent(b"x")
            await limits(scope(path, peer), sent.receive, sent.send)
            statuses.append(sent.status)
            if sent.status == 429:
                assert int(sent.headers[b"retry-after"]) >= 1
        return statuses

    assert asyncio.run(several()) == [200, 200, 429, 200, 200]


def test_sources_that_there_are_not_share_one_rate() -> None:
    async def several() -> list[int]:
        limits = Limits(echo, Bounds(rate=0.001, burst=2), lambda status: None, ("grafana",))
        statuses = []
        for path in (*[f"/hooks/x{number}" for number in range(4)], "/hooks/grafana/x", "/hooks/grafana", "/"):
            sent = Sent(b"x")
            await limits(scope(path), sent.receive, sent.send)
            statuses.append(sent.status)
        return statuses

    assert asyncio.run(several()) == [200, 200, 429, 429, 429, 200, 200]


@pytest.mark.parametrize("parts", [(b"x" * 100,), ()], ids=["large and unfinished", "silent"])
def test_one_neighbourhood_cannot_use_up_what_all_have(parts: tuple[bytes, ...]) -> None:
    async def several() -> tuple[list[int], int, list[int]]:
        limits = Limits(echo, Bounds(body=100, bodies=1600, at_once=64, shares=8), lambda status: None)
        held = [Sent(*parts, ends=False) for _ in range(64)]
        running = [asyncio.create_task(limits(scope("/hooks/none"), one.receive, one.send)) for one in held]
        for _ in range(3):
            await asyncio.sleep(0)
        other = [Sent(b"x" * 100), Sent(b"x" * 100)]
        for one in other:
            await limits(scope(peer="10.0.0.2"), one.receive, one.send)
        under_way = sum(not task.done() for task in running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        again = Sent(b"x" * 100)
        await limits(scope("/hooks/none"), again.receive, again.send)
        statuses = [one.status for one in held if one.status]
        assert set(statuses) == {503}
        assert len(statuses) == 64 - under_way
        return [one.status for one in other], under_way, [again.status]

    others, under_way, again = asyncio.run(several())
    assert (others, again) == ([200, 200], [200]), "and what was held is free again"
    assert under_way <= 8


@given(st.lists(st.floats(min_value=0.0, max_value=3.0), min_size=1, max_size=60))
def test_a_rate_lets_through_its_burst_and_then_so_many_a_second(pauses: list[float]) -> None:
    now = 0.0
    rates = Rates(2.0, 5, lambda: now)
    taken = 0
    for pause in pauses:
        now += pause
        wait = rates.take(("a", ""))
        taken += not wait
        assert wait <= 0.5
        assert taken <= 5 + 2.0 * now + 1e-6


def test_rates_are_bounded_in_memory() -> None:
    rates = Rates(1.0, 1, lambda: 0.0)
    for number in range(PLACES + 100):
        rates.take((str(number), ""))
    assert len(rates) == PLACES


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_request_is_passed_on(kind: str) -> None:
    seen: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    sent = Sent(b"")
    asyncio.run(Limits(note, Bounds(), lambda status: None)({"type": kind}, sent.receive, sent.send))
    assert seen == [kind]
