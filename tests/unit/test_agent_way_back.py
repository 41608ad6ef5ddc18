"""The page's button does what the page shows: a plan that is sent back leads where it said, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent import ways_back
from lockstep.agent.overview import ModelView, Overview, WayBack
from lockstep.agent.rendering import render
from lockstep.errors import RefusedError
from lockstep.rules.naming import find_version
from lockstep.rules.plan import Plan
from lockstep.rules.state import DesiredState, FleetState, ModelRecord, Version
from lockstep.rules.target import Why, choose_way, nothing_to_leave
from tests.unit.test_target import EARLY, LATE, V1, V2, V3, record, serving, tags, versions


def shown(known: ModelRecord, named: Version | None, observed: FleetState, arrived: str = "") -> WayBack:
    """What the page shows, by its own planning with nothing behind it."""
    way = choose_way(known, named, observed, arrived)
    planned = SimpleNamespace(way=way, plan=Plan("m", ()), before=observed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ways_back, "plan_rollback", lambda fleet, to: planned)
        patch.setattr(ways_back, "expect_times", lambda fleet, planned: ())
        return ways_back.plan_way(SimpleNamespace(model="m"))  # type: ignore[arg-type]


def test_a_canary_is_shown_to_be_left_and_is_what_is_left() -> None:
    tried, observed = record(V2, V3, good={V1: EARLY, V2: LATE}), serving({V2: 95, V3: 5})
    way = shown(tried, None, observed)
    assert (way.target, way.leaves, way.leaving) == (V2, (V3,), V3.digest)
    done = choose_way(tried, None, observed, leaving=find_version(tried, way.leaving))
    assert (done.target, done.left) == (way.target, way.leaves)
    page = render("plan.html", way=way, champion=V2)
    assert f'name="leaving" value="{V3.digest}"' in page
    assert f'name="shown" value="{way.mark}"' in page
    assert page.index(V3.digest) < page.index(V2.digest), "from the canary to the champion"


def test_right_after_a_rollback_nothing_is_offered() -> None:
    way = shown(record(V2, good={V1: EARLY, V2: LATE}), None, serving({V2: 100}), V2.digest)
    assert (way.target, way.arrived, way.leaving) == (V2, True, "")
    page = render("plan.html", way=way, champion=V2)
    assert 'id="arrived"' in page
    assert "<input" not in page
    assert "has just led to version 2" in way.refusal(way.mark)
    overview = Overview({"m": ModelView("m", 1.0, DesiredState("m", V2), way=way)}, ("m",), ())
    seen = render("models.html", overview=overview, titles={}, rollouts=[], intents=(), deeds=())
    assert "a rollback has just led to <strong>2</strong>" in seen
    assert "way back" not in seen, "there is none from where it has led"


@given(versions, versions, versions, versions, st.integers(0, 100), tags, tags, versions)
def test_what_is_shown_is_what_is_done(
    champion: Version | None,
    challenger: Version | None,
    fallback: Version | None,
    named: Version | None,
    share: int,
    good: Mapping[Version, str],
    condemned: Mapping[Version, str],
    arrived: Version | None,
) -> None:
    known, observed = record(champion, challenger, fallback, good, condemned), serving({V3: share, V2: 100 - share})
    led = arrived.digest if arrived else ""
    try:
        way = shown(known, named, observed, led)
    except RefusedError:
        return
    if way.arrived or way.refusal(way.mark):
        assert way.why == Why.ARRIVED.value
        return
    leaving = find_version(known, way.leaving) if way.leaving else None
    done = choose_way(known, named, observed, led, leaving)
    assert (done.target, done.left) == (way.target, way.leaves)
    assert leaving is None or not nothing_to_leave(known, leaving, observed)


def test_a_plan_that_is_another_one_by_now_is_refused() -> None:
    known, observed = record(V2, good={V1: EARLY}), serving({V2: 100})
    before = shown(known, None, observed)
    assert before.refusal(before.mark) == ""
    assert "not the one that you were shown" in shown(
        record(V2, V3, good={V1: EARLY}), None, serving({V2: 95, V3: 5})
    ).refusal(before.mark)
    also_a_canary = shown(record(V2, V3), V1, serving({V2: 95, V3: 5}))
    assert also_a_canary.target == before.target
    assert also_a_canary.refusal(before.mark), "the same target, and one version more would be condemned"
    assert before.refusal(""), "nobody was shown a plan"
    assert "no version" in WayBack(1.0, problem="it has no version").refusal(before.mark)
    assert WayBack(0.0, problem="no plan came").refusal(before.mark) == "", "an emergency waits for no plan"
