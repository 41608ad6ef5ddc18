"""Carries out what the inbox holds, in the dispatcher's threads: whatever happens ends in the intent's state."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from lockstep.agent import inbox, outbox
from lockstep.agent.carrying import Outcome, fleet_for, roll_back
from lockstep.agent.dispatching import Dispatcher
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Receiver, of_intent
from lockstep.agent.taking import Taking
from lockstep.errors import LockstepError, RetryLaterError
from lockstep.operations.confirm import Confirmation, confirm
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import held_and_released, hold
from lockstep.operations.reasons import made_reason
from lockstep.rules.alerts.deciding import Pace, decide_again, flaps, overtaken
from lockstep.rules.alerts.flapping import Flapping, own_rollbacks
from lockstep.rules.alerts.intent import BY_ALERT, Action, Intent, State

T = TypeVar("T")
LOG: Final = logging.getLogger("lockstep.agent")
AGAIN: Final = (2.0, 10.0, 30.0)  # seconds before what may succeed later is tried again
LONGEST: Final = 2000  # characters of what is told of an intent
URGENT: Final = (State.SPLIT, State.FAILED)


class _InboxError(LockstepError):
    """The inbox could not be written: that says nothing of the deed, and the intent stays open."""


class Workers:
    """`fleets` gives a model's warm fleet. `window` and `patience` are of the look before `rollback-if-confirmed`.

    `ended` is called with the model once an intent has ended, and with whether traffic was moved for it.
    """

    def __init__(
        self,
        database: GroupCommit,
        fleets: Callable[[str], Fleet],
        receivers: Sequence[Receiver],
        pace: Pace,
        *,
        window: float,
        patience: float,
        leading: Callable[[], None],
        ended: Callable[[str, bool], None] = lambda model, moved: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._fleets = fleets
        self._receivers = receivers
        self._pace = pace
        self._window, self._patience = window, patience
        self._ended = ended
        self._clock = clock
        self._lock = threading.Lock()
        self._raised: dict[str, queue.SimpleQueue[Confirmation | LockstepError | None]] = {}
        self._dispatcher = Dispatcher(database, self._carry_out, seen=self._see, leading=leading)
        self._stopped = self._dispatcher.stopped

    def start(self) -> None:
        """Begin, with what was accepted before."""
        self._dispatcher.start()

    def wake(self) -> None:
        """Something may have come."""
        self._dispatcher.wake()

    @property
    def leads(self) -> bool:
        """Whether this process carries out, and not another one on the same inbox."""
        return self._dispatcher.leads

    @property
    def running(self) -> tuple[str, ...]:
        """Models that are worked on."""
        return self._dispatcher.running

    @property
    def alive(self) -> bool:
        """Whether what is accepted is looked at, here or as soon as this process leads."""
        return self._dispatcher.alive

    @property
    def problems(self) -> tuple[str, ...]:
        """Why models' intents stay open, in a sentence each; nothing is told of what a locked inbox holds up."""
        return self._dispatcher.problems

    def stop(self, timeout: float) -> None:
        """Take nothing more up; what runs is waited for, and goes on after the next start if it does not end."""
        self._dispatcher.stop(timeout)

    def _see(self, intent: Intent) -> None:
        """One that is looked at first may have been raised to a rollback meanwhile: the look is not waited for."""
        with self._lock:
            if intent.state is State.CONFIRMING and intent.action is Action.ROLLBACK and intent.id in self._raised:
                self._raised[intent.id].put(None)

    def _carry_out(self, intent: Intent) -> None:
        """Bring the intent to its end; raises LockstepError only when that cannot be kept."""
        try:
            outcome = self._outcome(intent)
        except _InboxError:
            raise
        except Exception as error:  # whatever it is, the intent must not stay open for ever, and somebody must look
            LOG.exception("intent %s", intent.id)
            outcome = Outcome(State.FAILED, f"{type(error).__name__}: {error}", intent.version)
        if outcome is None:  # stopped, or a stronger alert came: it is taken up again as it is then
            return
        self._end(intent, outcome)

    def _outcome(self, intent: Intent) -> Outcome | None:
        begun = intent.state is State.RUNNING  # by a process that was killed
        if intent.action is Action.NOTIFY:
            return Outcome(State.NOTIFIED, intent.told)
        try:
            fleet = self._fleets(intent.model)
        except LockstepError as error:
            return Outcome(State.FAILED, error.reason)
        if intent.action is Action.HOLD:
            if intent.wished is not None and self._decided_again(intent, self._released(fleet)):
                return None
            try:
                hold(
                    fleet_for(fleet, intent),
                    made_reason(intent.reason) or "an alert",
                    f"{intent.id}/hold/{intent.began:.3f}",
                )
            except LockstepError as error:
                return Outcome(State.FAILED, error.reason)
            return Outcome(State.HELD, intent.told or f"no rollout of {intent.model} begins until it is released")
        if intent.action is Action.ROLLBACK_IF_CONFIRMED and not begun:
            found = self._confirmed(fleet, intent)
            if isinstance(found, Outcome):
                return found
        if not begun and (told := self._overtaken(intent)):
            return Outcome(State.FAILED, told, intent.version)
        now = self._change(intent.id, lambda one: replace(one, state=State.RUNNING))
        return self._roll_back(fleet, now, begun=begun) if now is not None else None

    def _confirmed(self, fleet: Fleet, intent: Intent) -> Outcome | None:
        """What ends the intent without a rollback; None when it must be rolled back."""
        answers: queue.SimpleQueue[Confirmation | LockstepError | None] = queue.SimpleQueue()
        with self._lock:
            self._raised[intent.id] = answers
        try:
            now = self._change(intent.id, lambda one: replace(one, state=State.CONFIRMING))
            if now is None or now.action is Action.ROLLBACK:
                return None

            def look() -> None:
                try:
                    answers.put(
                        confirm(
                            fleet_for(fleet, intent),
                            version=intent.version or intent.asked,
                            window=self._window,
                            patience=self._patience,
                        )
                    )
                except LockstepError as error:
                    answers.put(error)
                except Exception as error:
                    answers.put(LockstepError(f"{type(error).__name__}: {error}"))

            threading.Thread(target=look, name=f"confirm: {intent.model}", daemon=True).start()
            try:
                found = answers.get(timeout=3 * self._patience + 10.0)
            except queue.Empty:
                found = LockstepError("the look took too long")
        finally:
            with self._lock:
                del self._raised[intent.id]
        if found is None:
            return None
        if isinstance(found, Confirmation):
            version, bad = found.version.digest, found.confirmed
            told = f"confirmed: {found}" if bad else str(found)
        else:
            told, version, bad = f"it could not be looked at: {found.reason}", intent.version, False
        LOG.info("%s: %s%s", intent.model, "" if bad else "not confirmed: ", told)
        now = self._change(intent.id, lambda one: replace(one, told=told[:LONGEST], version=version))
        if bad or now is None or now.action is Action.ROLLBACK:
            return None
        return Outcome(State.NOT_CONFIRMED, told, version)

    def _roll_back(self, fleet: Fleet, intent: Intent, *, begun: bool) -> Outcome | None:
        for pause in (*AGAIN, None):
            try:
                return roll_back(fleet, intent, begun=begun)
            except RetryLaterError as error:
                if pause is None:
                    return Outcome(State.FAILED, error.reason, intent.version)
                LOG.warning("%s: trying again in %.0f s: %s", intent.model, pause, error.reason)
                if self._stopped.wait(pause):
                    return None
                begun = True
        raise AssertionError("unreachable")

    def _end(self, intent: Intent, outcome: Outcome) -> None:
        flapping = self._flapping(intent, outcome)

        def change(connection: sqlite3.Connection) -> None:
            one = inbox.find_intent(connection, intent.id)
            if one is None or not one.open:
                return
            if one.state is not State.RUNNING and (one.action, one.actor) != (intent.action, intent.actor):
                return  # a stronger alert, or a person, came at the last moment
            now = self._clock()
            looked = one.state is State.RUNNING and one.action is Action.ROLLBACK_IF_CONFIRMED
            told = f"{outcome.told}; {one.told}" if looked and one.told else outcome.told
            held = f"; {flapping}" if flapping else ""
            ended = replace(
                one,
                state=outcome.state,
                told=f"{told[: LONGEST - len(held)]}{held}",
                version=outcome.version or one.version,
                moved=outcome.moved,
                urgent=one.urgent or flapping is not None or outcome.state in URGENT,
                ended=max(now, one.began),
            )
            inbox.put_intent(connection, ended)
            outbox.put(connection, of_intent(ended, now, outcome.fields, flapping), self._receivers)

        self._database.write(change)
        LOG.info("%s: intent %s: %s: %s", intent.model, intent.id, outcome.state.value, outcome.told)
        self._ended(intent.model, outcome.moved)

    def _flapping(self, intent: Intent, outcome: Outcome) -> Flapping | None:
        """Hold the model after so many rollbacks by alerts in a while; None when it is not so."""
        if not outcome.moved:
            return None
        now = self._clock()
        with self._database.reading() as connection:
            past = inbox.past_intents(connection, intent.model, now - self._pace.flapping_window)
            released = inbox.released_at(connection, intent.model)
        intent = next((one for one in past if one.id == intent.id), intent)  # as it is since it was raised
        if not intent.actor.startswith(BY_ALERT):
            return None
        mine = replace(intent, state=outcome.state, version=outcome.version or intent.version, moved=True)
        own = own_rollbacks([mine, *(one for one in past if one.id != intent.id)])
        if mine not in own:  # it only brought a cloud over: the rollback that left that behind was counted
            return None
        others = [one for one in own if one.id != intent.id]
        before = flaps(others, self._pace, now, released)
        if len(before) + 1 < self._pace.flapping_rollbacks:
            return None
        found = Flapping.of(intent.model, len(before) + 1, self._pace.flapping_window)
        try:
            fleet = self._fleets(intent.model)
            if len(flaps(others, self._pace, now, self._released(fleet))) + 1 < self._pace.flapping_rollbacks:
                return None
            hold(fleet_for(fleet, intent), found.told, f"{intent.id}/flapping")
        except LockstepError as error:
            return replace(found, problem=error.reason)
        except Exception as error:  # the rollback was carried out, and must not be once more
            LOG.exception("%s could not be held", intent.model)
            return replace(found, problem=f"{type(error).__name__}: {error}")
        return found

    def _released(self, fleet: Fleet) -> float:
        """When a person released the model last; the ledger is asked, since that may have been a moment ago."""
        try:
            _, at = held_and_released(fleet)
        except LockstepError as error:
            LOG.warning("%s: whether it was released is not known: %s", fleet.model, error.reason)
            at = 0.0

        def keep(connection: sqlite3.Connection) -> float:
            known = inbox.released_at(connection, fleet.model)
            Taking(self._pace, self._receivers).released(connection, fleet.model, at, self._clock())
            return max(at, known)

        return self._written(keep)

    def _decided_again(self, intent: Intent, released: float) -> bool:
        """Whether the intent, which flapping made a hold, is something else since a person released the model."""
        now = self._clock()

        def change(connection: sqlite3.Connection) -> bool:
            one = inbox.find_intent(connection, intent.id)
            if one is None or not one.open or one.action is not Action.HOLD or one.wished is None:
                return True  # it is looked at as it is now
            past = inbox.past_intents(connection, one.model, now - self._pace.memory)
            again = decide_again(one, past, self._pace, now, released)
            if again.action is Action.HOLD:
                return False
            told = replace(one, action=again.action, urgent=again.urgent, told=again.told, wished=None)
            inbox.put_intent(connection, told)
            return True

        return self._written(change)

    def _overtaken(self, intent: Intent) -> str:
        now = self._clock()
        try:
            with self._database.reading() as connection:
                past = inbox.past_intents(connection, intent.model, now - self._pace.memory)
        except LockstepError as error:
            raise _InboxError(error.problem, hint=error.hint) from error
        now_it_is = next((one for one in past if one.id == intent.id), intent)  # a person may have joined it
        return overtaken(now_it_is, past, self._pace, now)

    def _change(self, intent_id: str, how: Callable[[Intent], Intent]) -> Intent | None:
        """Change an open intent as it stands now; None for one that is not open any more. Raises _InboxError."""

        def change(connection: sqlite3.Connection) -> Intent | None:
            one = inbox.find_intent(connection, intent_id)
            if one is None or not one.open:
                return None
            changed = how(one)
            inbox.put_intent(connection, changed)
            return changed

        return self._written(change)

    def _written(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._database.write(work)
        except LockstepError as error:
            raise _InboxError(error.problem, hint=error.hint) from error
