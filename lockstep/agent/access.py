"""Who may do what on the page and over the API: bearer tokens by name and role, and a limit on guessing them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from lockstep.agent_settings import TokenSettings
from lockstep.errors import RefusedError

FREE: Final = 5  # wrong tokens of one peer before it has to wait
LONGEST_WAIT: Final = 300.0  # seconds
FORGET: Final = 3600.0  # seconds after which a peer's wrong tokens count no more
PEERS: Final = 4096  # of which wrong tokens are remembered


class Role(IntEnum):
    """What a person may do; each may do what those below may."""

    VIEWER = 1  # see
    OPERATOR = 2  # roll back, hold
    APPROVER = 3  # release a hold, approve

    @property
    def title(self) -> str:
        """As lockstep.yaml calls it."""
        return self.name.lower()


@dataclass(frozen=True)
class Person:
    """Somebody whose token was right."""

    name: str
    role: Role

    @property
    def actor(self) -> str:
        """As the ledger names who acted."""
        return self.name


class DeniedError(RefusedError):
    """The token is wrong, or there is none; `result` is what metrics count it as."""

    result: ClassVar[str] = "wrong"


class NoTokenError(DeniedError):
    """There is no token."""

    result: ClassVar[str] = "missing"

    def __init__(self) -> None:
        super().__init__("a token is needed", hint="send it in the header Authorization: Bearer …")


class WaitError(RefusedError):
    """Too many wrong tokens came from there; `seconds` is how long none is looked at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = math.ceil(seconds)
        super().__init__(
            f"too many wrong tokens came from your address; the next one is looked at in {self.seconds} s",
            hint="in an emergency roll back from a shell: lockstep rollback MODEL --reason REASON",
        )


class Access:
    """Finds the person behind a token. For any thread; `clock` gives seconds that only rise."""

    def __init__(self, tokens: Mapping[str, TokenSettings], clock: Callable[[], float] = time.monotonic) -> None:
        self._known = [
            (_digest(settings.token.get_secret_value()), Person(name, Role[settings.role.upper()]))
            for name, settings in tokens.items()
        ]
        self._guesses = Guesses(clock)

    @property
    def anybody(self) -> bool:
        """Whether there is a token at all."""
        return bool(self._known)

    def person(self, token: str, peer: str) -> Person:
        """The person whose token it is; `peer` is the address it came from.

        Raises DeniedError for a wrong one, NoTokenError for "", WaitError while too many wrong ones came from there.
        """
        self._guesses.check(peer)
        if not token:
            raise NoTokenError
        found = self._find(token)
        if found is None:
            self._guesses.wrong(peer, token)
            raise DeniedError("the token is not known", hint="tokens stand in lockstep.yaml under agent.tokens")
        self._guesses.right(peer)
        return found

    def _find(self, token: str) -> Person | None:
        given, found = _digest(token), None
        for digest, person in self._known:  # all of them, whichever fits: the time taken must not tell
            if hmac.compare_digest(digest, given):
                found = person
        return found


class Guesses:
    """Wrong tokens by peer: after a few, each one doubles the time in which none is looked at. Bounded in memory.

    The same wrong token again is no further guess: a program with an old one must not lock out all behind its proxy.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float, bytes]] = OrderedDict()  # how many, when the last came, which
        self._lock = threading.Lock()

    def check(self, peer: str) -> None:
        """Raise WaitError while the peer has to wait."""
        with self._lock:
            count, last, _ = self._wrong.get(neighbourhood(peer), (0, 0.0, b""))
        left = last + _wait(count) - self._clock()
        if left > 0:
            raise WaitError(left)

    def wrong(self, peer: str, token: str) -> None:
        """Count one."""
        now, peer, which = self._clock(), neighbourhood(peer), _digest(token)[:8]
        with self._lock:
            count, last, before = self._wrong.pop(peer, (0, now, b""))
            if which == before:
                self._wrong[peer] = (count, last, before)
                return
            self._wrong[peer] = (1 if now - last > FORGET else count + 1, now, which)
            if len(self._wrong) > PEERS:
                self._wrong.popitem(last=False)

    def right(self, peer: str) -> None:
        """Forget the peer's wrong ones."""
        with self._lock:
            self._wrong.pop(neighbourhood(peer), None)

    def __len__(self) -> int:
        return len(self._wrong)


def neighbourhood(peer: str) -> str:
    """What counts as one peer: an address, of IPv6 its /64, since whoever has one has all of them."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:  # so a socket that listens on :: calls senders of IPv4
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def _wait(wrong: int) -> float:
    return 0.0 if wrong < FREE else min(2.0 ** (wrong - FREE), LONGEST_WAIT)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
