"""Is it true? A fresh look at what an alert tells of: the metrics of the last minutes, and answers asked for now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from lockstep.clouds.base import Cloud, Row
from lockstep.errors import BusyError, LockstepError, RetryLaterError, ThrottledError
from lockstep.operations.desired import read_known, without_mlflow
from lockstep.operations.fleet import Fleet
from lockstep.operations.monitor import observed_of
from lockstep.operations.probe import with_probe
from lockstep.operations.running import Job, Outcome, look
from lockstep.rules.judge import Decision
from lockstep.rules.limits import judge_alone
from lockstep.rules.measurement import SlotMetrics
from lockstep.rules.naming import find_version
from lockstep.rules.state import FleetState, Version
from lockstep.rules.target import serving
from lockstep.stores.outcomes import OutcomeCount, OutcomeSource

PROBES: Final = 5  # answers asked of each cloud


@dataclass(frozen=True)
class Probes:
    """Answers that one cloud was asked for, and how many failed on the model's or the endpoint's side."""

    cloud: str
    asked: int
    failed: int
    slowest: float
    problem: str = ""

    def __str__(self) -> str:
        told = f"{self.cloud}: {self.failed} of {self.asked} answers failed, slowest {self.slowest:.3f} s"
        return f"{told} ({self.problem})" if self.problem else told


@dataclass(frozen=True)
class _Seen:
    metrics: tuple[SlotMetrics, ...] = ()
    counts: tuple[OutcomeCount, ...] = ()
    probes: Probes | None = None


@dataclass(frozen=True)
class Confirmation:
    """What was found about a version: `confirmed` says that it is in breach, `told` the numbers, a sentence each."""

    version: Version
    confirmed: bool
    told: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.told)


def confirm(fleet: Fleet, *, version: str = "", window: float = 120.0, patience: float = 10.0) -> Confirmation:
    """Look at a version, named as in `find_version`, else at what serves, the newest change first; changes nothing.

    In breach is what breaks the monitor's limits over the last `window` seconds, or fails more than half of the answers
    that one cloud is asked for now. What does not answer within `patience` seconds says nothing, and is told.
    Raises NotFoundError for a version that does not exist.
    """
    known = read_known(fleet)
    fleet = without_mlflow(fleet, known)
    until = datetime.now(UTC)
    since = until - timedelta(seconds=window)
    state = fleet.observe(urgent=True)
    found = find_version(known.record, version) if version else serving(known.record, state)
    rows = _rows(fleet, found)
    jobs: list[Job[_Seen]] = []
    for cloud in fleet.clouds:
        jobs.append(Job(cloud.name, f"{cloud.name}: metrics", partial(_measure, cloud, fleet.model, since, until), 0))
        if rows:
            slot = _chosen(state, cloud.name, found)
            ask = partial(_ask, cloud, fleet.model, rows, slot, time.monotonic() + patience)
            jobs.append(Job(cloud.name, f"{cloud.name}: answers", ask, 0))
    if fleet.outcomes is not None:
        jobs.append(Job("outcomes", "outcomes", partial(_count, fleet.outcomes, since, until), 0))
    return _judged(fleet, found, look(jobs, patience))


def _judged(fleet: Fleet, version: Version, looks: Sequence[Outcome[_Seen]]) -> Confirmation:
    seen = [one.value for one in looks if one.value is not None]
    told = [f"{one.name}: not known, {one.error.problem}" for one in looks if one.error is not None]
    bad: list[str] = []
    for one in seen:
        if one.probes is not None:
            (bad if 2 * one.probes.failed > one.probes.asked else told).append(str(one.probes))
    metrics = [slot for one in seen for slot in one.metrics]
    counts = [count for one in seen for count in one.counts]
    verdict = judge_alone(observed_of(version, metrics, counts), fleet.settings.monitor.limits())
    (bad if verdict.decision is Decision.FAIL else told).insert(0, "metrics: " + "; ".join(verdict.reasons))
    return Confirmation(version, bool(bad), (*bad, *told))


def _rows(fleet: Fleet, version: Version) -> Sequence[Row]:
    try:
        return with_probe(fleet, version).probe
    except LockstepError as error:
        fleet.say(f"{version} is not asked for answers: {error.problem}")
        return ()


def _chosen(state: FleetState, cloud: str, version: Version) -> str | None:
    """The version's slot where others take traffic beside it; None where the endpoint answers from it anyway."""
    for one in state.clouds:
        slot = one.slot(version.slot) if one.cloud == cloud else None
        if slot is not None:
            return None if slot.weight == 100 else slot.name
    return None


def _measure(cloud: Cloud, model: str, since: datetime, until: datetime) -> _Seen:
    return _Seen(metrics=cloud.measure(model, since, until))


def _count(source: OutcomeSource, since: datetime, until: datetime) -> _Seen:
    return _Seen(counts=source.counts(since, until))


def _ask(cloud: Cloud, model: str, rows: Sequence[Row], slot: str | None, deadline: float) -> _Seen:
    asked = failed = 0
    slowest = 0.0
    problem = ""
    while asked < PROBES and time.monotonic() < deadline:
        began = time.monotonic()
        try:
            cloud.invoke(model, rows, slot=slot)
        except (BusyError, ThrottledError) as error:  # of the cloud, not of the version
            return _Seen(probes=Probes(cloud.name, asked, failed, slowest, error.problem))
        except RetryLaterError as error:  # the model's own errors, and no answer in time
            failed += 1
            problem = error.problem
        asked += 1
        slowest = max(slowest, time.monotonic() - began)
    return _Seen(probes=Probes(cloud.name, asked, failed, slowest, problem))
