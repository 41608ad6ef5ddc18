"""Questions about a model's past, answered from the ledger alone: no cloud and no MLflow is asked."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, NotFoundError, ProofError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.rules.decision import Candidate, Decision, Sighting, candidates, decide
from lockstep.rules.deeds import Deed, read_deeds
from lockstep.rules.history import History, Interval, read_history
from lockstep.rules.moments import show_moment
from lockstep.stores.ledger import Entry

ALL: Final = 2**62  # entries: as many as there are
#: Seconds around a given time in which a captured request is looked for: clocks differ, and people remember hours.
AROUND: Final = 3600.0
#: Requests with this id that the cloud captured between two times (Unix seconds); None where it captures nothing.
CapturedSource = Callable[[float, float, str], Sequence[Sighting] | None]


@dataclass(frozen=True)
class Serving:
    """What served on one cloud at an instant: the interval, and its versions with their weights."""

    cloud: str
    interval: Interval
    candidates: tuple[Candidate, ...]


def entries_of(fleet: Fleet) -> tuple[Entry, ...]:
    """Every entry of the model, those that nobody vouches for as well.

    Raises NotFoundError without any, ProofError when the ledger has lost them.
    """
    found = fleet.ledger.entries(fleet.model, last=ALL, unvouched=True)
    if not found:
        if lost := fleet.ledger.contradictions():
            raise ProofError(
                f"the ledger holds no entry of {fleet.model}, but it has lost entries: {'; '.join(lost)}",
                hint="run `lockstep ledger verify`, and put the database back from a backup before anything is written",
            )
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

    What the cloud captured (`captured`, else the cloud itself) needs no time and outweighs the ledger's intervals;
    where it cannot be looked through, the answer by the time says so. Raises RefusedError when neither can tell when
    the request was, NotFoundError when the ledger does not reach back so far.
    """
    source = captured or captured_by(fleet.cloud(cloud), fleet.model)
    history = history_of(fleet)
    if moment is not None:
        _refuse_future(moment)
    sighting, without = None, ""
    if request_id:
        try:
            sighting, without = _sighted(source, history, moment, request_id)
            ids = fleet.cloud(cloud).captured_ids()
            without += f"; {ids}" if without and ids else ""
        except LockstepError as error:
            if moment is None:
                raise
            without = f"what {cloud} captured could not be looked through: {error.reason}"
    if sighting is not None:
        return decide(fleet.model, history, cloud, sighting.at, sighting)
    if moment is None:
        raise RefusedError(
            f"{cloud}: nothing tells when the request {request_id!r} was: {without}"
            if request_id
            else "a decision is found by its time or by its request's id",
            hint=f"name the time at which it was answered: lockstep decision {fleet.model} --cloud {cloud}"
            f"{f' --request-id {shlex.quote(request_id)}' if request_id else ''} --time TIME, such as "
            f"2026-11-22T16:40:02Z, or 3h for three hours ago",
        )
    found = decide(fleet.model, history, cloud, moment, request_id=request_id)
    return replace(found, notes=(*found.notes, without)) if without else found


def captured_by(cloud: Cloud, model: str) -> CapturedSource:
    """What a cloud captured of a model's requests, as decisions ask for it."""

    def look(since: float, until: float, request_id: str) -> tuple[Sighting, ...] | None:
        begin, end = (datetime.fromtimestamp(moment, UTC) for moment in (since, until))
        found = cloud.captured(model, request_id, begin, end)
        if found is None:
            return None
        return tuple(Sighting(one.at.timestamp(), one.request_id, one.slot, source=one.source) for one in found)

    return look


def _sighted(
    captured: CapturedSource, history: History, moment: float | None, request_id: str
) -> tuple[Sighting | None, str]:
    """The captured request, the nearest to the time if one was given; else why there is none."""
    since, until = (history.began, time.time()) if moment is None else (moment - AROUND, moment + AROUND)
    found = captured(since, until, request_id)
    if found is None:
        return None, "it captures no requests"
    named = [one for one in found if one.request_id == request_id]
    chosen = min(named, key=lambda one: abs(one.at - (moment or one.at)), default=None)
    return chosen, "" if chosen else "no captured request has this id (captures come minutes late, or as a sample)"


def _refuse_future(moment: float) -> None:
    if moment > time.time():
        raise RefusedError(
            f"{show_moment(moment)} has not come yet", hint="name a time that has passed, or how long ago: 3h"
        )
