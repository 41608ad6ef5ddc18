"""What should serve, as a rollback knows and decides it: from MLflow, and into MLflow, as long as that answers.

MLflow gets a few seconds. When it is silent the last known record and the ledger stand in for it, and what it should
have been told is owed: written into the ledger at once, before anything follows from it, and to MLflow later.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lockstep.errors import LockstepError, OvertakenError, UnreachableError
from lockstep.operations.fencing import check
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.operations.owed import settle, write
from lockstep.operations.remembering import (
    earned_only,
    newest_entry,
    owed_if_known,
    recall,
    remember,
    still_condemned,
)
from lockstep.rules.known_good import fallback_after_rollback
from lockstep.rules.owed import Debt, OwedAlias, OwedTag, amended, as_body
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, ModelRecord, Version
from lockstep.rules.target import Way
from lockstep.stores.silent import SilentRegistry

T = TypeVar("T")


class Known:
    """What one rollback knows: the record as it stands after all that was decided so far.

    `silent` says why MLflow is not asked, or not any more, "" while it answers; `owed` is what this rollback could not
    tell it; `condemned` are reasons by digest of what it left. `doubts` says what of MLflow is not believed.
    """

    def __init__(
        self, record: ModelRecord, silent: str = "", before: Sequence[Debt] = (), doubts: Sequence[str] = ()
    ) -> None:
        self.record = record
        self.silent = silent
        self.owed: list[Debt] = []
        self.condemned: dict[str, str] = {}
        self.doubts = tuple(doubts)
        self._before = tuple(before)

    @property
    def indebted(self) -> bool:
        """Whether MLflow was owed something before."""
        return bool(self._before)

    @property
    def outcome(self) -> Mapping[str, object]:
        """For the ledger's outcome: whom it condemned, the fallback from now on, what MLflow is owed and why."""
        fallback = self.record.desired.fallback
        owed = {"owed": [as_body(debt) for debt in self.owed], "mlflow": self.silent} if self.owed else {}
        return {"condemned": self.condemned, "fallback": fallback.digest if fallback else None, **owed}


def read_known(fleet: Fleet) -> Known:
    """What a rollback decides by: MLflow's record, or without an answer in time what was last known.

    Raises MLflow's error when nothing was known either.
    """
    upto = newest_entry(fleet)
    try:
        fleet.registry.load()
        record = within(fleet, lambda: fleet.registry.record(fleet.model))
    except LockstepError as error:
        record = recall(fleet)
        champion = record.desired.champion
        if champion is None:
            raise
        fleet.warn(f"MLflow cannot be asked; as was last known, {champion} should serve: {error.problem}")
        record, doubts = earned_only(fleet, record)
        return Known(record, error.problem, doubts=doubts)
    debts = owed_if_known(fleet)
    record = amended(record, debts)
    remember(fleet, record, upto)
    record, doubts = earned_only(fleet, still_condemned(fleet, record))
    return Known(record, before=debts, doubts=doubts)


def without_mlflow(fleet: Fleet, known: Known) -> Fleet:
    """The fleet whose MLflow is not asked again, if it was silent: everything that only would have liked to goes on."""
    return replace(fleet, registry=SilentRegistry(fleet.registry, known.silent)) if known.silent else fleet


def commit(fleet: Fleet, known: Known, target: Version) -> None:
    """From here on the target should serve everywhere: MLflow says so, or the ledger does until MLflow can."""
    tell(fleet, known, [OwedAlias(CHAMPION, target), OwedAlias(CHALLENGER, None)])


def condemn_left(fleet: Fleet, known: Known, left: Sequence[Version], reason: str) -> None:
    """After the traffic: a note that cannot be written must not keep a bad version serving."""
    why = f"rolled back from: {reason or 'no reason given'}"
    known.condemned.update({version.digest: why for version in left})
    tell(fleet, known, [OwedTag(version, CONDEMNED_TAG, why) for version in left])


def next_fallback(fleet: Fleet, known: Known, way: Way) -> None:
    """Point the fallback at the next known-good version. Only once the target serves everywhere.

    What serves is no way back from itself; but until it does, the alias says where to go.
    """
    fallback = fallback_after_rollback(known.record, way.target, way.left)
    # What is not asked, or was owed something, may still say otherwise; and this outcome ends the debts before it.
    if known.silent or known.indebted or fallback != known.record.desired.fallback:
        tell(fleet, known, [OwedAlias(FALLBACK, fallback)])
    if known.indebted and not known.silent:
        try:
            settle(fleet)
        except LockstepError as error:
            fleet.say(f"what MLflow was owed before is still owed: {error.problem}")


def tell(fleet: Fleet, known: Known, debts: Sequence[Debt]) -> None:
    """Write to MLflow; what it does not take in time is owed.

    Raises OvertakenError when another operation writes now.
    """
    if not debts:
        return
    check(fleet.model)
    left = list(debts)

    def write_all() -> None:
        while left:
            write(fleet, left[0])
            left.pop(0)

    if not known.silent:
        try:
            within(fleet, write_all)
        except OvertakenError:
            raise
        except LockstepError as error:
            known.silent = error.problem
    known.record = amended(known.record, debts)
    unpaid = list(left)  # a call that was given up may still end
    if unpaid:
        known.owed += unpaid
        note(fleet, "mlflow.owed", {"owed": [as_body(debt) for debt in unpaid], "because": known.silent})
        fleet.say(f"MLflow will be told later ({'; '.join(map(str, unpaid))}): {known.silent}")
    remember(fleet, known.record, newest_entry(fleet))


def within(fleet: Fleet, call: Callable[[], T]) -> T:
    """What `call` gives in the time that a rollback gives MLflow; raises UnreachableError after it.

    In a thread of its own, which is given up then: no client's limits hold against a server that dribbles, or a name
    that is not resolved.
    """
    answers: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answers.put(context.run(call))
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=run, name=f"MLflow for {fleet.model}", daemon=True).start()
    try:
        answer = answers.get(timeout=fleet.mlflow_patience)
    except queue.Empty:
        raise UnreachableError(
            f"no answer from MLflow at {fleet.registry.address} within {fleet.mlflow_patience:g} s",
            hint="look whether it is up; mlflow.rollback_timeout in lockstep.yaml is what a rollback waits for it",
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer
