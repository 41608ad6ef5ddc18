"""One writer a model: whatever changes what serves does it inside of `writing`, under a lease with a fence.

A holder that does not live any longer is found out by its beats, see `rules/lease.py`. Clouds know nothing of fences,
so a call that was on its way when the lease was lost may still land: no check before it can prevent that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NoReturn

from lockstep.errors import BusyError, LockstepError, OvertakenError
from lockstep.operations.fencing import current, inside
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import refusals
from lockstep.rules.deeds import named, text
from lockstep.rules.lease import BEAT, Claim, Lease, Life, Sight, Standing, claim, life, standing, watch
from lockstep.rules.state import Version
from lockstep.stores.leases import Leases
from lockstep.stores.processes import is_gone, this_process

LOOK: Final = 0.2  # seconds between two looks at a lease that somebody else holds
ENDS: Final = 5.0  # seconds to wait for the thread that beats: longer than its one statement takes


class Writer:
    """The writer of one model; made by `writing`, and used by one operation.

    `first` is the urgent operation that this one waited for, None if there was none: its outcome is in the ledger.
    """

    def __init__(self, fleet: Fleet, operation: str, version: Version | None, *, urgent: bool) -> None:
        self.model = fleet.model
        self.first: Lease | None = None
        self._fleet = fleet
        self._operation = operation
        self._version = version
        self._urgent = urgent
        self._leases = Leases(fleet.ledger.database)
        self._lock = threading.Lock()
        self._ours: Lease | None = None
        self._lost: Lease | None = None
        self._without = ""
        self._told = ""
        self._stop = threading.Event()
        self._overtaken = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def fence(self) -> int:
        """Number of this taking; 0 without a lease."""
        return 0 if self._ours is None else self._ours.fence

    @property
    def lost(self) -> Lease | None:
        """The lease of whoever overtook this writer, as far as a check or a beat has found out."""
        return self._lost

    @property
    def intent(self) -> Mapping[str, object]:
        """What an intent says of the lease: its fence, or that there is none and why."""
        return {"fence": self._ours.fence} if self._ours else {"lease": "none", "lease_because": self._without}

    # -- taking ----------------------------------------------------------------------------------------------------

    def enter(self, patience: float) -> None:
        """Take the lease, unless it is another's that lives: then wait, leave it to `take`, or raise BusyError."""
        self._acquire(patience, push=False)

    def take(self, version: Version | None = None) -> bool:
        """Hold the lease from here on, taking it from whoever writes; `version` is what the operation is about.

        True when somebody else wrote until now: what was looked at before may have changed. To be called when it is
        certain that the operation is possible, so that one that is refused stops nobody.
        """
        with self._lock:
            if version is not None:
                self._version = version
                if self._ours is not None:  # the next beat carries it
                    self._ours = replace(self._ours, version=version.label, digest=version.digest)
            if self._ours is not None or self._without:
                return False
        self._acquire(0.0, push=True)
        return True

    def _acquire(self, patience: float, *, push: bool) -> None:
        began = time.monotonic()
        sight: Sight | None = None
        seen: Sight | None = None
        while True:
            try:
                present = self._leases.read(self.model)
                now = time.monotonic()
                sight = None if present is None else watch(sight, present, now)
                gone = present is not None and is_gone(present.process)
                holder = Life.DEAD if sight is None else life(sight, now, gone=gone)
                wanted = claim(present, holder, urgent=self._urgent)
                if wanted is Claim.TAKE:
                    lives = present is not None and bool(present.holder) and holder is not Life.DEAD
                    if lives and not push:
                        return  # not yet: see `take`
                    if self._take(present, holder):
                        return
                    continue
            except LockstepError as error:
                if not self._urgent:
                    raise
                self._without = error.problem
                self._fleet.warn(f"no lease can be taken, going on without one: {error.problem}")
                return
            assert present is not None
            if wanted is Claim.JOIN:
                self.first = self.first or present
                if sight != seen:  # it beats; where it goes, and who asked for it, is known only after a while
                    seen = sight
                    self._say(
                        f"waiting for the {described(self._fleet, present)}; should it hang, stop that process and "
                        "this one takes over"
                    )
            elif wanted is Claim.REFUSE and now - began >= patience:
                self._refuse(present)
            self._stop.wait(LOOK)

    def _refuse(self, present: Lease) -> NoReturn:
        with refusals(self._fleet, self._operation, self._version):
            raise BusyError(
                f"{self.model} is being changed by the {described(self._fleet, present)}",
                hint=f"nothing was changed; `lockstep status {self.model}` shows when it has ended, then try again. "
                f"If it must be stopped: lockstep rollback {self.model}",
            )

    def _take(self, present: Lease | None, holder: Life) -> bool:
        version, digest = (self._version.label, self._version.digest) if self._version else ("", "")
        taken = self._leases.take(
            present, self.model, self._operation, urgent=self._urgent, version=version, digest=digest
        )
        if taken is None:
            return False
        if present is not None and present.holder:
            what = "which shows no life any more" if holder is Life.DEAD else "which stops"
            self._fleet.say(f"taking {self.model} from the {described(self._fleet, present)}, {what}")
        self._ours = taken
        self._thread = threading.Thread(target=self._beat, name=f"lease of {self.model}", daemon=True)
        self._thread.start()
        return True

    # -- holding ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise OvertakenError when another operation has taken the lease; a database that is silent tells nothing."""
        if self._without:
            return
        if self._ours is None:
            self.take()
        with self._lock:
            self._look()
            lost = self._lost
        if lost is not None:
            raise overtaken(self._fleet, self._operation, lost)

    def wait(self, seconds: float) -> None:
        """Return after so long, or about a second after another operation has taken the lease."""
        self._overtaken.wait(seconds)

    def _look(self) -> None:
        """Compare with what stands there; the caller holds the lock."""
        if self._lost is not None or self._ours is None:
            return
        try:
            present = self._leases.read(self.model)
            found = standing(present, self._ours)
            if found is Standing.PUT_BACK and self._leases.put_back(self._ours, present):
                self._say("the lease was gone from the ledger's database, which is another than it was: put back")
        except LockstepError as error:
            self._say(f"whether another operation has taken over cannot be told: {error.problem}")
            return
        if found is Standing.LOST:
            self._lost = present
            self._overtaken.set()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with self._lock:
                if self._ours is None or self._lost is not None:
                    return
                try:
                    later = self._leases.beat(self._ours)
                except LockstepError as error:
                    self._say(f"the lease cannot be renewed: {error.problem}")
                    continue
                if later is None:
                    self._look()
                else:
                    self._ours = later

    def leave(self) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ENDS)
        if self._ours is None or self._lost is not None:
            return
        try:
            self._leases.release(self._ours)
        except LockstepError as error:
            self._fleet.say(f"the lease was not given back, others wait some seconds for it: {error.problem}")

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._fleet.warn(text)


@contextmanager
def writing(
    fleet: Fleet, operation: str, version: Version | None = None, *, urgent: bool = False, patience: float = 0.0
) -> Iterator[Writer]:
    """Be the model's one writer in the block; within another block of the same thread of control, its writer.

    Raises BusyError while somebody else writes and lives, after `patience` seconds. An urgent operation never does: it
    waits for the end of another urgent one (`Writer.first`), and takes the lease from anything else in `Writer.take`,
    at the latest at its first change. A database that cannot be written keeps an urgent operation from nothing, and is
    an error (LockstepError) for all others.
    """
    outer = current(fleet.model)
    if isinstance(outer, Writer):
        yield outer
        return
    writer = Writer(fleet, operation, version, urgent=urgent)
    try:
        writer.enter(patience)
        with inside(writer):
            yield writer
    finally:
        writer.leave()


@dataclass(frozen=True)
class Holder:
    """Who writes a model now; `told` is a phrase for people, `fence` is what its entries in the ledger name.

    `runs` says that its process is there, as far as this machine can know; `gone`, that it is not.
    """

    fence: int
    told: str
    runs: bool
    gone: bool = False


def holder(fleet: Fleet) -> Holder | None:
    """Who holds the model's lease; None for nobody, and when that cannot be told."""
    try:
        lease = Leases(fleet.ledger.database).read(fleet.model)
    except LockstepError:
        return None
    if lease is None or not lease.holder:
        return None
    gone, here = is_gone(lease.process), lease.process.host == this_process().host
    return Holder(lease.fence, described(fleet, lease), here and not gone, gone)


def live_holder(fleet: Fleet) -> str:
    """The live operation that holds the model as a phrase, "" for none; takes seconds where its life must be watched.

    Raises LockstepError when the database of leases cannot be asked.
    """
    leases = Leases(fleet.ledger.database)
    sight: Sight | None = None
    while True:
        present = leases.read(fleet.model)
        if present is None or not present.holder:
            return ""
        now = time.monotonic()
        sight = watch(sight, present, now)
        found = life(sight, now, gone=is_gone(present.process))
        if found is not Life.UNKNOWN:
            return "" if found is Life.DEAD else f"it is being changed by the {described(fleet, present)}"
        time.sleep(LOOK)  # a beat is a row in a database, which tells nobody


def overtaken(fleet: Fleet, operation: str, by: Lease) -> OvertakenError:
    """The error of an operation that another one has taken the model from."""
    return OvertakenError(
        f"the {operation} of {fleet.model} was overtaken by the {described(fleet, by)}, and stops here",
        hint=f"see `lockstep status {fleet.model}`; run it again when that is settled",
    )


def described(fleet: Fleet, lease: Lease) -> str:
    """An operation that holds or held a lease, for people: what, of which version, by whom, where, since when, why."""
    what = named(lease.operation, lease.version)
    actor, reason = _asked(fleet, lease)
    where = f"process {lease.process.pid} on {lease.process.host}, " if lease.holder else ""
    since = f"{datetime.fromtimestamp(lease.since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    why = f"; reason: {reason}" if reason else ""
    return f"{what}{f' by {actor}' if actor else ''} ({where}since {since}{why})"


def _asked(fleet: Fleet, lease: Lease) -> tuple[str, str]:
    """Who asked for it and why, by the ledger, which alone knows; empty before its intent is there."""
    try:
        entries = fleet.ledger.entries(lease.model, f"{lease.operation}.intent", last=10)
    except LockstepError:
        return "", ""
    found = next((entry for entry in reversed(entries) if entry.body.get("fence") == lease.fence), None)
    return ("", "") if found is None else (found.actor, text(found.body, "reason"))
