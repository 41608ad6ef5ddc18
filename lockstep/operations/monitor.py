"""Look at what serves, on every cloud, over the last minutes; on a breach roll everything back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lockstep.errors import LockstepError, RefusedError, RetryLaterError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note, record, slots
from lockstep.operations.known_good import grant_if_earned
from lockstep.operations.reasons import made_reason
from lockstep.operations.remembering import read_record, remember_details
from lockstep.operations.rollback import Rollback, rollback
from lockstep.rules.capacity import way_back
from lockstep.rules.judge import Decision, Verdict
from lockstep.rules.limits import Observed, judge_alone
from lockstep.rules.measurement import SlotMetrics
from lockstep.rules.state import FleetState, ModelRecord, Version
from lockstep.stores.outcomes import OutcomeCount


@dataclass(frozen=True)
class Report:
    """One look: `metrics` per cloud and slot, `outcomes` per cloud and version, what is missing, and the verdict.

    `warnings` are what should be mended before it is needed: a fallback that is not warm, metrics that cannot be read.
    """

    model: str
    champion: Version | None
    state: FleetState
    metrics: tuple[SlotMetrics, ...]
    outcomes: tuple[OutcomeCount, ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    rolled_back: Rollback | None = None


def monitor(fleet: Fleet, *, act: bool = True) -> Report:
    """Measure, judge the champion against the fleet's limits and, on FAIL and if `act`, roll back to the fallback."""
    settings = fleet.settings.monitor
    until = datetime.now(UTC)
    since = until - timedelta(seconds=settings.window)
    known = read_record(fleet)
    desired = known.desired
    if desired.champion is None:
        raise RefusedError(
            f"{fleet.model} has no champion, so nothing should be serving",
            hint=f"deploy a version first: lockstep deploy {fleet.model} VERSION",
        )
    champion = desired.champion
    remember_details(fleet, champion, desired.fallback)
    state = fleet.observe()
    measured = fleet.look_at_each("measure", lambda cloud: cloud.measure(fleet.model, since, until))
    metrics = tuple(slot for outcome in measured for slot in outcome.value or ())
    outcomes, silent = _read_outcomes(fleet, since, until)
    verdict = judge_alone(observed_of(champion, metrics, outcomes), settings.limits())
    warnings = [
        f"{outcome.cloud}: no metrics: {outcome.error.reason}" for outcome in measured if outcome.error is not None
    ]
    warnings += [f"{cloud}: unreachable: {reason}" for cloud, reason in state.unreachable.items()] + silent
    warnings += way_back(state, known, fleet.least)
    report = Report(fleet.model, champion, state, metrics, outcomes, verdict, tuple(warnings))
    if verdict.decision is Decision.PASS and act:
        return replace(report, warnings=(*report.warnings, *_grant(fleet, known, champion)))
    if verdict.decision is Decision.FAIL and not act:
        note(fleet, "monitor.breach", {**slots(champion)[champion.slot], "reasons": list(verdict.reasons)})
    if verdict.decision is not Decision.FAIL or not act:
        return report
    reason = "monitor: " + "; ".join(verdict.reasons)
    with record(fleet, "monitor", champion, reasons=list(verdict.reasons)):
        fleet.say(f"{champion} is in breach: {'; '.join(verdict.reasons)}")
        done = rollback(fleet, reason=made_reason(reason))
    return replace(report, rolled_back=done)


def _grant(fleet: Fleet, known: ModelRecord, champion: Version) -> tuple[str, ...]:
    """Known-good for a champion that passes and has soaked; a warning where that could not be written."""
    try:
        grant_if_earned(fleet, known, champion)
    except LockstepError as error:
        return (f"{champion} has earned known-good, which could not be written: {error.reason}",)
    return ()


def _read_outcomes(fleet: Fleet, since: datetime, until: datetime) -> tuple[tuple[OutcomeCount, ...], list[str]]:
    """Outcomes and, where their source does not answer, a warning: the clouds' own metrics are judged all the same."""
    if fleet.outcomes is None:
        return (), []
    try:
        return fleet.outcomes.counts(since, until), []
    except RetryLaterError as error:
        return (), [f"no outcomes: {error}"]


def observed_of(version: Version, metrics: Sequence[SlotMetrics], outcomes: Sequence[OutcomeCount]) -> list[Observed]:
    """What was counted of one version, by cloud, as its judge takes it."""
    counted: dict[str, tuple[int, int]] = {}
    for count in outcomes:  # a source may name one version in two ways: by its label and by its digest
        if count.is_of(version):
            total, bad = counted.get(count.cloud, (0, 0))
            counted[count.cloud] = (total + count.total, bad + count.bad)
    served = {slot.cloud: slot for slot in metrics if slot.slot == version.slot}
    observed = []
    for cloud in sorted({*counted, *served}):
        slot = served.get(cloud)
        observed.append(
            Observed(
                cloud,
                slot.requests if slot else 0,
                slot.errors if slot else 0,
                *counted.get(cloud, (0, 0)),
                slot.latency_p95 if slot else None,
            )
        )
    return observed
