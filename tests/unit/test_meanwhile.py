"""What takes a bad version's place while the target is being deployed is always good, ready and another one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.meanwhile import stand_in
from lockstep.rules.state import CloudState, SlotState, Version, VersionRecord

VERSIONS = [Version("m", str(label), f"{label:064x}") for label in range(8, 13)]  # 10 is newer than 9
TARGET, BAD = VERSIONS[0], VERSIONS[-1]


def cloud(*ready: Version) -> CloudState:
    slots = tuple(SlotState(one.slot, 0, one in ready, "") for one in VERSIONS)
    return CloudState("aws", "m", exists=True, slots=slots)


def test_the_newest_good_version_stands_in() -> None:
    good = [VersionRecord(one, known_good="2026-11-22T00:00:00Z") for one in VERSIONS]
    assert stand_in(cloud(*VERSIONS), good, TARGET, [BAD]) == VERSIONS[3]
    assert stand_in(cloud(VERSIONS[1], VERSIONS[2]), good, TARGET, [BAD]) == VERSIONS[2], "10 is newer than 9"
    assert stand_in(cloud(TARGET, BAD), good, TARGET, [BAD]) is None


RECORDS = st.tuples(*[
    st.builds(
        VersionRecord,
        st.just(one),
        condemned=st.sampled_from(["", "bad"]),
        known_good=st.sampled_from(["", "2026-11-22T00:00:00Z"]),
        verdict=st.sampled_from(["", "pass", "fail", "inconclusive"]),
    )
    for one in VERSIONS
])  # fmt: skip


@given(RECORDS, st.sets(st.sampled_from(VERSIONS)))
def test_only_what_is_ready_and_good_stands_in(records: tuple[VersionRecord, ...], ready: set[Version]) -> None:
    found = stand_in(cloud(*ready), records, TARGET, [BAD])
    if found is not None:
        record = next(one for one in records if one.version == found)
        assert found in ready
        assert found not in (TARGET, BAD)
        assert not record.condemned
        assert record.known_good or record.verdict == "pass"
