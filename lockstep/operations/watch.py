"""Look at a canary and its stable neighbour until there is a verdict."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from lockstep.errors import RetryLaterError
from lockstep.operations.fencing import pause
from lockstep.operations.fleet import Fleet
from lockstep.rules.judge import PERIOD_REQUESTS, Decision, Latency, Period, Verdict, judge
from lockstep.rules.limits import Observed, judge_alone
from lockstep.rules.measurement import SlotMetrics
from lockstep.rules.rollout import Move, Stage, advance
from lockstep.rules.state import Version

Counts = Mapping[tuple[str, str, str], tuple[int, int]]  # (guardrail, cloud, slot) -> (total, bad) since the start


@dataclass(frozen=True)
class StageReport:
    """How one stage ended."""

    stage: Stage
    verdict: Verdict
    move: Move
    seconds: float


class Watch:
    """Keeps the counts of one rollout, which grow from its beginning, and cuts them into periods of evidence."""

    def __init__(self, fleet: Fleet, stable: Version, canary: Version, guard: Callable[[], None]) -> None:
        """`guard` is called at every look and raises when the rollout must not go on."""
        self._fleet = fleet
        self._guard = guard
        self._stable = stable
        self._canary = canary
        self._began = datetime.now(UTC)
        self._periods: list[Period] = []  # closed: these are judged
        self._open: dict[tuple[str, str], Period] = {}  # by guardrail and cloud, still growing
        self._last: Counts = {}
        self._latencies: tuple[Latency, ...] = ()

    def stage(self, stage: Stage, sleep: Callable[[float], None] | None = None) -> StageReport:
        """Watch one stage to its end: a PASS after its time, a FAIL at once, or patience's end.

        Between two looks it sleeps, and wakes when the rollout is overtaken.
        """
        sleep = sleep or partial(pause, self._fleet.model)
        settings = self._fleet.settings.rollout
        began = time.monotonic()
        self._look()  # what was counted before this stage began belongs to the stages before
        self._close()
        at_start = len(self._periods)
        while True:
            sleep(settings.look_every)
            self._guard()
            self._look()
            requests = self._requests(stage, at_start)
            waited = time.monotonic() - began
            if requests >= settings.min_requests and waited >= settings.step_seconds:
                self._close()  # nothing that was seen may be left out of the verdict that ends a stage
            verdict = self._verdict(stage, at_start, requests)
            move = advance(verdict.decision, waited, settings.step_seconds, settings.patience)
            self._fleet.say(
                f"{stage.title}: {verdict.decision.value}, {'; '.join(verdict.reasons)}",
                done=min(round(waited), round(settings.step_seconds)),
                total=round(settings.step_seconds),
            )
            if move is not Move.WAIT:
                return StageReport(stage, verdict, move, waited)

    def _verdict(self, stage: Stage, since: int, requests: int) -> Verdict:
        if set(stage.per_cent.values()) != {100}:
            return judge(self._periods, requests, self._latencies, self._fleet.settings.rollout.limits())
        # With all traffic there is no neighbour to compare with: the limits of a serving version decide.
        limits = replace(self._fleet.settings.monitor.limits(), min_requests=self._fleet.settings.rollout.min_requests)
        p95 = {latency.cloud: latency.canary for latency in self._latencies}
        totals: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        for period in self._seen(since):
            totals[period.cloud][period.guardrail][0] += period.canary
            totals[period.cloud][period.guardrail][1] += period.canary_bad
        observed = [
            Observed(cloud, *_pair(counts["errors"]), *_pair(counts["outcomes"]), latency_p95=p95.get(cloud))
            for cloud, counts in totals.items()
        ]
        verdict = judge_alone(observed, limits)
        if verdict.decision is Decision.PASS and requests < limits.min_requests:
            return Verdict(Decision.INCONCLUSIVE, (f"{requests} of {limits.min_requests} seen",), verdict.numbers)
        return verdict

    def _look(self) -> None:
        now = datetime.now(UTC)
        current = self._counts(now)
        clouds = sorted({(guardrail, cloud) for guardrail, cloud, _ in current})
        for guardrail, cloud in clouds:
            canary, canary_bad = self._grown(current, (guardrail, cloud, self._canary.slot))
            stable, stable_bad = self._grown(current, (guardrail, cloud, self._stable.slot))
            if canary or stable:
                before = self._open.get((guardrail, cloud), Period(guardrail, cloud, 0, 0, 0, 0))
                grown = Period(
                    guardrail,
                    cloud,
                    before.canary + canary,
                    before.canary_bad + canary_bad,
                    before.stable + stable,
                    before.stable_bad + stable_bad,
                )
                self._open[guardrail, cloud] = grown
                if grown.canary >= PERIOD_REQUESTS:
                    self._periods.append(self._open.pop((guardrail, cloud)))
        self._last = {**self._last, **current}

    def _close(self) -> None:
        self._periods += self._open.values()
        self._open.clear()

    def _seen(self, since: int) -> list[Period]:
        """Everything of this stage, closed or not."""
        return [*self._periods[since:], *self._open.values()]

    def _grown(self, current: Counts, key: tuple[str, str, str]) -> tuple[int, int]:
        """What came since the last look; metrics that shrink (a late correction) count as nothing new."""
        total, bad = current.get(key, (0, 0))
        total_before, bad_before = self._last.get(key, (0, 0))
        new = max(0, total - total_before)
        return new, min(new, max(0, bad - bad_before))

    def _counts(self, now: datetime) -> Counts:
        counts: dict[tuple[str, str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
        measured: list[SlotMetrics] = []
        for outcome in self._fleet.look_at_each(
            "measure", lambda cloud: cloud.measure(self._fleet.model, self._began, now)
        ):
            if outcome.value is None:
                # A cloud whose metrics cannot be read says nothing; patience decides how long that may last.
                self._fleet.say(f"no metrics: {outcome.error}", outcome.cloud)
                continue
            measured += outcome.value
        for slot in measured:
            counts["errors", slot.cloud, slot.slot] = (slot.requests, slot.errors)
        self._latencies = self._read_latencies(measured)
        if self._fleet.outcomes is not None:
            try:
                found = self._fleet.outcomes.counts(self._began, now)
            except RetryLaterError as error:
                self._fleet.say(f"no outcomes: {error}")
                return counts
            for count in found:
                for version in (self._canary, self._stable):
                    if count.is_of(version):
                        total, bad = counts["outcomes", count.cloud, version.slot]
                        counts["outcomes", count.cloud, version.slot] = (total + count.total, bad + count.bad)
        return counts

    def _read_latencies(self, measured: list[SlotMetrics]) -> tuple[Latency, ...]:
        seen = {(slot.cloud, slot.slot): slot for slot in measured}
        latencies = []
        for cloud in sorted({slot.cloud for slot in measured}):
            canary, stable = seen.get((cloud, self._canary.slot)), seen.get((cloud, self._stable.slot))
            latencies.append(
                Latency(
                    cloud,
                    canary.requests if canary else 0,
                    canary.latency_p95 if canary else None,
                    stable.latency_p95 if stable else None,
                )
            )
        return tuple(latencies)

    def _requests(self, stage: Stage, since: int) -> int:
        """Canary requests of this stage: the least that any guardrail has seen, so that each has something to say.

        0 while a cloud that should send some shows none: what is not seen there cannot be said to be well.
        """
        guardrails = {"errors"} | ({"outcomes"} if self._fleet.outcomes is not None else set())
        seen: dict[tuple[str, str], int] = defaultdict(int)
        for period in self._seen(since):
            seen[period.guardrail, period.cloud] += period.canary
        clouds = [cloud for cloud, share in stage.per_cent.items() if share > 0]
        if any(seen[guardrail, cloud] == 0 for guardrail in guardrails for cloud in clouds):
            return 0
        return min(sum(seen[guardrail, cloud] for cloud in clouds) for guardrail in guardrails)


def _pair(counts: list[int]) -> tuple[int, int]:
    total, bad = counts
    return total, bad


def describe(report: StageReport) -> dict[str, object]:
    """A stage for the ledger and for artifacts."""
    return {
        "stage": report.stage.title,
        "per_cent": dict(report.stage.per_cent),
        "decision": report.verdict.decision.value,
        "reasons": list(report.verdict.reasons),
        "numbers": {name: round(value, 6) for name, value in report.verdict.numbers.items()},
        "seconds": round(report.seconds, 3),
        "move": report.move.value,
    }
