from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import NotFoundError, RefusedError
from lockstep.rules.naming import find_version
from lockstep.rules.state import (
    CloudState,
    DesiredState,
    FleetState,
    ModelRecord,
    SlotState,
    Version,
    VersionRecord,
)
from lockstep.rules.target import Why, choose_way, nothing_to_leave
from lockstep.rules.target import serving as newest_change

V1, V2, V3 = (Version("m", str(number), letter * 64) for number, letter in ((1, "a"), (2, "b"), (3, "c")))
EARLY, LATE = "2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z"


def serving(weights: Mapping[Version, int], **unreachable: str) -> FleetState:
    slots = tuple(SlotState(version.slot, weight, True, "InService") for version, weight in weights.items())
    return FleetState("m", (CloudState("aws", "m", True, slots=slots),), unreachable)


def record(
    champion: Version | None,
    challenger: Version | None = None,
    fallback: Version | None = None,
    good: Mapping[Version, str] | None = None,
    condemned: Mapping[Version, str] | None = None,
) -> ModelRecord:
    versions = tuple(
        VersionRecord(version, (condemned or {}).get(version, ""), (good or {}).get(version, ""))
        for version in (V1, V2, V3)
    )
    return ModelRecord(DesiredState("m", champion, challenger, fallback), versions, {"champion": "2"})


def test_the_newest_known_good_version_is_the_way_back() -> None:
    way = choose_way(record(V3, fallback=V1, good={V1: EARLY, V2: LATE, V3: LATE}), None, serving({V3: 100, V1: 0}))
    assert (way.target, way.left, way.why) == (V2, (V3,), Why.KNOWN_GOOD)
    older = choose_way(record(V3, fallback=V2, good={V1: LATE, V2: EARLY}), None, serving({V3: 100}))
    assert older.target == V1, "the one that earned it last, whatever its number"


def test_a_condemned_version_is_passed_over() -> None:
    way = choose_way(record(V3, good={V1: EARLY, V2: LATE}, condemned={V2: "slow"}), None, serving({V3: 100}))
    assert (way.target, way.why) == (V1, Why.KNOWN_GOOD)


def test_a_tag_that_holds_no_time_is_no_known_good() -> None:
    for tag in ("yes", "2026-11-21T10:00:00"):
        way = choose_way(record(V3, fallback=V1, good={V2: tag}), None, serving({V3: 100}))
        assert (way.target, way.why) == (V1, Why.FALLBACK)


def test_the_fallback_is_the_way_back_when_nothing_has_soaked_and_that_is_said() -> None:
    way = choose_way(record(V2, fallback=V1), None, serving({V2: 100, V1: 0}))
    assert (way.target, way.left, way.why) == (V1, (V2,), Why.FALLBACK)
    assert "has not soaked" in way.why


def test_a_named_version_is_the_target() -> None:
    way = choose_way(record(V2, fallback=V1, good={V1: LATE}), V3, serving({V2: 100}))
    assert (way.target, way.left, way.why) == (V3, (V2,), Why.NAMED)


def test_a_named_version_that_is_condemned_is_refused_with_the_way_to_lift_it() -> None:
    with pytest.raises(RefusedError, match="condemned: slow") as caught:
        choose_way(record(V2, fallback=V1, condemned={V3: "slow"}), V3, serving({V2: 100}))
    assert "lockstep lift m 3 --reason" in caught.value.hint


def test_a_running_canary_is_taken_back_first() -> None:
    known = record(V2, challenger=V3, fallback=V1, good={V1: LATE})
    way = choose_way(known, None, serving({V2: 95, V3: 5}))
    assert (way.target, way.left, way.why) == (V2, (V3,), Why.CANARY)
    named = choose_way(known, V1, serving({V2: 95, V3: 5}))
    assert (named.target, named.left) == (V1, (V2, V3))


def test_a_condemned_champion_is_left_with_its_canary() -> None:
    known = record(V2, challenger=V3, good={V1: LATE}, condemned={V2: "found later"})
    way = choose_way(known, None, serving({V2: 95, V3: 5}), V2.digest)
    assert (way.target, way.left) == (V1, (V2, V3))


def test_a_challenger_that_takes_no_traffic_is_no_canary() -> None:
    known = record(V2, challenger=V3, fallback=V1)
    way = choose_way(known, None, serving({V2: 100, V3: 0}))
    assert (way.target, way.left) == (V1, (V2,))
    assert choose_way(known, None, serving({V2: 100}, gcp="down")).target == V2, "what cannot be seen may have traffic"


def test_a_second_alert_of_one_incident_stays_where_the_first_led() -> None:
    known = record(V1, good={V2: LATE})
    way = choose_way(known, None, serving({V1: 100}), V1.digest)
    assert (way.target, way.why) == (V1, Why.ARRIVED)
    assert choose_way(known, None, serving({V1: 100}), V3.digest).target == V2


def test_without_a_known_good_version_the_error_says_why_and_what_to_do() -> None:
    for known, told in (
        (record(V2), "no other version has earned it, and there is no alias 'fallback'"),
        (record(V2, fallback=V2), "points at what serves"),
        (record(V2, fallback=V1, good={V1: LATE}, condemned={V1: "slow"}), r"is condemned: slow \(condemned: 1\)"),
        (ModelRecord(DesiredState("m", None)), "it has no version"),
        (ModelRecord(DesiredState("m", V2), (VersionRecord(V2),)), "it has no other version"),
    ):
        with pytest.raises(RefusedError, match=f"no known-good version.*{told}") as caught:
            choose_way(known, None, serving({V2: 100}))
        assert "lockstep rollback m --to VERSION" in caught.value.hint


def test_a_version_is_found_by_number_alias_and_digest() -> None:
    for text, found in (("1", V1), ("v3", V3), ("champion", V2), ("@champion", V2), ("c" * 8, V3)):
        assert find_version(record(V2), text) == found
    for text in ("9", "c" * 7, "nobody", ""):
        with pytest.raises(NotFoundError, match="aliases: champion"):
            find_version(record(V2), text)


versions = st.sampled_from([None, V1, V2, V3])
tags = st.dictionaries(st.sampled_from([V1, V2, V3]), st.sampled_from([EARLY, LATE, "never"]))


@given(versions, versions, versions, versions, st.integers(0, 100), tags, tags)
def test_the_target_is_never_condemned_nor_left_behind(
    champion: Version | None,
    challenger: Version | None,
    fallback: Version | None,
    named: Version | None,
    share: int,
    good: Mapping[Version, str],
    condemned: Mapping[Version, str],
) -> None:
    observed = serving({V3: share, V2: 100 - share})
    try:
        way = choose_way(record(champion, challenger, fallback, good, condemned), named, observed)
    except RefusedError:
        assert named in (None, *condemned)
        return
    assert way.target not in condemned
    assert way.target not in way.left
    assert way.target in (champion, fallback, named) or good[way.target] in (EARLY, LATE)
    if named is None and way.target == champion:
        assert way.why is Why.CANARY


def test_what_is_to_be_left_and_serves_is_left() -> None:
    known = record(V3, fallback=V2, good={V1: EARLY, V2: LATE})
    way = choose_way(known, None, serving({V3: 100, V2: 0}), leaving=V3)
    assert (way.target, way.left) == (V2, (V3,))
    assert nothing_to_leave(known, V3, serving({V3: 100})) == ""


def test_what_is_to_be_left_is_left_even_where_a_rollback_has_just_led_or_a_canary_is_tried_beside_it() -> None:
    known = record(V2, good={V1: EARLY, V2: LATE})
    assert choose_way(known, None, serving({V2: 100}), V2.digest, leaving=V2).target == V1
    assert choose_way(known, None, serving({V2: 100}), V2.digest).target == V2
    tried = record(V2, V3, good={V1: EARLY, V2: LATE})
    way = choose_way(tried, None, serving({V2: 95, V3: 5}), leaving=V2)
    assert (way.target, way.left) == (V1, (V2, V3))


def test_a_canary_that_is_to_be_left_is_taken_back_to_the_champion() -> None:
    tried, observed = record(V2, V3, good={V1: LATE}), serving({V2: 95, V3: 5})
    assert newest_change(tried, observed) == V3
    assert nothing_to_leave(tried, V3, observed) == ""
    way = choose_way(tried, None, observed, leaving=V3)
    assert (way.target, way.left, way.why) == (V2, (V3,), Why.STAYS)


def test_from_a_version_that_serves_no_more_nothing_goes_further() -> None:
    known = record(V2, fallback=V1, good={V1: LATE}, condemned={V3: "slow"})
    assert "serves no more" in nothing_to_leave(known, V3, serving({V2: 100, V3: 0}))
    assert choose_way(known, None, serving({V2: 100, V3: 0}), leaving=V3).target == V2


def test_a_cloud_that_still_serves_it_is_brought_to_the_champion() -> None:
    known, behind = record(V2, fallback=V1, good={V1: LATE}), serving({V2: 0, V3: 100})
    assert nothing_to_leave(known, V3, behind) == ""
    way = choose_way(known, None, behind, leaving=V3)
    assert (way.target, way.left) == (V2, ())


def test_a_condemned_champion_is_no_place_to_stay() -> None:
    known, behind = record(V2, good={V1: LATE}, condemned={V2: "slow"}), serving({V3: 100})
    assert choose_way(known, None, behind, leaving=V3).target == V1
