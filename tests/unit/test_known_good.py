"""Known-good is earned by soaking, by the ledger alone; and it decides where the way back leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.known_good import (
    earned_at,
    fallback_after_promotion,
    fallback_after_rollback,
    judge_standing,
    known_good,
    known_good_tag,
    read_soak,
)
from lockstep.rules.state import DesiredState, ModelRecord, Version, VersionRecord

V1, V2, V3 = (Version("m", str(number), letter * 64) for number, letter in ((1, "a"), (2, "b"), (3, "c")))
SOAK = 100.0


@dataclass(frozen=True)
class Said:
    """One entry."""

    number: int
    at: float
    kind: str
    body: Mapping[str, object] = field(default_factory=dict)
    event_id: str = ""
    actor: str = "test"
    late: bool = False


def said(*entries: tuple[float, str, Version, Mapping[str, object]]) -> list[Said]:
    return [
        Said(number, at, kind, {"version": version.label, "digest": version.digest, **body}, f"e{number}/intent")
        for number, (at, kind, version, body) in enumerate(entries)
    ]


PROMOTED = "promote.outcome"
BACK = "rollback.outcome"
FAIL = {"decision": "fail"}
DONE = {"ending": "done", "left": ["3"]}


def earned(lines: list[Said], version: Version, now: float) -> bool:
    return judge_standing(lines, version, SOAK, now).earned


def test_a_champion_earns_it_by_its_time() -> None:
    lines = said((10.0, PROMOTED, V1, {}))
    assert not earned(lines, V1, 109.9)
    assert earned(lines, V1, 110.0)
    assert not earned(lines, V2, 500.0), "the ledger does not say that it is champion"
    told = judge_standing(lines, V1, SOAK, 50.0).told
    assert told == "champion for 40.0 s since it was promoted (entry 0), of 100.0 s"


def test_no_entry_gives_nothing() -> None:
    assert read_soak([]) is None
    assert not judge_standing([], V1, 0.0, 1.0).earned
    assert not earned(said((10.0, PROMOTED, V1, {"error": "MLflow is down"})), V1, 500.0)
    assert not earned(said((10.0, BACK, V1, {"error": "refused"})), V1, 500.0), "it never came to its commit"


def test_a_clock_that_was_set_back_has_seen_nothing_soak() -> None:
    assert not judge_standing(said((10.0, PROMOTED, V1, {})), V1, 0.0, 5.0).earned


@pytest.mark.parametrize(
    ("kind", "body"),
    [("verdict.outcome", FAIL), ("monitor.intent", {}), ("monitor.breach", {})],
)
def test_what_judges_it_bad_starts_its_time_anew(kind: str, body: Mapping[str, object]) -> None:
    lines = said((10.0, PROMOTED, V1, {}), (60.0, kind, V1, body))
    assert not earned(lines, V1, 150.0)
    assert earned(lines, V1, 160.0)
    other = said((10.0, PROMOTED, V1, {}), (60.0, kind, V2, body))
    assert earned(other, V1, 110.0), "a canary that was judged bad is another version"


def test_a_verdict_that_is_not_bad_disturbs_nothing() -> None:
    assert earned(said((10.0, PROMOTED, V1, {}), (60.0, "verdict.outcome", V1, {"decision": "pass"})), V1, 110.0)


def test_a_rollback_ends_one_soak_and_begins_another() -> None:
    lines = said((10.0, PROMOTED, V3, {}), (60.0, BACK, V1, DONE))
    assert not earned(lines, V3, 1000.0)
    assert not earned(lines, V1, 159.0)
    assert earned(lines, V1, 160.0)


def test_a_rollback_that_found_it_serving_already_disturbs_nothing() -> None:
    lines = said((10.0, PROMOTED, V1, {}), (60.0, BACK, V1, {"ending": "done", "left": []}))
    assert earned(lines, V1, 110.0)


def test_a_split_counts_only_once_every_cloud_follows() -> None:
    split = said((10.0, BACK, V1, {"ending": "split"}), (60.0, BACK, V1, {"ending": "done", "left": []}))
    assert not earned(split, V1, 150.0)
    assert earned(split, V1, 160.0)
    healed = said((10.0, BACK, V1, {"ending": "split"}), (60.0, "reconcile.outcome", V1, {}))
    assert not earned(healed, V1, 150.0)
    assert earned(healed, V1, 160.0)
    again = said((10.0, PROMOTED, V1, {}), (60.0, "reconcile.outcome", V1, {}))
    assert earned(again, V1, 110.0), "nothing had to be healed"


def test_a_rollback_of_which_nothing_more_is_known_disturbs() -> None:
    lines = said((10.0, PROMOTED, V3, {}), (60.0, "rollback.intent", V1, {}))
    assert not earned(lines, V3, 150.0)
    ended = [*lines, Said(2, 70.0, BACK, {"digest": V1.digest, "intent": "e1", "error": "not one cloud was ready"})]
    assert earned(ended, V3, 110.0), "it ended before its commit"


def test_a_rollback_that_was_given_up_disturbs_and_makes_nothing_champion() -> None:
    given_up = {"ending": "given up", "error": "given up for 2"}
    lines = said((10.0, PROMOTED, V3, {}), (60.0, BACK, V1, given_up))
    assert not earned(lines, V1, 500.0)
    assert not earned(lines, V3, 150.0)
    assert earned(lines, V3, 160.0)


def record(good: Mapping[Version, str], fallback: Version | None = None, *condemned: Version) -> ModelRecord:
    versions = tuple(VersionRecord(one, "bad" if one in condemned else "", good.get(one, "")) for one in (V1, V2, V3))
    return ModelRecord(DesiredState("m", V2, fallback=fallback), versions)


EARLY, LATE = known_good_tag(1000.0), known_good_tag(2000.0)


def test_the_tag_is_a_time() -> None:
    assert EARLY == "1970-01-01T00:16:40Z"
    assert earned_at(VersionRecord(V1, known_good=EARLY)) == 1000.0
    assert [one.version for one in known_good(record({V1: LATE, V2: EARLY, V3: "x"}))] == [V1, V2]


def test_the_fallback_after_a_promotion() -> None:
    cases = [
        (record({}), True, V2, "the stable version, which soaked"),
        (record({V1: EARLY}, V1), True, V2, "the stable version, which soaked"),
        (record({V1: EARLY}, V1), False, V1, "the old one, since the stable one had no time"),
        (record({}, V1), False, V2, "neither soaked: the newer"),
        (record({V1: EARLY}, V1, V1), False, V2, "the old one is condemned"),
        (record({V1: EARLY}, V1, V2), True, V1, "the stable one is condemned"),
        (record({}, V1, V2), True, None, "nothing that may be gone to"),
    ]
    for known, soaked, wanted, why in cases:
        assert fallback_after_promotion(known, V2, V3, earned=soaked) == wanted, why
    assert fallback_after_promotion(record({V3: EARLY}, V3), V2, V3, earned=False) == V2, "never what serves"


def test_the_fallback_after_a_rollback() -> None:
    assert fallback_after_rollback(record({V1: EARLY, V2: LATE}, V1), V1, (V3,)) == V2
    assert fallback_after_rollback(record({V1: EARLY}, V1), V1, (V2,)) is None
    assert fallback_after_rollback(record({}, V3), V1, (V2,)) == V3, "better than none"
    assert fallback_after_rollback(record({V3: LATE}, V3, V3), V1, (V2,)) is None


versions = st.sampled_from([V1, V2, V3])
bodies = st.sampled_from([FAIL, {"ending": "done", "left": ["2"]}, {"ending": "split"}, {"error": "x"}, {}])
kinds = st.sampled_from([PROMOTED, BACK, "rollback.intent", "verdict.outcome", "monitor.intent", "reconcile.outcome"])
pasts = st.lists(st.tuples(st.integers(0, 300).map(float), kinds, versions, bodies), max_size=12)


@given(pasts, versions, st.integers(0, 500).map(float))
def test_nothing_is_earned_with_something_against_it(
    past: list[tuple[float, str, Version, Mapping[str, object]]], version: Version, now: float
) -> None:
    """In the soak before, nothing judged it bad and no other version became champion."""
    past = sorted(past, key=lambda one: one[0])
    if not earned(said(*past), version, now):
        return
    since = now - SOAK
    assert any(one.digest == version.digest and kind in (PROMOTED, BACK) for at, kind, one, _ in past if at <= since)
    for at, kind, one, body in past:
        if since < at <= now and kind != "reconcile.outcome":
            mine = one.digest == version.digest
            assert not (mine and kind == "monitor.intent")
            assert not (mine and kind == "verdict.outcome" and body == FAIL)
            assert mine or not (kind == PROMOTED and "error" not in body)
            assert mine or not (kind == BACK and "ending" in body)


@given(
    st.dictionaries(versions, st.sampled_from([EARLY, LATE, "no time"])),
    st.sampled_from([None, V1, V2, V3]),
    st.sets(versions),
    versions,
    versions,
    st.booleans(),
)
def test_the_fallback_is_never_what_serves_nor_condemned(
    good: Mapping[Version, str],
    old: Version | None,
    condemned: set[Version],
    stable: Version,
    new: Version,
    soaked: bool,
) -> None:
    known = record(good, old, *condemned)
    for found in (
        fallback_after_promotion(known, stable, new, earned=soaked),
        fallback_after_rollback(known, new, (stable,)),
    ):
        assert found is None or (found != new and found not in condemned)
    assert fallback_after_rollback(known, new, (stable,)) != stable
