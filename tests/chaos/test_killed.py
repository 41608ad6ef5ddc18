"""Killed at any boundary of what it does for good, an operation is finished by a rerun or by reconciling.

Each run has a process of its own that is killed with SIGKILL; see `killing.py` for the boundaries.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.operations.condemn import condemn, lift
from lockstep.operations.lastly import told_first
from lockstep.operations.reconcile import reconcile
from lockstep.operations.rollback import rollback
from lockstep.operations.status import status
from lockstep.rules.deeds import text
from lockstep.rules.state import CHALLENGER, CONDEMNED_TAG, FALLBACK, Version
from lockstep.rules.traffic import TrafficSplit
from tests.chaos.killing import NEVER, Ended, Killer
from tests.chaos.seed import SEED, drawn
from tests.chaos.truth import check, entries_since, of_kind, size, unannounced
from tests.integration.deployed import Deployed
from tests.integration.fleets import Traffic

pytestmark = pytest.mark.timeout(180)

#: Boundaries of each operation as it is begun here.
BOUNDARIES = {"rollback": 14, "reconcile": 19, "canary_deploy": 46}
#: What comes after the kill.
WAYS = ("rerun", "reconcile")
#: How many boundaries of an operation the quick run takes.
SAMPLE = {"rollback": 3, "reconcile": 1, "canary_deploy": 1}
#: Quick to judge, so that a rollout takes seconds.
ROLLOUT = {"steps": [50, 100], "step_seconds": 0, "patience": 40, "look_every": 0.1, "min_requests": 6}
ROLLOUT |= {"soak_seconds": 0}


def cases(operation: str) -> list[object]:
    """Every boundary with one of the ways on; those that the quick run leaves out are marked."""
    chosen = drawn(operation)
    sample = chosen.sample(range(1, BOUNDARIES[operation] + 1), SAMPLE[operation])
    first = 1 + sample[0]  # which is reconciled: a rollout that is run again takes longest
    return [
        pytest.param(
            at, WAYS[(at + first) % 2], id=f"{at}-{WAYS[(at + first) % 2]}",
            marks=[] if at in sample else [pytest.mark.chaos_full],
        )
        for at in range(1, BOUNDARIES[operation] + 1)
    ]  # fmt: skip


@contextlib.contextmanager
def told(ended: Ended) -> Iterator[None]:
    """What fails in the block is told with where the kill was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {SEED}; killed: {ended.killed}, {ended.error}; passed: {', '.join(ended.passed)}")
        raise


@pytest.fixture
def quick(deployed: Deployed, tmp_path: Path) -> Path:
    """The configuration with rollouts of seconds."""
    return deployed.configured(tmp_path / "lockstep.yaml", fleets__default__rollout=ROLLOUT)


def reconciled(deployed: Deployed) -> None:
    (done,) = reconcile([deployed.fleet])
    assert done.error is None, done.error
    assert not done.failed, done.failed


@pytest.mark.parametrize(("at", "way"), cases("rollback"))
def test_a_rollback(deployed: Deployed, killer: Killer, at: int, way: str) -> None:
    since, model = time.time(), deployed.model
    known = size(deployed)
    ended = killer.run(deployed.config, model, "rollback", at=at)
    with told(ended):
        assert ended.killed
        assert ended.boundaries == at
        begun = "after ledger rollback.intent" in ended.passed
        if way == "rerun":
            rollback(deployed.fleet, reason="once more")
        else:
            reconciled(deployed)
        if not begun and way == "reconcile":
            check(deployed, deployed.v2, since)
            return
        check(deployed, deployed.v1, since)
        entries = entries_since(deployed, known, "rollback.")
        assert len(of_kind(entries, "rollback.intent")) == len(of_kind(entries, "rollback.outcome")) == 1
        assert all(not entry.body["error"] for entry in of_kind(entries, "rollback.outcome"))
        tags = {version: deployed.fleet.registry.tags(version) for version in (deployed.v1, deployed.v2, deployed.v3)}
        assert [version for version, tag in tags.items() if CONDEMNED_TAG in tag] == [deployed.v2]


@pytest.mark.parametrize(("at", "way"), cases("canary_deploy"))
def test_a_rollout(deployed: Deployed, killer: Killer, quick: Path, at: int, way: str) -> None:
    since, v3 = time.time(), deployed.v3
    with Traffic(deployed.fleet, deployed.outcomes).flowing(0.1) as traffic:
        ended = killer.run(quick, deployed.model, "canary_deploy", v3.label, at)
        with told(ended):
            if way == "rerun":
                again = killer.run(quick, deployed.model, "canary_deploy", v3.label)
                assert not again.error
    with told(ended):
        assert ended.killed
        promoted = way == "rerun" or "after mlflow set_alias champion" in ended.passed
        reconciled(deployed)
        check(deployed, v3 if promoted else deployed.v2, since)
        assert traffic.problems == []


@pytest.mark.parametrize(("at", "way"), cases("reconcile"))
def test_a_reconcile(deployed: Deployed, killer: Killer, at: int, way: str) -> None:
    """Both ways on are one: reconciling again."""
    began = time.time()
    make_a_mess(deployed)
    since = time.time()
    assert {one.split()[0] for one in unannounced(deployed, began)} == set(deployed.clouds), "nobody announced it"
    ended = killer.run(deployed.config, deployed.model, "reconcile", at=at)
    with told(ended):
        assert ended.killed
        reconciled(deployed)
        check(deployed, deployed.v2, since)


@pytest.mark.parametrize("way", [pytest.param("rerun", marks=pytest.mark.chaos_full), "the other"])
def test_condemning_and_lifting(deployed: Deployed, killer: Killer, way: str) -> None:
    """At every boundary of each, in turn; the other decision settles it as well."""
    fleet, v1 = deployed.fleet, deployed.v1
    known, kills = size(deployed), 0
    with told_first():  # copies of the ledger are another test's
        for operation, boundaries in (("condemn", 4), ("lift", 3)):
            for at in range(1, boundaries + 1):
                lift(fleet, v1, "from the beginning")
                if operation == "condemn":
                    fleet.registry.set_alias(v1, FALLBACK)
                else:
                    condemn(fleet, v1, "from the beginning")
                ended = killer.run(deployed.config, deployed.model, operation, v1.label, at)
                with told(ended):
                    assert (ended.killed, ended.boundaries) == (True, at)
                    kills += f"after ledger {operation}.intent" in ended.passed
                    assert unfinished(deployed) == [operation] * (at > 1)
                    condemned = (operation == "condemn") is (way == "rerun")
                    (condemn if condemned else lift)(fleet, v1, "once more")
                    assert unfinished(deployed) == []
                    assert fleet.registry.tags(v1).get(CONDEMNED_TAG, "") == ("once more" if condemned else "")
                    assert not condemned or fleet.registry.alias(deployed.model, FALLBACK) is None
    ends = [entry.body for entry in entries_since(deployed, known) if entry.kind in ("condemn.outcome", "lift.outcome")]
    events = [text(body, "intent") for body in ends]
    assert len(events) == len(set(events)), "each ends once"
    assert sum(text(body, "error").startswith("given up") for body in ends) == (0 if way == "rerun" else kills)


def unfinished(deployed: Deployed) -> list[str]:
    """Operations that the status names so."""
    warnings = status(deployed.fleet).warnings
    return [one.split()[1] for one in warnings if one.startswith("unfinished: ")]


def make_a_mess(deployed: Deployed) -> None:
    """A rollout of v3 that was killed, traffic that was moved by hand, and a way back that is gone."""
    model, v1, v2, v3 = deployed.model, deployed.v1, deployed.v2, deployed.v3
    registry, ledger = deployed.fleet.registry, deployed.fleet.ledger
    ledger.append(f"{model}-{time.time()}/intent", "canary_deploy.intent", model, "ann", _subject(v3))
    registry.set_alias(v3, CHALLENGER)
    lost, moved, more = deployed.fleet.clouds
    lost.retire(model, v1.slot)
    moved.set_traffic(model, TrafficSplit.of({v1.slot: 30, v2.slot: 70}))
    more.prepare(v3)
    more.set_traffic(model, TrafficSplit.canary(v2.slot, v3.slot, 50))


def _subject(version: Version) -> dict[str, str]:
    return {"version": version.label, "digest": version.digest}


@pytest.mark.chaos_full
def test_every_boundary_is_listed(deployed: Deployed, killer: Killer, quick: Path) -> None:
    """The lists above are as long as what the operations do."""
    met = {"rollback": killer.run(deployed.config, deployed.model, "rollback", at=NEVER).boundaries}
    deployed.restore()
    with Traffic(deployed.fleet, deployed.outcomes).flowing(0.1):
        ended = killer.run(quick, deployed.model, "canary_deploy", deployed.v3.label)
    assert not ended.error
    met["canary_deploy"] = ended.boundaries
    deployed.restore()
    make_a_mess(deployed)
    met["reconcile"] = killer.run(deployed.config, deployed.model, "reconcile").boundaries
    assert met == BOUNDARIES
