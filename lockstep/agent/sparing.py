"""Lines of the log that strangers cause: each thing is said at once, then how often it came again, ever less often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

SHORTEST: Final = 1.0  # seconds in which a thing that was said is only counted
LONGEST: Final = 60.0  # the same of one that comes all the time; each such interval is twice the one before
THINGS: Final = 16  # of one place that are told apart at the same time
OTHERS: Final = "further reasons, too many to name"
UNKNOWN: Final = "an unknown address"


@dataclass
class _Heard:
    """A thing that was said: how long its interval is, how often it came in it, and from where the last time."""

    seconds: float = SHORTEST
    more: int = 0
    latest: str = ""


def _on_the_loop(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


class Sparing:
    """Says things on one loop of asyncio: who sends a flood must not fill a disk, nor hide what others are told.

    `write` takes a line, `later` calls something after so many seconds. Things of one place beyond THINGS are told of
    together, so that none is kept from being named by what comes to another place.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], None] = _on_the_loop,
    ) -> None:
        self._write = write
        self._later = later
        self._heard: dict[str, dict[str, _Heard]] = {}

    def say(self, place: str, thing: str, peer: str) -> None:
        """Say it, or count it where it was said a moment ago; `peer` is the address that it is about."""
        there = self._heard.setdefault(place, {})
        if thing not in there and len(there) >= THINGS:
            thing = OTHERS
        heard = there.get(thing)
        if heard is None:
            there[thing] = _Heard()
            self._write(f"{place}: {thing} (from {peer or UNKNOWN})")
            self._later(SHORTEST, partial(self._over, place, thing))
            return
        heard.more += 1
        heard.latest = peer

    def _over(self, place: str, thing: str) -> None:
        """The end of an interval: say what was counted in it, and begin one that is longer; forget what is quiet."""
        heard = self._heard[place][thing]
        if not heard.more:
            del self._heard[place][thing]
            if not self._heard[place]:
                del self._heard[place]
            return
        latest = heard.latest or UNKNOWN
        self._write(f"{place}: {thing}: {heard.more} more in the last {heard.seconds:g} s, the latest from {latest}")
        heard.more, heard.seconds = 0, min(2 * heard.seconds, LONGEST)
        self._later(heard.seconds, partial(self._over, place, thing))
