"""A version whose seal does not hold is refused, unless it is the only way back and a person says so."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from lockstep.errors import DigestMismatchError
from lockstep.operations.canary import canary_deploy, check_deployable
from lockstep.operations.intact import seal_problems
from lockstep.operations.journal import record
from lockstep.operations.replicate import replicate
from lockstep.operations.rollback import rollback
from lockstep.operations.rollback_plan import plan_rollback
from lockstep.operations.verify import verify
from lockstep.rules.judge import Decision
from lockstep.rules.manifest import SCHEMA_V1
from lockstep.rules.state import CONDEMNED_TAG, VERDICT_TAG, Version
from lockstep.stores.registry import DIGEST_TAG, FORMAT_TAG
from tests.contract.tampering import changed, tamperer
from tests.integration.deployed import Deployed, lockstep
from tests.integration.tampered import (
    artifact_overwritten,
    captured,
    object_overwritten,
    read_artifact,
    subject_on,
    write_artifact,
)
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(300)
CLOUDS = ("aws", "azure", "gcp")


def newest(deployed: Deployed, kind: str) -> dict[str, object]:
    """Body of the model's newest entry of a kind."""
    return dict(deployed.fleet.ledger.entries(deployed.model, kind)[-1].body)


def test_a_seal_that_holds_costs_little_and_is_not_spoken_of(deployed: Deployed) -> None:
    began = time.monotonic()
    assert seal_problems(deployed.fleet, deployed.v1) == {}
    assert time.monotonic() - began < 10
    assert "broken_seal" not in plan_rollback(deployed.fleet).accepted


@pytest.mark.parametrize("name", ["manifest.json", "model.sig"])
def test_a_broken_seal_is_not_replicated(deployed: Deployed, name: str) -> None:
    since = deployed.fleet.ledger.entries(deployed.model)[-1].number
    with (
        deployed.unchanged(),
        artifact_overwritten(deployed.fleet, deployed.v3, captured(deployed.v3, name), b"{}"),
        pytest.raises(DigestMismatchError, match="does not hold: mlflow: ") as refusal,
    ):
        replicate(deployed.fleet, deployed.v3)
    assert "lockstep verify" in refusal.value.hint
    entries = [one for one in deployed.fleet.ledger.entries(deployed.model) if one.number > since]
    assert [one.kind for one in entries if one.kind.startswith("replicate")] == ["replicate.refused"]


def test_the_signature_of_another_version_is_refused(deployed: Deployed) -> None:
    path = captured(deployed.v3, "model.sig")
    other = read_artifact(deployed.fleet, deployed.v1, captured(deployed.v1, "model.sig"))
    with (
        artifact_overwritten(deployed.fleet, deployed.v3, path, other),
        pytest.raises(DigestMismatchError, match="signature of"),
    ):
        replicate(deployed.fleet, deployed.v3)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_broken_replica_is_not_deployed(deployed: Deployed, cloud: str) -> None:
    with (
        deployed.unchanged(),
        object_overwritten(deployed.fleet.cloud(cloud), deployed.v3, "manifest.json"),
        pytest.raises(DigestMismatchError, match=f"does not hold: {cloud}: .*manifest.json has sha256"),
    ):
        canary_deploy(deployed.fleet, deployed.v3)
    assert newest(deployed, "canary_deploy.refused")["digest"] == deployed.v3.digest


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_version_whose_native_record_was_changed_is_not_deployed(
    deployed: Deployed, sandbox: RunningSandbox, cloud: str
) -> None:
    subject = subject_on(deployed, cloud)
    subject.stable = deployed.v3
    words = {"aws": "approval is 'Rejected'", "azure": "tag lockstep-version", "gcp": "label lockstep-run-id"}[cloud]
    with (
        changed(subject, tamperer(subject, sandbox).changes()[words]),
        pytest.raises(DigestMismatchError, match=words),
    ):
        check_deployable(deployed.fleet, deployed.v3)
    assert check_deployable(deployed.fleet, deployed.v3) == {}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_rollback_to_a_broken_replica_is_refused(deployed: Deployed, cloud: str) -> None:
    with (
        deployed.unchanged(),
        object_overwritten(deployed.fleet.cloud(cloud), deployed.v1, "model.sig"),
        pytest.raises(DigestMismatchError, match=f"does not hold: {cloud}: .*model.sig") as refusal,
    ):
        rollback(deployed.fleet, reason="a test")
    assert "--accept-broken-seal" in refusal.value.hint
    assert newest(deployed, "rollback.refused")["reason"] == "a test"


def test_the_only_way_back_is_taken_when_a_person_says_so(deployed: Deployed) -> None:
    """Also without a manifest to make up a probe from; what was broken and why it was accepted is in the intent."""
    path = captured(deployed.v1, "manifest.json")
    deployed.fleet.registry.tag(deployed.v3, CONDEMNED_TAG, "it may have been promoted once, and then it is a way back")
    with artifact_overwritten(deployed.fleet, deployed.v1, path, b"{}"):
        before = deployed.show()
        refused = lockstep("rollback", deployed.model, config=deployed.config)
        assert refused.status == DigestMismatchError.exit_status
        assert "manifest" in refused.err
        assert deployed.show() == before
        done = lockstep(
            "rollback", deployed.model, "--accept-broken-seal", "incident 12, agreed by two", config=deployed.config
        )
        assert done.status == 0, done.err
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    intent = newest(deployed, "rollback.intent")
    assert intent["accepted_because"] == "incident 12, agreed by two"
    broken = intent["broken_seal"]
    assert isinstance(broken, dict)
    assert "manifest has sha256" in str(broken["mlflow"])


def test_it_is_not_the_only_way_while_another_good_version_is_intact(deployed: Deployed) -> None:
    deployed.fleet.registry.tag(deployed.v3, VERDICT_TAG, Decision.PASS.value)
    azure = deployed.fleet.cloud("azure")
    with object_overwritten(azure, deployed.v1, "manifest.json"):
        with deployed.unchanged(), pytest.raises(DigestMismatchError, match="not the only way") as refusal:
            rollback(deployed.fleet, accept_broken_seal="I say so")
        assert f"--to {deployed.v3.label}" in refusal.value.hint
        with object_overwritten(azure, deployed.v3, "manifest.json"):
            accepted = plan_rollback(deployed.fleet, accept_broken_seal="I say so").accepted
    assert accepted["no_other"] == [deployed.v3.digest]


def test_mlflow_that_is_down_is_no_broken_seal(deployed: Deployed) -> None:
    fleet = deployed.changed(mlflow__tracking_uri="http://127.0.0.1:9", mlflow__timeout=1)
    assert seal_problems(fleet, deployed.v1) == {}
    with object_overwritten(fleet.cloud("gcp"), deployed.v1, "manifest.json"):
        assert set(seal_problems(fleet, deployed.v1)) == {"gcp"}


def test_a_cloud_that_is_down_is_no_broken_seal(deployed: Deployed) -> None:
    with deployed.control.during("aws", "down"):
        assert seal_problems(deployed.fleet, deployed.v1) == {}


def test_a_store_that_hangs_does_not_hold_a_rollback_up_for_long(deployed: Deployed) -> None:
    began = time.monotonic()
    with deployed.control.during("gcp", "hang", operation="storage.objects.get", count=20):
        assert plan_rollback(deployed.fleet).way.target == deployed.v1
    assert time.monotonic() - began < 25


def test_no_key_to_check_with_is_no_broken_seal(deployed: Deployed) -> None:
    fleet = deployed.changed(keys={"folder": str(deployed.folder / "no-keys")})
    assert fleet.keys.signing_public == ()
    assert seal_problems(fleet, deployed.v1) == {}


def test_two_numbers_that_changed_places_in_mlflow_are_refused(deployed: Deployed) -> None:
    """Each of the two is sealed and signed: only the ledger knows which number was which."""
    client, one, two = deployed.fleet.registry.client, deployed.v1, deployed.v3
    runs = {version.label: version.run_id for version in (one, two)}
    assert runs[one.label] != runs[two.label]
    forged = Version(one.model, one.label, two.digest, one.run_id)
    try:
        client.set_model_version_tag(one.model, one.label, DIGEST_TAG, two.digest)
        write_artifact(deployed.fleet, one, captured(two, "manifest.json"), manifest_of(deployed, two))
        write_artifact(
            deployed.fleet,
            one,
            captured(two, "model.sig"),
            read_artifact(deployed.fleet, two, captured(two, "model.sig")),
        )
        assert deployed.fleet.registry.find(one.model, one.label) == forged
        problems = seal_problems(deployed.fleet, forged)
        assert f"number {one.label} was registered as digest {one.digest[:12]}" in str(problems["mlflow"])
        with pytest.raises(DigestMismatchError, match="was registered as digest"):
            rollback(deployed.fleet, to=forged, reason="a drill")
        assert f"was registered as digest {one.digest[:12]}" in str(verify(deployed.fleet, forged).altered)
    finally:
        client.set_model_version_tag(one.model, one.label, DIGEST_TAG, one.digest)


def manifest_of(deployed: Deployed, version: Version) -> bytes:
    return read_artifact(deployed.fleet, version, captured(version, "manifest.json"))


def test_an_unsigned_manifest_of_the_first_format_is_refused_unless_the_ledger_knows_it(deployed: Deployed) -> None:
    """Anybody who may write to MLflow can make one, around any bytes."""
    fleet, v1 = deployed.other_model(), deployed.v1
    registry = fleet.registry
    manifest = registry.manifest(v1)
    document = {
        "format": SCHEMA_V1,
        "model": fleet.model,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in manifest.files],
        "environment": {"python": manifest.env.python, "requirements": ["a==1"]},
        "lineage": {"run_id": v1.run_id, "source": manifest.mlflow.source, "parameters": {}, "metrics": {}},
    }
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()
    write_artifact(fleet, v1, f"lockstep/{digest}/manifest.json", content)
    registry.client.create_registered_model(fleet.model)
    tags = {DIGEST_TAG: digest, FORMAT_TAG: SCHEMA_V1}
    made = registry.client.create_model_version(fleet.model, manifest.mlflow.source, v1.run_id, tags=tags)
    version = registry.find(fleet.model, str(made.version))
    with pytest.raises(DigestMismatchError, match="first format, which nobody signed"):
        replicate(fleet, version)
    assert any("first format" in line for line in verify(fleet, version).altered)
    with record(fleet, "register", version):
        pass  # as the release that made it wrote it down
    assert seal_problems(fleet, version, clouds=()) == {}
