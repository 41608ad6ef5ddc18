"""Fetching keys and certificates over TLS: only from addresses that are configured, with limits on everything.

What a delivery says decides when something is fetched, so a flood of forged ones must not become a flood of ours:
what was fetched is kept, one fetch runs at a time, and new addresses are few in a minute.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import requests
import urllib3
from requests.auth import AuthBase

from lockstep.errors import UnreachableError

_MOST_BYTES: Final = 256 * 1024
_MOST_KEPT: Final = 16
_FETCHES_A_MINUTE: Final = 12

#: `(address, seconds)` to the body of the answer; raises NotThereError or UnreachableError.
Fetch = Callable[[str, float], bytes]


class NotThereError(UnreachableError):
    """The server answered, and it was no: there is no such thing."""


class _NoAuth(AuthBase):
    """Else requests would send a password from ~/.netrc to that host."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def over_tls(ca_file: str | None) -> Fetch:
    """A Fetch that trusts the authorities of `ca_file` (the system's when None) and follows no redirect."""

    def fetch(address: str, timeout: float) -> bytes:
        ends = time.monotonic() + timeout
        try:
            with requests.get(
                address,
                timeout=timeout,
                verify=ca_file or True,
                allow_redirects=False,
                stream=True,
                auth=_NoAuth(),
            ) as answer:
                if answer.status_code in (400, 403, 404, 410):
                    raise NotThereError(f"{_place(address)} answered {answer.status_code}")
                if answer.status_code != 200:
                    raise UnreachableError(f"{_place(address)} answered {answer.status_code}")
                body = b""
                # What has come, not what was waited for: else a server that trickles would hold us for long.
                while part := answer.raw.read1(16 * 1024, decode_content=True):
                    body += part
                    if len(body) > _MOST_BYTES or time.monotonic() > ends:
                        raise UnreachableError(f"{_place(address)} answered too much, or too slowly")
                return body
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(
                f"{_place(address)} cannot be reached: {type(error).__name__}",
                hint="see that this machine may open connections to it, and that its certificate is trusted (ca_file)",
            ) from error

    return fetch


class Kept:
    """What was fetched, by address, for `keep` seconds; longer where it cannot be fetched anew, up to `stale`."""

    def __init__(self, fetch: Fetch, timeout: float, keep: float, stale: float = 0.0) -> None:
        self._fetch = fetch
        self._timeout = timeout
        self._keep = keep
        self._stale = max(stale, keep)
        self._bodies: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._began: deque[float] = deque(maxlen=_FETCHES_A_MINUTE)
        self._lock = threading.Lock()
        self._fetching = threading.Lock()

    def get(self, address: str, not_older_than: float | None = None) -> bytes:
        """The body at `address`, at most `not_older_than` seconds old (`keep` when None).

        Raises NotThereError, and UnreachableError where it was not fetched in time, too.
        """
        asked = time.monotonic()
        freshest = asked - (self._keep if not_older_than is None else min(not_older_than, self._keep))
        try:
            return self._body(address, freshest) or self._in_turn(address, asked)
        except NotThereError:
            raise
        except UnreachableError:
            known = self._body(address, asked - self._stale)
            if known is None or not_older_than is not None:
                raise
            return known

    def _in_turn(self, address: str, asked: float) -> bytes:
        if not self._fetching.acquire(timeout=self._timeout):
            raise UnreachableError(f"{_place(address)} is still being asked")
        try:
            # Another thread may have fetched it while this one waited.
            return self._body(address, asked) or self._fetched(address)
        finally:
            self._fetching.release()

    def _body(self, address: str, not_before: float) -> bytes | None:
        with self._lock:
            at, body = self._bodies.get(address, (0.0, b""))
            return body if body and at >= not_before else None

    def _fetched(self, address: str) -> bytes:
        now = time.monotonic()
        if len(self._began) == self._began.maxlen and now - self._began[0] < 60:
            raise UnreachableError(f"{_place(address)} is not asked again this minute: too many fetches")
        self._began.append(now)
        body = self._fetch(address, self._timeout)
        with self._lock:
            self._bodies[address] = (time.monotonic(), body)
            self._bodies.move_to_end(address)
            while len(self._bodies) > _MOST_KEPT:
                self._bodies.popitem(last=False)
        return body


def _place(address: str) -> str:
    """An address without its query, which may hold a token."""
    return address.partition("?")[0]
