"""What was kept a moment ago is answered from memory, and never when the inbox would decide otherwise."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent import inbox
from lockstep.agent.familiar import Familiar, same_words
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.taking import Taken, Taking, is_sure
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import AGAIN, Pace
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.alerts.routing import Route

ALERT = Alert("am", "a", "i", Status.FIRING, "it is slow")
ROUTE = Route("rule", "churn", "8", "", Action.ROLLBACK_IF_CONFIRMED)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[GroupCommit]:
    made = GroupCommit(tmp_path / "inbox.db", inbox.SCHEMA)
    yield made
    made.close()


def take(database: GroupCommit, at: float) -> tuple[Taken, bool]:
    def work(connection: sqlite3.Connection) -> tuple[Taken, bool]:
        taken = Taking(Pace()).alert(connection, ALERT, ROUTE, "digest", at)
        return taken, is_sure(connection, taken.answer)

    return database.write(work)


def end(database: GroupCommit, intent_id: str, state: State, at: float) -> None:
    def work(connection: sqlite3.Connection) -> None:
        found = inbox.find_intent(connection, intent_id)
        assert isinstance(found, Intent)
        inbox.put_intent(connection, replace(found, state=state, ended=at))

    database.write(work)


@given(st.integers(0, 10**10), st.integers(0, 500), st.integers(-500, 500))
def test_nothing_is_answered_that_would_be_tried_again(looked: int, failed: int, later: int) -> None:
    familiar = Familiar()
    familiar.add("key", "intent", looked)
    if familiar.answers(["key"], looked + later) is not None:
        assert 0 <= later <= AGAIN
        assert later - failed < AGAIN, "it failed after it was looked up, so that long it is not tried again"


def test_all_alerts_of_a_delivery_must_be_known() -> None:
    familiar = Familiar(most=2)
    familiar.add("one", "first", 1.0)
    familiar.add("two", "", 2.0)
    assert familiar.answers(["two", "one"], 3.0) == ("", "first")
    assert familiar.answers(["one", "three"], 3.0) is None
    familiar.add("three", "third", 3.0)
    assert familiar.answers(["one"], 3.0) is None, "the oldest goes first"
    assert familiar.answers(["two", "three"], 3.0) == ("", "third")


@pytest.mark.parametrize("state", [State.FAILED, State.NOT_CONFIRMED])
def test_an_alert_of_what_has_failed_is_not_sure(database: GroupCommit, state: State) -> None:
    first, sure = take(database, 1000.0)
    assert sure
    end(database, first.answer, state, 1010.0)
    again, sure = take(database, 1020.0)
    assert (again.answer, again.decision, sure) == (first.answer, None, False)
    tried, sure = take(database, 1010.0 + AGAIN)
    assert (tried.answer != first.answer, tried.decision is None, sure) == (True, False, True), "it is tried once more"


def test_an_alert_of_what_was_done_is_sure(database: GroupCommit) -> None:
    first, _ = take(database, 1000.0)
    end(database, first.answer, State.DONE, 1010.0)
    assert take(database, 1020.0)[1]


@pytest.mark.parametrize("since", [0.0, 990.0])
@pytest.mark.parametrize("window", [1.0, 900.0])
def test_what_is_answered_from_memory_is_known_to_the_inbox_after_an_end_in_between(
    database: GroupCommit, since: float, window: float
) -> None:
    """Whoever took the end: another agent on the same inbox, say."""
    taking = Taking(Pace(incident_window=window))

    def came(alert: Alert, digest: str, at: float) -> Taken:
        return database.write(lambda connection: taking.alert(connection, alert, ROUTE, digest, at))

    fired = replace(ALERT, at=since)
    came(fired, "firing", 1000.0)
    came(replace(fired, status=Status.RESOLVED), "resolved", 1001.0)
    again = came(fired, "firing", 1000.0 + AGAIN - 1.0)
    assert (again.decision, again.unsure) == (None, True), "and as long as it may be another it is not remembered"
    other = replace(fired, at=1030.0) if since else fired
    assert same_words(other, ROUTE, "firing, and worse") != same_words(fired, ROUTE, "firing")
    assert came(other, "firing, and worse", 1040.0).decision is not None
    assert same_words(fired, replace(ROUTE, model="fraud"), "firing") != same_words(fired, ROUTE, "firing")
