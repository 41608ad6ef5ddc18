"""A rollback while something is wrong: whoever can follow does so at once, and the others as soon as it is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lockstep.errors import SplitError
from lockstep.operations.fleet import Fleet
from lockstep.operations.reconcile import reconcile
from lockstep.operations.rollback import rollback
from lockstep.rules.deeds import Ending, mapping, read_deeds
from tests.chaos import table
from tests.chaos.faults import FOLLOWS, LASTING, TITLE, Trouble, troubles
from tests.chaos.killing import Killer
from tests.chaos.seed import drawn
from tests.chaos.truth import check, entries_since, size
from tests.integration.deployed import Deployed

pytestmark = pytest.mark.timeout(180)

NOWHERE = "http://127.0.0.1:1"
#: Seconds that a call to a cloud in trouble, and a shift of its traffic, may take.
IMPATIENT = {"call_timeout": 3.0, "traffic_timeout": 5.0}
HEALS = 60.0  # seconds until all is in step at the latest

#: The rows of the quick run.
QUICK = {f"{drawn('faults').choice(sorted(TITLE.values()))} is down", "MLflow is down"}


@pytest.fixture(scope="module")
def measured() -> Iterator[list[table.Measured]]:
    """What was measured; a run of all rows writes the page."""
    rows: list[table.Measured] = []
    yield rows
    if [row.name for row in rows] == [trouble.name for trouble in troubles()]:
        table.publish(rows)


def cases() -> list[object]:
    return [
        pytest.param(trouble, id=str(trouble), marks=[] if trouble.name in QUICK else [pytest.mark.chaos_full])
        for trouble in troubles()
    ]


@pytest.mark.parametrize("trouble", cases())
def test_a_rollback_under(deployed: Deployed, killer: Killer, trouble: Trouble, measured: list[table.Measured]) -> None:
    known = size(deployed)
    short = {f"clouds__{cloud}__{key}": value for cloud in trouble.hit for key, value in IMPATIENT.items()}
    fleet = deployed.changed(**short, **trouble.changes)
    heal(deployed.fleet)  # the look that is taken every few minutes: it is what is known when MLflow is down
    trouble.begin(deployed)
    began = time.time()
    status, behind = carry_out(deployed, fleet, killer, trouble)
    assert behind == tuple(sorted(trouble.behind)), f"ended with {status}: {behind}"
    assert status == (0 if trouble.ending == FOLLOWS else SplitError.exit_status)
    safe = [cloud for cloud in deployed.clouds if cloud not in trouble.behind]
    switched = seconds_to_switch(deployed, began, safe)
    deployed.control.clear()
    over = time.time()
    answers = deployed.answers()
    assert {cloud: answers[cloud] for cloud in safe} == dict.fromkeys(safe, deployed.v1.digest)
    heal(deployed.fleet)
    healed = time.time() - over
    measured.append(table.Measured(trouble.name, status, behind, switched, healed if behind else 0.0))
    check(deployed, deployed.v1, began)
    (deed,) = (deed for deed in read_deeds(entries_since(deployed, known)) if deed.operation == "rollback")
    assert deed.ending is (Ending.DONE if trouble.ending == FOLLOWS else Ending.FAILED)


def carry_out(deployed: Deployed, fleet: Fleet, killer: Killer, trouble: Trouble) -> tuple[int, tuple[str, ...]]:
    """The rollback in the way that the trouble needs; its exit status, and the clouds that it told did not follow."""
    if trouble.way == "command":
        command = [sys.executable, "-m", "lockstep.cli", "--config", str(deployed.config), "rollback", deployed.model]
        environment = {**os.environ, "PREFECT_API_URL": f"{NOWHERE}/api"}
        done = subprocess.run(
            [*command, "--json"], env=environment, capture_output=True, text=True, timeout=LASTING, check=False
        )
        assert json.loads(done.stdout)["target"] == deployed.v1.label, done
        return done.returncode, ()
    if trouble.way.startswith("clock "):
        ended = killer.run(deployed.config, deployed.model, "rollback", jump=float(trouble.way.split()[1]))
        assert not ended.error
        return 0, ()
    try:
        rollback(fleet, reason=f"while {trouble.name}")
    except SplitError as error:
        told = mapping(deployed.fleet.ledger.entries(deployed.model, "rollback.outcome")[-1].body, "split")
        return error.exit_status, tuple(sorted(cloud for cloud in told if f"{cloud}: " in str(error)))
    return 0, ()


def seconds_to_switch(deployed: Deployed, began: float, clouds: list[str]) -> float:
    """From `began` (Unix seconds) until the last of the clouds had its traffic where it should be, by its own log."""
    ends = {
        str(call["cloud"]): float(call["at"]) + float(call["seconds"])
        for call in deployed.control.calls(since=began)
        if call["operation"] == "event:traffic"
    }
    assert set(clouds) <= set(ends), ends
    return max((ends[cloud] for cloud in clouds), default=began) - began


def heal(fleet: Fleet) -> None:
    """Reconcile until nothing is left to do; what a cloud is at must end there first."""
    deadline = time.monotonic() + HEALS
    while True:
        (done,) = reconcile([fleet])
        if done.error is None and not done.failed and (done.after is None or not done.after.unreachable):
            break
        assert time.monotonic() < deadline, (done.error, done.failed)
        time.sleep(0.5)
