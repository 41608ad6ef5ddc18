"""Walk a switch: do what `rules/switch.py` says comes next, and tell it what came of it, until it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from lockstep.errors import LockstepError, OvertakenError
from lockstep.operations.trying import LETTING_GO, left_behind
from lockstep.rules.switch import (
    Announce,
    Began,
    Close,
    Commit,
    Committed,
    Ended,
    Flip,
    GivenUp,
    Kind,
    Place,
    Prepare,
    Step,
    Switch,
    TakeBack,
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

    An error of theirs is the reason of every cloud that was not told of yet; OvertakenError ends the walk. `trouble`
    hears of what a step raised before anything follows from it.
    """

    commit: Callable[[], None]
    prepare: Callable[[tuple[str, ...], Tell], None]
    flip: Callable[[tuple[str, ...], Tell], None]
    take_back: Callable[[tuple[str, ...], Tell], None]
    trouble: Callable[[BaseException], None] = lambda error: None

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

    Raises what `hands` raise for the decision of a rollback, and whatever else no cloud is to blame for, once nothing
    is under way any more. A promotion is taken back then, also by a Ctrl-C, unless another operation has overtaken it.
    What a rollback has under way when it is interrupted is left behind: it goes the same way as whatever comes next.
    """
    told: SimpleQueue[Ended | BaseException] = SimpleQueue()
    threads: list[threading.Thread] = []
    patience: float | None = None
    try:
        while True:
            try:
                step = next_step(switch)
                if isinstance(step, Close | Announce):
                    break
                if isinstance(step, Work):
                    switch = after(switch, Began(step))
                switch = _one(switch, step, hands, told, threads)
            except OvertakenError:
                raise
            except BaseException as error:
                given_up = after(switch, GivenUp(_reason(error)))
                if given_up == switch:
                    stop = None if isinstance(error, Exception) else left_behind()
                    if stop is not None:
                        stop.tell()
                        patience = 2 * LETTING_GO  # theirs, and an entry in the ledger
                    raise
                hands.trouble(error)
                switch = given_up
    finally:
        for thread in threads:
            thread.join(patience)
    while not told.empty():  # told of every cloud, and then failed
        heard = told.get()
        if isinstance(heard, BaseException):
            raise heard
    return switch


def _one(
    switch: Switch, step: Step, hands: Hands, told: SimpleQueue[Ended | BaseException], threads: list[threading.Thread]
) -> Switch:
    """The switch after one step's work was done or begun, or after something was heard."""
    match step:
        case Commit():
            hands.commit()
            return after(switch, Committed())
        case Prepare() | Flip() | TakeBack():
            # What gets ready there must not wait for this step's end; of a promotion all clouds wait for each other.
            if switch.kind is Kind.ROLLBACK and switch.at(Place.PREPARING):
                thread = threading.Thread(target=copy_context().run, args=(_do_beside, step, hands, told), daemon=True)
                threads.append(thread)
                thread.start()
            else:
                _do(step, hands, told.put)
            return switch
        case _:
            heard = told.get()
            if isinstance(heard, BaseException):
                raise heard
            return after(switch, heard)


def _do_beside(work: Work, hands: Hands, told: SimpleQueue[Ended | BaseException]) -> None:
    try:
        _do(work, hands, told.put)
    except BaseException as error:
        told.put(error)


def _do(work: Work, hands: Hands, tell: Tell) -> None:
    of, silent = PLACES[type(work)], "nothing was heard of what came of it"
    try:
        hands.do(work, tell)
    except OvertakenError:
        raise
    except LockstepError as error:
        hands.trouble(error)
        silent = error.reason
    for cloud in work.clouds:
        tell(Ended(cloud, of, reason=silent))  # counts for those alone that were not told of


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, LockstepError) else f"{type(error).__name__}: {error}"
