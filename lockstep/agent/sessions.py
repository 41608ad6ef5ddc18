"""Who is signed in to the page: sessions in memory, found by a cookie, each with a token against forged forms."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from lockstep.agent.access import Person

COOKIE: Final = "lockstep_session"
SESSIONS: Final = 1000  # kept at most; the oldest one ends


@dataclass(frozen=True)
class Session:
    """One sign-in; `csrf` stands in every form of the page, `until` is on the clock of Sessions."""

    person: Person
    csrf: str
    until: float

    def sent(self, csrf: str) -> bool:
        """Whether a form with this token came from a page of this session."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogateescape"))


class Sessions:
    """Sessions by their cookie, of which only a digest is kept. For any thread."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, person: Person) -> str:
        """Sign in; gives back the cookie's value."""
        cookie = secrets.token_urlsafe(32)
        session = Session(person, secrets.token_urlsafe(32), self._clock() + self._seconds)
        with self._lock:
            self._sessions[_key(cookie)] = session
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of the cookie; None for none, and for one that is over."""
        with self._lock:
            session = self._sessions.get(_key(cookie))
            if session is not None and session.until <= self._clock():
                del self._sessions[_key(cookie)]
                return None
        return session

    def end(self, cookie: str) -> None:
        """Sign out."""
        with self._lock:
            self._sessions.pop(_key(cookie), None)

    def __len__(self) -> int:
        return len(self._sessions)


def same_origin(host: str, origin: str, referer: str, fetch_site: str) -> bool:
    """Whether a request to `host` comes from a page of its own, by headers that no other site's page can forge.

    A browser sends Origin, or at least Referer, with a form; without any of them it is not from our page.
    """
    if fetch_site not in ("", "same-origin"):
        return False
    source = origin or referer
    if not source or source == "null":
        return False
    try:
        return bool(host) and urlsplit(source).netloc.lower() == host.lower()
    except ValueError:
        return False


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
