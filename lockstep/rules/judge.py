"""Is the canary worse than the stable version? Decided while looking all the time, without raising false alarms.

Counts of bad events (failed requests, bad outcomes) are compared by a conditional odds-ratio e-process. In one period
on one cloud the canary had x bad of n_c and the stable version y bad of n_s. Given k = x + y, the number x follows
Fisher's noncentral hypergeometric distribution with odds ratio psi; the likelihood ratio of psi against psi0 = 1 is an
e-value, and products of e-values over periods and clouds stay e-values (optional continuation; Grünwald, de Heide and
Koolen, "Safe testing", JRSS-B 2024). By Ville's inequality P(E >= 1/alpha at any time) <= alpha when the canary is not
worse, however often one looks and whatever the traffic split or the baseline do between periods.

The process over all clouds together and those of the single clouds are averaged (a mean of e-values is an e-value), so
that a fault on one cloud alone is found as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

ODDS_RATIOS: Final = (1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0)
#: Evidence from which on a canary may not pass: too little to call it worse, too much to call nothing seen. A canary
#: that is no worse is held up by it now and then, and falls below it as requests come.
DOUBT: Final = math.log(3)
#: Canary requests on a cloud after which a period of evidence closes, so that failures are seen within a handful. How
#: many requests came, not how they ended, decides that, so the evidence stays valid.
PERIOD_REQUESTS: Final = 5


class Decision(StrEnum):
    """A verdict's three values; not knowing is one of them."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Period:
    """Counts of one period on one cloud for one guardrail (`errors`, `outcomes`)."""

    guardrail: str
    cloud: str
    canary: int
    canary_bad: int
    stable: int
    stable_bad: int


@dataclass(frozen=True)
class Latency:
    """95th percentiles in seconds on one cloud; None where the cloud reports none. `requests` are the canary's."""

    cloud: str
    requests: int
    canary: float | None
    stable: float | None


@dataclass(frozen=True)
class Limits:
    """How sure to be, and how much is needed to say anything.

    `alpha` bounds the probability of taking back a canary that is no worse; `caution` multiplies the evidence asked
    for, since requests that come in bursts count for less than they seem (1 = independent requests). `min_requests`
    is the canary's least traffic at a stage before it may pass. A p95 latency above `latency_ratio` times the stable
    one plus `latency_slack` seconds fails, once the canary has answered `latency_requests` on that cloud: of fewer, the
    95th percentile is an accident of a handful.
    """

    alpha: float = 0.05
    caution: float = 1.5
    min_requests: int = 50
    latency_ratio: float = 2.0
    latency_slack: float = 0.1
    latency_requests: int = 100


@dataclass(frozen=True)
class Verdict:
    """A decision with its reasons (sentences) and its numbers by name."""

    decision: Decision
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]


@cache
def log_e_value(canary: int, canary_bad: int, stable: int, stable_bad: int) -> tuple[float, ...]:
    """Log e-values of one period, one per odds ratio of the grid, against "the odds ratio is at most 1".

    Raises ValueError when a count is negative or more are bad than there are.
    """
    if min(canary, canary_bad, stable, stable_bad) < 0 or canary_bad > canary or stable_bad > stable:
        raise ValueError(f"impossible counts: {canary_bad} of {canary}, {stable_bad} of {stable}")
    bad = canary_bad + stable_bad
    if bad == 0 or canary == 0 or stable == 0:
        return (0.0,) * len(ODDS_RATIOS)  # nothing to compare: no evidence either way
    import numpy as np  # here, since a rollback that reads the settings must not wait for it
    from scipy.special import logsumexp

    x = np.arange(max(0, bad - stable), min(canary, bad) + 1)
    log_terms = _log_binomial(canary, x) + _log_binomial(stable, bad - x)
    log_null = logsumexp(log_terms)
    return tuple(
        float(canary_bad * math.log(psi) - (logsumexp(log_terms + x * math.log(psi)) - log_null)) for psi in ODDS_RATIOS
    )


def evidence(periods: Iterable[Period]) -> float:
    """Log of the e-process of one guardrail: the mean over all clouds together and each cloud alone."""
    import numpy as np
    from scipy.special import logsumexp

    totals: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = defaultdict(
        lambda: np.zeros(len(ODDS_RATIOS), dtype=np.float64)
    )
    for period in periods:
        logs = np.asarray(log_e_value(period.canary, period.canary_bad, period.stable, period.stable_bad))
        for scope in ("*", period.cloud):
            totals[scope] = totals[scope] + logs
    if not totals:
        return 0.0
    scopes = np.concatenate(list(totals.values()))
    return float(logsumexp(scopes) - math.log(scopes.size))


def judge(periods: Sequence[Period], stage_requests: int, latencies: Sequence[Latency], limits: Limits) -> Verdict:
    """The verdict on a canary.

    `periods` hold the whole rollout (evidence adds up over stages), `stage_requests` counts the canary's requests at
    the present stage, `latencies` are as last seen. Alpha is shared equally among the guardrails seen.
    """
    guardrails = sorted({period.guardrail for period in periods})
    numbers: dict[str, float] = {"requests": float(stage_requests)}
    failures: list[str] = []
    doubts: list[str] = []
    bound = limits.caution * math.log(max(1, len(guardrails)) / limits.alpha)
    for name in guardrails:
        own = [period for period in periods if period.guardrail == name]
        log_e = evidence(own)
        numbers[f"{name} log evidence"] = log_e
        canary, stable = _rate(own, "canary"), _rate(own, "stable")
        numbers[f"{name} canary"], numbers[f"{name} stable"] = canary, stable
        compared = f"bad {name} {canary:.2%} against {stable:.2%}"
        if log_e >= bound:
            failures.append(f"{compared} (evidence {log_e:.1f} >= {bound:.1f})")
        elif log_e >= DOUBT:
            doubts.append(f"{compared}: may be worse (evidence {log_e:.1f} of {bound:.1f})")
    failures += _slow(latencies, limits)
    if failures:
        return Verdict(Decision.FAIL, tuple(failures), numbers)
    if stage_requests < limits.min_requests:
        missing = f"{stage_requests} of {limits.min_requests} canary requests seen at this stage"
        return Verdict(Decision.INCONCLUSIVE, (missing, *doubts), numbers)
    if doubts:
        return Verdict(Decision.INCONCLUSIVE, tuple(doubts), numbers)
    return Verdict(Decision.PASS, ("no guardrail shows harm",), numbers)


def _slow(latencies: Sequence[Latency], limits: Limits) -> list[str]:
    slow = []
    for seen in latencies:
        if seen.canary is None or seen.stable is None or seen.requests < limits.latency_requests:
            continue
        limit = seen.stable * limits.latency_ratio + limits.latency_slack
        if seen.canary > limit:
            slow.append(f"p95 latency on {seen.cloud} {seen.canary:.3f} s, limit {limit:.3f} s")
    return slow


def _rate(periods: Sequence[Period], arm: str) -> float:
    total = sum(getattr(period, arm) for period in periods)
    bad = sum(getattr(period, f"{arm}_bad") for period in periods)
    return bad / total if total else 0.0


def _log_binomial(
    n: int, k: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    from scipy.special import gammaln

    logs: np.ndarray[tuple[int], np.dtype[np.float64]] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logs
