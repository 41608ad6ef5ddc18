"""The scheduled look: what serves, the way back and the newest versions, each byte in its turn."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import State

from blocks.saving import block_name, blocks_of, save
from flows.scrub import scrub as scrub_flow
from lockstep.errors import DigestMismatchError, RefusedError, UnreachableError
from lockstep.operations.scrub import scrub
from lockstep.rules.sampling import share_of
from tests.integration.deployed import Deployed
from tests.integration.prefect_server import PrefectServer
from tests.integration.tampered import object_overwritten

pytestmark = pytest.mark.timeout(300)


def outcome(deployed: Deployed) -> dict[str, object]:
    """Body of the newest scrub's entry."""
    return dict(deployed.fleet.ledger.entries(deployed.model, "scrub.outcome")[-1].body)


def test_what_serves_the_way_back_and_the_newest_are_looked_at(deployed: Deployed) -> None:
    with deployed.only_reads():
        done = scrub(deployed.fleet, newest=1)
    assert done.found.error is None
    newest = deployed.fleet.registry.versions(deployed.model)[-1]
    assert set(done.digests) == {deployed.v1.digest, deployed.v2.digest, newest.digest}
    assert {check.version for check in done.found.checks} == {deployed.v1, deployed.v2, newest}
    told = outcome(deployed)
    assert (told["intact"], told["altered"], told["altered_count"], told["error"]) == (True, [], 0, "")


def test_every_byte_is_read_on_one_of_so_many_days(deployed: Deployed) -> None:
    """A bit that flips in a file shows on the day whose share the file is in, and on no other of the round."""
    manifest = deployed.fleet.registry.manifest(deployed.v1)
    (path,) = {"MLmodel"} & {file.path for file in manifest.files}
    found = {}
    with object_overwritten(deployed.fleet.cloud("azure"), deployed.v1, f"files/{path}"):
        for day in range(3):
            done = scrub(deployed.fleet, days=3, day=day)
            found[day] = bool(done.found.altered)
            if done.found.altered:
                (line,) = done.found.altered
                assert f"azure: files/{path} has sha256" in line
                assert isinstance(done.found.error, DigestMismatchError)
                told = outcome(deployed)
                assert told["altered"] == [line]
                assert told["intact"] is False
    assert found == {day: path in share_of(manifest.files, 3, day, deployed.v1.digest) for day in range(3)}
    assert list(found.values()).count(True) == 1


def test_a_cloud_that_is_silent_is_not_taken_for_good(deployed: Deployed) -> None:
    with deployed.control.during("gcp", "down"):
        done = scrub(deployed.fleet)
    assert isinstance(done.found.error, UnreachableError)
    assert outcome(deployed)["intact"] is False


def test_rounds_have_at_least_a_day(deployed: Deployed) -> None:
    with pytest.raises(RefusedError, match="from 1 on"):
        scrub(deployed.fleet, days=0)


def artifacts(state: State[Any]) -> str:
    """Text of all artifacts of the state's flow run."""
    assert state.state_details.flow_run_id is not None
    run = ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run))
    return "\n".join(str(artifact.data) for artifact in found)


def test_the_flow_leaves_a_table_and_fails_when_something_was_altered(
    deployed: Deployed, prefect_server: PrefectServer
) -> None:
    config = deployed.changed_config()
    config = config.model_copy(update={"fleets": {deployed.model: config.fleets["default"]}})
    model = config.models[deployed.model].model_copy(update={"fleet": deployed.model})
    save(blocks_of(config.model_copy(update={"models": {deployed.model: model}}), deployed.folder))
    block = block_name(deployed.model)

    good = scrub_flow(fleet=block, days=1, return_state=True)
    assert good.is_completed(), good.message
    text = artifacts(good)
    assert "everything is as it was sealed" in text
    assert "| version | check | mlflow |" in text
    assert all(cloud in text for cloud in deployed.clouds)

    with object_overwritten(deployed.fleet.cloud("aws"), deployed.v2, "files/MLmodel"):
        bad = scrub_flow(deployed.model, fleet=block, days=1, return_state=True)
    assert bad.is_failed()
    assert "aws: files/MLmodel has sha256" in str(bad.message)
    assert "ALTERED" in artifacts(bad)
