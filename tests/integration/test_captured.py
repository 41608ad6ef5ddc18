"""`lockstep decision` by the id of a request alone: the cloud's own capture says which version answered."""

from __future__ import annotations

import time
import uuid
from functools import partial
from pathlib import Path

import pytest

from lockstep.operations.probe import with_probe
from lockstep.rules.measurement import Answer
from lockstep.rules.moments import show_moment
from lockstep.rules.traffic import TrafficSplit
from tests.contract.clouds import eventually
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import opened

pytestmark = pytest.mark.timeout(300)

CAPTURING = ("aws", "azure", "gcp")


@pytest.mark.parametrize("name", CAPTURING)
def test_a_decision_is_found_by_its_request_alone(deployed: Deployed, name: str) -> None:
    if name not in deployed.clouds:
        pytest.skip(f"the sandbox runs without {name}")
    model = deployed.model
    config = deployed.configured(deployed.folder / f"captures-{name}.yaml", **{f"clouds__{name}__capture_percent": 100})
    fleet = opened(deployed.changed_config(**{f"clouds__{name}__capture_percent": 100}), model)
    cloud = fleet.cloud(name)
    cloud.register(deployed.v3)
    cloud.prepare(deployed.v3)
    split = TrafficSplit.canary(deployed.v2.slot, deployed.v3.slot, 50)
    cloud.set_traffic(model, split)
    # Azure ML captures by deployment: of the slots that are there, only the one that was placed since does.
    answers: dict[str, Answer] = {}
    while len(answers) < 2:
        request_id = str(uuid.uuid4())
        answer = cloud.invoke(model, rows_of(deployed, name, request_id), request_id=request_id)
        if answer.slot == deployed.v3.slot:
            answers[request_id] = answer

    for request_id, answer in answers.items():
        asked = ("decision", model, "--cloud", name, "--request-id", request_id)
        assert eventually(partial(answered, *asked, config=config))
        told = lockstep(*asked, "--json", config=config).document
        assert (told["basis"], told["sure"]) == ("the cloud's captured request", True)
        (version,) = told["versions"]
        assert (version["slot"], version["digest"]) == (answer.slot, deployed.v3.digest)
        assert told["captured_in"]
    printed = lockstep(*asked, config=config).out
    assert "by the cloud's captured request: this version answered" in printed
    assert "captured in:" in printed

    unknown = ("decision", model, "--cloud", name, "--request-id", str(uuid.uuid4()))
    refused = lockstep(*unknown, config=config)
    assert refused.status == 3
    assert "captures come minutes late" in " ".join(refused.err.replace("│", " ").split())
    assert ("does not capture the caller's id" in refused.err) is (name == "gcp")
    told = lockstep(*unknown, "--time", show_moment(time.time()), "--json", config=config).document
    assert told["basis"] == "the ledger's intervals"
    assert any("captures come minutes late" in note for note in told["notes"])

    sandbox_fault = {"aws": "ListObjectsV2", "azure": "ListBlobs", "gcp": "jobs.query"}[name]
    with deployed.control.during(name, "fail", operation=sandbox_fault, count=20):
        told = lockstep(*unknown, "--time", show_moment(time.time()), "--json", config=config).document
    assert told["basis"] == "the ledger's intervals"
    assert any("could not be looked through" in note for note in told["notes"])


def answered(*asked: str, config: Path) -> bool:
    return lockstep(*asked, config=config).status == 0


def rows_of(deployed: Deployed, name: str, request_id: str) -> list[dict[str, object]]:
    """Rows to predict; Vertex AI keeps no id of the caller's but one in the rows."""
    rows = with_probe(deployed.fleet, deployed.v2).probe
    return [{**row, "request_id": request_id} if name == "gcp" else dict(row) for row in rows]
