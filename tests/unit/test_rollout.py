from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.judge import Decision
from lockstep.rules.rollout import Move, advance, plan_stages


def test_the_first_cloud_goes_ahead_alone_then_all_in_step() -> None:
    stages = plan_stages(["gcp", "aws"], [5, 25, 100])
    assert [stage.title for stage in stages] == ["5 % on gcp", "5 %", "25 %", "100 %"]
    assert stages[0].per_cent == {"gcp": 5, "aws": 0}
    assert [set(stage.per_cent.values()) for stage in stages[1:]] == [{5}, {25}, {100}]
    assert str(stages[0].splits("v1", "v2")["aws"]) == "v1 100 %"


def test_one_cloud_needs_no_scout() -> None:
    assert [stage.title for stage in plan_stages(["aws"], [50, 100])] == ["50 %", "100 %"]


@given(st.lists(st.integers(-5, 105), max_size=5))
def test_steps_must_rise_to_100(steps: list[int]) -> None:
    rising = steps == sorted(set(steps)) and bool(steps) and steps[0] >= 1 and steps[-1] == 100
    if rising:
        shares = [max(stage.per_cent.values()) for stage in plan_stages(["aws", "gcp"], steps)]
        assert shares == sorted(shares)
        assert shares[-1] == 100
    else:
        with pytest.raises(RefusedError):
            plan_stages(["aws", "gcp"], steps)


def test_a_rollout_without_clouds_is_refused() -> None:
    with pytest.raises(RefusedError):
        plan_stages([], [100])


@given(st.sampled_from(Decision), st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0.1, 1e5))
def test_only_a_pass_goes_forward_and_silence_is_not_success(
    decision: Decision, waited: float, step: float, patience: float
) -> None:
    move = advance(decision, waited, step, patience)
    if decision is Decision.FAIL:
        assert move is Move.TAKE_BACK
    elif decision is Decision.PASS:
        assert move is (Move.ADVANCE if waited >= step else Move.WAIT)
    else:
        assert move is (Move.TAKE_BACK if waited >= patience else Move.WAIT)
