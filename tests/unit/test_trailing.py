"""Which clouds are behind, until when, and how long a rollback would take, as the ledger tells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.expected import NEWEST, expect
from lockstep.rules.trailing import read_trailing
from lockstep.stores.ledger import Entry


def entry(number: int, kind: str, **body: object) -> Entry:
    return Entry(number, f"e{number}", 1000.0 + number, kind, "m", "anna", body)


SPLIT = entry(1, "rollback.outcome", split={"azure": "it is Updating"}, next_try=60)


def test_a_cloud_that_could_not_follow_is_named_with_its_next_try() -> None:
    (one,) = read_trailing([SPLIT], 300.0).values()
    assert (one.cloud, one.reason, one.since, one.next_try) == ("azure", "it is Updating", 1001.0, 1061.0)
    told = one.told(now=1030.0)
    assert "where reconcile is scheduled the next try is due at 1970-01-01T00:17:41" in told
    assert "elsewhere nobody tries: lockstep reconcile" in told
    assert "next try was due at" in one.told(now=2000.0)


def test_the_newest_outcome_alone_tells() -> None:
    assert read_trailing([SPLIT, entry(2, "reconcile.outcome", split={})], 300.0) == {}
    assert read_trailing([entry(2, "reconcile.outcome", split={"gcp": "down"}), SPLIT], 300.0).keys() == {"gcp"}
    assert read_trailing([entry(2, "shift.outcome", split={"gcp": "down"})], 300.0) == {}


def test_the_schedule_stands_in_where_no_next_try_is_told() -> None:
    (one,) = read_trailing([entry(1, "reconcile.outcome", split={"gcp": "down"})], 300.0).values()
    assert one.next_try == 1301.0


def test_without_a_past_the_clouds_usual_time_is_told() -> None:
    warm = expect("aws", [], cold=False, flip=15.0, deploy=600.0)
    cold = expect("aws", [], cold=True, flip=15.0, deploy=600.0)
    assert (warm.seconds, cold.seconds) == (15.0, 615.0)
    assert str(warm) == "aws: warm; about 15 s (a flip usually takes 15 s there)"
    assert "cold, must be deployed first" in str(cold)


@given(st.lists(st.floats(0.1, 1000.0), min_size=1, max_size=30), st.booleans())
def test_the_median_of_the_newest_times_of_that_cloud_is_expected(times: list[float], cold: bool) -> None:
    lines = [entry(n, "shift.outcome", seconds={"aws": time, "gcp": 1e6}) for n, time in enumerate(times)]
    lines += [entry(100, "prepare.outcome", seconds={"aws": 100.0}), entry(101, "shift.outcome", seconds={})]
    found = expect("aws", lines, cold=cold, flip=15.0, deploy=600.0)
    newest = sorted(times[-NEWEST:])
    flip = found.seconds - (100.0 if cold else 0.0)
    assert newest[0] - 1e-6 <= flip <= newest[-1] + 1e-6
    assert found.cold is cold
