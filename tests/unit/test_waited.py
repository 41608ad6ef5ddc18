"""Of runs that waited, one of each kind is carried out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.waited import GRACE, Due, asked_at, superseded

NOW = 1_000_000.0
RUNS = st.lists(
    st.builds(
        Due,
        st.uuids().map(str),
        st.sampled_from(["", "monitor", "rollback"]),
        st.sampled_from([{}, {"model": "churn"}, {"model": "churn", "to": None}]),
        st.floats(NOW - 1000.0, NOW),
    ),
    max_size=12,
    unique_by=lambda run: run.id,
)


def test_thirty_looks_that_were_saved_up_are_one() -> None:
    runs = [Due(str(number), "monitor", {"fleet": "default"}, NOW - 300.0 * (30 - number)) for number in range(30)]
    assert superseded(runs, NOW) == {str(number): "29" for number in range(29)}


def test_what_has_hardly_waited_is_carried_out_as_it_is() -> None:
    assert superseded([Due("a", "reconcile", {}, NOW - 2.0), Due("b", "reconcile", {}, NOW - 1.0)], NOW) == {}


def test_runs_that_say_other_things_are_other_runs() -> None:
    old = [Due("a", "rollback", {"alert": "1"}, NOW - 900.0), Due("b", "rollback", {"alert": "2"}, NOW - 800.0)]
    assert superseded(old, NOW) == {}


@given(RUNS)
def test_of_each_kind_the_newest_is_left_and_nothing_that_is_not_late_is_dropped(runs: list[Due]) -> None:
    found = superseded(runs, NOW)
    by_id = {run.id: run for run in runs}
    for old, new in found.items():
        assert new not in found
        assert by_id[old].does == by_id[new].does
        assert by_id[old].expected <= by_id[new].expected
        assert NOW - by_id[old].expected > GRACE
        assert by_id[old].deployment
    assert {run.does for run in runs} == {run.does for run in runs if run.id not in found}
    kept = [run for run in runs if run.id not in found and run.deployment and NOW - run.expected > GRACE]
    assert len({run.does for run in kept}) == len(kept), "no two late ones do the same"


def test_a_rollback_leaves_what_served_when_it_was_asked_for_only_if_it_waited() -> None:
    assert asked_at(None, NOW) == asked_at(1.0, NOW) == asked_at(GRACE, NOW) == asked_at(-5.0, NOW) == 0.0
    assert asked_at(7200.0, NOW) == NOW - 7200.0
