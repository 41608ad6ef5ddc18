from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.traffic import TrafficSplit


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(-5, 110), max_size=4))
def test_a_split_exists_only_if_it_is_whole(weights: dict[str, int]) -> None:
    whole = sum(weights.values()) == 100 and all(weight >= 0 for weight in weights.values())
    if whole:
        split = TrafficSplit.of(weights)
        assert sum(weight for _, weight in split.weights) == 100
        assert all(split.weight(slot) == weight for slot, weight in weights.items())
    else:
        with pytest.raises(RefusedError):
            TrafficSplit.of(weights)


@given(st.integers(0, 100))
def test_a_canary_and_its_stable_neighbour_share_everything(per_cent: int) -> None:
    split = TrafficSplit.canary("v1", "v2", per_cent)
    assert split.weight("v2") == per_cent
    assert split.weight("v1") == 100 - per_cent


def test_equal_splits_are_equal_however_they_were_written() -> None:
    assert TrafficSplit.of({"b": 40, "a": 60, "c": 0}) == TrafficSplit.of({"a": 60, "b": 40})
    assert TrafficSplit.canary("v1", "v2", 100) == TrafficSplit.all_to("v2")
    assert str(TrafficSplit.of({"a": 60, "b": 40})) == "a 60 %, b 40 %"


def test_a_slot_named_twice_is_refused() -> None:
    with pytest.raises(RefusedError):
        TrafficSplit((("a", 50), ("a", 50)))
