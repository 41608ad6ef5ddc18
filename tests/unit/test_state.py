from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.state import CloudState, SlotState, Version
from lockstep.rules.switch import Ending, SwitchResult
from lockstep.rules.traffic import TrafficSplit

#: Azure's rule for deployment names, the narrowest of the three clouds.
NARROWEST = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){2,31}")


@given(st.integers(1, 10**9), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_slot_name_fits_every_cloud(number: int, digest: str) -> None:
    assert NARROWEST.fullmatch(Version("m", str(number), digest).slot)


def test_the_same_number_with_other_bytes_is_another_slot() -> None:
    assert Version("m", "1", "a" * 64).slot != Version("m", "1", "b" * 64).slot


def test_a_split_is_known_only_when_the_clouds_numbers_are_whole() -> None:
    slots = (SlotState("a", 40, True, ""), SlotState("b", 60, True, ""), SlotState("c", 0, True, ""))
    assert CloudState("aws", "m", True, slots=slots).split == TrafficSplit.of({"a": 40, "b": 60})
    assert CloudState("aws", "m", True, slots=slots[:1]).split is None
    assert CloudState("aws", "m", False).split is None


@pytest.mark.parametrize(
    ("seconds", "reasons", "ending"),
    [
        ({"aws": 1.0, "gcp": 2.0}, {}, Ending.DONE),
        ({"aws": 1.0}, {"gcp": "down"}, Ending.SPLIT),
        ({}, {"aws": "down", "gcp": "down"}, Ending.NOWHERE),
    ],
)
def test_a_switch_ends_where_its_clouds_are(seconds: dict[str, float], reasons: dict[str, str], ending: Ending) -> None:
    assert SwitchResult(seconds, reasons).ending is ending
