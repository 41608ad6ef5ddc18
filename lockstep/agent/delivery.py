"""What arrives at a hook, what it comes to, and the error for what is not genuine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl

from lockstep.errors import RefusedError
from lockstep.rules.alerts.alert import Alert

#: Parameters of a query that are read; a hook's address has one or two.
_MAX_PARAMETERS = 16


class ForgedError(RefusedError):
    """A delivery that does not show that it is from whom it says. Told to its sender only as 401; the text is logged.

    The text says which proof failed and holds nothing that was sent. `result` is what metrics count it as.
    """

    result: ClassVar[str] = "forged"


class UnprovedError(ForgedError):
    """A delivery that holds no proof at all: mostly its sender was not told the secret, or the proxy took it away."""

    result: ClassVar[str] = "unproved"


@dataclass(frozen=True)
class Delivery:
    """One HTTP request to a hook. `headers` by lower-case name; `at` is when it arrived, in seconds since 1970."""

    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str]
    peer: str
    at: float

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]], body: bytes, query: bytes, peer: str, at: float) -> Delivery:
        """From the raw headers and query string of a request (ASGI's `headers` and `query_string`).

        A header or parameter that stands twice is joined with a comma (RFC 9110, 5.3): two signatures or two tokens
        then match nothing, instead of one being checked here and the other elsewhere.
        """
        named: dict[str, str] = {}
        for name, value in headers:
            _add(named, name.decode("latin-1").lower(), value.decode("latin-1"))
        asked: dict[str, str] = {}
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        except ValueError:
            pairs = []  # so many parameters that none of them is believed
        for key, asked_for in pairs:
            _add(asked, key, asked_for)
        return cls(headers=named, body=body, query=asked, peer=peer, at=at)


@dataclass(frozen=True)
class Before:
    """A delivery that was taken in before: the intents that it came to then, and how many alerts are in it."""

    intents: tuple[str, ...]
    alerts: int


@dataclass(frozen=True)
class Said:
    """What a delivery came to.

    `answer` is the body of the answer where the vendor wants one. `confirm` is an address to be fetched by
    `Source.confirm`, already held against the source's pinned host. `once` is the delivery's own name where its vendor
    signs one: pass the value to `Source.settled` when the alerts are durable. A delivery that was settled `before`
    holds no alerts any more.
    """

    alerts: tuple[Alert, ...] = ()
    answer: str = ""
    confirm: str = ""
    once: str = ""
    before: Before | None = None


def _add(found: dict[str, str], name: str, value: str) -> None:
    found[name] = f"{found[name]}, {value}" if name in found else value
