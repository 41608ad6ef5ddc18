"""Questions about a model's past, answered from the ledger alone: no cloud and no MLflow is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.rules.decision import Candidate, Decision, Sighting, candidates, decide
from lockstep.rules.deeds import Deed, read_deeds
from lockstep.rules.history import History, Interval, read_history
from lockstep.rules.moments import show_moment
from lockstep.stores.ledger import Entry

ALL: Final = 2**62  # entries: as many as there are
#: Requests with this id that the cloud captured between two times (Unix seconds).
CapturedSource = Callable[[float, float, str], Sequence[Sighting]]


@dataclass(frozen=True)
class Serving:
    """What served on one cloud at an instant: the interval, and its versions with their weights."""

    cloud: str
    interval: Interval
    candidates: tuple[Candidate, ...]


def entries_of(fleet: Fleet) -> tuple[Entry, ...]:
    """Every entry of the model; raises NotFoundError without any."""
    found = fleet.ledger.entries(fleet.model, last=ALL)
    if not found:
        raise NotFoundError(
            f"the ledger holds no entry of {fleet.model}",
            hint=f"it begins with a registration: lockstep register {fleet.model} SOURCE",
        )
    return found


def history_of(fleet: Fleet) -> History:
    """The model's history."""
    return read_history(entries_of(fleet))


def log(
    fleet: Fleet, *, cloud: str = "", since: float | None = None, until: float | None = None, last: int | None = None
) -> tuple[Deed, ...]:
    """The newest `last` operations, newest first, that touched the cloud and began between the times."""
    if cloud:
        fleet.cloud(cloud)  # a name that is misspelt is told
    found = [
        deed
        for deed in read_deeds(entries_of(fleet))
        if (not cloud or cloud in deed.clouds)
        and (since is None or deed.began >= since or (deed.ended or 0.0) >= since)
        and (until is None or deed.began <= until)
    ]
    return tuple(reversed(found))[:last]


def at(fleet: Fleet, moment: float) -> tuple[Serving, ...]:
    """What served at the instant on every cloud that the ledger tells of."""
    _refuse_future(moment)
    history = history_of(fleet)
    found = []
    for cloud in history.intervals:
        interval = history.at(cloud, moment)
        found.append(Serving(cloud, interval, candidates(history, interval)))
    if not found:
        raise NotFoundError(
            f"the ledger tells of no traffic of {fleet.model}", hint=f"deploy it: lockstep deploy {fleet.model} VERSION"
        )
    return tuple(found)


def decision(
    fleet: Fleet,
    cloud: str,
    *,
    moment: float | None = None,
    request_id: str = "",
    captured: CapturedSource | None = None,
) -> Decision:
    """The sealed version(s) that can have answered a request on `cloud`, by its id, its time, or both.

    `captured` looks requests up in what the cloud captured; with one, a time is not needed. Raises RefusedError when
    neither can tell when the request was, NotFoundError when the ledger does not reach back so far.
    """
    fleet.cloud(cloud)
    history = history_of(fleet)
    if moment is not None:
        _refuse_future(moment)
    sighting = None
    if request_id and captured is not None:
        sighting = _sighted(captured, history, moment, request_id)
    if sighting is not None:
        return decide(fleet.model, history, cloud, sighting.at, sighting)
    if moment is None:
        kept = "no captured request has this id there" if captured is not None else "it keeps no captured requests"
        raise RefusedError(
            f"{cloud}: nothing tells when the request {request_id!r} was: {kept}"
            if request_id
            else "a decision is found by its time or by its request's id",
            hint=f"name the time: lockstep decision {fleet.model} --cloud {cloud} --time {show_moment(time.time())}",
        )
    return decide(fleet.model, history, cloud, moment, request_id=request_id)


def _sighted(captured: CapturedSource, history: History, moment: float | None, request_id: str) -> Sighting | None:
    """The captured request nearest to the time, if one was given."""
    since, until = (history.began, time.time()) if moment is None else (moment - 3600.0, moment + 3600.0)
    found = [one for one in captured(since, until, request_id) if one.request_id == request_id]
    return min(found, key=lambda one: abs(one.at - (moment or one.at)), default=None)


def _refuse_future(moment: float) -> None:
    if moment > time.time():
        raise RefusedError(
            f"{show_moment(moment)} has not come yet", hint="name a time that has passed, or how long ago: 3h"
        )
