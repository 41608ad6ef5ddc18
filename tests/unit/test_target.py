from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.state import CloudState, DesiredState, FleetState, SlotState, Version
from lockstep.rules.target import choose_way

V1, V2, V3 = (Version("m", str(number), letter * 64) for number, letter in ((1, "a"), (2, "b"), (3, "c")))


def serving(weights: Mapping[Version, int], **unreachable: str) -> FleetState:
    slots = tuple(SlotState(version.slot, weight, True, "InService") for version, weight in weights.items())
    return FleetState("m", (CloudState("aws", "m", True, slots=slots),), unreachable)


def test_the_fallback_is_the_way_back() -> None:
    way = choose_way(DesiredState("m", V2, fallback=V1), None, serving({V2: 100, V1: 0}))
    assert (way.target, way.left) == (V1, (V2,))


def test_a_named_version_is_the_target() -> None:
    way = choose_way(DesiredState("m", V2, fallback=V1), V3, serving({V2: 100}))
    assert (way.target, way.left) == (V3, (V2,))


def test_a_running_canary_is_taken_back_first() -> None:
    desired = DesiredState("m", V2, challenger=V3, fallback=V1)
    way = choose_way(desired, None, serving({V2: 95, V3: 5}))
    assert (way.target, way.left) == (V2, (V3,))
    named = choose_way(desired, V1, serving({V2: 95, V3: 5}))
    assert (named.target, named.left) == (V1, (V2, V3))


def test_a_challenger_that_takes_no_traffic_is_no_canary() -> None:
    desired = DesiredState("m", V2, challenger=V3, fallback=V1)
    way = choose_way(desired, None, serving({V2: 100, V3: 0}))
    assert (way.target, way.left) == (V1, (V2,))
    assert choose_way(desired, None, serving({V2: 100}, gcp="down")).target == V2, (
        "what cannot be seen may have traffic"
    )


def test_a_second_alert_of_one_incident_stays_where_the_first_led() -> None:
    desired = DesiredState("m", V1)
    assert choose_way(desired, None, serving({V1: 100}), V1.digest).target == V1
    with pytest.raises(RefusedError):
        choose_way(desired, None, serving({V1: 100}), V2.digest)


def test_without_a_known_good_version_the_error_says_what_to_do() -> None:
    with pytest.raises(RefusedError, match="no known-good version") as caught:
        choose_way(DesiredState("m", V2), None, serving({V2: 100}))
    assert "lockstep rollback m --to" in caught.value.hint


versions = st.sampled_from([None, V1, V2, V3])


@given(versions, versions, versions, versions, st.integers(0, 100))
def test_the_target_is_never_left_behind(
    champion: Version | None, challenger: Version | None, fallback: Version | None, named: Version | None, share: int
) -> None:
    observed = serving({V3: share, V2: 100 - share})
    try:
        way = choose_way(DesiredState("m", champion, challenger, fallback), named, observed)
    except RefusedError:
        assert named is None
        return
    assert way.target not in way.left
    assert way.target in (champion, fallback, named)
