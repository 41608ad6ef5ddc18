"""What is said of the way back, which must not contradict where a rollback goes."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.capacity import way_back
from lockstep.rules.state import DesiredState, ModelRecord, Version, VersionRecord
from lockstep.rules.target import choose_way
from tests.unit.test_target import EARLY, V1, V2, V3, record, serving, tags


def test_a_first_version_has_no_way_back_that_could_be_named() -> None:
    only = ModelRecord(DesiredState("m", V1), (VersionRecord(V1),))
    assert way_back(serving({V1: 100}), only, {}) == ["there is no way back: there is no other version"]


def test_after_a_rollback_to_the_oldest_what_it_left_is_condemned() -> None:
    left = ModelRecord(DesiredState("m", V1), (VersionRecord(V1), VersionRecord(V2, condemned="it is worse")))
    (told,) = way_back(serving({V1: 100}), left, {})
    assert told == "there is no way back: every other version is condemned (2)"


def test_a_version_that_may_be_named_and_one_that_is_known_to_be_good() -> None:
    assert "--to VERSION" in way_back(serving({V2: 100}), record(V2), {})[0]
    assert f"a rollback would go to {V1}" in way_back(serving({V2: 100}), record(V2, good={V1: EARLY}), {})[0]


@given(st.sampled_from((V1, V2, V3)), tags, tags)
def test_no_way_is_told_of_where_a_rollback_finds_none(
    champion: Version, good: Mapping[Version, str], condemned: Mapping[Version, str]
) -> None:
    known = record(champion, good=good, condemned=condemned)
    (told,) = way_back(serving({champion: 100}), known, {})
    try:
        target = choose_way(known, None, serving({champion: 100})).target
    except RefusedError:
        assert told.startswith(("there is no way back: ", "no way back is known: "))
        assert ("named by hand" in told) == any(
            not one.condemned and one.version.digest != champion.digest for one in known.versions
        )
    else:
        assert f"a rollback would go to {target}" in told
