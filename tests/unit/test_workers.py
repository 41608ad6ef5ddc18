"""What the agent's threads do when the inbox is locked, no thread is to be had, or a receiver is slow."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lockstep.agent import carrying, dispatching, group_commit, inbox, outbox, workers
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Notice
from lockstep.agent.notices import People
from lockstep.agent.outbox import Outbox
from lockstep.agent.taking import Taking
from lockstep.agent.workers import Workers
from lockstep.errors import LockstepError, RetryLaterError, UnreachableError
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import Pace, Wish
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.alerts.routing import Route
from lockstep.stores.ledger import Entry

INTENT = Intent("a", "churn", "", "", Action.ROLLBACK, State.ACCEPTED, "why", "alert:am", 1, 500.0)
SOON = 30.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[GroupCommit]:
    made = GroupCommit(tmp_path / "inbox.db", inbox.SCHEMA)
    yield made
    made.close()


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Intents whose rollback was called."""
    called: list[str] = []

    def roll_back(fleet: object, intent: Intent, *, begun: bool) -> carrying.Outcome:
        called.append(intent.id)
        return carrying.Outcome(State.DONE, "done")

    monkeypatch.setattr(workers, "roll_back", roll_back)
    return called


def working(database: GroupCommit, leading: Callable[[], None] = lambda: None, pace: Pace | None = None) -> Workers:
    fleets: Any = lambda model: SimpleNamespace(model=model)  # noqa: E731
    return Workers(database, fleets, [], pace or Pace(), window=1.0, patience=1.0, leading=leading, clock=lambda: 600.0)


def ended(database: GroupCommit, intent_id: str) -> Intent:
    for _ in range(int(SOON / 0.02)):
        with database.reading() as connection:
            found = inbox.find_intent(connection, intent_id)
        if found is not None and not found.open:
            return found
        threading.Event().wait(0.02)
    raise AssertionError("it did not end")


def test_a_locked_inbox_ends_no_intent(
    database: GroupCommit, rolled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LOCKED", 0.02)
    monkeypatch.setattr(dispatching, "LOOK", 0.02)
    database.write(lambda connection: inbox.add_intent(connection, INTENT))
    database.close()
    locked = GroupCommit(database.path, inbox.SCHEMA)
    desk = working(locked)
    failed = threading.Event()
    keep = desk._change

    def change(*given: Any) -> Intent | None:
        try:
            return keep(*given)
        except Exception:
            failed.set()
            raise

    monkeypatch.setattr(desk, "_change", change)
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    desk.start()
    assert failed.wait(SOON)
    with locked.reading() as connection:
        (found,) = inbox.open_intents(connection)
    assert (found.state, rolled) == (State.ACCEPTED, [])
    other.execute("ROLLBACK")
    other.close()
    assert (ended(locked, "a").state, rolled) == (State.DONE, ["a"])
    desk.stop(SOON)
    locked.close()


def test_without_a_thread_it_is_tried_again(
    database: GroupCommit, rolled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LOOK", 0.02)
    database.write(lambda connection: inbox.add_intent(connection, INTENT))
    start, refused, led = threading.Thread.start, list[str](), list[int]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name.startswith("desk: ") and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    def leading() -> None:
        led.append(1)
        if len(led) == 1:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    desk = working(database, leading)
    assert not desk.alive
    desk.start()
    assert ended(database, "a").state is State.DONE
    assert (refused, rolled, desk.alive) == (["desk: churn"], ["a"], True)
    desk.stop(SOON)
    assert not desk.alive
    assert desk.running == ()


def test_an_exception_that_nobody_thought_of_is_told_and_not_at_once_tried_again(
    database: GroupCommit, rolled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write(lambda connection: inbox.add_intent(connection, INTENT))
    broken, paused, mended = threading.Event(), threading.Event(), threading.Event()
    desk = working(database)
    keep, wait = desk._end, desk._stopped.wait

    def end(intent: Intent, outcome: carrying.Outcome) -> None:
        if not mended.is_set():
            broken.set()
            raise OverflowError("too large")
        keep(intent, outcome)

    def pause(timeout: float | None = None) -> bool:
        if threading.current_thread().name == "desk: churn":
            paused.set()
            return mended.wait(SOON)
        return wait(timeout)

    monkeypatch.setattr(desk, "_end", end)
    monkeypatch.setattr(desk._stopped, "wait", pause)
    desk.start()
    try:
        assert broken.wait(SOON)
        assert paused.wait(SOON)
        assert (rolled, desk.running) == (["a"], ("churn",))
        assert desk.problems == ("churn: what came of an intent cannot be kept: OverflowError: too large",)
        mended.set()
        assert ended(database, "a").state is State.DONE
    finally:
        desk.stop(SOON)
    assert rolled == ["a", "a"]
    assert not desk.problems


def test_a_hold_that_fails_in_a_way_that_nobody_thought_of_repeats_no_rollback(
    database: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(workers, "hold", fails)
    monkeypatch.setattr(workers, "fleet_for", lambda fleet, intent: fleet)
    monkeypatch.setattr(workers, "held_and_released", lambda fleet: (None, 0.0))
    desk = working(database)
    monkeypatch.setattr(desk, "_pace", replace(Pace(), flapping_rollbacks=1))
    told = desk._flapping(INTENT, carrying.Outcome(State.DONE, "done", moved=True))
    assert "it could not be held: OverflowError: too large" in str(told)


@pytest.mark.parametrize(("earlier", "held"), [(State.SPLIT, []), (State.DONE, ["rolled back 2 times within 6 h"])])
def test_bringing_over_what_a_rollback_left_split_counts_no_second_time(
    database: GroupCommit, monkeypatch: pytest.MonkeyPatch, earlier: State, held: list[str]
) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(workers, "hold", lambda fleet, reason, event: reasons.append(reason))
    monkeypatch.setattr(workers, "fleet_for", lambda fleet, intent: fleet)
    monkeypatch.setattr(workers, "held_and_released", lambda fleet: (None, 0.0))
    before = replace(INTENT, id="b", state=earlier, version="2" * 64, began=300.0, ended=400.0, moved=True)
    database.write(lambda connection: inbox.add_intent(connection, before))
    found = working(database)._flapping(INTENT, carrying.Outcome(State.DONE, "", "2" * 64, moved=True))
    assert (reasons, found is not None) == (held, bool(held))


def test_what_confirmed_an_alert_is_told_with_what_came_of_it(database: GroupCommit) -> None:
    running = replace(INTENT, action=Action.ROLLBACK_IF_CONFIRMED, state=State.RUNNING, told="confirmed: aws: 5 of 5")
    database.write(lambda connection: inbox.add_intent(connection, running))
    working(database)._end(running, carrying.Outcome(State.DONE, "churn 1 serves", moved=True))
    assert ended(database, "a").told == "churn 1 serves; confirmed: aws: 5 of 5"


def test_a_hold_that_is_not_in_force_has_failed(database: GroupCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: object) -> None:
        raise LockstepError("churn is not held", hint="put the key back")

    monkeypatch.setattr(workers, "hold", refused)
    monkeypatch.setattr(workers, "fleet_for", lambda fleet, intent: fleet)
    outcome = working(database)._outcome(replace(INTENT, action=Action.HOLD))
    assert outcome == carrying.Outcome(State.FAILED, "churn is not held (put the key back)")


def test_how_far_an_intent_got_is_told_by_its_own_newest_rollback() -> None:
    def lines(intent: str, event: str, version: str) -> list[Entry]:
        body: Mapping[str, object] = {"version": version, "alert": {"id": intent}}
        outcome: Mapping[str, object] = {"version": version, "intent": event, "error": ""}
        return [
            Entry(1, f"{event}/intent", 501.0, "rollback.intent", "churn", "alert:am", body),
            Entry(2, f"{event}/outcome", 510.0, "rollback.outcome", "churn", "alert:am", outcome),
        ]

    def found(*entries: Entry) -> str:
        fleet: Any = SimpleNamespace(model="churn", ledger=SimpleNamespace(entries=lambda *_, **__: list(entries)))
        deed = carrying.find_deed(fleet, INTENT)
        return "" if deed is None else deed.version

    others = lines("b", "f", "5")
    assert found(*others) == ""
    assert found(*lines("a", "d", "7"), *lines("a", "e", "6"), *others) == "6"


def test_people_who_answer_too_late_are_told_again_with_growing_pauses(
    database: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    people = People("json://nobody", 0.02, urgent=False)
    monkeypatch.setattr(people, "_notify", lambda notice: held.wait(SOON))
    with pytest.raises(RetryLaterError) as raised:
        people.send(Notice("event", "title", "text", "churn", 500.0))
    assert not isinstance(raised.value, UnreachableError)
    box = Outbox(database, [people], clock=lambda: 600.0)
    database.write(lambda connection: outbox.put(connection, Notice("e", "t", "", "churn", 500.0), [people]))
    box._next(people)
    with database.reading() as connection:
        assert tuple(connection.execute("SELECT attempts, due FROM notice").fetchone()) == (1, 601.0)
    held.set()


def test_a_notice_waits_for_no_clock_that_was_set_back(database: GroupCommit) -> None:
    told: list[str] = []

    class Receiver:
        name = "receiver"

        def wants(self, notice: Notice) -> bool:
            return True

        def send(self, notice: Notice) -> None:
            told.append(notice.title)

    receiver = Receiver()
    box = Outbox(database, [receiver], clock=lambda: 600.0)
    for title, attempts, due in (("new", 0, 90_000.0), ("tried", 1, 90_000.0), ("waits", 1, 700.0)):
        notice = Notice(title, title, "", "churn", due)
        database.write(lambda connection, notice=notice: outbox.put(connection, notice, [receiver]))  # type: ignore[misc]
        row = (attempts, due, title)
        database.write(
            lambda connection, row=row: connection.execute(  # type: ignore[misc]
                "UPDATE notice SET attempts = ?, due = ? WHERE event = ?", row
            )
        )
    assert [box._next(receiver), box._next(receiver), box._next(receiver)] == [0.0, 0.0, 30.0]
    assert told == ["new", "tried"]


@pytest.mark.parametrize(
    ("actor", "earlier", "released", "holds"),
    [
        ("alert:am", "alert:am", (0.0, 0.0), True),
        ("alert:am", "alert:am", (450.0, 0.0), False),
        ("alert:am", "alert:am", (0.0, 450.0), False),
        ("alert:am", "Ada", (0.0, 0.0), False),
        ("Ada", "alert:am", (0.0, 0.0), False),
    ],
)
def test_a_model_is_held_for_rollbacks_of_alerts_since_its_release(
    database: GroupCommit,
    monkeypatch: pytest.MonkeyPatch,
    actor: str,
    earlier: str,
    released: tuple[float, float],
    holds: bool,
) -> None:
    """`released` as the inbox knows, and as the ledger says."""
    held: list[str] = []
    monkeypatch.setattr(workers, "held_and_released", lambda fleet: (None, released[1]))
    monkeypatch.setattr(workers, "roll_back", lambda fleet, intent, begun: carrying.Outcome(State.DONE, "", moved=True))
    monkeypatch.setattr(workers, "hold", lambda fleet, reason, event: held.append(reason))
    monkeypatch.setattr(workers, "fleet_for", lambda fleet, intent: fleet)

    def fill(connection: sqlite3.Connection) -> None:
        before = replace(INTENT, id="before", state=State.DONE, ended=400.0, began=300.0, moved=True, actor=earlier)
        inbox.add_intent(connection, before)
        inbox.add_intent(connection, replace(INTENT, actor=actor))
        inbox.put_released(connection, INTENT.model, released[0])

    database.write(fill)
    desk = working(database)
    desk.start()
    try:
        found = ended(database, INTENT.id)
    finally:
        desk.stop(SOON)
    assert found.state is State.DONE
    assert held == (["rolled back 2 times within 6 h"] if holds else [])
    assert found.urgent == holds


def test_what_a_person_took_over_meanwhile_is_the_persons(
    database: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread has read it as the alert's: it stops for no cool-down, and holds nothing for it."""
    monkeypatch.setattr(workers, "hold", lambda *given: pytest.fail("it is no alert's rollback"))
    other = replace(INTENT, id="o", asked="7", version="7", state=State.DONE, moved=True, ended=550.0)
    mine = replace(INTENT, asked="8")

    def fill(connection: sqlite3.Connection) -> None:
        inbox.add_intent(connection, other)
        inbox.add_intent(connection, mine)

    database.write(fill)
    desk = working(database, pace=replace(Pace(), flapping_rollbacks=1))
    stopped = desk._overtaken(mine)
    assert "just been rolled back" in stopped
    wish = Wish("churn", "", Action.ROLLBACK, person=True)
    asked = database.write(lambda connection: Taking(Pace()).asked(connection, wish, "I saw it", "Ada", 599.0))
    assert (asked.id, asked.actor) == (mine.id, "Ada")
    desk._end(mine, carrying.Outcome(State.FAILED, stopped))
    with database.reading() as connection:
        assert inbox.open_intents(connection) == (asked,), "it is taken up as it is now"
    assert not desk._overtaken(mine)
    desk._change(mine.id, lambda one: replace(one, state=State.RUNNING))
    desk._end(mine, carrying.Outcome(State.DONE, "done", moved=True))
    assert (ended(database, mine.id).state, ended(database, mine.id).told) == (State.DONE, "done")


@pytest.mark.parametrize(("released", "state"), [(0.0, State.HELD), (450.0, State.DONE), (None, State.HELD)])
def test_a_release_that_nobody_has_told_yet_is_seen_before_it_is_held_again(
    database: GroupCommit,
    rolled: list[str],
    monkeypatch: pytest.MonkeyPatch,
    released: float | None,
    state: State,
) -> None:
    """None: the ledger cannot be read."""

    def held_and_released(fleet: object) -> tuple[None, float]:
        if released is None:
            raise UnreachableError("the ledger is away")
        return None, released

    held: list[str] = []
    monkeypatch.setattr(workers, "held_and_released", held_and_released)
    monkeypatch.setattr(workers, "hold", lambda fleet, reason, event: held.append(event))
    monkeypatch.setattr(workers, "fleet_for", lambda fleet, intent: fleet)
    pace = replace(Pace(), cool_down=0.0, incident_window=10.0)
    before = replace(INTENT, state=State.DONE, moved=True, began=300.0)
    way = Route("rule", "churn", "9", "", Action.ROLLBACK)

    def fill(connection: sqlite3.Connection) -> str:
        for number in range(2):
            inbox.add_intent(connection, replace(before, id=f"b{number}", ended=400.0 + number))
        return Taking(pace).alert(connection, Alert("am", "a", "i", Status.FIRING, "slow"), way, "", 600.0).answer

    intent = database.write(fill)
    desk = working(database, pace=pace)
    desk.start()
    try:
        found = ended(database, intent)
    finally:
        desk.stop(SOON)
    assert (found.state, rolled) == (state, [intent] if state is State.DONE else [])
    assert bool(held) == (state is State.HELD)
    with database.reading() as connection:
        assert inbox.released_at(connection, "churn") == (released or 0.0)
