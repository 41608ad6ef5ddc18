"""What one alert comes to: whose rollback it is, whether it is one that is known, and what fires again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent import inbox
from lockstep.agent.familiar import same_words
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.scribe import Scribe, line_of
from lockstep.agent.taking import Taken, Taking
from lockstep.operations.alert_log import alert_log
from lockstep.operations.reasons import LONGEST
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import AGAIN, Join, Nothing, Pace, Start, Wish
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.alerts.routing import Route
from lockstep.stores.ledger import Ledger
from tests.deliveries import NOW, by_generic
from tests.inboxes import ALERT, ROUTE, take


def test_the_same_alert_is_known_and_firing_is_not_resolved(database: GroupCommit) -> None:
    first = take(database)
    assert take(database) == first
    resolved = replace(ALERT, id="a1", status=Status.RESOLVED)
    taken = database.write(lambda connection: Taking(Pace()).alert(connection, resolved, ROUTE, "", 1001.0))
    assert taken.answer == first
    with database.reading() as connection:
        assert [one.alerts for one in inbox.open_intents(connection)] == [1]
        assert len(inbox.unrecorded(connection, 10)) == 2


def test_an_alert_that_still_fires_has_what_came_to_nothing_tried_again(database: GroupCommit) -> None:
    perhaps = replace(ROUTE, action=Action.ROLLBACK_IF_CONFIRMED)

    def end(intent_id: str, at: float) -> None:
        def change(connection: sqlite3.Connection) -> None:
            found = inbox.find_intent(connection, intent_id)
            assert found is not None
            inbox.put_intent(connection, replace(found, state=State.NOT_CONFIRMED, ended=at))

        database.write(change)

    def repeat(at: float) -> tuple[str, bool]:
        alert = replace(ALERT, id="a1")
        taken = database.write(lambda connection: Taking(Pace()).alert(connection, alert, perhaps, "digest", at))
        return taken.answer, taken.decision is not None

    first = take(database, way=perhaps)
    end(first, 1010.0)
    assert repeat(1050.0) == (first, False)
    second, tried = repeat(1100.0)
    assert (tried, second != first) == (True, True)
    assert repeat(1101.0) == (second, False)  # it is looked at
    end(second, 1110.0)
    third, tried = repeat(9000.0)
    assert (tried, third != second) == (True, True)
    end(third, 9010.0)
    assert repeat(9020.0) == (third, False)
    with database.reading() as connection:
        assert [one.alerts for one in inbox.newest_intents(connection, 10)] == [1, 1, 1]
        assert len(inbox.unrecorded(connection, 10)) == 1
    resolved = replace(ALERT, id="resolved", status=Status.RESOLVED)  # of the same incident
    database.write(lambda connection: Taking(Pace()).alert(connection, resolved, perhaps, "", 9100.0))
    assert repeat(9200.0) == (third, False)  # a delivery that comes late, or is played back


TELL = replace(ROUTE, action=Action.NOTIFY)


def came(
    database: GroupCommit, alert: Alert = ALERT, way: Route = ROUTE, *, at: float = 1000.0, digest: str = "words"
) -> Taken:
    return database.write(lambda connection: Taking(Pace()).alert(connection, alert, way, digest, at))


def found(database: GroupCommit, intent_id: str) -> Intent:
    with database.reading() as connection:
        one = inbox.find_intent(connection, intent_id)
    assert one is not None
    return one


def change(database: GroupCommit, intent_id: str, **changes: Any) -> None:
    one = replace(found(database, intent_id), **changes)
    database.write(lambda connection: inbox.put_intent(connection, one))


def test_a_rollback_is_of_the_alert_that_asked_for_it(database: GroupCommit) -> None:
    told = found(database, came(database, replace(ALERT, source="watch"), TELL).answer)
    rolled = found(database, came(database, at=1001.0).answer)
    assert (told.state, told.actor, told.reason) == (State.NOTIFIED, "alert:watch", "watch: it is slow")
    assert (rolled.state, rolled.actor, rolled.reason) == (State.ACCEPTED, "alert:am", "am: it is slow")


def test_what_is_open_is_done_for_the_alert_that_raised_it_and_the_first_is_named(database: GroupCommit) -> None:
    perhaps = Route("rule", "churn", "", "", Action.ROLLBACK_IF_CONFIRMED)
    first = came(database, replace(ALERT, source="watch"), perhaps).answer
    assert came(database, replace(ALERT, title="x" * 2000)).answer == first
    raised = found(database, first)
    assert (raised.action, raised.actor, raised.alerts) == (Action.ROLLBACK, "alert:am", 2)
    assert raised.reason.startswith("am: xxx")
    assert raised.reason.endswith("x (first: watch: it is slow)")
    assert len(raised.reason) == LONGEST
    assert raised.asked == "8", "what serves now may be another one"
    wish = Wish("churn", "", Action.ROLLBACK, person=True)
    asked = database.write(lambda connection: Taking(Pace()).asked(connection, wish, "I saw it", "Ada", 1002.0))
    assert (asked.id, asked.actor, asked.alerts) == (first, "Ada", 2)
    assert asked.reason.startswith("I saw it (first: am: xxx")


def test_what_fires_again_after_its_end_is_a_new_alert(database: GroupCommit) -> None:
    """And what is delivered late is not, with and without a time of the sender's."""
    for number, times in enumerate([(100.0, 100.0, 300.0), (0.0, 0.0, 0.0)]):
        alert = replace(ALERT, id=f"a{number}", trouble=f"a{number}", at=times[0])
        tell = replace(TELL, version=f"{number}")
        over = replace(alert, status=Status.RESOLVED, at=times[1])
        first = came(database, alert, tell, at=1000.0)
        assert came(database, over, tell, at=1010.0, digest="over").answer == first.answer
        assert came(database, alert, tell, at=1020.0).decision is None
        again = came(database, replace(alert, at=times[2]), tell, at=5000.0)
        assert again.decision == Start(Action.NOTIFY)
        assert came(database, replace(alert, at=times[2]), tell, at=5010.0) == Taken(again.answer, None)
        # Its end is a new one as well, and then it fires a third time.
        late = times[2] and 310.0
        assert came(database, replace(over, at=late), tell, at=5020.0, digest="over").decision is not None
        assert came(database, replace(alert, at=late + 10.0), tell, at=9000.0).decision == Start(Action.NOTIFY)
    with database.reading() as connection:
        lines = [line_of(one) for one in inbox.unrecorded(connection, 20)]
    assert len({line.event_id for line in lines}) == len(lines) == 10


def test_an_alert_that_becomes_graver_asks_for_more_and_its_milder_repetition_for_nothing(
    database: GroupCommit,
) -> None:
    firing, mild = replace(ALERT, at=100.0), replace(TELL, rule="warnings")
    assert came(database, firing, mild, at=1000.0).decision == Start(Action.NOTIFY)
    assert same_words(firing, mild, "") != same_words(firing, ROUTE, ""), "the memory of a moment ago knows it, too"
    graver = came(database, replace(firing, severity="critical"), at=1001.0)
    assert graver.decision == Start(Action.ROLLBACK)
    for way in (mild, ROUTE, mild):
        assert came(database, firing, way, at=1002.0) == Taken(graver.answer, None)
    change(database, graver.answer, state=State.DONE, ended=1003.0, moved=True, version="8")
    over = replace(firing, status=Status.RESOLVED, at=200.0)
    came(database, over, at=1010.0)
    late = came(database, replace(firing, id="late"), at=1011.0)
    assert not isinstance(late.decision, Start), "its end is known already"
    with database.reading() as connection:
        assert len(inbox.unrecorded(connection, 20)) == 4, "each has its line"


def test_a_time_far_ahead_hides_nothing_that_follows(database: GroupCommit) -> None:
    assert came(database, replace(ALERT, at=3e9), TELL, at=1000.0).decision == Start(Action.NOTIFY)
    came(database, replace(ALERT, status=Status.RESOLVED, at=1010.0), TELL, at=1010.0, digest="over")
    again = came(database, replace(ALERT, at=5000.0), TELL, at=5000.0, digest="again")
    assert again.decision == Start(Action.NOTIFY)


def test_an_inbox_of_an_older_version_keeps_what_it_knew(database: GroupCommit) -> None:
    first = came(database, at=1000.0)
    change(database, first.answer, state=State.DONE, ended=1001.0, moved=True, version="8")
    over = replace(ALERT, status=Status.RESOLVED)
    came(database, over, at=1002.0, digest="over")

    def age(connection: sqlite3.Connection) -> None:
        for alert in (ALERT, over):
            connection.execute(
                "UPDATE alert SET key = ?, known_by = '', trouble = '', version = NULL, action = 'notify'"
                " WHERE status = ?",
                (inbox.key_of(alert), alert.status.value),
            )

    database.write(age)
    assert came(database, at=1003.0) == Taken(first.answer, None, unsure=True), "delivered late, and no graver"
    day = 86_400.0
    again = came(database, at=day)
    assert again.decision == Start(Action.ROLLBACK)
    assert came(database, over, at=day + 10.0, digest="over").decision is not None
    assert isinstance(came(database, at=3 * day).decision, Start | Join)


def test_a_sender_that_signs_and_always_says_the_same_fires_again_after_its_end(database: GroupCommit) -> None:
    settings = by_generic(b"").settings
    mapping = {"id": "key", "title": "what", "status": "state"}

    def sent(state: str, signed: float, at: float) -> Taken:
        body = json.dumps({"key": "churn", "what": "it is slow", "state": state}).encode()
        delivery = replace(by_generic(body, at=NOW + signed), settings={**settings, "mapping": mapping}, at=NOW + at)
        (alert,) = delivery.source().receive(delivery.delivery()).alerts
        return came(database, alert, TELL, at=delivery.at, digest=hashlib.sha256(body).hexdigest())

    first = sent("alert", 0.0, 0.0)
    assert isinstance(sent("ok", 10.0, 10.0).decision, Nothing)
    assert sent("alert", 0.0, 20.0).decision is None, "a retry of the first, late"
    again = sent("alert", 30.0, 30.0)
    assert again.decision == Join(first.answer, Action.NOTIFY), "of the same incident, and an alert of its own"
    assert isinstance(sent("ok", 40.0, 40.0).decision, Nothing)
    assert found(database, first.answer).alerts == 2


@pytest.mark.parametrize("way", [replace(ROUTE, model="fraud"), replace(ROUTE, version="9")])
def test_the_same_key_about_something_else_is_another_alert(database: GroupCommit, way: Route) -> None:
    first = came(database)
    other = came(database, way=way, at=1001.0)
    assert other.decision == Start(Action.ROLLBACK)
    assert came(database, at=1002.0) == Taken(first.answer, None)
    assert came(database, way=way, at=1002.0) == Taken(other.answer, None)
    # The end of one is not the end of the other.
    over = replace(ALERT, status=Status.RESOLVED)
    came(database, over, way, at=1010.0)
    assert not came(database, at=1020.0).unsure
    assert came(database, way=way, at=1020.0).unsure


def test_an_alert_that_its_end_overtook_starts_nothing(database: GroupCommit) -> None:
    came(database, replace(ALERT, id="end", status=Status.RESOLVED, at=100.0))
    assert isinstance(came(database, replace(ALERT, at=100.0), at=1001.0).decision, Nothing)
    assert came(database, replace(ALERT, id="next", at=200.0), at=1002.0).decision == Start(Action.ROLLBACK)


deliveries = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),  # the trouble
        st.integers(1, 3),  # which time it is there
        st.sampled_from(Status),
        st.sampled_from([0.5, 30.0, 700.0, 5000.0]),  # seconds since the delivery before
    ),
    max_size=25,
)


@given(deliveries, st.booleans())
def test_each_time_of_a_trouble_counts_once_and_never_after_its_end(
    story: list[tuple[str, int, Status, float]], own_ids: bool
) -> None:
    """Delivered twice, late, and where ids tell the times apart in any order; ids do with most vendors."""
    connection, taking, at = sqlite3.connect(":memory:", isolation_level=None), Taking(Pace()), 1000.0
    connection.row_factory = sqlite3.Row
    inbox.SCHEMA.apply(connection)
    counted, told = list[tuple[str, int]](), list[tuple[str, int, Status]]()
    for name, time, status, pause in story:
        at += pause
        ended = (name, time, Status.RESOLVED) in told
        first, fired = (name, time, status) not in told, (name, time, Status.FIRING) in told
        later = any(each == name and then > time for each, then, _ in told)
        if not own_ids and first and (later or (status is Status.RESOLVED and not fired)):
            continue  # only what was delivered before comes late
        key = f"{name}/{time}" if own_ids else name
        alert = Alert("am", key, name, status, name, at=100.0 * time)
        before = inbox.newest_intents(connection, 100)
        decision = taking.alert(connection, alert, ROUTE, status.value, at).decision
        told.append((name, time, status))
        if status is Status.RESOLVED or ended:
            assert decision is None or isinstance(decision, Nothing)
            assert inbox.newest_intents(connection, 100) == before
        elif decision is not None:
            counted.append((name, time))
        for one in inbox.open_intents(connection):
            rolled = replace(one, state=State.DONE, ended=at + 0.1, moved=True)
            inbox.put_intent(connection, rolled)
    connection.close()
    firing = dict.fromkeys((name, time) for name, time, status in told if status is Status.FIRING)
    assert len(counted) == len(set(counted))
    if not own_ids:
        over = {(name, time) for name, time, status in told if status is Status.RESOLVED}
        assert all(
            one in counted or (one[0], one[1] - 1) not in over for one in firing if (one[0], one[1] - 1) in firing
        ), "what fires after its end is taken"


def test_what_a_hold_answered_after_its_release_is_decided_anew_when_that_is_known(database: GroupCommit) -> None:
    hold = replace(ROUTE, action=Action.HOLD)
    held = came(database, way=hold).answer
    change(database, held, state=State.HELD, ended=1001.0)
    # A person releases the model at 1010, which the agent learns at 1020; five alerts come in between.
    answers = {
        name: came(database, replace(ALERT, id=name, incident=name, source=name), way, at=at).answer
        for name, way, at in (
            ("before", hold, 1009.0),
            ("told", TELL, 1011.0),
            ("holds", hold, 1012.0),
            ("over", hold, 1013.0),
            ("too", hold, 1014.0),
        )
    }
    assert set(answers.values()) == {held}
    came(database, replace(ALERT, id="over", incident="over", source="over", status=Status.RESOLVED), at=1015.0)
    for _ in range(2):
        database.write(lambda connection: Taking(Pace()).released(connection, "churn", 1010.0, 1020.0))
    with database.reading() as connection:
        (anew,) = inbox.open_intents(connection)
        kept = {one.source: one.intent for one in inbox.unrecorded(connection, 10) if one.status == "firing"}
    assert (anew.action, anew.actor, anew.alerts, anew.began) == (Action.HOLD, "alert:holds", 2, 1012.0)
    assert kept == {**dict.fromkeys(("am", "before", "told", "over"), held), "holds": anew.id, "too": anew.id}


def test_an_alert_after_a_release_is_no_more_of_the_rollback_before_it(database: GroupCommit) -> None:
    rolled = came(database).answer
    change(database, rolled, state=State.DONE, ended=1005.0, moved=True, told="it is held until a person has looked")
    for name, at in (("before", 1009.0), ("since", 1011.0)):
        assert came(database, replace(ALERT, id=name, incident=name), at=at).answer == rolled
    # A person released the model at 1010, which the agent learns at 1020.
    database.write(lambda connection: Taking(Pace()).released(connection, "churn", 1010.0, 1020.0))
    told = came(database, replace(ALERT, id="since", incident="since"), at=1021.0).answer
    assert (found(database, told).state, found(database, told).urgent) == (State.NOTIFIED, True)
    assert "just been rolled back" in found(database, told).told
    assert came(database, replace(ALERT, id="next", incident="next"), at=1022.0).answer == told
    assert came(database, replace(ALERT, id="before", incident="before"), at=9000.0) == Taken(rolled, None)
    assert came(database, replace(ALERT, id="since", incident="since"), at=1700.0).decision == Start(Action.ROLLBACK)
    assert came(database, replace(ALERT, id="next", incident="next"), at=1701.0).decision == Join(ANY, Action.ROLLBACK)


def test_an_alert_that_a_cool_down_made_wait_is_tried_once_more_after_it(database: GroupCommit) -> None:
    other = replace(ROUTE, version="7")
    rolled = came(database).answer
    change(database, rolled, state=State.DONE, ended=1005.0, moved=True)
    waits = [replace(ALERT, id=name, incident=name) for name in ("first", "second")]
    told = came(database, waits[0], other, at=1010.0)
    assert told == Taken(told.answer, ANY, unsure=True), "it is not remembered"
    assert came(database, waits[1], other, at=1011.0).decision == Join(told.answer, Action.NOTIFY, urgent=False)
    for at in (1012.0, 1300.0, 1604.0):
        assert came(database, waits[0], other, at=at) == Taken(told.answer, None, unsure=True), (
            "and nobody is told again"
        )
    only = came(database, replace(ALERT, id="told"), replace(TELL, version="7"), at=1012.0)
    assert not only.unsure
    again = came(database, waits[0], other, at=1605.0)
    assert again.decision == Start(Action.ROLLBACK)
    assert came(database, waits[0], other, at=1606.0) == Taken(again.answer, None)
    assert came(database, waits[1], other, at=1606.0) == Taken(again.answer, Join(again.answer, Action.ROLLBACK))
    assert came(database, replace(ALERT, id="told"), replace(TELL, version="7"), at=9000.0) == Taken(only.answer, None)
    assert (found(database, again.answer).alerts, found(database, told.answer).alerts) == (2, 3)
    with database.reading() as connection:
        line = next(one for one in inbox.unrecorded(connection, 9) if one.id == "first")
    assert (line.intent, line.told) == (again.answer, "")


def test_an_alert_of_what_a_rule_only_told_of_is_not_tried_when_the_rule_says_more(database: GroupCommit) -> None:
    told = came(database, way=TELL)
    assert came(database, at=9000.0) == Taken(told.answer, None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([1.0, 40.0, 200.0, 700.0]),  # seconds since the one before
            st.sampled_from([Action.ROLLBACK_IF_CONFIRMED, Action.ROLLBACK]),
        ),
        max_size=25,
    )
)
def test_what_waits_for_a_cool_down_is_rolled_back_once(story: list[tuple[str, float, Action]]) -> None:
    """Alerts about what a rollback has led to, repeated by their sender for as long as they fire."""
    connection, pace, at = sqlite3.connect(":memory:", isolation_level=None), Pace(), 1010.0
    connection.row_factory = sqlite3.Row
    inbox.SCHEMA.apply(connection)
    taking, rolled, first = Taking(pace), [1005.0], dict[str, tuple[float, Route]]()
    cause = taking.alert(connection, ALERT, ROUTE, "digest", 1000.0).answer
    inbox.put_intent(connection, _done(inbox.find_intent(connection, cause), 1005.0, moved=True))
    for name, pause, wish in story:
        at += pause
        came_at, way = first.setdefault(name, (at, replace(ROUTE, version="7", action=wish)))
        taking.alert(connection, replace(ALERT, id=name, incident=name, at=500.0), way, "digest", at)
        for one in inbox.open_intents(connection):
            serves = len(rolled) == 1  # version 7 still
            inbox.put_intent(connection, _done(one, at, moved=serves))
            rolled += [at] if serves else []
        if at - came_at >= AGAIN and at - rolled[0] >= pace.cool_down:
            assert len(rolled) == 2
    past = inbox.newest_intents(connection, 100)
    connection.close()
    assert all(later - before >= pace.cool_down for before, later in pairwise(rolled))
    assert sum(one.state is State.NOTIFIED for one in past) <= 1, "people are told once"


def _done(one: Intent | None, at: float, *, moved: bool) -> Intent:
    assert one is not None
    return replace(one, state=State.DONE, ended=at, moved=moved)


def test_a_storm_of_what_changes_nothing_hides_no_rollback(database: GroupCommit) -> None:
    rolled = came(database).answer
    change(database, rolled, state=State.DONE, ended=1001.0, moved=True)
    told = replace(found(database, rolled), state=State.NOTIFIED, ended=1002.0, action=Action.NOTIFY, moved=False)
    for number in range(300):
        storm = replace(told, id=str(number))
        database.write(lambda connection, storm=storm: inbox.add_intent(connection, storm))  # type: ignore[misc]
    with database.reading() as connection:
        past = inbox.past_intents(connection, "churn", 0.0)
    assert [one.id for one in past] == [*map(str, range(299, 99, -1)), rolled]


def test_an_alert_that_was_forgotten_has_its_own_line_when_it_comes_again(database: GroupCommit) -> None:
    lines = []
    for at in (1000.0, 9000.0):
        came(database, at=at)
        with database.reading() as connection:
            (alert,) = inbox.unrecorded(connection, 10)
        lines.append(line_of(alert).event_id)
        database.write(lambda connection, key=alert.key: inbox.mark_recorded(connection, [key]))  # type: ignore[misc]
        database.write(lambda connection, at=at: inbox.prune(connection, at + 1.0))  # type: ignore[misc]
    assert lines[0] != lines[1]


def test_alerts_about_no_model_are_told_once_for_each_thing_that_they_say(database: GroupCommit) -> None:
    lost = Route("", told="no rule fits it")
    taking = Taking(Pace())
    for number, title in enumerate(["a", "b", "a"]):
        alert = replace(ALERT, id=str(number), title=title)
        database.write(lambda connection, alert=alert: taking.alert(connection, alert, lost, "", 1000.0))  # type: ignore[misc]
    with database.reading() as connection:
        found = inbox.newest_intents(connection, 10)
    assert [(one.asked, one.alerts, one.state) for one in found] == [
        ("am: b", 1, State.NOTIFIED),
        ("am: a", 2, State.NOTIFIED),
    ]


def test_an_alert_that_is_answered_anew_has_a_line_of_what_came_of_it_then(
    database: GroupCommit, tmp_path: Path
) -> None:
    ledger = Ledger(str(tmp_path / "ledger.db"))
    writer = Scribe(database, ledger, keep=1e9)
    first = came(database).answer
    change(database, first, state=State.FAILED, ended=1001.0, told="aws is away")
    writer.record()
    second = came(database, at=1100.0).answer
    change(database, second, state=State.DONE, ended=1101.0, told="done")
    writer.record()
    assert not writer.record()
    newest, oldest = alert_log(ledger, "churn")
    assert [(one.at, one.intent, one.outcome) for one in (oldest, newest)] == [
        (1000.0, first, "rollback: failed: aws is away"),
        (1100.0, second, "rollback: done: done"),
    ]
    ledger.close()
