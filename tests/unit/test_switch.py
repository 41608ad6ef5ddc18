"""The switch over all clouds: it ends whatever happens in whatever order, and keeps its promises on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.switch import (
    Announce,
    Announced,
    Began,
    Close,
    Commit,
    Committed,
    Ended,
    Ending,
    Event,
    Flip,
    GivenUp,
    Kind,
    Place,
    Prepare,
    Step,
    Switch,
    SwitchResult,
    TakeBack,
    Wait,
    after,
    next_step,
)

CLOUDS = ("aws", "azure", "gcp")
OF = {Prepare: Place.PREPARING, Flip: Place.FLIPPING, TakeBack: Place.TAKING_BACK}


def walk(data: st.DataObject, switch: Switch) -> tuple[list[tuple[Switch, Step]], Switch]:
    """Do every step, with whatever may come of it in whatever order; the steps, each with where the switch was."""
    steps: list[tuple[Switch, Step]] = []
    under_way: list[tuple[str, Place]] = []
    noise: st.SearchStrategy[Event] = st.sampled_from([Announced(), Committed(), Began(Flip(CLOUDS))])
    while True:
        step = next_step(switch)
        if not isinstance(step, Announce | Commit | Flip) and data.draw(st.booleans()):
            assert after(switch, data.draw(noise)) == switch, "what belongs nowhere changes nothing"
        if data.draw(st.sampled_from([False] * 9 + [True])):
            switch = given_up(switch)
            under_way = [(cloud, place) for cloud, place in under_way if switch.places[cloud] is place]
            step = next_step(switch)
        steps.append((switch, step))
        assert len(steps) < 60, "it does not end"
        match step:
            case Close():
                return steps, switch
            case Announce():
                switch = after(switch, Announced())
            case Commit():
                no = GivenUp("no") if switch.kind is Kind.PROMOTION else Committed()
                decided: st.SearchStrategy[Event] = st.sampled_from([Committed(), Committed(), no])
                switch = after(switch, data.draw(decided))
            case Wait(clouds):
                assert {cloud for cloud, _ in under_way} == set(clouds)
                cloud, place = data.draw(st.sampled_from(under_way))
                under_way.remove((cloud, place))
                switch = after(switch, Ended(cloud, place, 1.5, data.draw(st.sampled_from(["", "", "down"]))))
            case Prepare() | Flip() | TakeBack():
                under_way += [(cloud, OF[type(step)]) for cloud in step.clouds]
                switch = after(switch, Began(step))


def given_up(switch: Switch) -> Switch:
    """Given up at any time: a rollback takes no notice, and neither does what goes back, or was decided."""
    after_it = after(switch, GivenUp("Ctrl-C"))
    if switch.kind is Kind.ROLLBACK or switch.committed or switch.goes_back:
        assert after_it == switch
    else:
        assert after_it.goes_back
        assert not after_it.at(Place.PREPARING, Place.FLIPPING)
    return after_it


@given(st.data(), st.sampled_from(Kind), st.sets(st.sampled_from(CLOUDS)))
def test_every_switch_ends_and_keeps_its_promises(data: st.DataObject, kind: Kind, cold: set[str]) -> None:
    steps, switch = walk(data, Switch.of(kind, CLOUDS, cold))
    kinds = [type(step) for _, step in steps]
    flips = [place for place, step in enumerate(kinds) if step is Flip]
    assert kinds[0] is Announce
    assert kinds.count(Announce) == 1
    assert kinds.count(Commit) <= 1
    for state, step in steps:
        if isinstance(step, Flip):
            assert {state.places[cloud] for cloud in step.clouds} == {Place.READY}, "only what is ready is flipped"
        if isinstance(step, Prepare):
            assert set(step.clouds) <= cold
    ending = steps[-1][1]
    assert isinstance(ending, Close)
    assert not switch.under_way
    if kind is Kind.ROLLBACK:
        assert TakeBack not in kinds, "a rollback only goes forward"
        assert all(kinds.index(Commit) < flip for flip in flips), "no flip before the decision"
        if switch.committed:
            assert not switch.at(Place.READY, Place.COLD), "every cloud that could follow was asked to"
        assert ending.ending is (
            Ending.NOWHERE
            if not switch.seconds
            else Ending.DONE
            if set(switch.seconds) == set(CLOUDS)
            else Ending.SPLIT
        )
    else:
        assert ending.ending is not Ending.DONE or set(switch.seconds) == set(CLOUDS)
        assert len(flips) <= 1, "all at once"
        if ending.ending in (Ending.TAKEN_BACK, Ending.NOWHERE):
            assert not switch.committed
            assert not switch.at(Place.SERVING, Place.LOST, Place.STUCK), "everywhere or nowhere"
        if ending.ending is Ending.SPLIT:
            assert switch.at(Place.STUCK)


@given(st.data(), st.sampled_from(Kind), st.sets(st.sampled_from(CLOUDS)))
def test_what_is_told_twice_or_too_late_changes_nothing(data: st.DataObject, kind: Kind, cold: set[str]) -> None:
    steps, _ = walk(data, Switch.of(kind, CLOUDS, cold))
    switch, _ = data.draw(st.sampled_from(steps))
    cloud = data.draw(st.sampled_from([*CLOUDS, "nobody"]))
    place = data.draw(st.sampled_from(Place))
    if switch.places.get(cloud) is not place or place not in OF.values():
        assert after(switch, Ended(cloud, place, 9.0, "late")) == switch
    if next_step(switch) != Commit():
        assert after(switch, Committed()) == switch


def test_a_warm_rollback_flips_everything_at_once() -> None:
    switch = after(Switch.of(Kind.ROLLBACK, CLOUDS), Announced())
    assert next_step(switch) == Commit()
    switch = after(switch, Committed())
    assert next_step(switch) == Flip(CLOUDS)
    switch = after(switch, Began(Flip(CLOUDS)))
    for seconds, cloud in enumerate(CLOUDS, 1):
        assert isinstance(next_step(switch), Wait)
        switch = after(switch, Ended(cloud, Place.FLIPPING, seconds))
    assert next_step(switch) == Close(Ending.DONE)
    assert switch.result == SwitchResult({"aws": 1, "azure": 2, "gcp": 3}, {})


def test_a_cold_cloud_holds_no_other() -> None:
    switch = after(Switch.of(Kind.ROLLBACK, CLOUDS, cold=["gcp"]), Announced())
    assert next_step(switch) == Prepare(("gcp",))
    switch = after(after(switch, Began(Prepare(("gcp",)))), Committed())
    assert next_step(switch) == Flip(("aws", "azure"))
    switch = after(switch, Began(Flip(("aws", "azure"))))
    switch = after(switch, Ended("aws", Place.FLIPPING, 1))
    switch = after(switch, Ended("gcp", Place.PREPARING, 300))
    assert next_step(switch) == Flip(("gcp",)), "as soon as it is ready, though azure is still flipping"
    switch = after(switch, Began(Flip(("gcp",))))
    switch = after(switch, Ended("gcp", Place.FLIPPING, 2))
    assert next_step(switch) == Wait(("azure",))
    switch = after(switch, Ended("azure", Place.FLIPPING, reason="busy"))
    assert next_step(switch) == Close(Ending.SPLIT)
    assert switch.result.reasons == {"azure": "busy"}


def test_nothing_is_decided_for_a_target_that_no_cloud_can_take() -> None:
    switch = after(Switch.of(Kind.ROLLBACK, CLOUDS, cold=CLOUDS), Announced())
    switch = after(switch, Began(Prepare(CLOUDS)))
    for cloud in CLOUDS:
        switch = after(switch, Ended(cloud, Place.PREPARING, reason="no capacity"))
    assert next_step(switch) == Close(Ending.NOWHERE)
    assert not switch.committed


def test_a_fleet_without_clouds_is_refused() -> None:
    with pytest.raises(RefusedError, match="no cloud"):
        Switch.of(Kind.ROLLBACK, ())
