"""Is the version that serves everything in breach? There is nothing beside it to compare with, only fixed limits.

A share of bad events breaches its limit when it lies above and could hardly do so by chance: the exact binomial
probability of at least that many, were the true share at the limit, is at most `CHANCE`. A share above its limit that
chance could explain is neither a breach nor well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
    """FAIL naming each breach; PASS when enough was seen and every share is within its limit; else INCONCLUSIVE.

    Each cloud is judged alone, and all of them together: a version that is bad everywhere shows before any one cloud
    has seen `min_requests`.
    """
    together = Observed(
        "all clouds",
        sum(seen.requests for seen in observed),
        sum(seen.errors for seen in observed),
        sum(seen.outcomes for seen in observed),
        sum(seen.bad for seen in observed),
    )
    breaches: list[str] = []
    doubts: list[str] = []
    for seen in observed:
        p95, longest = seen.latency_p95, limits.max_latency
        if p95 is not None and longest is not None and seen.requests >= limits.min_requests and p95 > longest:
            breaches.append(f"{seen.cloud}: p95 latency {p95:.3f} s, limit {longest:.3f} s")
        _judge_shares(seen, limits, breaches, doubts)
    if not breaches and len(observed) > 1:
        _judge_shares(together, limits, breaches, doubts)
    numbers = {
        "requests": float(together.requests),
        "errors": float(together.errors),
        "outcomes": float(together.outcomes),
        "bad outcomes": float(together.bad),
    }
    if breaches:
        return Verdict(Decision.FAIL, tuple(breaches), numbers)
    if together.requests < limits.min_requests:
        return Verdict(Decision.INCONCLUSIVE, (f"{together.requests} of {limits.min_requests} requests seen",), numbers)
    if doubts:
        return Verdict(Decision.INCONCLUSIVE, tuple(f"{doubt} (may be chance)" for doubt in doubts), numbers)
    return Verdict(Decision.PASS, ("within every limit",), numbers)


def _judge_shares(seen: Observed, limits: ServiceLimits, breaches: list[str], doubts: list[str]) -> None:
    for what, total, bad, limit in (
        ("failed requests", seen.requests, seen.errors, limits.max_error_rate),
        ("bad outcomes", seen.outcomes, seen.bad, limits.max_bad_outcomes),
    ):
        if total < limits.min_requests or bad <= limit * total:
            continue
        from scipy.special import bdtrc  # here, since a rollback that reads the settings must not wait for it

        chance = float(bdtrc(bad - 1, total, limit))
        (breaches if chance <= CHANCE else doubts).append(f"{seen.cloud}: {what} {bad} of {total}, limit {limit:.1%}")
