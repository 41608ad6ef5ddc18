"""The agent's own numbers, for Prometheus (text format 0.0.4, by prometheus-client)."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lockstep.agent.overview import Overview
from lockstep.rules.alerts.intent import Action, Intent

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0)
REMEMBERED: Final = 1000
ANSWERS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Telemetry:
    """Counters that are told of what happens, and gauges that are read when somebody asks."""

    def __init__(
        self,
        overview: Callable[[], Overview],
        intents: Callable[[], Sequence[Intent]],
        backlog: Callable[[], Mapping[str, int]],
    ) -> None:
        """`intents` are the newest, `backlog` is how much waits, by name."""
        self.registry = CollectorRegistry()
        self._intents = intents
        self._began = time.time()
        self._told: deque[str] = deque(maxlen=REMEMBERED)  # rollbacks whose seconds are counted
        self.deliveries = Counter(
            "lockstep_deliveries",
            "Deliveries to a hook by what came of them.",
            ("source", "result"),
            registry=self.registry,
        )
        self.alerts = Counter(
            "lockstep_alerts",
            "Alerts of genuine deliveries, new ones and known ones.",
            ("source", "result"),
            registry=self.registry,
        )
        self.answers = Histogram(
            "lockstep_hook_seconds",
            "Seconds to the answer of a genuine delivery.",
            buckets=ANSWERS,
            registry=self.registry,
        )
        self.refused = Counter(
            "lockstep_refused_requests", "Requests beyond a limit, by status.", ("status",), registry=self.registry
        )
        self.sign_ins = Counter(
            "lockstep_sign_ins", "Sign-ins and bearer tokens by result.", ("result",), registry=self.registry
        )
        self.rollback_seconds = Histogram(
            "lockstep_rollback_seconds",
            "Seconds from the acceptance of a rollback to its end, by state.",
            ("state",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_Gauges(overview, intents, backlog))

    def text(self) -> bytes:
        """All of it."""
        self._time_rollbacks()
        return generate_latest(self.registry)

    def _time_rollbacks(self) -> None:
        """Those that ended since the agent began, each once: it is not told of an end, which may be another's deed."""
        for intent in self._intents():
            rollback = intent.action in (Action.ROLLBACK, Action.ROLLBACK_IF_CONFIRMED)
            if rollback and intent.ended >= self._began and intent.id not in self._told:
                self._told.append(intent.id)
                self.rollback_seconds.labels(intent.state.value).observe(max(0.0, intent.ended - intent.began))


class _Gauges(Collector):
    def __init__(
        self,
        overview: Callable[[], Overview],
        intents: Callable[[], Sequence[Intent]],
        backlog: Callable[[], Mapping[str, int]],
    ) -> None:
        self._overview = overview
        self._intents = intents
        self._backlog = backlog

    def collect(self) -> Iterable[Metric]:
        """As of now."""
        overview = self._overview()
        intents = GaugeMetricFamily("lockstep_intents", "Newest intents by state.", labels=("state",))
        for state, count in sorted(Counts(intent.state.value for intent in self._intents()).items()):
            intents.add_metric([state], count)
        yield intents
        behind = GaugeMetricFamily(
            "lockstep_clouds_out_of_step", "Clouds that do not serve what they should.", labels=("model",)
        )
        for name, view in overview.models.items():
            behind.add_metric([name], sum(1 for cloud in view.clouds if cloud.problem or cloud.unreachable))
        yield behind
        age = time.time() - overview.oldest if overview.oldest else -1.0
        yield GaugeMetricFamily(
            "lockstep_overview_age_seconds", "Seconds since every model was looked at; -1 before that.", value=age
        )
        for name, count in self._backlog().items():
            yield GaugeMetricFamily(f"lockstep_{name}", f"{name.replace('_', ' ').capitalize()} now.", value=count)
