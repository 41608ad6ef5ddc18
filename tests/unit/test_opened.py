"""What has no outcome is told as running while it runs, and as unfinished once that is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.operations.journal import record
from lockstep.operations.lease import writing
from lockstep.operations.status import _going_on
from lockstep.rules.opened import Fate, Held, fate, opened
from lockstep.rules.state import Version
from lockstep.stores.ledger import Ledger
from lockstep.stores.processes import lives, marked
from tests.unit.lines import Line

V1 = Version("churn", "1", "1" * 64)
HERE = {"pid": 1, "place": "here", "started": "9"}


def intent(event: str, operation: str = "replicate", number: int = 0, **body: object) -> Line:
    return Line(number, f"{event}/intent", 5.0, f"{operation}.intent", {"version": "1", **body})


@pytest.mark.parametrize(("alive", "found"), [(True, Fate.RUNNING), (False, Fate.UNFINISHED), (None, Fate.BEGUN)])
def test_what_needs_no_lease_runs_as_long_as_its_process(alive: bool | None, found: Fate) -> None:
    asked = []

    def look(mark: object) -> bool | None:
        asked.append(mark)
        return alive

    assert fate(intent("a", process=HERE), Held(3, runs=True), look) is found
    assert asked == [HERE]


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (Held(3, runs=True), Fate.RUNNING),
        (Held(3), Fate.BEGUN),
        (Held(3, gone=True), Fate.UNFINISHED),
        (Held(4, runs=True), Fate.UNFINISHED),
        (Held(), Fate.UNFINISHED),
    ],
)
def test_what_works_under_a_lease_runs_as_long_as_it_holds_it(held: Held, found: Fate) -> None:
    """A rollback in a process that lives may have been interrupted all the same."""
    assert fate(intent("a", "rollback", process=HERE, fence=3), held, lambda mark: True) is found


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("intent", "outcome")), st.booleans()), max_size=12))
def test_nothing_that_ended_is_open(steps: list[tuple[str, str, bool]]) -> None:
    lines = [
        Line(number, f"{event}/{stage}", float(number), f"replicate.{stage}", {"intent": event, "error": "x" * failed})
        for number, (event, stage, failed) in enumerate(steps)
    ]
    ended = {event for event, stage, _ in steps if stage == "outcome"}
    begun = {event for event, stage, _ in steps if stage == "intent"}
    assert {line.event_id.removesuffix("/intent") for line in opened(lines)} == begun - ended


def test_a_later_rollback_settles_what_was_left_before_it() -> None:
    lines = [
        intent("a", number=1),
        intent("b", "rollback", number=2),
        Line(3, "b/outcome", 6.0, "rollback.outcome", {"intent": "b"}),
        intent("c", number=4, within="b"),
        intent("d", "condemn", number=5),
    ]
    assert [line.event_id for line in opened(lines)] == ["d/intent"]
    assert opened(lines, told=("condemn",)) == ()


def test_a_process_is_known_by_its_mark_and_its_end_as_well() -> None:
    mine = marked()
    if not mine:
        pytest.skip("no /proc here")
    assert lives(json.loads(json.dumps(mine))) is True
    code = "import json; from lockstep.stores.processes import marked; print(json.dumps(dict(marked())))"
    ended = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
    assert lives(ended) is False
    assert lives({**ended, "place": "elsewhere"}) is None
    assert lives({}) is None


def test_a_replication_is_told_as_running_and_once_its_process_is_gone_as_unfinished(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.db"))
    fleet: Any = SimpleNamespace(
        model="churn", ledger=ledger, actor="ann", via="", alert={}, clouds=(), retention=None, say=lambda *_: None
    )
    with record(fleet, "replicate", V1):
        if not marked():
            pytest.skip("no /proc here")
        writer, running, warnings = _going_on(fleet, ())
        assert (writer, warnings) == (None, [])
        assert [one.partition(", begun")[0] for one in running] == ["replicate of version 1 by ann"]
    assert _going_on(fleet, ()) == (None, (), [])
    with writing(fleet, "condemn", V1), record(fleet, "condemn", V1):
        writer, running, warnings = _going_on(fleet, ())
        assert (writer is not None and writer.runs, running, warnings) == (True, (), []), "the writer is told apart"
    gone = {**marked(), "started": "0"}
    ledger.append("k/intent", "replicate.intent", "churn", "bob", {"version": "1", "process": gone})
    ledger.append("o/intent", "register.intent", "churn", "bob", {})
    (killed, old) = _going_on(fleet, ())[2]
    assert killed.startswith("unfinished: replicate of version 1 by bob, begun ")
    assert old.startswith("begun: register by bob")
    ledger.close()
