"""Where a rollback goes, what is condemned and lifted, and that all of it holds while MLflow is down."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.operations.fleet import Fleet
from lockstep.operations.known_good import grant_if_earned
from lockstep.operations.owed import owed, settle
from lockstep.operations.remembering import read_record, recall
from lockstep.operations.rollback_plan import plan_rollback
from lockstep.operations.status import status
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, KNOWN_GOOD_TAG, Version
from lockstep.rules.target import Why
from lockstep.rules.traffic import TrafficSplit
from tests.integration.deployed import Deployed, lockstep
from tests.integration.test_bad_input import NOWHERE, says

pytestmark = pytest.mark.timeout(300)
EARLY, LATE = "2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z"


def test_the_newest_known_good_version_goes_before_the_fallback(deployed: Deployed) -> None:
    registry = deployed.fleet.registry
    first = plan_rollback(deployed.fleet).way
    assert (first.target, first.why) == (deployed.v1, Why.FALLBACK)
    earn(deployed.fleet, deployed.v3, LATE)
    earn(deployed.fleet, deployed.v1, EARLY)
    found = lockstep("rollback", deployed.model, "--dry-run", "--json", config=deployed.config).document
    assert (found["target"], found["why"]) == ("3", Why.KNOWN_GOOD.value)
    registry.tag(deployed.v3, CONDEMNED_TAG, "slow")
    assert plan_rollback(deployed.fleet).way.target == deployed.v1
    listed = lockstep("versions", deployed.model, "--json", config=deployed.config).document
    found = {row["version"]: (row["known_good"], row["condemned"]) for row in listed}
    assert [found[label] for label in "123"] == [(EARLY, ""), ("", ""), (LATE, "slow")]


def earn(fleet: Fleet, version: Version, at: str) -> None:
    """As it is granted: the ledger first, then the tag."""
    body = {"version": version.label, "digest": version.digest, "at": at}
    fleet.ledger.append(f"{version.digest}/{at}", "known_good.outcome", fleet.model, "x", body)
    fleet.registry.tag(version, KNOWN_GOOD_TAG, at)


def test_a_forged_tag_leads_nobody(deployed: Deployed, tmp_path: Path) -> None:
    """Only what the ledger granted counts, and when it did; by name a version can be gone to all the same."""
    elsewhere = str(tmp_path / "ledger.db")
    said: list[str] = []
    fleet = replace(deployed.changed(ledger=elsewhere), observer=lambda event: said.append(event.text))
    fleet.registry.tag(deployed.v3, KNOWN_GOOD_TAG, LATE)
    assert plan_rollback(fleet).way.target == deployed.v3, "a ledger that knows nothing contradicts nothing"
    assert said == []

    promoted = {"version": deployed.v2.label, "digest": deployed.v2.digest, "error": ""}
    fleet.ledger.append("promoted", "promote.outcome", fleet.model, "x", promoted)
    way = plan_rollback(fleet).way
    assert (way.target, way.why) == (deployed.v1, Why.FALLBACK)
    (doubt,) = said
    assert f"{deployed.v3} in MLflow says {LATE}; by the ledger it never earned it" in doubt
    assert doubt in status(fleet).warnings
    assert plan_rollback(fleet, deployed.v3).way.target == deployed.v3
    down = deployed.changed(ledger=elsewhere, mlflow__tracking_uri=NOWHERE)
    assert plan_rollback(down).way.target == deployed.v1, "what is remembered of MLflow is believed no more"

    earn(fleet, deployed.v3, EARLY)
    earn(fleet, deployed.v1, "2026-11-20T11:00:00Z")
    fleet.registry.tag(deployed.v3, KNOWN_GOOD_TAG, LATE)
    planned = plan_rollback(fleet)
    assert planned.way.target == deployed.v1, "it is the newest by the ledger's times"
    assert f"by the ledger it earned it at {EARLY}" in planned.known.doubts[0]


def test_a_champion_that_the_ledger_does_not_know_earns_nothing(deployed: Deployed) -> None:
    """Its alias was set by hand, so nothing says since when it serves."""
    record = read_record(deployed.fleet)
    standing = grant_if_earned(deployed.fleet, record, deployed.v3)
    assert not standing.earned
    assert KNOWN_GOOD_TAG not in deployed.fleet.registry.tags(deployed.v3)


def test_condemning_and_lifting(deployed: Deployed) -> None:
    model, config, registry = deployed.model, deployed.config, deployed.fleet.registry
    with deployed.unchanged(), deployed.only_reads():
        says(
            lockstep("condemn", model, "2", "--reason", "x", config=config),
            3,
            "it is the champion",
            "roll back instead",
        )
    done = lockstep("condemn", model, "1", "--reason", "wrong labels", "--json", config=config)
    assert done.document == {
        **{"version": "1", "digest": deployed.v1.digest, "condemned": "wrong labels"},
        **{"before": None, "fallback": None},
    }
    assert FALLBACK not in deployed.show().aliases, "a condemned version is no way back"
    for arguments in (("rollback", model, "--to", "1"), ("deploy", model, "1")):
        says(lockstep(*arguments, config=config), 3, "condemned: wrong labels", f"lockstep lift {model} 1 --reason")
    says(lockstep("rollback", model, config=config), 3, "no known-good version", "condemned: 1", "--to VERSION")
    again = lockstep("condemn", model, "1", "--reason", "and slow", config=config)
    assert "it was already: wrong labels" in again.out
    lifted = lockstep("lift", model, "1", "--reason", "the labels were right", config=config)
    assert lifted.out == f"{deployed.v1} is no longer condemned: and slow\n"
    assert CONDEMNED_TAG not in registry.tags(deployed.v1)
    assert "was not condemned" in lockstep("lift", model, "1", "--reason", "again", config=config).out
    entries = deployed.fleet.ledger.entries(model)
    kinds = [entry.kind for entry in entries]
    for operation in ("condemn", "lift"):  # the fixture lifts as well, without an intent
        intents = [entry.event_id.removesuffix("/intent") for entry in entries if entry.kind == f"{operation}.intent"]
        ended = [entry.body.get("intent") for entry in entries if entry.kind == f"{operation}.outcome"]
        assert len(intents) >= 2
        assert {ended.count(event) for event in intents} == {1}
    assert "condemn.refused" in kinds
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_a_rollback_while_mlflow_is_down(deployed: Deployed, tmp_path: Path) -> None:
    """By what was last known; MLflow is told later, and once."""
    fleet, model = deployed.fleet, deployed.model
    assert lockstep("status", model, config=deployed.config).status == 0  # which keeps what MLflow says
    down = deployed.configured(tmp_path / "down.yaml", mlflow__tracking_uri=NOWHERE)
    dry = lockstep("rollback", model, "--dry-run", "--json", config=down)
    assert (dry.status, dry.document["target"]) == (0, "1"), dry
    done = lockstep("rollback", model, "--reason", "alert 7", "--json", config=down)
    assert done.status == 0, done
    assert (done.document["target"], done.document["left"]) == ("1", ["2"])
    assert [text.partition(" ->")[0].partition(" of ")[0] for text in done.document["owed"]] == [
        *(f"alias {CHAMPION}", f"alias {CHALLENGER}", f"tag {CONDEMNED_TAG}", f"alias {FALLBACK}")
    ]
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    outcome = fleet.ledger.entries(model, "rollback.outcome")[-1].body
    assert (outcome["ending"], outcome["fallback"]) == ("done", None)
    assert outcome["condemned"] == {deployed.v2.digest: "rolled back from: alert 7"}
    assert "no answer from MLflow" in str(outcome["mlflow"])
    assert deployed.show().aliases == {CHAMPION: "2", FALLBACK: "1"}, "MLflow does not know yet"

    second = lockstep("rollback", model, "--reason", "alert 8", "--json", config=down)
    assert (second.status, second.document["left"]) == (0, []), "a second alert of the incident stays there"
    says(lockstep("rollback", model, "--to", "2", config=down), 3, "condemned: rolled back from: alert 7")

    seen = status(fleet)
    assert (seen.desired.champion, seen.desired.fallback, seen.out_of_step) == (deployed.v1, None, {})
    assert any("still to be told: alias champion" in warning for warning in seen.warnings)
    assert plan_rollback(fleet).way.target == deployed.v1, "MLflow answers, and what it is owed counts"
    says(lockstep("rollback", model, "--to", "2", config=deployed.config), 3, "condemned")

    alone = deployed.changed(mlflow__tracking_uri=NOWHERE, state=str(tmp_path / "nothing"))
    recalled = recall(alone)
    assert recalled.desired.champion is not None
    assert recalled.desired.champion.digest == deployed.v1.digest, "the ledger alone will do"
    assert recalled.of(deployed.v2).condemned == "rolled back from: alert 7"

    assert {str(debt) for debt in settle(fleet)} == set(done.document["owed"])
    assert deployed.show().aliases == {CHAMPION: "1"}
    assert fleet.registry.tags(deployed.v2)[CONDEMNED_TAG] == "rolled back from: alert 7"
    assert (owed(fleet), settle(fleet)) == ((), ())


def test_nothing_known_and_mlflow_down(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(
        tmp_path / "c.yaml", mlflow__tracking_uri=NOWHERE, ledger=str(tmp_path / "ledger.db"), state=str(tmp_path / "s")
    )
    with deployed.unchanged():
        for command in ("rollback", "status"):
            says(lockstep(command, deployed.model, config=config), 5, f"no answer from MLflow at {NOWHERE}")


def test_status_without_mlflow_goes_by_memory_and_says_so(deployed: Deployed, tmp_path: Path) -> None:
    fleet, model = deployed.fleet, deployed.model
    assert lockstep("status", model, "--prove", "--json", config=deployed.config).document["from_memory"] is None
    down = deployed.configured(tmp_path / "down.yaml", mlflow__tracking_uri=NOWHERE)
    with deployed.unchanged(), deployed.only_reads():
        seen = lockstep("status", model, "--prove", "--json", config=down)
        assert seen.status == 0, seen
        assert (seen.document["champion"], seen.document["fallback"], seen.document["out_of_step"]) == ("2", "1", {})
        assert f"no answer from MLflow at {NOWHERE}" in seen.document["from_memory"]
        assert {answer["digest"] for answers in seen.document["answers"].values() for answer in answers} == {
            deployed.v2.digest
        }, "proved by the rows that were kept"
        shown = lockstep("status", model, config=down)
    assert shown.status == 0
    assert "what should serve is from memory" in shown.out
    assert f"in step (as was last known): {deployed.v2} everywhere" in shown.out
    listed = lockstep("versions", model, "--json", config=down)
    assert listed.status == 0, listed
    assert [row["version"] for row in listed.document][:3] == ["1", "2", "3"]  # others register more
    assert f"no answer from MLflow at {NOWHERE}" in listed.document[0]["from_memory"]
    fleet.clouds[0].set_traffic(model, TrafficSplit.all_to(deployed.v1.slot))
    behind = lockstep("status", model, "--json", config=down)
    assert (behind.status, list(behind.document["out_of_step"])) == (6, [fleet.clouds[0].name])
    assert behind.document["from_memory"]


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of something that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_mlflow_that_hangs_holds_a_rollback_up_for_seconds(deployed: Deployed, hanging: str) -> None:
    read_record(deployed.fleet)
    fleet = deployed.changed(mlflow__tracking_uri=hanging, mlflow__rollback_timeout=1.0)
    fleet.registry.load()
    began = time.monotonic()
    planned = plan_rollback(fleet)
    assert planned.way.target == deployed.v1
    assert "within 1 s" in planned.known.silent
    assert time.monotonic() - began < 10.0
