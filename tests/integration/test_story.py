"""The life of one model on three clouds, without Prefect: the story that the demo tells, each claim asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockstep.errors import VerdictError
from lockstep.operations.audit.checks import ledger_checks
from lockstep.operations.audit.collect import collect
from lockstep.operations.audit.folder import write_report
from lockstep.operations.audit.verify import verify
from lockstep.operations.canary import canary_deploy
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record, sealed
from lockstep.operations.key_events import record_created
from lockstep.operations.monitor import monitor
from lockstep.operations.replicate import missing_replicas, replicate
from lockstep.operations.rollback import rollback
from lockstep.operations.status import status
from lockstep.rules.judge import Decision
from lockstep.rules.state import CONDEMNED_TAG, KNOWN_GOOD_TAG, Version
from tests.integration.fleets import Traffic, configure, opened, registered, save_model, unique, wait_for_requests
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(300)


def test_a_models_life_on_three_clouds(sandbox: RunningSandbox, mlflow_server: str, tmp_path: Path) -> None:
    model = unique("story")
    fleet = opened(configure(sandbox, mlflow_server, tmp_path, model), model)
    clouds = {cloud.name for cloud in fleet.clouds}

    v1 = _registered(fleet, save_model(tmp_path / "v1"))
    assert set(missing_replicas(fleet, v1)) == clouds
    records = replicate(fleet, v1)
    assert {record.cloud for record in records} == clouds
    assert missing_replicas(fleet, v1) == {}
    assert replicate(fleet, v1) == records, "a second replication finds everything in place"

    first = canary_deploy(fleet, v1)
    assert {cloud.cloud: str(cloud.split) for cloud in first.after.clouds} == dict.fromkeys(clouds, f"{v1.slot} 100 %")
    assert fleet.registry.desired(model).champion == v1

    with Traffic(fleet, tmp_path / "outcomes.csv").flowing() as traffic:
        wait_for_requests(traffic, 30)

        v2 = _registered(fleet, save_model(tmp_path / "v2", scale=0.01))
        replicate(fleet, v2)
        with pytest.raises(VerdictError, match="bad outcomes"):
            canary_deploy(fleet, v2)
        desired = fleet.registry.desired(model)
        assert (desired.champion, desired.challenger) == (v1, None)
        assert CONDEMNED_TAG in fleet.registry.tags(v2)
        for cloud in fleet.observe().clouds:
            assert cloud.slot(v2.slot) is None
            assert str(cloud.split) == f"{v1.slot} 100 %"

        v3 = _registered(fleet, save_model(tmp_path / "v3", regularisation=0.5))
        replicate(fleet, v3)
        promoted = canary_deploy(fleet, v3)
        assert [report.verdict.decision for report in promoted.stages] == [Decision.PASS] * len(promoted.stages)
        desired = fleet.registry.desired(model)
        assert (desired.champion, desired.fallback, desired.challenger) == (v3, v1, None)
        assert KNOWN_GOOD_TAG in fleet.registry.tags(v1), "it soaked until it was replaced"
        for cloud in promoted.after.clouds:
            warm = cloud.slot(v1.slot)
            assert warm is not None
            assert warm.ready
            assert warm.weight == 0
        wait_for_requests(traffic, 60)
        report = monitor(fleet)
        assert report.verdict.decision is Decision.PASS, report
        assert report.rolled_back is None
        assert KNOWN_GOOD_TAG in fleet.registry.tags(v3), "it soaked, and was looked at"

        done = rollback(fleet, reason="alert 4711")
        assert done.target == v1
        assert set(done.result.seconds) == clouds
        assert "alert 4711" in fleet.registry.tags(v3)[CONDEMNED_TAG]
        wait_for_requests(traffic, 30)

    assert traffic.problems == []
    proven = status(fleet, prove=True)
    assert proven.out_of_step == {}
    assert {proof.cloud: {answer.digest for answer in proof.answers} for proof in proven.proofs} == {
        cloud: {v1.digest} for cloud in clouds
    }
    _check_the_audit(fleet, tmp_path / "report")
    kinds = [entry.kind for entry in fleet.ledger.entries(model)]
    assert kinds.count("rollback.intent") == kinds.count("rollback.outcome") == 1
    assert kinds.count("canary_deploy.intent") == kinds.count("canary_deploy.outcome") == 3


def _registered(fleet: Fleet, source: str) -> Version:
    """As the command and the flow do it: with an entry in the ledger."""
    with record(fleet, "register", None, source=source) as outcome:
        version = registered(fleet, source)
        outcome.update(sealed(version, fleet.registry.manifest(version)))
    return version


def _check_the_audit(fleet: Fleet, folder: Path) -> None:
    """The story as an auditor reads it, from the ledger alone."""
    record_created(fleet.ledger, fleet.keys, fleet.actor)  # as `lockstep keys create` does
    audit = collect(fleet, fleet.ledger, checks=ledger_checks(fleet))
    write_report(fleet, fleet.ledger, fleet.ledger.verifiers, audit, folder)
    assert verify(folder, fleet.ledger.verifiers).problems == {}
    told = audit.document
    assert [one["what"] for one in told["checks"] if "copy" not in one["what"] and not one["holds"]] == []
    assert [(one["what"], one["left"]) for one in told["incidents"]] == [("canary taken back", "2"), ("rollback", "3")]
    assert all(one["seconds"] is not None and set(one["clouds"]) for one in told["incidents"])
    for cloud, now in told["serving"].items():
        assert [(one["version"], one["weights"]) for one in now["versions"]] == [("1", [100])], cloud
    first = fleet.clouds[0].name  # where a canary is tried first
    weights = [split for one in told["timeline"][first] if one["certainty"] == "certain" for split in one["splits"]]
    assert [sorted(split.values()) for split in weights if split] == [[100], [50, 50], [100], [50, 50], [100], [100]]
    assert [one["sealed_by_entry"] is None for one in told["versions"]] == [False] * 3
