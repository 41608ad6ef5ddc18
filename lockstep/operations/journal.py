"""Every change is announced to the ledger before it begins and closed with what came of it.

An operation leaves `<operation>.intent` and `<operation>.outcome`; one that was refused before it began leaves
`<operation>.refused`. Entries of steps inside an operation (each shift of traffic, each verdict) name it in `within`.
When an operation has ended the clouds' copies of the ledger are brought up to it, after its result was told.

An operation whose intent cannot be written is refused before it changes anything. Not so what takes a bad version away,
and nothing that has begun: there the entry waits in the ledger's spool, and the work goes on.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Final

from lockstep.errors import LockstepError, OvertakenError
from lockstep.operations.copies import copy_ledger
from lockstep.operations.fencing import announced, fence
from lockstep.operations.fleet import Fleet
from lockstep.operations.lastly import lastly
from lockstep.rules.manifest import Manifest
from lockstep.rules.state import FleetState, Version
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.ledger import Entry
from lockstep.stores.processes import marked

UNCHANGED: Final = "nothing was changed"
COPY_SECONDS: Final = 5.0  # that an operation's end waits for the copies
#: Operations that go on without the ledger: what restores service waits for no disk.
GOES_ON: Final = ("rollback", "monitor")
#: Operations that whoever takes over goes on with, under the same event: the outcome is his.
GONE_ON_WITH: Final = ("rollback",)
#: Operations that an interrupt leaves open: `status` shows them, and whoever comes next goes on.
LEFT_OPEN: Final = ("rollback", "monitor", "reconcile")
#: Event of the operation that this thread of control is inside of, empty outside of any.
_WITHIN: Final[ContextVar[str]] = ContextVar("lockstep_within", default="")


@contextlib.contextmanager
def record(
    fleet: Fleet, operation: str, version: Version | None, begun: str = "", /, **intent: object
) -> Iterator[dict[str, object]]:
    """Write the intent, run the block, write the outcome: what the block put into the dictionary, and any error.

    `begun` is the event of an operation that was killed and goes on: its intent stands, its outcome is still missing.

    A process that is killed in the block leaves an intent without an outcome, which `lockstep status` shows; so does a
    rollback or a reconcile that is interrupted, which goes on where the next one begins. Raises LockstepError, without
    running the block, when the intent of an operation that can wait cannot be written, and
    OvertakenError when another operation has taken the lease that this one works under.
    """
    event = begun or str(uuid.uuid4())
    subject = {**_subject(version), **_outer()}
    via: dict[str, object] = {"via": fleet.via} if fleet.via else {}
    if fleet.alert and not _WITHIN.get():
        via["alert"] = dict(fleet.alert)
    if (process := marked()) and not _WITHIN.get():
        via["process"] = process  # by which others know whether it still runs
    waits = operation not in GOES_ON and not _WITHIN.get()
    body = {**subject, **via, **announced(fleet.model), **intent}
    _append(fleet, f"{event}/intent", f"{operation}.intent", body, refuse=waits, spool=not waits)
    outcome: dict[str, object] = {}
    error = ""
    taken_over = left_open = False
    before = _WITHIN.set(event)
    try:
        yield outcome
    except LockstepError as failure:
        error = str(failure)
        taken_over = isinstance(failure, OvertakenError) and operation in GONE_ON_WITH
        raise
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    except BaseException as interrupt:  # Ctrl-C, or a process that is told to end
        error = f"interrupted ({type(interrupt).__name__})"
        left_open = operation in LEFT_OPEN
        raise
    finally:
        _WITHIN.reset(before)
        if not left_open:
            result = {**subject, **outcome, **fence(fleet.model), "intent": event, "error": error}
            if taken_over:
                entry = note(fleet, "overtaken.outcome", {**subject, "overtaken": event, "error": error})
            else:
                entry = _append(fleet, f"{event}/outcome", f"{operation}.outcome", result)
            # Not within another operation, where the next step may be urgent; and not of what waits in the spool.
            if not _WITHIN.get() and entry.number >= 0:
                about = fleet.ledger.database.name, tuple(cloud.name for cloud in fleet.clouds)
                lastly(about, partial(keep_copies, fleet))


@contextlib.contextmanager
def refusals(fleet: Fleet, operation: str, version: Version | None, **asked: object) -> Iterator[None]:
    """Write `<operation>.refused` with the reason when the block, which only looks, says that it may not begin.

    Whatever it says, it says as well that nothing was changed.
    """
    try:
        yield
    except LockstepError as refusal:
        if UNCHANGED not in str(refusal) and UNCHANGED not in refusal.hint:
            refusal.hint = f"{UNCHANGED}; {refusal.hint}" if refusal.hint else UNCHANGED
        body = {**_subject(version), **_outer(), **asked, "refused": str(refusal), "hint": refusal.hint}
        note(fleet, f"{operation}.refused", body)
        raise


def note(fleet: Fleet, kind: str, body: Mapping[str, object], event_id: str = "", *, must_count: bool = False) -> Entry:
    """One entry by itself, of something that has no beginning and end: a verdict, a refusal.

    Its number is below 0 while the ledger cannot be written. With an `event_id` it is written once only. Raises
    LockstepError only for one that `must_count` and would not: nothing holds it, or it would wait unsigned.
    """
    body = {**_outer(), **body}
    spool = not must_count or fleet.ledger.vouches
    return _append(fleet, event_id or str(uuid.uuid4()), kind, body, refuse=must_count, spool=spool)


def keep_copies(fleet: Fleet) -> None:
    """Bring the clouds' copies up to the ledger; what could not be copied now is told, and caught up next time."""
    try:
        if fleet.ledger.checkpoint() is None:
            return
        reports = copy_ledger(fleet.clouds, fleet.ledger, fleet.retention, COPY_SECONDS)
    except Exception as error:  # whatever it is, it may not turn an operation that was done into one that failed
        fleet.say(f"the ledger was not copied: {error}")
        return
    for report in reports:
        if report.error is not None:
            fleet.say(f"the ledger was not copied: {report.error.reason}", report.cloud)


def traffic(state: FleetState) -> Mapping[str, object]:
    """A fleet's traffic by cloud, for the ledger."""
    clouds: dict[str, object] = {
        cloud.cloud: {slot.name: slot.weight for slot in cloud.slots} for cloud in state.clouds
    }
    return {**clouds, **{cloud: f"unreachable: {reason}" for cloud, reason in state.unreachable.items()}}


def weights(split: TrafficSplit | None) -> Mapping[str, int] | None:
    """A split by slot, for the ledger; None where nothing takes traffic, as far as is known."""
    return None if split is None else dict(split.weights)


def slots(*versions: Version, state: FleetState | None = None) -> Mapping[str, Mapping[str, str]]:
    """Label and digest of slots by their names: those of `versions`, and those that a fleet reports."""
    seen = {} if state is None else {slot.name: slot for cloud in state.clouds for slot in cloud.slots if slot.digest}
    return {
        **{name: {"version": slot.label, "digest": slot.digest} for name, slot in sorted(seen.items())},
        **{version.slot: _subject(version) for version in versions},
    }


def sealed(version: Version, manifest: Manifest) -> Mapping[str, str]:
    """What the outcome of a registration says: the version, and the digests by which it can be known again."""
    return {**_subject(version), "content": manifest.content, "run_id": version.run_id}


def _append(
    fleet: Fleet, event_id: str, kind: str, body: Mapping[str, object], *, refuse: bool = False, spool: bool = True
) -> Entry:
    """Append, and tell what went wrong; with `refuse` an entry that cannot be written, or kept, is an error."""
    known = len(fleet.ledger.problems)
    try:
        entry = fleet.ledger.append(event_id, kind, fleet.model, fleet.actor, body, spool=spool)
    except LockstepError as error:
        if refuse:
            raise
        fleet.say(f"nothing can hold the entry {kind}: {error.reason}")
        entry = Entry(-1, event_id, time.time(), kind, fleet.model, fleet.actor, body)
    for problem in fleet.ledger.problems[known:]:
        fleet.say(f"ledger: {problem}")
    return entry


def _subject(version: Version | None) -> dict[str, str]:
    return {} if version is None else {"version": version.label, "digest": version.digest}


def _outer() -> dict[str, str]:
    outer = _WITHIN.get()
    return {"within": outer} if outer else {}
