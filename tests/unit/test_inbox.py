"""What is accepted is on the disk or not there at all, and those who wait for the disk wait together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.agent import group_commit, inbox, scribe
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.scribe import Scribe, answer_of, line_of
from lockstep.agent.taking import Taking
from lockstep.errors import BusyError, RefusedError, RetryLaterError
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import Pace
from lockstep.rules.alerts.intent import Action, State
from lockstep.stores.ledger import Ledger
from tests.inboxes import ALERT, ROUTE, take


def test_those_that_wait_are_written_together(database: GroupCommit) -> None:
    database.write(lambda connection: None)
    held, entered = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        entered.set()
        assert held.wait(30)

    commits: list[int] = []
    database._committed = lambda: commits.append(1)
    with ThreadPoolExecutor(60) as pool:
        first = pool.submit(database.write, slow)
        assert entered.wait(30)
        others = [pool.submit(take, database, number) for number in range(50)]
        while database._queue.qsize() < 50:
            threading.Event().wait(0.01)  # they are on their way into the queue
        held.set()
        first.result(30)
        answers = {one.result(30) for one in others}
    assert len(answers) == 1
    assert len(commits) == 2
    with database.reading() as connection:
        found = inbox.find_intent(connection, answers.pop())
    assert found is not None
    assert found.alerts == 50


def test_work_that_fails_takes_nothing_of_the_others_with_it(database: GroupCommit) -> None:
    def half(connection: sqlite3.Connection) -> None:
        Taking(Pace()).alert(connection, ALERT, ROUTE, "", 1.0)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        database.write(half)
    assert take(database)
    with database.reading() as connection:
        assert len(inbox.newest_intents(connection, 10)) == 1


def test_a_locked_database_is_told_and_keeps_nothing(database: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "LOCKED", 0.05)
    database.write(lambda connection: None)
    database.close()
    again = GroupCommit(database.path, inbox.SCHEMA)
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryLaterError, match="cannot be used: database is locked"):
        take(again)
    other.execute("ROLLBACK")
    assert take(again)
    other.close()
    again.close()


def test_a_full_disk_is_told_and_keeps_nothing(database: GroupCommit) -> None:
    take(database, 1)

    def full(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    database.write(full)

    def take_many() -> None:
        for number in range(2, 500):
            take(database, number, replace(ROUTE, version=str(number), told="x" * 2000))

    with pytest.raises(RetryLaterError, match="full"):
        take_many()
    # The connection was opened anew, without the limit, as after somebody has made room.
    assert take(database, 1000)
    assert take(database, 1) == take(database, 2)


def test_too_many_that_wait_are_told_to_come_later(database: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "WAITING", 1)
    small = GroupCommit(database.path, inbox.SCHEMA)
    held, entered = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        entered.set()
        assert held.wait(30)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(small.write, slow)
        assert entered.wait(30)
        second = pool.submit(take, small)
        while not small._queue.full():
            threading.Event().wait(0.01)
        with pytest.raises(BusyError):
            take(small, 2)
        held.set()
        first.result(30)
        assert second.result(30)
    small.close()


def test_what_is_accepted_outlives_the_process(database: GroupCommit) -> None:
    answer = take(database)
    database.close()
    again = GroupCommit(database.path, inbox.SCHEMA)
    with again.reading() as connection:
        (found,) = inbox.open_intents(connection)
    again.close()
    assert (found.id, found.state, found.asked) == (answer, State.ACCEPTED, "8")


def test_every_alert_has_one_line_and_old_ones_are_forgotten(database: GroupCommit, tmp_path: Path) -> None:
    answer = take(database)
    take(database, 2)
    ledger = Ledger(str(tmp_path / "ledger.db"))
    writer = Scribe(database, ledger, keep=1.0)
    with database.reading() as connection:
        alerts = inbox.unrecorded(connection, 10)
        (intent,) = inbox.open_intents(connection)
    ended = replace(intent, state=State.DONE, ended=1005.0, told="done")
    database.write(lambda connection: inbox.put_intent(connection, ended))
    ledger.append_batch([line_of(alerts[0])])  # killed before it was marked
    writer.record()
    assert not writer.record()
    lines = ledger.entries("", "alert.received")
    assert [(one.event_id, one.body["answer"]) for one in lines] == [(f"alert/{one.key}", answer) for one in alerts]
    (answered,) = ledger.entries("churn", "alert.answered")
    assert (answered.event_id, answered.at, answered.body["told"]) == (answer_of(ended).event_id, 1005.0, "done")
    database.write(lambda connection: inbox.prune(connection, 2000.0))
    with database.reading() as connection:
        assert set(inbox.backlog(connection).values()) == {0}
        assert inbox.newest_intents(connection, 10) == ()
        assert connection.execute("SELECT count(*) FROM alert").fetchone()[0] == 0
    ledger.close()


def test_the_scribe_outlives_an_exception_that_nobody_thought_of(
    database: GroupCommit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "GATHERED", 0.0)
    take(database)
    ledger = Ledger(str(tmp_path / "ledger.db"))
    failed, recorded = threading.Event(), threading.Event()
    one = Scribe(database, ledger, keep=1e9)
    record, stood_back = one.record, one._stand_back

    def fails_once() -> bool:
        if not failed.is_set():
            failed.set()
            raise OverflowError("too large")
        more = record()
        recorded.set()
        return more

    told: list[str] = []

    def stand_back() -> None:
        told.append(one.problem)
        stood_back()

    monkeypatch.setattr(one, "record", fails_once)
    monkeypatch.setattr(one, "_stand_back", stand_back)
    one.wake()
    one.start()
    assert failed.wait(30)
    one.wake()
    assert recorded.wait(30)
    one.stop(30)
    assert told[:2] == ["", "alerts are not in the ledger yet: OverflowError: too large"]
    assert one.problem == ""
    assert len(ledger.entries("", "alert.received")) == 1
    ledger.close()


def test_what_is_not_recorded_yet_is_not_forgotten(database: GroupCommit) -> None:
    take(database)
    database.write(lambda connection: inbox.prune(connection, 9e9))
    with database.reading() as connection:
        assert len(inbox.unrecorded(connection, 10)) == 1
        assert len(inbox.open_intents(connection)) == 1


def test_an_alert_that_keeps_coming_is_not_forgotten(database: GroupCommit) -> None:
    day = 86400.0
    first = take(database)
    with database.reading() as connection:
        (intent,) = inbox.open_intents(connection)
        (alert,) = inbox.unrecorded(connection, 10)
    done = replace(intent, state=State.DONE, ended=1010.0, moved=True)
    database.write(lambda connection: inbox.put_intent(connection, done))
    database.write(lambda connection: inbox.mark_answered(connection, [done]))
    database.write(lambda connection: inbox.mark_recorded(connection, [alert.key]))
    for now in (5 * day, 10 * day, 14.5 * day, 15 * day, 28 * day, 40 * day):
        assert take(database, at=now) == first
        database.write(lambda connection, now=now: inbox.prune(connection, now - 14 * day))  # type: ignore[misc]
    with database.reading() as connection:
        assert inbox.newest_intents(connection, 10) == ()
    database.write(lambda connection: inbox.prune(connection, 40 * day + 1.0))
    assert take(database, at=54 * day) != first, "for so long it did not come"


def test_that_an_alert_still_comes_is_written_once_an_hour(database: GroupCommit) -> None:
    take(database)
    seen: list[float] = []
    for at in (1001.0, 1000.0 + inbox.SEEN_EVERY, 1001.0 + inbox.SEEN_EVERY, 900.0, 1000.0 + 2 * inbox.SEEN_EVERY):
        take(database, at=at)
        with database.reading() as connection:
            seen.append(connection.execute("SELECT seen FROM alert").fetchone()[0])
    once, twice = 1000.0 + inbox.SEEN_EVERY, 1000.0 + 2 * inbox.SEEN_EVERY
    assert seen == [0.0, once, once, once, twice]


def test_an_inbox_of_before_goes_on(database: GroupCommit) -> None:
    first = take(database)
    database.close()
    old = sqlite3.connect(database.path, isolation_level=None)
    old.execute("UPDATE alert SET key = known_by")
    for index in ("alert_by_sight", "alert_known", "alert_of_trouble"):
        old.execute(f"DROP INDEX {index}")
    for column in ("seen", "known_by", "trouble", "version", "cloud", "action", "again"):
        old.execute(f"ALTER TABLE alert DROP COLUMN {column}")
    old.execute("CREATE INDEX alert_by_time ON alert (at)")
    old.close()
    again, beside = (GroupCommit(database.path, inbox.SCHEMA) for _ in range(2))
    with again.reading() as one, beside.reading() as other:
        for connection in (one, other):
            assert [alert.at for alert in inbox.unrecorded(connection, 10)] == [1000.0]
        (alert,) = inbox.unrecorded(one, 10)
    again.write(lambda connection: inbox.mark_recorded(connection, [alert.key]))
    again.write(lambda connection: inbox.prune(connection, 999.0))
    assert take(again, at=9000.0) == first
    again.write(lambda connection: inbox.prune(connection, 8000.0))
    assert take(beside, at=9001.0) == first
    again.close()
    beside.close()


@pytest.mark.parametrize("text", ["\x00", "\ud800", "x" * 100_000, "<script>", "'; DROP TABLE alert; --"])
def test_any_text_of_an_alert_is_kept(database: GroupCommit, text: str, tmp_path: Path) -> None:
    alert = Alert(text, text, text, Status.FIRING, text, severity=text)
    answer = database.write(lambda connection: Taking(Pace()).alert(connection, alert, ROUTE, "", 1.0)).answer
    again = database.write(lambda connection: Taking(Pace()).alert(connection, alert, ROUTE, "", 2.0))
    assert (again.answer, again.decision) == (answer, None)
    ledger = Ledger(str(tmp_path / "ledger.db"))
    Scribe(database, ledger, keep=1.0).record()
    assert len(ledger.entries("", "alert.received")) == 1
    ledger.close()


def test_a_storm_of_ever_new_things_makes_no_storm_of_intents(database: GroupCommit) -> None:
    for number in range(70):
        take(database, number, replace(ROUTE, version=f"v{number}", action=Action.NOTIFY))
    with database.reading() as connection:
        found = inbox.newest_intents(connection, 100)
    assert len(found) == 50
    assert sum(one.alerts for one in found) == 70


def test_a_loop_goes_on_with_others_while_the_inbox_is_written(database: GroupCommit) -> None:
    async def several() -> list[str]:
        held = threading.Event()
        first = asyncio.create_task(database.written(lambda connection: held.wait(30)))
        others = [asyncio.create_task(taken(replace(ALERT, id=f"a{number}"))) for number in range(3)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in (first, *others))
        held.set()
        assert await first
        return await asyncio.gather(*others)

    async def taken(alert: Alert) -> str:
        way = Taking(Pace())
        return (await database.written(lambda connection: way.alert(connection, alert, ROUTE, "", 1.0))).answer

    assert len(set(asyncio.run(several()))) == 1
    with database.reading() as connection:
        assert len(inbox.unrecorded(connection, 10)) == 3


def test_a_loop_does_not_wait_for_ever(database: GroupCommit) -> None:
    held = threading.Event()

    async def slow() -> None:
        first = asyncio.create_task(database.written(lambda connection: held.wait(30)))
        try:
            with pytest.raises(RetryLaterError, match="was not written within"):
                await database.written(lambda connection: pytest.fail("given up, and written"), patience=0.01)
        finally:
            held.set()
            await first

    asyncio.run(slow())
    database.write(lambda connection: None)  # what was given up is not written later
