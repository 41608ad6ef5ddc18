"""A ledger that cannot be written keeps its entries and appends them later; a process may be killed at any moment."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from lockstep.config import FleetSettings
from lockstep.errors import LockstepError, NoteError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.history import entries_of
from lockstep.operations.hold import Hold, find_hold, hold, raise_if_held, refuse_held, release
from lockstep.operations.journal import record
from lockstep.operations.known_good import standing_of
from lockstep.operations.unfinished import unfinished
from lockstep.rules.checkpoint import open_checkpoint
from lockstep.rules.note import open_note
from lockstep.rules.state import Version
from lockstep.stores.ledger import Event, Ledger
from lockstep.stores.registry import Registry
from tests.ledger_places import CHILD, SIGNER, Place, fill

LOOP = (
    CHILD
    + """
print("ready", flush=True)
number = int(sys.argv[4])
while True:
    entry = ledger.append(f"e{number}", "test.intent", "tumour", "ann", {"number": number})
    print(f"{entry.number} e{number}", flush=True)
    number += 1
"""
)


@pytest.fixture(autouse=True)
def folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that are tried when the spool's own cannot be written."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def ledger_at(path: Path | str, **options: object) -> Ledger:
    return Ledger(path, origin=SIGNER.name, signer=SIGNER, **options)  # type: ignore[arg-type]


def test_what_cannot_be_written_waits_and_is_appended_in_order_and_marked(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.write_text("a file in the place of the folder")
    now = iter(range(1_000, 2_000))
    ledger = ledger_at(folder / "ledger.db", spool=tmp_path / "ledger.spool", clock=lambda: float(next(now)))
    kept = [ledger.append(f"e{number}", "rollback.intent", "tumour", "ann", {"n": number}) for number in range(12)]
    assert {entry.number for entry in kept} == {-1}
    assert [entry.event_id for entry in kept] == [f"e{number}" for number in range(12)]
    (problem,) = ledger.problems
    assert "cannot be opened" in problem
    assert str(tmp_path / "ledger.spool") in problem
    with pytest.raises(LockstepError, match="cannot be opened"):
        ledger.append("other", "replicate.intent", "tumour", "ann", {}, spool=False)
    folder.unlink()
    assert ledger.append("last", "rollback.outcome", "tumour", "ann", {}).number == 12
    entries = ledger.entries()
    assert [entry.event_id for entry in entries] == [*(f"e{number}" for number in range(12)), "last"]
    assert [entry.late for entry in entries] == [True] * 12 + [False]
    assert [entry.at for entry in entries[:12]] == [entry.at for entry in kept]
    assert [entry.body for entry in entries[:12]] == [entry.body for entry in kept]
    assert ledger.verify().flaws == ()
    assert list((tmp_path / "ledger.spool").iterdir()) == []


def test_another_process_appends_what_waits(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("")
    for number in range(3):
        ledger_at(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool").append(f"e{number}", "x", "", "ann", {})
    (tmp_path / "disk").unlink()
    fill(ledger_at(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool"), 1, start=3)
    assert [entry.event_id for entry in ledger_at(tmp_path / "disk" / "ledger.db").entries()] == [
        "e0",
        "e1",
        "e2",
        "e3",
    ]


def test_a_disk_that_takes_nothing_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").write_text("")
    ledger = ledger_at(tmp_path / "disk" / "ledger.db")
    entry = ledger.append("e0", "rollback.intent", "tumour", "ann", {})
    assert entry.number == -1
    assert str(tmp_path / "state") in ledger.problems[0], "the user's state folder is tried next"
    (tmp_path / "state" / "x").touch()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    with pytest.raises(LockstepError, match="neither can its spool"):
        ledger_at(tmp_path / "disk" / "ledger.db").append("e1", "rollback.intent", "tumour", "ann", {})


def test_a_file_that_holds_no_entry_is_told_and_left(tmp_path: Path) -> None:
    spool = tmp_path / "ledger.spool"
    spool.mkdir()
    (spool / "0.jsonl").write_text("{half")
    ledger = ledger_at(tmp_path / "ledger.db", spool=spool)
    assert ledger.append("e", "x", "", "ann", {}).number == 0
    assert any("0.jsonl" in problem for problem in ledger.problems)
    assert (spool / "0.jsonl").exists()


def line(**changed: object) -> bytes:
    """What a file of the spool holds."""
    whole = {"event_id": "x", "kind": "k", "model": "m", "actor": "a", "body": {}, "at": 1.0, **changed}
    return json.dumps(whole).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        *(line(at=at) for at in (1e300, -1e18, -6e10, float("nan"), float("inf"))),
        *(line(**{name: "\ud800"}) for name in ("event_id", "kind", "model", "actor")),
        line(event_id="x" * 501),
        line(kind="k\x00"),
        line().replace(b"{}", b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"),
        line().replace(b"{}", b"[" * 900 + b"]" * 900),
        line(body=3),
        b"[]\n",
    ],
)
def test_what_no_append_could_take_holds_up_no_other(tmp_path: Path, content: bytes) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    bad = tmp_path / "ledger.db.spool" / "0.jsonl"
    bad.parent.mkdir()
    bad.write_bytes(content)
    bad.with_name("1.jsonl").write_bytes(line(event_id="good"))
    assert [entry.event_id for entry in ledger.entries(cloud=None)] == ["good"]
    assert ledger.append("e", "x", "", "ann", {}).number == 1
    assert [entry.event_id for entry in ledger.entries()] == ["good", "e"]
    assert f"{bad} is in the ledger's spool, but holds no entry" in ledger.problems
    assert bad.read_bytes() == content


def test_an_event_of_any_looks_is_appended_from_the_spool_too(tmp_path: Path) -> None:
    deep: object = "the bottom"
    for _ in range(2_000):
        deep = [deep]
    body = {"deep": deep, "large": 2.0**60, "none": float("nan"), "odd": "\ud800", "long": "y" * 100_000}
    ledger = ledger_at(tmp_path / "ledger.db")
    (tmp_path / "ledger.db").mkdir()
    assert ledger.append("\ud800", "a\x00", "tumour", "x" * 600, body).number == -1
    (tmp_path / "ledger.db").rmdir()
    assert ledger.append("e", "x", "", "ann", body).number == 1
    assert [(entry.late, entry.unvouched) for entry in ledger.entries()] == [(True, False), (False, False)]
    assert "nested more than 100 deep" in json.dumps(ledger.entry(0).body)


def test_what_waits_and_stands_already_is_not_doubled(tmp_path: Path) -> None:
    """As after a kill between the append of what waits and its removal."""
    (tmp_path / "disk").write_text("")
    ledger = ledger_at(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool")
    ledger.append("e0", "x", "", "ann", {})
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    (tmp_path / "disk").unlink()
    ledger.append("e1", "x", "", "ann", {})
    shutil.rmtree(tmp_path / "spool")
    shutil.copytree(tmp_path / "copy", tmp_path / "spool")
    ledger.append("e2", "x", "", "ann", {})
    assert [entry.event_id for entry in ledger.entries()] == ["e0", "e1", "e2"]


def test_a_writer_that_holds_the_database_is_not_waited_for_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockstep.stores.ledger.database.WAIT", 2)
    ledger = ledger_at(tmp_path / "ledger.db")
    ledger.append("e0", "x", "", "ann", {})
    ledger.close()
    ledger = ledger_at(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert ledger.append("e1", "x", "", "ann", {}).number == -1
        began = time.monotonic()
        assert ledger.append("e2", "x", "", "ann", {}).number == -1
        assert time.monotonic() - began < 1
    ledger_at(tmp_path / "ledger.db").append("e3", "x", "", "ann", {})
    assert [entry.event_id for entry in ledger.entries()] == ["e0", "e1", "e2", "e3"]


def test_postgresql_that_is_down_is_not_waited_for(tmp_path: Path) -> None:
    address = "postgresql+psycopg://ledger@127.0.0.1:1/none"
    ledger = ledger_at(address, spool=tmp_path / "spool")
    began = time.monotonic()
    assert ledger.append("e0", "rollback.intent", "tumour", "ann", {}).number == -1
    assert time.monotonic() - began < 5
    assert "127.0.0.1" in ledger.problems[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_nothing_and_doubles_nothing(place: Place, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: list[str] = []
    for _ in range(3):
        acknowledged += killed_after(place, LOOP, len(acknowledged), dice.uniform(0.0, 0.3))
    check(place, acknowledged)


def test_a_process_killed_while_it_fills_the_spool(tmp_path: Path) -> None:
    """Half of the time there is no database; whatever was acknowledged stands in the end, in order."""
    place = Place(str(tmp_path / "disk" / "ledger.db"), tmp_path / "spool")
    dice = random.Random(11)
    acknowledged: list[str] = []
    for turn in range(4):
        if turn % 2 == 0:
            if (tmp_path / "disk").exists():
                (tmp_path / "disk").rename(tmp_path / "aside")
            (tmp_path / "disk").write_text("")
        acknowledged += killed_after(place, LOOP, len(acknowledged), dice.uniform(0.0, 0.3))
        if turn % 2 == 0:
            (tmp_path / "disk").unlink()
            if (tmp_path / "aside").exists():
                (tmp_path / "aside").rename(tmp_path / "disk")
    check(place, acknowledged)


def killed_after(place: Place, script: str, first: int, seconds: float) -> list[str]:
    """Run `script` until that long after its first entry, kill it, and give the event ids that it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *place.arguments, str(first)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    lines = [process.stdout.readline()]
    time.sleep(seconds)  # the moment of the kill is what is tested
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return [line.split()[1] for line in lines if line.endswith("\n")]


def check(place: Place, acknowledged: list[str]) -> None:
    ledger = place.open()
    ledger.append("end", "test.outcome", "tumour", "ann", {})
    found = [entry.event_id for entry in ledger.entries(last=100_000)]
    # An entry whose acknowledgement was cut off by the kill stands as well, and is appended again by the next process.
    assert found == [*(f"e{number}" for number in range(len(found) - 1)), "end"]
    assert set(acknowledged) <= set(found)
    assert len(found) - 1 - len(acknowledged) <= 4
    assert [entry.number for entry in ledger.entries(last=100_000)] == list(range(len(found)))
    assert ledger.verify().flaws == ()


def spooled(tmp_path: Path, ledger: Ledger) -> Path:
    """The one file that waits, after an entry that could not be written."""
    (tmp_path / "ledger.db").mkdir()
    ledger.append("x/intent", "rollback.intent", "tumour", "ann", {})
    (tmp_path / "ledger.db").rmdir()
    (path,) = (tmp_path / "ledger.db.spool").glob("*.jsonl")
    return path


def test_what_somebody_put_into_the_spool_takes_nobodys_place(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "ledger.db")
    path = spooled(tmp_path, ledger)
    line, signature = path.read_bytes().split(b"\n", 1)
    forged = {
        "000a": line.replace(b"x/intent", b"x/outcome").replace(b"rollback.intent", b"rollback.outcome")
        .replace(b'"body":{}', b'"body":{"error":"","intent":"x"}') + b"\n" + signature,
        "000b": line.replace(b"x/intent", b"y").replace(b"rollback.intent", b"approval.granted"),
    }  # fmt: skip
    for name, content in forged.items():
        path.with_name(f"{name}.jsonl").write_bytes(content)
    ledger.append("x/outcome", "rollback.outcome", "tumour", "ann", {"intent": "x", "error": "the real one"})
    assert [entry.event_id for entry in ledger.entries()] == ["x/intent", "x/outcome"]
    assert [entry.event_id for entry in ledger.entries(last=2)] == ["x/intent", "x/outcome"]
    entries = {entry.event_id: entry for entry in ledger.entries(unvouched=True)}
    assert list(entries) == ["unvouched/x/outcome", "unvouched/y", "x/intent", "x/outcome"]
    assert [entry.unvouched for entry in entries.values()] == [True, True, False, False]
    assert entries["unvouched/x/outcome"].body["intent"] == "unvouched/x", "it closes nothing"
    assert entries["x/outcome"].body["error"] == "the real one"
    found = ledger.verify()
    assert found.flaws == ()
    assert len([note for note in found.notes if "could have put it in" in note]) == 2


def test_what_was_kept_without_a_key_is_not_lost(tmp_path: Path) -> None:
    without = Ledger(tmp_path / "ledger.db", origin=SIGNER.name, verifiers=[SIGNER.verifier])
    spooled(tmp_path, without)
    ledger = ledger_at(tmp_path / "ledger.db")
    ledger.append("last", "rollback.outcome", "tumour", "ann", {})
    assert [(entry.event_id, entry.unvouched) for entry in ledger.entries(unvouched=True)] == [
        ("unvouched/x/intent", True), ("last", False)
    ]  # fmt: skip


def test_without_any_key_nothing_is_marked(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    spooled(tmp_path, ledger)
    ledger.append("last", "rollback.outcome", "tumour", "ann", {})
    assert [(entry.event_id, entry.unvouched) for entry in ledger.entries()] == [("x/intent", False), ("last", False)]


def test_a_signature_of_the_spool_is_none_of_a_checkpoint(tmp_path: Path) -> None:
    path = spooled(tmp_path, ledger_at(tmp_path / "ledger.db"))
    line, signature = path.read_bytes().split(b"\n", 1)
    note = b"lockstep/spool/v1\n" + line + b"\n\n" + signature
    assert open_note(note, [SIGNER.verifier])[1] == (SIGNER.name,)
    with pytest.raises(NoteError):
        open_checkpoint(note, SIGNER.name, [SIGNER.verifier])


def kinds(ledger: Ledger, **options: object) -> list[str]:
    return [entry.kind for entry in ledger.entries("tumour", **options)]  # type: ignore[arg-type]


def test_what_waits_is_read_as_the_newest(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool")
    ledger.append("e0", "hold.released", "tumour", "ann", {})
    ledger.close()
    (tmp_path / "disk").rename(tmp_path / "aside")
    (tmp_path / "disk").write_text("")
    ledger.append("e1", "hold.placed", "tumour", "ann", {})
    ledger.append("e2", "rollback.outcome", "tumour", "ann", {"clouds": ["gcp"]})
    ledger.append("e3", "hold.placed", "other", "ann", {})
    assert kinds(ledger, kind="hold.", last=1) == ["hold.placed"], "enough waits to tell without the database"
    with pytest.raises(LockstepError, match="cannot be opened"):
        ledger.entries("tumour", "hold.", last=2)
    (tmp_path / "disk").unlink()
    (tmp_path / "aside").rename(tmp_path / "disk")
    assert kinds(ledger) == ["hold.released", "hold.placed", "rollback.outcome"]
    assert kinds(ledger, waiting=False) == ["hold.released"]
    assert kinds(ledger, last=2) == ["hold.placed", "rollback.outcome"]
    assert kinds(ledger, cloud="gcp") == ["rollback.outcome"]
    waiting = [entry for entry in ledger.entries() if entry.number < 0]
    assert len({entry.number for entry in waiting}) == len(waiting) == 3, "each is another line"
    shutil.copytree(tmp_path / "spool", tmp_path / "copy")
    ledger.append("e4", "hold.released", "tumour", "ann", {})
    shutil.copytree(tmp_path / "copy", tmp_path / "spool", dirs_exist_ok=True)  # as after a kill before their removal
    assert kinds(ledger) == ["hold.released", "hold.placed", "rollback.outcome", "hold.released"]


def test_what_nobody_vouches_for_decides_nothing_while_it_waits(tmp_path: Path) -> None:
    without = Ledger(tmp_path / "ledger.db", origin=SIGNER.name, verifiers=[SIGNER.verifier])
    spooled(tmp_path, without)
    assert ledger_at(tmp_path / "ledger.db").entries() == ()


def fleet_of(ledger: Ledger) -> Fleet:
    """A fleet that is asked for nothing but its ledger."""
    return Fleet("tumour", (), cast("Registry", None), ledger, FleetSettings(clouds=("aws",)))


def test_what_nobody_vouches_for_decides_nothing_when_it_is_appended(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "ledger.db")
    fleet = fleet_of(ledger)
    hold(fleet, "it answers wrongly")
    version = {"version": "2", "digest": "d" * 64, "champion": "d" * 64}
    forged = {
        "hold.released": {"reason": "why"},
        "rollback.intent": {**version, "leaves": [{"version": "3", "digest": "e" * 64}]},
        "promote.outcome": version,
    }
    spool = tmp_path / "ledger.db.spool"
    spool.mkdir()
    for number, (kind, body) in enumerate(forged.items()):
        content = line(event_id=f"forged{number}/intent", kind=kind, model="tumour", body=body)
        (spool / f"{number}.jsonl").write_bytes(content)
    for waits in (True, False):
        assert find_hold(fleet) is not None
        assert unfinished(fleet) is None
        assert not standing_of(fleet, Version("tumour", "2", "d" * 64), time.time()).earned
        assert list(spool.iterdir()) != [] or not waits
        ledger.append("last", "known_good.outcome", "tumour", "ann", {})
    assert list(spool.iterdir()) == []
    assert [entry.kind for entry in entries_of(fleet)] == ["hold.placed", *forged, "known_good.outcome"], "shown"


@pytest.mark.parametrize(
    ("standing", "waiting"),
    [
        ([], ["E placed", "R released", "E placed"]),
        (["R released"], ["R2 released", "H2 placed", "R released"]),
        (["E placed", "R released"], ["E placed"]),
        (["E placed"], ["R released", "R released", "E placed"]),
    ],
)
def test_what_waits_is_read_as_the_append_takes_it(tmp_path: Path, standing: list[str], waiting: list[str]) -> None:
    """An agent repeats an entry under the id that it had."""
    ledger = ledger_at(tmp_path / "ledger.db")
    events = [Event(name, f"hold.{kind}", "tumour", "ann", {}, 1.0) for name, kind in map(str.split, standing)]
    if events:
        ledger.append_batch(events)
    for name, kind in map(str.split, waiting):
        ledger._spool.keep(Event(name, f"hold.{kind}", "tumour", "ann", {}, 2.0))
    before = [[entry.event_id for entry in ledger.entries("tumour", last=last)] for last in range(1, 6)]
    ledger.append("other", "x", "", "ann", {})
    assert before == [[entry.event_id for entry in ledger.entries("tumour", last=last)] for last in range(1, 6)]
    assert before[0] == ["H2" if "H2 placed" in waiting else "R"]


def test_a_hold_that_waits_is_in_force(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "disk" / "ledger.db", spool=tmp_path / "spool")
    fleet = fleet_of(ledger)
    (tmp_path / "disk").write_text("")
    hold(fleet, "it answers wrongly")
    with pytest.raises(RefusedError, match="it answers wrongly"):
        raise_if_held(fleet)
    (tmp_path / "disk").unlink()
    with pytest.raises(RefusedError, match="it answers wrongly"):
        refuse_held(fleet)
    assert release(fleet, "it is mended") is not None
    refuse_held(fleet)


def test_a_hold_that_would_not_be_in_force_is_refused(tmp_path: Path) -> None:
    without = Ledger(tmp_path / "disk" / "ledger.db", verifiers=[SIGNER.verifier], spool=tmp_path / "spool")
    fleet = fleet_of(without)
    hold(fleet, "it answers wrongly")
    (tmp_path / "disk").rename(tmp_path / "aside")
    (tmp_path / "disk").write_text("")
    with pytest.raises(LockstepError, match=r"tumour is not held: .* cannot be opened.* private key") as raised:
        hold(fleet, "worse")
    assert "give the same command" in raised.value.hint
    assert not (tmp_path / "spool").exists(), "nothing waits that would not count"
    begun = False
    with record(fleet, "rollback", None):
        begun = True
    assert begun, "it goes on"
    assert any("nothing is decided by them" in problem for problem in without.problems)
    (tmp_path / "disk").unlink()
    (tmp_path / "aside").rename(tmp_path / "disk")
    assert release(fleet, "it is mended") is not None
    assert find_hold(fleet) is None


def test_a_hold_or_a_release_that_nothing_can_take_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").write_text("")
    (tmp_path / "state").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    fleet = fleet_of(ledger_at(tmp_path / "disk" / "ledger.db"))
    with pytest.raises(LockstepError, match=r"tumour is not held: .* neither can its spool"):
        hold(fleet, "it answers wrongly")
    placed = Hold("it answers wrongly", "ann", 1.0)
    monkeypatch.setattr(
        "lockstep.operations.hold.find_hold", lambda fleet: placed
    )  # as of a database that is read-only
    with pytest.raises(LockstepError, match="tumour is not released: "):
        release(fleet, "it is mended")
