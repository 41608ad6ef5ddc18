"""One incident is one intent; nothing that alerts can say makes a model go back and forth."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.alerts.deciding import (
    AGAIN,
    Decision,
    Join,
    Nothing,
    Pace,
    Start,
    Wish,
    decide,
    decide_again,
    overtaken,
    same_version,
)
from lockstep.rules.alerts.intent import Action, Intent, State

PACE = Pace(incident_window=900.0, cool_down=600.0, flapping_window=7200.0, flapping_rollbacks=2)
WISH = Wish("churn", "8", Action.ROLLBACK)
INTENT = Intent(
    *("i", "churn", "", "", Action.ROLLBACK, State.ACCEPTED, "why", "alert:am", 1, 1000.0),
    asked="8",
)
DONE = replace(INTENT, state=State.DONE, ended=1010.0, version="d8" * 32, moved=True)


def test_the_first_alert_starts_an_intent() -> None:
    assert decide(WISH, [], PACE, 1000.0) == Start(Action.ROLLBACK)


@pytest.mark.parametrize("version", ["", "8", "@8"])
def test_further_alerts_of_the_version_join_it(version: str) -> None:
    assert decide(replace(WISH, version=version), [INTENT], PACE, 1001.0) == Join("i", Action.ROLLBACK)


def test_another_version_is_another_incident() -> None:
    found = decide(replace(WISH, version="7", action=Action.NOTIFY), [INTENT], PACE, 1001.0)
    assert found == Start(Action.NOTIFY)


def test_another_model_is_another_incident() -> None:
    assert decide(replace(WISH, model="fraud"), [INTENT, DONE], PACE, 1001.0) == Start(Action.ROLLBACK)


def test_a_version_is_the_same_by_label_digest_and_its_beginning() -> None:
    assert same_version("8", DONE)
    assert same_version("d8" * 32, DONE)
    assert same_version("d8d8d8d8", DONE)
    assert not same_version("d8d8", DONE)
    assert not same_version("7", DONE)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.CONFIRMING])
def test_a_stronger_alert_raises_what_is_done(state: State) -> None:
    open_one = replace(INTENT, action=Action.ROLLBACK_IF_CONFIRMED, state=state)
    assert decide(WISH, [open_one], PACE, 1001.0) == Join("i", Action.ROLLBACK, raises=True)
    milder = replace(WISH, action=Action.NOTIFY)
    assert decide(milder, [open_one], PACE, 1001.0) == Join("i", Action.ROLLBACK_IF_CONFIRMED)


def test_what_runs_is_done_for_who_asked_for_it() -> None:
    runs = replace(INTENT, action=Action.ROLLBACK_IF_CONFIRMED, state=State.RUNNING)
    for wish in (WISH, replace(WISH, person=True)):
        assert decide(wish, [runs], PACE, 1001.0) == Join("i", Action.ROLLBACK_IF_CONFIRMED)


@pytest.mark.parametrize(
    ("state", "action"),
    [(State.NOTIFIED, Action.NOTIFY), (State.HELD, Action.HOLD), (State.NOT_CONFIRMED, Action.ROLLBACK_IF_CONFIRMED)],
)
def test_what_asks_for_more_than_came_of_what_has_ended_is_an_intent_of_its_own(state: State, action: Action) -> None:
    ended = replace(INTENT, state=state, action=action, ended=1005.0)
    assert decide(WISH, [ended], PACE, 1006.0) == Start(Action.ROLLBACK)
    assert decide(replace(WISH, action=Action.NOTIFY), [ended], PACE, 1006.0) == Join("i", action)


def test_what_was_not_confirmed_is_looked_at_again_only_after_a_while() -> None:
    ended = replace(INTENT, state=State.NOT_CONFIRMED, action=Action.ROLLBACK_IF_CONFIRMED, ended=1005.0)
    wish = replace(WISH, action=Action.ROLLBACK_IF_CONFIRMED)
    assert decide(wish, [ended], PACE, 1006.0) == Join("i", Action.ROLLBACK_IF_CONFIRMED)
    assert decide(wish, [ended], PACE, 1005.0 + AGAIN) == Start(Action.ROLLBACK_IF_CONFIRMED)


def test_a_rollback_that_failed_holds_nothing() -> None:
    failed = replace(INTENT, state=State.FAILED, ended=1005.0, urgent=True)
    assert decide(replace(WISH, action=Action.HOLD), [failed], PACE, 1006.0) == Start(Action.HOLD)


def test_an_alert_has_nothing_of_what_a_person_asked_for_in_vain() -> None:
    failed = replace(INTENT, state=State.FAILED, ended=1005.0, actor="Ada", alerts=0)
    assert decide(WISH, [failed], PACE, 1006.0) == Start(Action.ROLLBACK)
    assert decide(WISH, [replace(DONE, actor="Ada", alerts=0)], PACE, 1011.0) == Join("i", Action.ROLLBACK)


def test_a_hold_answers_nothing_more_once_a_person_has_released_the_model() -> None:
    held = replace(INTENT, action=Action.HOLD, state=State.HELD, ended=1005.0)
    for action in (Action.NOTIFY, Action.HOLD):
        wish = replace(WISH, action=action)
        assert decide(wish, [held], PACE, 1010.0, 1004.0) == Join("i", Action.HOLD)
        assert decide(wish, [held], PACE, 1010.0, 1006.0) == Start(action)


def test_a_rollback_answers_nothing_more_once_a_person_has_released_the_model() -> None:
    for version in ("8", ""):
        wish = replace(WISH, version=version)
        assert decide(wish, [DONE], PACE, 1300.0, 1009.0) == Join("i", Action.ROLLBACK)
        cools = decide(wish, [DONE], PACE, 1300.0, 1011.0)
        assert isinstance(cools, Start)
        assert (cools.action, cools.urgent) == (Action.NOTIFY, True)
        assert decide(wish, [DONE], PACE, 1700.0, 1011.0) == Start(Action.ROLLBACK)


def test_a_hold_that_a_rule_asks_for_and_one_for_flapping_are_two() -> None:
    """What is known of a release by then makes a rollback of the second, and leaves the first."""
    past = [replace(DONE, id="b", began=1050.0, ended=1060.0), DONE]
    pace, wish = replace(PACE, cool_down=0.0), replace(WISH, version="9")
    rules = replace(INTENT, id="h", action=Action.HOLD, asked="9", began=1090.0)
    flapping = replace(rules, wished=Action.ROLLBACK)
    started = decide(wish, [rules, *past], pace, 1100.0)
    assert isinstance(started, Start)
    assert (started.action, started.wished) == (Action.HOLD, Action.ROLLBACK)
    hold = replace(wish, action=Action.HOLD)
    assert decide(hold, [flapping, *past], pace, 1100.0) == Start(Action.HOLD)
    assert decide(hold, [rules, *past], pace, 1100.0) == Join("h", Action.HOLD)


def test_a_person_is_called_for_an_alert_although_others_were_told_of_something_else() -> None:
    told = replace(INTENT, id="n", action=Action.NOTIFY, state=State.NOTIFIED, asked="7", ended=1300.0)
    wish = replace(WISH, version="7")
    called = decide(wish, [told, DONE], PACE, 1310.0)
    assert isinstance(called, Start)
    assert (called.action, called.urgent) == (Action.NOTIFY, True)
    assert decide(wish, [replace(told, urgent=True), DONE], PACE, 1310.0) == Join("n", Action.NOTIFY)


def test_late_alerts_of_what_was_rolled_back_join_it() -> None:
    assert decide(WISH, [DONE], PACE, 1300.0) == Join("i", Action.ROLLBACK)
    assert decide(replace(WISH, version=""), [DONE], PACE, 1300.0) == Join("i", Action.ROLLBACK)
    # Past the cool-down whoever names no version means what serves now.
    assert decide(replace(WISH, version=""), [DONE], PACE, 1700.0) == Start(Action.ROLLBACK)


def test_in_the_cool_down_an_alert_of_the_other_version_calls_a_person() -> None:
    found = decide(replace(WISH, version="7"), [DONE], PACE, 1300.0)
    assert isinstance(found, Start)
    assert (found.action, found.urgent) == (Action.NOTIFY, True)
    assert decide(replace(WISH, version="7"), [DONE], PACE, 1700.0) == Start(Action.ROLLBACK)


def test_what_is_under_way_for_another_version_keeps_no_alert_waiting_for_ever() -> None:
    look = replace(INTENT, asked="7", action=Action.ROLLBACK_IF_CONFIRMED, state=State.CONFIRMING)
    assert decide(WISH, [look], PACE, 1001.0) == Start(Action.ROLLBACK)
    both = [replace(INTENT, id="j", asked="6"), look]
    assert decide(replace(WISH, version="7"), both, PACE, 1001.0) == Join("i", Action.ROLLBACK, raises=True)


def test_who_names_no_version_joins_the_rollback_that_is_under_way() -> None:
    hold = replace(INTENT, id="h", action=Action.HOLD, asked="7")
    assert decide(replace(WISH, version=""), [hold, INTENT], PACE, 1001.0) == Join("i", Action.ROLLBACK)


def test_what_waited_while_another_version_was_rolled_back_calls_a_person() -> None:
    waits = replace(INTENT, id="j", asked="7")
    assert "just been rolled back" in overtaken(waits, [waits, DONE], PACE, 1011.0)
    assert not overtaken(waits, [waits, DONE], PACE, 1700.0)
    assert not overtaken(waits, [waits, replace(DONE, moved=False)], PACE, 1011.0)
    assert not overtaken(replace(waits, actor="Ada"), [waits, DONE], PACE, 1011.0)  # though alerts joined it
    assert not overtaken(replace(waits, asked="d8" * 32), [waits, DONE], PACE, 1011.0)  # the same version


def test_a_rollback_that_lies_ahead_since_the_clock_was_set_back_stops_no_alert() -> None:
    ahead = replace(DONE, began=90_000.0, ended=90_010.0)
    assert decide(replace(WISH, version="7"), [ahead], PACE, 2000.0) == Start(Action.ROLLBACK)
    found = decide(replace(WISH, version="7"), [ahead], PACE, 89_900.0)
    assert isinstance(found, Start)
    assert found.action is Action.NOTIFY


def test_after_so_many_rollbacks_the_next_wish_holds_and_calls_a_person() -> None:
    second = replace(DONE, id="j", asked="7", version="d7" * 32, began=2000.0, ended=2010.0)
    found = decide(replace(WISH, version="6"), [second, DONE], PACE, 4000.0)
    assert isinstance(found, Start)
    assert (found.action, found.urgent) == (Action.HOLD, True)
    assert "2 times within 2 h" in found.told
    assert decide(replace(WISH, version="6"), [second, DONE], PACE, 9000.0) == Start(Action.ROLLBACK)


def test_a_person_waits_for_no_pause_and_joins_only_what_leads_to_the_same_end() -> None:
    wish = replace(WISH, version="", person=True)
    assert decide(wish, [DONE], PACE, 1011.0) == Start(Action.ROLLBACK)
    confirming = replace(INTENT, action=Action.ROLLBACK_IF_CONFIRMED, state=State.CONFIRMING)
    assert decide(wish, [confirming], PACE, 1001.0) == Join("i", Action.ROLLBACK, raises=True)
    assert decide(wish, [INTENT], PACE, 1001.0) == Join("i", Action.ROLLBACK, raises=True), "it waits for no pause"
    assert decide(wish, [replace(INTENT, actor="Bob")], PACE, 1001.0) == Join("i", Action.ROLLBACK)
    assert decide(replace(wish, to="5"), [confirming], PACE, 1001.0) == Start(Action.ROLLBACK)


def test_resolved_starts_nothing_and_is_told_with_its_intent() -> None:
    wish = replace(WISH, resolved=True)
    assert isinstance(decide(wish, [], PACE, 1000.0), Nothing)
    found = decide(wish, [DONE], PACE, 1100.0)
    assert isinstance(found, Nothing)
    assert found.intent == "i"


# -- any story ---------------------------------------------------------------------------------------------------------

alerts = st.builds(
    Wish,
    model=st.just("churn"),
    version=st.sampled_from(["", "7", "8"]),
    action=st.sampled_from(Action),
    resolved=st.booleans(),
)
people = st.builds(
    Wish,
    model=st.just("churn"),
    version=st.sampled_from(["", "8"]),
    action=st.just(Action.ROLLBACK),
    person=st.just(True),
)
senders = st.one_of(
    st.tuples(st.sampled_from(["alert:am", "alert:watch"]), alerts), st.tuples(st.sampled_from(["Ada", "Bob"]), people)
)
pauses = st.sampled_from([0.0, 1.0, 30.0, 400.0, 1000.0, 5000.0])
# Who asks, and how far what is open gets by then: None for no further.
steps = st.lists(
    st.tuples(pauses, senders, st.one_of(st.none(), st.sampled_from(State)), st.sampled_from([False] * 5 + [True])),
    max_size=25,
)


def applied(decision: Decision, past: list[Intent], wish: Wish, actor: str, now: float) -> list[Intent]:
    """The intents, the newest first, once the decision is kept."""
    match decision:
        case Start(action, urgent=urgent, wished=wished):
            new = replace(INTENT, id=f"i{len(past)}", action=action, asked=wish.version, began=now, actor=actor)
            return [replace(new, urgent=urgent, wished=wished, alerts=0 if wish.person else 1), *past]
        case Join(intent, action):
            found = next(one for one in past if one.id == intent)
            joined = replace(found, alerts=found.alerts + (not wish.person))
            if found.open:
                joined = replace(joined, action=action, urgent=found.urgent or decision.urgent, wished=decision.wished)
            if decision.raises:
                joined = replace(joined, actor=actor, asked=found.asked or wish.version)
            return [joined if one is found else one for one in past]
    return past


def ended(one: Intent, state: State | None, now: float) -> Intent:
    """An open intent as it may be by then."""
    rolled = one.action.strength >= Action.ROLLBACK_IF_CONFIRMED.strength
    if not one.open or state is None or (not rolled and state in (State.ACCEPTED, State.CONFIRMING, State.RUNNING)):
        return one
    if rolled and state in (State.ACCEPTED, State.CONFIRMING, State.RUNNING):
        return one if one.state is State.RUNNING else replace(one, state=state)
    if not rolled:
        state = State.HELD if one.action is Action.HOLD else State.NOTIFIED
    moved = rolled and state in (State.DONE, State.SPLIT)
    return replace(one, state=state, ended=now, moved=moved, urgent=one.urgent or state in (State.SPLIT, State.FAILED))


@given(steps)
def test_whatever_comes_the_rules_hold(story: list[tuple[float, tuple[str, Wish], State | None, bool]]) -> None:
    now, past, released = 1000.0, list[Intent](), 0.0
    asked: dict[tuple[str, str], Action] = {}  # the most that somebody asked of an intent
    for pause, (actor, wish), state, releases in story:
        now += pause
        released = now if releases else released
        before = {one.id: one for one in past}
        decision = decide(wish, past, PACE, now, released)
        past = applied(decision, past, wish, actor, now)
        started = [one for one in past if one.id not in before]
        assert not (wish.resolved and (started or past != list(before.values())))
        asked_of = started[0].id if started else decision.intent if isinstance(decision, Join) else ""
        asked[actor, asked_of] = max(asked.get((actor, asked_of), Action.NOTIFY), wish.action, key=strength)
        for one in past:
            if one.id in before:
                assert one.action.strength >= before[one.id].action.strength
                assert one.alerts >= before[one.id].alerts
                assert before[one.id].open or one == replace(before[one.id], alerts=one.alerts), "it is over"
            assert asked[one.actor, one.id].strength >= one.action.strength, "who it is done for has asked for it"
        if started and wish.version and started[0].action.strength >= Action.ROLLBACK_IF_CONFIRMED.strength:
            same = [one for one in before.values() if same_version(wish.version, one) and rolls(one)]
            assert wish.person or not any(
                one.open or (one.moved and one.ended > released and now - one.ended <= PACE.incident_window)
                for one in same
            )
        rolling = [one for one in past if one.open and rolls(one)]
        assert all(not same_version(one.asked, other) for one in rolling for other in rolling if one is not other)
        for place in reversed(range(len(past))):  # one after the other, the oldest first
            stopped = past[place].open and overtaken(past[place], past, PACE, now + 0.5)
            past[place] = ended(past[place], State.FAILED if stopped else state, now + 0.5)
        by_alerts = [one for one in past if one.moved and one.actor.startswith("alert:")]
        counted = [one for one in by_alerts if one.ended > released and now - one.ended < PACE.flapping_window]
        assert len(counted) <= PACE.flapping_rollbacks
        moved = [one for one in past if one.moved]
        for later in by_alerts:
            assert all(later.ended - one.ended >= PACE.cool_down for one in moved if one.ended < later.ended)


def strength(action: Action) -> int:
    return action.strength


def rolls(one: Intent) -> bool:
    return one.action.strength >= Action.ROLLBACK_IF_CONFIRMED.strength


def test_what_people_roll_back_is_no_flapping() -> None:
    pace = replace(PACE, cool_down=0.0)
    asked = [replace(DONE, id=f"p{number}", actor="Ada", alerts=1) for number in range(5)]
    assert decide(replace(WISH, version="9"), asked, pace, 1100.0) == Start(Action.ROLLBACK)
    again = decide(replace(WISH, version="9"), [DONE, replace(DONE, id="b"), *asked], pace, 1100.0)
    assert (again.action, again.urgent) == (Action.HOLD, True)  # type: ignore[union-attr]
    assert "2 times" in again.told


def test_the_counting_starts_anew_once_a_person_has_released_it() -> None:
    pace = replace(PACE, cool_down=0.0)
    past = [replace(DONE, id="b", began=1050.0, ended=1060.0), DONE]
    wish = replace(WISH, version="9")
    for released, action in ((0.0, Action.HOLD), (1005.0, Action.HOLD), (1010.0, Action.ROLLBACK)):
        assert decide(wish, past, pace, 1100.0, released) == Start(
            action,
            urgent=action is Action.HOLD,
            told="" if action is Action.ROLLBACK else ANY,
            wished=Action.ROLLBACK if action is Action.HOLD else None,
        )
    held = replace(INTENT, id="h", state=State.HELD, action=Action.HOLD, ended=1070.0, asked="9")
    assert decide(wish, [held, *past], pace, 1100.0, 1080.0) == Start(Action.ROLLBACK)


def test_a_hold_for_flapping_is_decided_again_when_the_release_is_known() -> None:
    pace = replace(PACE, cool_down=30.0)
    past = [replace(DONE, id="b", began=1050.0, ended=1060.0), DONE]
    sure, perhaps = replace(WISH, version="9"), replace(WISH, version="9", action=Action.ROLLBACK_IF_CONFIRMED)
    started = decide(perhaps, past, pace, 1100.0)
    assert isinstance(started, Start)
    assert (started.action, started.wished) == (Action.HOLD, Action.ROLLBACK_IF_CONFIRMED)
    held = replace(INTENT, id="h", action=Action.HOLD, began=1100.0, asked="9", wished=started.wished)
    joined = decide(sure, [held, *past], pace, 1101.0)
    assert isinstance(joined, Join)
    assert (joined.intent, joined.action, joined.wished, joined.raises) == ("h", Action.HOLD, Action.ROLLBACK, True)
    held = replace(held, wished=joined.wished)
    everything = [held, *past]
    assert decide_again(held, everything, pace, 1102.0, 1005.0).action is Action.HOLD
    assert decide_again(held, everything, pace, 1102.0, 1080.0) == Start(Action.ROLLBACK)
    assert decide_again(held, everything, PACE, 1102.0, 1080.0).action is Action.NOTIFY, "it has just been rolled back"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9000)), max_size=6), st.integers(0, 9000), st.integers(0, 9000))
def test_a_model_is_held_for_what_alerts_did_since_it_was_released_and_nothing_else(
    ends: list[tuple[bool, int]], released: int, now: int
) -> None:
    past = [
        replace(DONE, id=str(number), began=float(at), ended=float(at), actor="alert:am" if alert else "Ada")
        for number, (alert, at) in enumerate(ends)
    ]
    counted = [at for alert, at in ends if alert and at > released and abs(now - at) < PACE.flapping_window]
    found = decide(replace(WISH, version="9"), past, replace(PACE, cool_down=0.0), float(now), float(released))
    assert (found.action is Action.HOLD) == (len(counted) >= PACE.flapping_rollbacks)  # type: ignore[union-attr]


def test_finishing_a_split_is_no_second_rollback_of_the_flapping_count() -> None:
    split = Intent(
        *("s", "churn", "2" * 64, "", Action.ROLLBACK, State.SPLIT, "why", "alert:am", 1, 100.0, 110.0),
        moved=True,
    )
    finished = replace(split, id="f", state=State.DONE, began=2000.0, ended=2010.0)
    wish = Wish("churn", "3", Action.ROLLBACK)
    assert decide(wish, [finished, split], Pace(), 4000.0) == Start(Action.ROLLBACK)
