"""Keeps the overview fresh in the background; it also keeps every client of the urgent path connected.

A look at a model is the status, its proof now and then, the plan of a rollback now and then, and its metrics while
there is a rollout or somebody looks. One model that is slow holds up no other, and no page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from lockstep.agent.overview import ModelView, Overview, WayBack, model_view
from lockstep.agent.proofs import Proofs
from lockstep.agent.series import Series, Tracker
from lockstep.agent.ways_back import decided_by, plan_way
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.remembering import remember_details
from lockstep.operations.status import Status, status
from lockstep.rules.deeds import Deed, read_deeds
from lockstep.rules.state import DesiredState
from lockstep.rules.waiting import KINDS, SETTLES, Waiting, still_waiting

LOG: Final = logging.getLogger("lockstep.agent.refresher")
AT_ONCE: Final = 4  # models
ENTRIES: Final = 300  # of the ledger that are read: a rollout leaves several a step
DEEDS: Final = 20  # shown
QUESTIONS: Final = 20  # of which some may wait
MEASURE_EVERY: Final = 60.0  # seconds, while there is no rollout: looks at metrics cost money
WATCHED: Final = 300.0  # seconds after which a page that nobody loaded again is not looked at any more
BEFORE: Final = timedelta(minutes=10)  # that are counted before the first look


@dataclass
class _Memory:
    """What is kept of a model from look to look."""

    proofs: Proofs
    way: WayBack | None = None
    way_of: object = None  # what it would leave
    tracker: Tracker | None = None
    measured: float = 0.0
    watched: float = 0.0
    told: frozenset[str] = frozenset()  # questions


class Refresher:
    """Looks at `models` again and again; the page reads `overview`.

    `held` tells why a model's rollouts are held; it may raise LockstepError. `wanted` is called for each
    question that waits for a person, again where it raised LockstepError, and after a restart.
    """

    def __init__(
        self,
        fleets: Callable[[str], Fleet],
        models: Sequence[str],
        clouds: Sequence[str],
        *,
        every: float,
        prove_every: float,
        plan_every: float,
        held: Callable[[Fleet], str],
        wanted: Callable[[Waiting], None] = lambda question: None,
    ) -> None:
        """All in seconds, from the end of one look to the next; `prove_every` 0.0 asks endpoints for no answers."""
        self._fleets = fleets
        self._models = tuple(models)
        self._clouds = tuple(clouds)
        self._every = every
        self._plan_every = plan_every
        self._held = held
        self._wanted = wanted
        self._memory = {model: _Memory(Proofs(prove_every)) for model in models}
        self._views: dict[str, ModelView] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._due: set[str] = set()
        self._warm = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def overview(self) -> Overview:
        """What is known now."""
        with self._lock:
            views = dict(self._views)
        return Overview(views, self._models, self._clouds)

    @property
    def warm(self) -> bool:
        """Whether every model was looked at once, whatever was found: what a rollback needs is connected by then."""
        return self._warm.is_set()

    def watch(self, model: str) -> None:
        """Somebody looks at the model's page: its metrics are wanted."""
        if model in self._memory:
            first = self._memory[model].watched < time.monotonic() - WATCHED
            self._memory[model].watched = time.monotonic()
            if first:
                self.poke(model)

    def poke(self, model: str, *, moved: bool = False) -> None:
        """Look at the model now: something has just been done to it; with `moved` endpoints are asked, too."""
        if moved and model in self._memory:
            self._memory[model].proofs.moved()
        with self._lock:
            self._due.add(model)
        self._wake.set()

    def wait_until_warm(self, timeout: float) -> bool:
        """Whether it became warm in that many seconds."""
        return self._warm.wait(timeout)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread = threading.Thread(target=self._run, name="overview", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End; a look that hangs is left behind."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="overview")
        running: dict[str, Future[None]] = {}
        due_at = dict.fromkeys(self._models, 0.0)
        try:
            while not self._stopping.is_set():
                with self._lock:
                    poked, self._due = self._due, set()
                now = time.monotonic()
                for model in self._models:
                    if model in running and not running[model].done():
                        if model in poked:
                            self._due_again(model)
                        continue
                    if model in running:
                        del running[model]
                        due_at[model] = now + self._every
                        if not self._warm.is_set() and set(self._views) == set(self._models):
                            self._warm.set()
                    if model in poked or due_at[model] <= now:
                        running[model] = pool.submit(self._look, model)
                if not self._models:
                    self._warm.set()
                left = min((due_at[model] for model in self._models if model not in running), default=now + 60.0)
                self._wake.wait(max(0.05, left - now))
                self._wake.clear()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _due_again(self, model: str) -> None:
        with self._lock:
            self._due.add(model)

    def _look(self, model: str) -> None:
        approvals: tuple[Waiting, ...] = ()
        held: str | None = None
        try:
            approvals, held = self._approvals(model), self._hold(model)  # first: people wait for no cloud that hangs
            view = self._view(model)
        except LockstepError as error:
            view = self._without(model, error.reason)
        except Exception as error:  # one that nobody thought of must not end the looking
            LOG.exception("looking at %s failed", model)
            view = self._without(model, f"{type(error).__name__}: {error}")
        with self._lock:
            before = self._views.get(model)
            known = held if held is not None else before.held if before is not None else ""
            self._views[model] = replace(view, approvals=approvals, held=known)
        self._wake.set()

    def _hold(self, model: str) -> str | None:
        """Why rollouts are held, "" when they are not, None when that cannot be read: the status says why."""
        try:
            return self._held(self._fleets(model))
        except LockstepError:
            return None

    def _approvals(self, model: str) -> tuple[Waiting, ...]:
        """The questions that wait; each is told of once in this process."""
        memory = self._memory[model]
        try:
            ledger = self._fleets(model).ledger
            # A question may wait for days, beside the entries of other work, which may settle it.
            found = ledger.entries(model, KINDS, last=QUESTIONS)
            waiting = still_waiting(found, model, time.time())
            if waiting:
                settling = [one for kind in SETTLES for one in ledger.entries(model, kind, last=QUESTIONS)]
                waiting = still_waiting((*found, *settling), model, time.time())
        except LockstepError:
            return ()  # the status says so
        memory.told &= {one.id for one in waiting}
        for question in waiting:
            if question.id in memory.told:
                continue
            try:
                self._wanted(question)
            except LockstepError as error:
                LOG.warning("nobody is told yet that %s waits for an approval: %s", model, error.reason)
            else:
                memory.told |= {question.id}
        return waiting

    def _without(self, model: str, problem: str) -> ModelView:
        """What was known before, with the reason why nothing newer is."""
        before = self._views.get(model) or ModelView(model, 0.0, DesiredState(model, None))
        return replace(before, at=time.time(), problem=problem)

    def _view(self, model: str) -> ModelView:
        fleet = replace(self._fleets(model), observer=lambda event: None)  # said again and again, it would fill the log
        memory = self._memory[model]
        now = datetime.now(UTC)  # what ends meanwhile may be seen half
        prove = memory.proofs.is_due(time.monotonic())
        found = memory.proofs.keep(status(fleet, prove=prove), time.monotonic(), asked=time.time() if prove else None)
        serving = decided_by(found)
        if memory.way is None or time.time() - memory.way.at > self._plan_every or memory.way_of != serving:
            memory.way, memory.way_of = plan_way(fleet), serving
            remember_details(fleet, found.desired.champion, found.desired.fallback, memory.way.target)
        return model_view(
            fleet,
            found,
            now,
            proved_at=memory.proofs.at,
            deeds=_deeds(fleet),
            series=self._measure(fleet, found, memory, now),
            way=memory.way,
        )

    def _measure(self, fleet: Fleet, found: Status, memory: _Memory, now: datetime) -> tuple[Series, ...]:
        desired = found.desired
        names = {
            version.slot: f"version {version.label}" for version in (desired.champion, desired.challenger) if version
        }
        if not names:
            return ()
        about = tuple(names)
        if memory.tracker is None or not memory.tracker.fits(about, now):
            memory.tracker, memory.measured = Tracker(now - BEFORE, about), 0.0
        watched = time.monotonic() - memory.watched < WATCHED
        pause = 0.0 if desired.challenger else MEASURE_EVERY
        if (desired.challenger or watched) and time.monotonic() - memory.measured >= pause:
            since, tracker = memory.tracker.since, memory.tracker
            outcomes = fleet.look_at_each("measure", lambda cloud: cloud.measure(fleet.model, since, now))
            tracker.add(now, [slot for outcome in outcomes for slot in outcome.value or ()])
            memory.measured = time.monotonic()
        return memory.tracker.series(names)


def _deeds(fleet: Fleet) -> tuple[Deed, ...]:
    try:
        entries = fleet.ledger.entries(fleet.model, last=ENTRIES)
    except LockstepError:
        return ()  # the status says so
    whole = [deed for deed in read_deeds(entries) if "within" not in deed.body]
    return tuple(reversed(whole))[:DEEDS]
