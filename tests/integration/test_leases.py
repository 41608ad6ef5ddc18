"""One writer a model: threads, processes that are killed or stopped, a database that fails; SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, invariant, multiple, rule
from sqlalchemy.exc import DBAPIError

from lockstep.config import FleetSettings
from lockstep.errors import BusyError, LockstepError, OvertakenError, RefusedError
from lockstep.operations.fencing import check, pause
from lockstep.operations.fleet import Event, Fleet
from lockstep.operations.hold import hold
from lockstep.operations.journal import record, refusals
from lockstep.operations.lease import Writer, writing
from lockstep.operations.lease import holder as holder_of
from lockstep.rules.lease import LIFE, Lease
from lockstep.rules.state import Version
from lockstep.stores.leases import Leases
from lockstep.stores.ledger import Ledger
from lockstep.stores.registry import Registry
from tests.ledger_places import SIGNER, Place

V3 = Version("tumour", "3", "d" * 64)
HOLDER = """
import sys
from pathlib import Path
from lockstep.config import FleetSettings
from lockstep.errors import OvertakenError
from lockstep.operations.fleet import Fleet
from lockstep.operations.lease import writing
from lockstep.stores.ledger import Ledger
from lockstep.stores.registry import Registry
ledger = Ledger(sys.argv[1], spool=Path(sys.argv[2]))
fleet = Fleet(sys.argv[4], (), Registry("http://127.0.0.1:1", 1.0), ledger, FleetSettings(clouds=("aws",)))
with writing(fleet, sys.argv[3], urgent=sys.argv[3] == "rollback") as writer:
    print(writer.fence, flush=True)
    for line in sys.stdin:
        try:
            writer.check()
        except OvertakenError as error:
            print(error, flush=True)
        else:
            print("mine", flush=True)
"""


def fleet_over(ledger: Ledger, said: list[str] | None = None) -> Fleet:
    """A fleet without clouds: a lease needs none."""

    def observe(event: Event) -> None:
        if said is not None:
            said.append(event.text)

    settings = FleetSettings(clouds=("aws",))
    registry = Registry("http://127.0.0.1:1", 1.0)
    return Fleet("tumour", (), registry, ledger, settings, observer=observe, actor="ann")


@contextmanager
def holder(place: Place, operation: str, model: str = "tumour") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease; a line written to it is answered with what its check says."""
    command = [sys.executable, "-c", HOLDER, place.database, str(place.spool), operation, model]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("check\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def overtake(leases: Leases, model: str = "tumour") -> None:
    """Take the lease as a rollback does, whatever its holder beats meanwhile."""
    while leases.take(leases.read(model), model, "rollback", urgent=True) is None:
        pass


# -- the store ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_taken_renewed_and_given_back(place: Place) -> None:
    leases = Leases(place.open().database)
    assert leases.read("tumour") is None
    first = leases.take(None, "tumour", "canary_deploy", urgent=False, version="3", digest="d3")
    assert first is not None
    assert (first.fence, leases.read("tumour")) == (1, first)
    assert leases.take(None, "tumour", "rollback", urgent=True) is None, "it is not as that one saw it"
    assert leases.read("other") is None
    later = leases.beat(replace(first, version="4"))
    assert (later, later and later.beat) == (leases.read("tumour"), 1)
    assert leases.take(first, "tumour", "rollback", urgent=True) is None, "it has shown life"
    second = leases.take(later, "tumour", "rollback", urgent=True)
    assert second is not None
    assert second.fence == 2
    assert leases.beat(first) is None
    assert not leases.release(first)
    assert leases.release(second)
    free = leases.read("tumour")
    assert free is not None
    assert (free.fence, free.holder, free.process.pid, free.process.host) == (2, "", 0, "")
    third = Leases(place.open().database).take(free, "tumour", "reconcile", urgent=False)
    assert third is not None
    assert third.fence == 3


def test_no_fence_is_given_out_twice(place: Place) -> None:
    leases = Leases(place.open().database)
    assert leases.take(None, "tumour", "rollback", urgent=True)
    for statement in ("UPDATE lease SET fence = 0", "DELETE FROM lease"):
        with pytest.raises(DBAPIError, match="a fence only grows"):
            place.execute(statement)


def test_of_many_at_once_one_takes_it(place: Place) -> None:
    ledgers = [place.open() for _ in range(4)]
    barrier = threading.Barrier(8)

    def race(number: int) -> list[int]:
        leases = Leases(ledgers[number % 4].database)
        won = []
        for _ in range(5):
            barrier.wait()
            taken = leases.take(leases.read("tumour"), "tumour", "canary_deploy", urgent=False)
            if taken is not None:
                won.append(taken.fence)
        return won

    with ThreadPoolExecutor(8) as pool:
        fences = sorted(fence for won in pool.map(race, range(8)) for fence in won)
    assert fences == list(range(1, len(fences) + 1)), "each fence is one taking's"
    assert len(fences) >= 5, "in every round somebody takes it"


class Fences(RuleBasedStateMachine):
    """Whatever writers do, and whenever they come back to life: fences grow, and one writer at most holds the model."""

    writers: Bundle[Lease] = Bundle("writers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "ledger.db")
        self.leases = Leases(self.ledger.database)
        self.seen: Lease | None = None
        self.highest = 0
        self.taken: list[Lease] = []

    @rule()
    def look(self) -> None:
        self.seen = self.leases.read("tumour")

    @rule(target=writers, urgent=st.booleans(), fresh=st.booleans())
    def take(self, urgent: bool, fresh: bool) -> MultipleResults[Lease]:
        present = self.leases.read("tumour") if fresh else self.seen
        stale = present != self.leases.read("tumour")
        taken = self.leases.take(present, "tumour", "rollback" if urgent else "reconcile", urgent=urgent)
        assert (taken is None) == stale
        if taken is None:
            return multiple()
        assert taken.fence == self.highest + 1
        self.highest = taken.fence
        self.taken.append(taken)
        return multiple(taken)

    @rule(writer=writers)
    def beat(self, writer: Lease) -> None:
        present = self.leases.read("tumour")
        later = self.leases.beat(writer)
        assert (later is not None) == (present is not None and present.holder == writer.holder)

    @rule(writer=writers)
    def release(self, writer: Lease) -> None:
        present = self.leases.read("tumour")
        assert self.leases.release(writer) == (present is not None and present.holder == writer.holder)

    @rule()
    def another_process(self) -> None:
        self.ledger.close()

    @invariant()
    def the_newest_fence_is_the_only_one_that_holds(self) -> None:
        present = self.leases.read("tumour")
        assert (present.fence if present else 0) == self.highest
        holding = [lease.fence for lease in self.taken if present and present.holder == lease.holder]
        assert holding in ([], [self.highest])

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestFences = Fences.TestCase
TestFences.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


# -- operations --------------------------------------------------------------------------------------------------------


def test_every_intent_names_its_fence_and_nothing_else_writes(place: Place) -> None:
    fleet = fleet_over(place.open())
    for number in (1, 2):
        with writing(fleet, "canary_deploy", V3) as writer, record(fleet, "canary_deploy", V3):
            assert writer.fence == number
            with writing(fleet, "rollback", urgent=True) as inner, record(fleet, "shift", None):
                assert inner is writer, "a step of the operation is under its lease"
            began = time.monotonic()
            with ThreadPoolExecutor(1) as pool, pytest.raises(BusyError) as caught:
                pool.submit(_write, fleet, "canary_deploy").result()
            assert time.monotonic() - began < LIFE, "it was seen to live"
        assert "canary_deploy of version 3 by ann (process" in str(caught.value)
        assert "lockstep rollback tumour" in caught.value.hint
    intents = [entry for entry in fleet.ledger.entries() if entry.kind.endswith(".intent")]
    assert [entry.body["fence"] for entry in intents] == [1, 1, 2, 2]
    assert [entry.kind for entry in fleet.ledger.entries(kind="canary_deploy.refused")] == ["canary_deploy.refused"] * 2
    check("tumour")  # outside of any operation nothing is asked


def test_a_rollback_takes_the_lease_once_it_is_possible(place: Place) -> None:
    said: list[str] = []
    fleet = fleet_over(place.open())
    with holder(place, "canary_deploy") as rollout:
        with writing(fleet_over(place.open(), said), "rollback", urgent=True) as refused:
            assert refused.first is None
        assert ask(rollout) == "mine", "a rollback that was refused stops nobody"
        with writing(fleet_over(place.open(), said), "rollback", urgent=True) as writer:
            began = time.monotonic()
            assert writer.take(V3), "what was looked at may have changed"
            assert time.monotonic() - began < 1, "at once"
            assert not writer.take(V3)
            told = ask(rollout)
            assert "the canary_deploy of tumour was overtaken by the rollback to version 3" in told
            with record(fleet, "rollback", V3):
                pass
        assert "overtaken" in ask(rollout), "it stays lost when the rollback has ended"
    assert any(text.startswith("taking tumour from the canary_deploy") for text in said)


def test_the_second_rollback_waits_for_the_first(place: Place) -> None:
    entered, known = threading.Event(), threading.Event()
    ends: list[float] = []

    def hears(event: Event) -> None:
        if "rollback to version 3 by ann" in event.text and "reason: an alert" in event.text:
            known.set()

    second = replace(fleet_over(place.open()), observer=hears)

    def first() -> None:
        fleet = fleet_over(place.open())
        with writing(fleet, "rollback", urgent=True) as writer:
            entered.set()
            writer.take(V3)  # where it goes is not known when it begins
            with record(fleet, "rollback", V3, reason="an alert"):
                assert known.wait(20), "who waits was not told"
            ends.append(time.monotonic())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(first)
        assert entered.wait(10)
        with writing(second, "rollback", urgent=True) as writer:
            assert time.monotonic() >= ends[0]
            assert writer.first is not None
            assert (writer.first.fence, writer.fence) == (1, 2)
        done.result()


def test_a_refusal_says_that_nothing_was_changed(place: Place) -> None:
    fleet = fleet_over(place.open())
    with pytest.raises(RefusedError) as told, refusals(fleet, "rollback", V3):
        raise RefusedError("it is condemned", hint="choose another")
    assert told.value.hint == "nothing was changed; choose another"
    assert fleet.ledger.entries("tumour", "rollback.refused")[-1].body["hint"] == told.value.hint


def test_a_hold_knows_which_one_it_takes_the_place_of(place: Place) -> None:
    fleet = fleet_over(place.open())
    assert hold(fleet, "the table is late").was is None
    was = hold(fleet, "the table is wrong").was
    assert was is not None
    assert (was.reason, was.actor) == ("the table is late", "ann")


def test_a_killed_holder_is_noticed_at_once(place: Place) -> None:
    with holder(place, "canary_deploy") as killed:
        held = holder_of(fleet_over(place.open()))
        assert held is not None
        assert (held.fence, held.runs) == (1, True)
        assert held.told.startswith(f"canary_deploy (process {killed.pid} on ")
        killed.kill()
        killed.wait()
        held = holder_of(fleet_over(place.open()))
        assert held is not None
        assert (held.runs, held.gone) == (False, True)
        began = time.monotonic()
        with writing(fleet_over(place.open()), "reconcile") as writer:
            assert writer.fence == 2
        assert time.monotonic() - began < LIFE / 2
        assert holder_of(fleet_over(place.open())) is None


def test_a_stopped_holder_is_noticed_in_seconds_and_finds_out(tmp_path: Path) -> None:
    place, said = Place(str(tmp_path / "ledger.db"), tmp_path / "spool"), list[str]()
    with holder(place, "rollback") as stopped:
        stopped.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with writing(fleet_over(place.open(), said), "rollback", urgent=True) as writer:
            assert LIFE - 1.1 < time.monotonic() - began < LIFE + 2
            assert (writer.fence, writer.first is not None) == (2, True)
            stopped.send_signal(signal.SIGCONT)
            assert "the rollback of tumour was overtaken by the rollback" in ask(stopped)
            writer.check()
        assert "overtaken" in ask(stopped)
    assert any("shows no life" in text for text in said)


def test_a_holder_that_has_lost_writes_nothing_into_the_ledger(place: Place) -> None:
    fleet = fleet_over(place.open())
    with writing(fleet, "canary_deploy", V3) as writer:
        _steal(fleet)
        with pytest.raises(OvertakenError), record(fleet, "shift", None):
            pytest.fail("the step ran")
        with pytest.raises(OvertakenError):
            writer.check()
    assert [entry.kind for entry in fleet.ledger.entries()] == []
    present = Leases(fleet.ledger.database).read("tumour")
    assert present is not None
    assert (present.fence, present.holder != "") == (2, True), "what another took is not given back by us"


def test_the_outcome_of_a_rollback_that_was_taken_over_is_the_one_of_who_went_on(place: Place) -> None:
    first, second = fleet_over(place.open()), fleet_over(place.open())
    with writing(first, "rollback", V3, urgent=True), pytest.raises(OvertakenError):
        _overtaken_within(first, "e")
    leases = Leases(second.ledger.database)
    stolen = leases.read("tumour")
    assert stolen is not None
    assert leases.release(stolen)
    with writing(second, "rollback", V3, urgent=True), record(second, "rollback", V3, "e") as outcome:
        outcome.update(ending="done")
    entries = second.ledger.entries()
    assert [entry.kind for entry in entries] == ["rollback.intent", "overtaken.outcome", "rollback.outcome"]
    assert [entry.body.get("fence") for entry in entries] == [1, None, 3]
    assert (entries[1].body["overtaken"], entries[2].body["ending"]) == ("e", "done")


def test_without_its_database_a_rollback_goes_on_and_everything_else_is_refused(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "disk").write_text("a file in the place of the folder")
    fleet = fleet_over(Ledger(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool"), said)
    with pytest.raises(LockstepError, match="cannot be opened"), writing(fleet, "canary_deploy", V3):
        pytest.fail("it ran")
    with writing(fleet, "rollback", V3, urgent=True) as writer:
        assert (writer.fence, writer.intent["lease"], writer.take(V3)) == (0, "none", False)
        check("tumour")
    assert any("going on without one" in text for text in said)


def test_a_database_that_takes_calls_and_never_answers_costs_a_rollback_seconds_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql+psycopg://ledger@127.0.0.1:{silent.getsockname()[1]}/none"
        fleet = fleet_over(Ledger(address, spool=tmp_path / "spool"))
        began = time.monotonic()
        with writing(fleet, "rollback", V3, urgent=True) as writer, record(fleet, "rollback", V3):
            assert writer.intent["lease"] == "none"
            with pytest.raises(LockstepError):
                fleet.ledger.entries("tumour")
            writer.check()
        assert time.monotonic() - began < 5


def test_a_database_that_falls_silent_does_not_stop_who_writes_and_is_noticed_when_it_is_back(tmp_path: Path) -> None:
    path, aside = tmp_path / "disk" / "ledger.db", tmp_path / "aside"
    said: list[str] = []
    fleet = fleet_over(Ledger(path, spool=tmp_path / "spool"), said)
    with writing(fleet, "canary_deploy", V3) as writer:
        path.parent.rename(aside)
        path.parent.write_text("a file in the place of the folder")
        writer.check()
        path.parent.unlink()
        aside.rename(path.parent)
        _steal(fleet)
        with pytest.raises(OvertakenError):
            writer.check()
    assert any("cannot be told" in text for text in said)


def test_a_database_that_is_put_back_does_not_stop_who_writes(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, origin=SIGNER.name, signer=SIGNER)
    fleet = fleet_over(ledger, said)
    _write(fleet, "canary_deploy")
    ledger.close()
    shutil.copy(path, tmp_path / "older.db")
    _write(fleet, "canary_deploy")
    with writing(fleet, "rollback", V3, urgent=True) as writer:
        ledger.close()
        for name in (path, *tmp_path.glob("ledger.db-*")):
            name.unlink()
        shutil.copy(tmp_path / "older.db", path)
        writer.check()
        present = Leases(ledger.database).read("tumour")
        assert present is not None
        assert (present.fence, present.holder != "") == (3, True)
        path.unlink()
        writer.check()
    assert any("put back" in text for text in said)


def test_threads_and_processes_never_write_together(place: Place) -> None:
    fleet = fleet_over(place.open())
    inside: list[str] = []

    def one(number: int) -> int:
        with writing(fleet_over(place.open()), "rollback", urgent=True) as writer:
            inside.append("in")
            assert inside.count("in") - inside.count("out") == 1
            writer.check()
            inside.append("out")
            return writer.fence

    with ThreadPoolExecutor(4) as pool:
        fences = sorted(pool.map(one, range(4)))
    assert fences == [1, 2, 3, 4]
    assert isinstance(_write(fleet, "reconcile"), Writer)


def _write(fleet: Fleet, operation: str) -> Writer:
    with writing(fleet, operation) as writer:
        return writer


def _steal(fleet: Fleet) -> None:
    leases = Leases(fleet.ledger.database)
    while leases.take(leases.read("tumour"), "tumour", "rollback", urgent=True) is None:
        pass  # a beat came in between


def _overtaken_within(fleet: Fleet, event: str) -> None:
    with record(fleet, "rollback", V3, event):
        _steal(fleet)
        check("tumour")


def test_a_pause_ends_when_the_lease_is_lost(place: Place) -> None:
    """An hour, if nobody told it."""
    fleet = fleet_over(place.open())
    with writing(fleet, "canary_deploy", V3) as writer:
        writer.check()
        overtake(Leases(fleet.ledger.database))
        pause(fleet.model, 3600.0)
        with pytest.raises(OvertakenError):
            check(fleet.model)
