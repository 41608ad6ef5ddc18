"""Is the version that serves everything in breach? There is nothing beside it to compare with, only fixed limits.

A share of bad events breaches its limit when it lies above and could hardly do so by chance: the exact binomial
probability of at least that many, were the true share at the limit, is at most `CHANCE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy.special import bdtrc

from lockstep.rules.judge import Decision, Verdict

CHANCE: Final = 0.001


@dataclass(frozen=True)
class ServiceLimits:
    """Largest share of failed requests and of bad outcomes, largest p95 latency in seconds (None: no limit)."""

    min_requests: int
    max_error_rate: float
    max_bad_outcomes: float
    max_latency: float | None = None


@dataclass(frozen=True)
class Observed:
    """One version on one cloud over a period; `outcomes` and `bad` are zero where none are kept."""

    cloud: str
    requests: int
    errors: int
    outcomes: int = 0
    bad: int = 0
    latency_p95: float | None = None


def judge_alone(observed: Sequence[Observed], limits: ServiceLimits) -> Verdict:
    """FAIL naming each breach, PASS when every kind of count reached `min_requests` in all, else INCONCLUSIVE."""
    reasons: list[str] = []
    for seen in observed:
        reasons += _breach(seen.cloud, "failed requests", seen.requests, seen.errors, limits.max_error_rate, limits)
        reasons += _breach(seen.cloud, "bad outcomes", seen.outcomes, seen.bad, limits.max_bad_outcomes, limits)
        p95, longest = seen.latency_p95, limits.max_latency
        if p95 is not None and longest is not None and seen.requests >= limits.min_requests and p95 > longest:
            reasons.append(f"{seen.cloud}: p95 latency {p95:.3f} s, limit {longest:.3f} s")
    requests = sum(seen.requests for seen in observed)
    numbers = {
        "requests": float(requests),
        "errors": float(sum(seen.errors for seen in observed)),
        "outcomes": float(sum(seen.outcomes for seen in observed)),
        "bad outcomes": float(sum(seen.bad for seen in observed)),
    }
    if reasons:
        return Verdict(Decision.FAIL, tuple(reasons), numbers)
    if requests < limits.min_requests:
        return Verdict(Decision.INCONCLUSIVE, (f"{requests} of {limits.min_requests} requests seen",), numbers)
    return Verdict(Decision.PASS, ("within every limit",), numbers)


def _breach(cloud: str, what: str, total: int, bad: int, limit: float, limits: ServiceLimits) -> list[str]:
    if total < limits.min_requests or bad <= limit * total:
        return []
    chance = float(bdtrc(bad - 1, total, limit))
    return [f"{cloud}: {what} {bad} of {total}, limit {limit:.1%}"] if chance <= CHANCE else []
