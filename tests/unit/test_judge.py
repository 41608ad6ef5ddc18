from __future__ import annotations

import math
import random
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.rules.judge import ODDS_RATIOS, Decision, Latency, Limits, Period, evidence, judge, log_e_value

LIMITS = Limits(alpha=0.05, caution=1.0, min_requests=50)
arm = st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))  # requests, bad ones of them
counts = st.tuples(arm, arm).map(lambda arms: (*arms[0], *arms[1]))


def exact(canary: int, canary_bad: int, stable: int, stable_bad: int, psi: Fraction) -> Fraction:
    """The same ratio in rational arithmetic, straight from the definition."""
    bad = canary_bad + stable_bad
    terms = [(j, comb(canary, j) * comb(stable, bad - j)) for j in range(max(0, bad - stable), min(canary, bad) + 1)]
    return psi**canary_bad * sum(w for _, w in terms) / sum((w * psi**j for j, w in terms), Fraction(0))


@given(counts)
def test_the_e_value_is_the_likelihood_ratio_of_the_definition(c: tuple[int, int, int, int]) -> None:
    canary, canary_bad, stable, stable_bad = c
    logs = log_e_value(canary, canary_bad, stable, stable_bad)
    for psi, log_e in zip(ODDS_RATIOS, logs, strict=True):
        expected = 1 if not (canary and stable) else exact(*c, psi=Fraction(str(psi)))
        assert log_e == pytest.approx(math.log(expected), abs=1e-9)


@given(st.integers(1, 25), st.integers(1, 25), st.data())
def test_its_mean_is_one_when_the_canary_is_no_worse(canary: int, stable: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(1, canary + stable))
    total = comb(canary + stable, bad)
    mean = [0.0] * len(ODDS_RATIOS)
    for x in range(max(0, bad - stable), min(canary, bad) + 1):
        chance = comb(canary, x) * comb(stable, bad - x) / total
        for number, log_e in enumerate(log_e_value(canary, x, stable, bad - x)):
            mean[number] += chance * math.exp(log_e)
    assert mean == pytest.approx([1.0] * len(ODDS_RATIOS), rel=1e-9)


@pytest.mark.parametrize("wrong", [(1, 2, 1, 0), (1, 0, 1, 2), (-1, 0, 1, 0)])
def test_impossible_counts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        log_e_value(*wrong)


def rollout(seed: int, canary_rate: float, stable_rate: float, periods: int, cloud: str = "aws") -> list[Period]:
    chance = random.Random(seed)
    made = []
    for _ in range(periods):
        canary = sum(chance.random() < canary_rate for _ in range(25))
        stable = sum(chance.random() < stable_rate for _ in range(75))
        made.append(Period("errors", cloud, 25, canary, 75, stable))
    return made


def first_failure(periods: list[Period]) -> int | None:
    for seen in range(1, len(periods) + 1):
        if judge(periods[:seen], 1000, (), LIMITS).decision is Decision.FAIL:
            return seen
    return None


def test_looking_after_every_period_rarely_takes_a_good_canary_back() -> None:
    wrong = sum(first_failure(rollout(seed, 0.03, 0.03, 20)) is not None for seed in range(100))
    assert wrong <= 0.05 * 100 + 3 * math.sqrt(100 * 0.05 * 0.95)


def test_a_bad_canary_is_found() -> None:
    found = [first_failure(rollout(seed, 0.3, 0.03, 12)) for seed in range(20)]
    assert all(seen is not None for seen in found)


def test_a_fault_on_one_cloud_alone_is_found() -> None:
    healthy = [period for cloud in ("azure", "gcp") for period in rollout(1, 0.03, 0.03, 20, cloud)]
    assert judge([*healthy, *rollout(2, 0.4, 0.03, 20, "aws")], 1500, (), LIMITS).decision is Decision.FAIL


def test_a_canary_that_is_better_gathers_no_evidence() -> None:
    assert evidence(rollout(3, 0.01, 0.2, 40)) < 0


@given(st.lists(counts, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_periods_does_not_matter(several: list[tuple[int, int, int, int]], chance: random.Random) -> None:
    periods = [Period("errors", "aws", *c) for c in several]
    shuffled = periods.copy()
    chance.shuffle(shuffled)
    assert evidence(shuffled) == pytest.approx(evidence(periods), abs=1e-9)


def test_too_few_requests_are_neither_pass_nor_fail() -> None:
    verdict = judge(rollout(4, 0.0, 0.0, 1), 25, (), LIMITS)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert "25 of 50" in verdict.reasons[0]
    assert judge([], 0, (), LIMITS).decision is Decision.INCONCLUSIVE


def test_enough_requests_without_harm_pass() -> None:
    assert judge(rollout(5, 0.03, 0.03, 8), 200, (), LIMITS).decision is Decision.PASS


def test_a_slow_canary_fails_and_names_its_cloud() -> None:
    slow = [Latency("gcp", 200, 0.9, 0.1)]
    verdict = judge(rollout(6, 0.0, 0.0, 4), 100, slow, LIMITS)
    assert verdict.decision is Decision.FAIL
    assert "gcp" in verdict.reasons[0]
    unknown = [Latency("gcp", 200, None, 0.1), Latency("aws", 200, 0.1, None), Latency("azure", 20, 9.0, 0.1)]
    assert judge(rollout(6, 0.0, 0.0, 4), 100, unknown, LIMITS).decision is Decision.PASS


def test_caution_asks_for_more_evidence() -> None:
    periods = rollout(7, 0.25, 0.03, 6)
    careful = Limits(alpha=0.05, caution=50.0, min_requests=50)
    assert judge(periods, 150, (), LIMITS).decision is Decision.FAIL
    assert judge(periods, 150, (), careful).decision is Decision.INCONCLUSIVE


def test_a_hint_of_harm_neither_passes_nor_fails() -> None:
    """Half of a handful were bad: no proof, but nobody would promote it."""
    hint = judge([Period("outcomes", "aws", 6, 3, 6, 0)], 50, (), LIMITS)
    assert hint.decision is Decision.INCONCLUSIVE
    assert "may be worse" in hint.reasons[0]
    cleared = [Period("outcomes", "aws", 6, 3, 6, 0), Period("outcomes", "aws", 60, 3, 60, 6)]
    assert judge(cleared, 50, (), LIMITS).decision is Decision.PASS


def test_a_canary_that_is_no_worse_is_seldom_held_up() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        periods = [Period("errors", "aws", 25, int(rng.binomial(25, 0.05)), 75, int(rng.binomial(75, 0.05)))]
        periods += [Period("errors", "aws", 25, int(rng.binomial(25, 0.05)), 75, int(rng.binomial(75, 0.05)))]
        held += judge(periods, 50, (), LIMITS).decision is Decision.INCONCLUSIVE
    assert held < 20
