"""Walk a switch: do what `rules/switch.py` says comes next, and tell it what came of it, until it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from lockstep.errors import LockstepError, OvertakenError
from lockstep.rules.switch import (
    Announce,
    Began,
    Close,
    Commit,
    Committed,
    Ended,
    Flip,
    Place,
    Prepare,
    Switch,
    TakeBack,
    Wait,
    Work,
    after,
    next_step,
)

Tell = Callable[[Ended], None]
#: What a cloud is at while a step's work is under way there.
PLACES: Final = {Prepare: Place.PREPARING, Flip: Place.FLIPPING, TakeBack: Place.TAKING_BACK}


@dataclass(frozen=True)
class Hands:
    """What carries the steps out. Those with clouds tell what came of each cloud as soon as it is known there.

    An error of theirs is the reason of every cloud that was not told of yet; OvertakenError ends the walk.
    """

    commit: Callable[[], None]
    prepare: Callable[[tuple[str, ...], Tell], None]
    flip: Callable[[tuple[str, ...], Tell], None]
    take_back: Callable[[tuple[str, ...], Tell], None]

    def do(self, work: Work, tell: Tell) -> None:
        """One step's work on its clouds."""
        match work:
            case Prepare(clouds):
                self.prepare(clouds, tell)
            case Flip(clouds):
                self.flip(clouds, tell)
            case TakeBack(clouds):
                self.take_back(clouds, tell)


def walk(switch: Switch, hands: Hands) -> Switch:
    """Carry an announced switch to its end, and return it there; what one cloud is at holds no other up.

    Raises what `hands` raise for the decision, once nothing is under way any more.
    """
    told: SimpleQueue[Ended | BaseException] = SimpleQueue()
    threads: list[threading.Thread] = []
    try:
        while True:
            step = next_step(switch)
            match step:
                case Close() | Announce():
                    break
                case Commit():
                    hands.commit()
                    switch = after(switch, Committed())
                case Wait():
                    heard = told.get()
                    if isinstance(heard, BaseException):
                        raise heard
                    switch = after(switch, heard)
                case Prepare() | Flip() | TakeBack():
                    switch = after(switch, Began(step))
                    if switch.at(Place.PREPARING):  # what gets ready there must not wait for this step's end
                        thread = threading.Thread(target=copy_context().run, args=(_do, step, hands, told))
                        threads.append(thread)
                        thread.start()
                    else:
                        _do(step, hands, told)
    finally:
        for thread in threads:
            thread.join()
    while not told.empty():  # told of every cloud, and then failed
        heard = told.get()
        if isinstance(heard, BaseException):
            raise heard
    return switch


def _do(work: Work, hands: Hands, told: SimpleQueue[Ended | BaseException]) -> None:
    of, silent = PLACES[type(work)], "nothing was heard of what came of it"
    try:
        hands.do(work, told.put)
    except OvertakenError as error:
        told.put(error)
    except LockstepError as error:
        silent = error.reason
    except BaseException as error:
        told.put(error)
    for cloud in work.clouds:
        told.put(Ended(cloud, of, reason=silent))  # counts for those alone that were not told of
