from __future__ import annotations

from dataclasses import replace

from lockstep.rules.judge import Decision
from lockstep.rules.limits import Observed, ServiceLimits, judge_alone

LIMITS = ServiceLimits(min_requests=50, max_error_rate=0.05, max_bad_outcomes=0.2, max_latency=1.0)


def test_within_every_limit_passes() -> None:
    verdict = judge_alone([Observed("aws", 100, 5, 100, 20, 0.9)], LIMITS)
    assert verdict.decision is Decision.PASS


def test_each_breach_is_named_with_its_cloud() -> None:
    seen = [Observed("aws", 100, 30), Observed("azure", 100, 0, 100, 60), Observed("gcp", 100, 0, latency_p95=2.0)]
    verdict = judge_alone(seen, LIMITS)
    assert verdict.decision is Decision.FAIL
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["aws", "azure", "gcp"]


def test_slightly_above_by_chance_is_no_breach_and_not_well_either() -> None:
    verdict = judge_alone([Observed("aws", 100, 7)], LIMITS)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reasons == ("aws: failed requests 7 of 100, limit 5.0% (may be chance)",)


def test_bad_everywhere_shows_before_one_cloud_has_seen_enough() -> None:
    seen = [Observed("aws", 20, 0, 20, 12), Observed("azure", 20, 0, 20, 12), Observed("gcp", 20, 0, 20, 12)]
    verdict = judge_alone(seen, LIMITS)
    assert verdict.decision is Decision.FAIL
    assert verdict.reasons == ("all clouds: bad outcomes 36 of 60, limit 20.0%",)


def test_little_traffic_says_nothing_however_bad() -> None:
    assert judge_alone([Observed("aws", 10, 10, 10, 10, 9.0)], LIMITS).decision is Decision.INCONCLUSIVE
    assert judge_alone([], LIMITS).decision is Decision.INCONCLUSIVE


def test_without_a_latency_limit_slow_is_allowed() -> None:
    slow = [Observed("aws", 100, 0, latency_p95=60.0)]
    assert judge_alone(slow, replace(LIMITS, max_latency=None)).decision is Decision.PASS
