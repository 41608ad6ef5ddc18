"""Every later change of a version is found, and named with version, place and file; nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from lockstep.errors import DigestMismatchError, NotFoundError, RefusedError, SplitError, UnreachableError
from lockstep.operations.fleet import Fleet
from lockstep.operations.replicate import replicate
from lockstep.operations.verify import verify
from lockstep.rules.findings import Finding, Verification
from lockstep.rules.state import CONDEMNED_TAG, Version
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.registry import DIGEST_TAG
from tests.contract.clouds import open_store
from tests.contract.tampering import changed, tamperer
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import configure, opened, save_model, unique
from tests.integration.tampered import (
    artifact_overwritten,
    captured,
    object_deleted,
    object_overwritten,
    subject_on,
    write_artifact,
)
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(300)

CLOUDS = ("aws", "azure", "gcp")


def only(found: Verification, version: Version | None, where: str) -> list[str]:
    """All differences, which must be of this version in this place alone."""
    told: list[str] = []
    for check in found.checks:
        assert check.finding is not Finding.UNKNOWN, check
        if check.finding is Finding.ALTERED:
            assert (check.version, check.where) == (version, where), found.altered
            told += check.told
    assert told
    assert isinstance(found.error, DigestMismatchError)
    return told


def test_everything_is_as_it_was_sealed_and_looking_changes_nothing(deployed: Deployed) -> None:
    with deployed.unchanged(), deployed.only_reads():
        found = verify(deployed.fleet)
    assert found.altered == ()
    assert found.unknown == ()
    assert found.error is None
    assert {check.version for check in found.checks} >= {deployed.v1, deployed.v2, deployed.v3}
    serving = [check for check in found.checks if check.version == deployed.v2]
    assert {check.finding for check in serving} == {Finding.OK}
    assert {(check.where, check.what) for check in serving} == {
        *(("mlflow", what) for what in ("seal", "record", "bytes", "source", "run")),
        *((cloud, what) for cloud in CLOUDS for what in ("seal", "record", "bytes", "answers")),
    }
    undeployed = {c.what: c.finding for c in found.checks if c.version == deployed.v3 and c.where == "aws"}
    assert undeployed == {"seal": Finding.OK, "bytes": Finding.OK, "record": Finding.OK, "answers": Finding.NOTHING}


def test_the_command_shows_a_table_and_ends_well(deployed: Deployed) -> None:
    ended = lockstep("verify", deployed.model, config=deployed.config)
    assert ended.status == 0, ended.err
    assert "as it was sealed" in ended.out
    assert all(place in ended.out for place in ("mlflow", *CLOUDS))
    one = lockstep("verify", f"{deployed.model}@{deployed.v2.label}", "--json", config=deployed.config)
    assert one.status == 0
    assert one.document["intact"] is True
    assert {check["digest"] for check in one.document["checks"]} == {deployed.v2.digest}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_file_overwritten_in_a_store_is_named(deployed: Deployed, cloud: str) -> None:
    with object_overwritten(deployed.fleet.cloud(cloud), deployed.v1, "files/MLmodel"):
        (told,) = only(verify(deployed.fleet, deployed.v1), deployed.v1, cloud)
        assert told.startswith("files/MLmodel has sha256 ")
        ended = lockstep("verify", f"{deployed.model}@{deployed.v1.label}", config=deployed.config)
    assert ended.status == DigestMismatchError.exit_status
    assert f"{cloud}: files/MLmodel has sha256" in ended.out


@pytest.mark.parametrize(
    ("cloud", "name"),
    [
        ("aws", "files/python_env.yaml"),
        ("azure", "requirements.lock"),
        ("gcp", "manifest.json"),
        ("aws", "model.sig"),
        ("gcp", "COMMIT"),
    ],
)
def test_whatever_is_deleted_from_a_store_is_named(deployed: Deployed, cloud: str, name: str) -> None:
    with object_deleted(deployed.fleet.cloud(cloud), deployed.v1, name):
        told = only(verify(deployed.fleet, deployed.v1), deployed.v1, cloud)
    assert any(name in line for line in told), told


@pytest.mark.parametrize("name", ["requirements.lock", "manifest.json", "model.sig"])
def test_what_lies_beside_the_files_is_looked_at(deployed: Deployed, name: str) -> None:
    with object_overwritten(deployed.fleet.cloud("azure"), deployed.v1, name):
        told = only(verify(deployed.fleet, deployed.v1), deployed.v1, "azure")
    assert any(name in line for line in told), told


@pytest.mark.parametrize(
    ("cloud", "name"), [("aws", "requirements.lock"), ("azure", "manifest.json"), ("gcp", "model.sig")]
)
def test_repair_mends_what_lies_beside_the_files(deployed: Deployed, cloud: str, name: str) -> None:
    version, adapter = deployed.v1, deployed.fleet.cloud(cloud)
    store, key = open_store(adapter.store()), f"{version.prefix}/{name}"
    before = bytes(obstore.get(store, key).bytes())
    with object_overwritten(adapter, version, name):
        refused = lockstep("replicate", deployed.model, version.label, config=deployed.config)
        assert refused.status == SplitError.exit_status, "the other clouds have it"
        assert name in refused.err
        assert "--repair" in refused.err
        mended = lockstep("replicate", deployed.model, version.label, "--repair", config=deployed.config)
        assert mended.status == 0, mended.err
        assert bytes(obstore.get(store, key).bytes()) == before
        assert verify(deployed.fleet, version).altered == ()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_slot_that_nobody_sealed_and_that_takes_traffic_is_named(deployed: Deployed, cloud: str) -> None:
    adapter = deployed.fleet.cloud(cloud)
    stranger = Version(deployed.model, "77", deployed.v3.digest, deployed.v3.run_id)
    adapter.register(stranger)
    adapter.prepare(stranger)
    without_traffic = verify(deployed.fleet)
    assert not [line for line in without_traffic.altered if "no sealed version" in line]
    adapter.set_traffic(deployed.model, TrafficSplit.canary(deployed.v2.slot, stranger.slot, 10))
    told = [line for line in verify(deployed.fleet).altered if "no sealed version" in line]
    endpoint = adapter.endpoint(deployed.model)
    assert told == [
        f"no version, {cloud}: slot {stranger.slot} of {endpoint} takes 10 % of the traffic and is no sealed version's"
    ]
    ended = lockstep("verify", deployed.model, config=deployed.config)
    assert ended.status == DigestMismatchError.exit_status
    assert stranger.slot in ended.out


def test_a_file_too_many_in_a_store_is_named(deployed: Deployed) -> None:
    store, key = open_store(deployed.fleet.cloud("gcp").store()), f"{deployed.v1.prefix}/files/code/extra.py"
    obstore.put(store, key, b"print()")
    try:
        (told,) = only(verify(deployed.fleet, deployed.v1), deployed.v1, "gcp")
    finally:
        obstore.delete(store, key)
    assert told == "files/code/extra.py is not part of the version"


def test_a_captured_file_overwritten_in_mlflow_is_named(deployed: Deployed) -> None:
    path = captured(deployed.v2, "files/MLmodel")
    with artifact_overwritten(deployed.fleet, deployed.v2, path, b"flavors: {}\n"):
        (told,) = only(verify(deployed.fleet), deployed.v2, "mlflow")
    assert told.startswith("captured file MLmodel has sha256 ")


@pytest.mark.parametrize("name", ["manifest.json", "model.sig", "requirements.lock"])
def test_a_captured_document_overwritten_in_mlflow_is_named(deployed: Deployed, name: str) -> None:
    with artifact_overwritten(deployed.fleet, deployed.v2, captured(deployed.v2, name), b"{}"):
        told = only(verify(deployed.fleet), deployed.v2, "mlflow")
    words = {"manifest.json": "manifest has sha256", "model.sig": "signature of", "requirements.lock": name}
    assert any(words[name] in line for line in told), told


def test_the_registered_source_overwritten_is_named(deployed: Deployed) -> None:
    """What a second log into the same run does, by accident or not; Lockstep replicates what it captured."""
    with artifact_overwritten(deployed.fleet, deployed.v2, "model/MLmodel", b"flavors: {}\n"):
        (told,) = only(verify(deployed.fleet), deployed.v2, "mlflow")
    assert told.startswith("source file MLmodel has sha256 ")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_native_record_that_was_changed_is_named(deployed: Deployed, sandbox: RunningSandbox, cloud: str) -> None:
    subject = subject_on(deployed, cloud)
    words, change = next(iter(tamperer(subject, sandbox).changes().items()))
    with changed(subject, change):
        told = only(verify(deployed.fleet, deployed.v2), deployed.v2, cloud)
        assert any(words in line for line in told), told
        ended = lockstep("verify", f"{deployed.model}@champion", "--json", config=deployed.config)
    assert ended.status == DigestMismatchError.exit_status
    assert ended.document["intact"] is False


@pytest.mark.parametrize("cloud", CLOUDS)
def test_wrong_bytes_under_a_serving_slot_are_named(deployed: Deployed, sandbox: RunningSandbox, cloud: str) -> None:
    subject = subject_on(deployed, cloud)
    with changed(subject, tamperer(subject, sandbox).impostor):
        told = only(verify(deployed.fleet, deployed.v2), deployed.v2, cloud)
    slot, wrong = deployed.v2.slot, deployed.v1.digest[:12]
    assert any(slot in line and wrong in line for line in told), told
    assert any("model is" in line for line in told), told


def test_a_tag_that_was_removed_or_changed_is_named(deployed: Deployed) -> None:
    client, version = deployed.fleet.registry.client, deployed.v3
    try:
        client.delete_model_version_tag(version.model, version.label, DIGEST_TAG)
        assert "gone" in str(verify(deployed.fleet, version.digest).error)
        client.set_model_version_tag(version.model, version.label, DIGEST_TAG, deployed.v1.digest)
        told = str(verify(deployed.fleet).error)
        assert version.digest[:12] in told
        assert f"its tag {DIGEST_TAG} was changed to {deployed.v1.digest[:12]}" in told
    finally:
        client.set_model_version_tag(version.model, version.label, DIGEST_TAG, version.digest)


def test_a_condemned_version_whose_tag_was_taken_away_is_named(deployed: Deployed) -> None:
    """Whoever may edit tags could have it deployed again."""
    client, version = deployed.fleet.registry.client, deployed.v3
    condemned = lockstep("condemn", deployed.model, version.label, "--reason", "it was wrong", config=deployed.config)
    assert condemned.status == 0, condemned.err
    assert verify(deployed.fleet).altered == ()
    client.delete_model_version_tag(version.model, version.label, CONDEMNED_TAG)
    (told,) = only(verify(deployed.fleet), version, "mlflow")
    assert CONDEMNED_TAG in told
    assert "it was wrong" in told
    for command in (("deploy", deployed.model, version.label), ("rollback", deployed.model, "--to", version.label)):
        refused = lockstep(*command, config=deployed.config)
        assert refused.status == RefusedError.exit_status
        assert "it was wrong (so the ledger says" in refused.err
    lifted = lockstep("lift", deployed.model, version.label, "--reason", "a mistake", config=deployed.config)
    assert lifted.status == 0, lifted.err
    assert verify(deployed.fleet).altered == ()


def test_a_place_that_does_not_answer_is_said_to_be_unknown(deployed: Deployed) -> None:
    with deployed.control.during("azure", "down"):
        found = verify(deployed.fleet, deployed.v2)
    assert found.altered == ()
    assert {check.where for check in found.checks if check.finding is Finding.UNKNOWN} == {"azure"}
    assert isinstance(found.error, UnreachableError)
    assert any(check.where == "aws" and check.what == "bytes" for check in found.checks)


def test_clouds_are_looked_at_while_mlflow_is_down(deployed: Deployed) -> None:
    fleet = deployed.changed(mlflow__tracking_uri="http://127.0.0.1:9", mlflow__timeout=1)
    with object_overwritten(fleet.cloud("aws"), deployed.v1, "files/MLmodel"):
        found = verify(fleet)
    assert [line for line in found.altered if "aws: files/MLmodel has sha256" in line]
    assert len(found.altered) == 1
    assert any("mlflow" in line for line in found.unknown)
    bytes_read = [c for c in found.checks if c.what == "bytes" and c.version and c.version.digest == deployed.v2.digest]
    assert {check.finding for check in bytes_read} == {Finding.OK}
    assert {check.where for check in bytes_read} == set(CLOUDS)


def test_a_version_that_nobody_knows(deployed: Deployed) -> None:
    with pytest.raises(NotFoundError, match="no version '77'"):
        verify(deployed.fleet, "77")
    assert lockstep("verify", f"{deployed.model}@77", config=deployed.config).status == NotFoundError.exit_status
    assert lockstep("verify", unique("nobody"), config=deployed.config).status == NotFoundError.exit_status
    assert lockstep("verify", deployed.model, "--sample", "0", config=deployed.config).status == 3


Registered = Callable[..., Version]


@pytest.fixture
def place(sandbox: RunningSandbox, mlflow_server: str, tmp_path: Path) -> Fleet:
    """A model of its own, which may be destroyed."""
    model = unique("verified")
    return opened(configure(sandbox, mlflow_server, tmp_path, model), model)


@pytest.fixture
def register(place: Fleet, tmp_path: Path) -> Registered:
    """Registers by the command line, which writes the ledger."""

    def run(name: str, regularisation: float) -> Version:
        folder = tmp_path / name
        if not folder.is_dir():
            save_model(folder, regularisation=regularisation)
        ended = lockstep("register", place.model, folder, "--json", config=tmp_path / "lockstep.yaml")
        assert ended.status == 0, ended.err
        told = ended.document
        return Version(place.model, told["version"], told["digest"], told["run_id"])

    return run


def test_a_registration_stands_in_the_ledger(place: Fleet, register: Registered, tmp_path: Path) -> None:
    one = register("one", 1.0)
    intent, outcome = place.ledger.entries(place.model)
    manifest = place.registry.manifest(one)
    assert (intent.kind, outcome.kind) == ("register.intent", "register.outcome")
    assert intent.body["source"] == str(tmp_path / "one")
    sealed = {name: outcome.body[name] for name in ("version", "digest", "content", "run_id", "error")}
    assert sealed == {
        "version": one.label, "digest": one.digest, "content": manifest.content, "run_id": one.run_id, "error": ""
    }  # fmt: skip
    assert intent.actor == outcome.actor != ""
    assert place.ledger.verify().flaws == ()
    ended = lockstep("register", place.model, tmp_path / "nothing", config=tmp_path / "lockstep.yaml")
    assert ended.status != 0
    newest = place.ledger.entries(place.model)[-1]
    assert newest.kind in ("register.refused", "register.outcome")
    assert newest.body.get("refused") or newest.body.get("error")


def test_a_version_deleted_in_mlflow_is_missed_and_the_clouds_still_have_it(place: Fleet, register: Registered) -> None:
    one, two = register("one", 1.0), register("two", 0.5)
    replicate(place, one)
    assert verify(place).intact
    place.registry.client.delete_model_version(place.model, one.label)
    found = verify(place)
    assert only(found, one, "mlflow") == [
        f"MLflow has no version {one.label} any more: it was deleted, or the model was"
    ]
    whole = {(check.where, check.what): check.finding for check in found.checks if check.version == one}
    assert {whole[cloud, "bytes"] for cloud in CLOUDS} == {Finding.OK}
    assert whole["mlflow", "bytes"] is Finding.OK
    assert not verify(place, one.label).intact
    assert verify(place, two.label).intact


def test_a_model_deleted_and_created_again_is_noticed_by_its_numbers(place: Fleet, register: Registered) -> None:
    one, two = register("one", 1.0), register("two", 0.5)
    replicate(place, two)
    place.registry.client.delete_registered_model(place.model)
    gone = verify(place)
    assert len(gone.altered) == 2
    assert all("any more" in line for line in gone.altered)
    again = register("two", 0.5)
    assert (again.label, again.digest) == ("1", two.digest)
    told = "\n".join(verify(place).altered)
    assert f"number 1 stands for digest {two.digest[:12]} now: the model was deleted and created again" in told
    assert "the model was deleted and created again; the same version is number 1 now" in told
    native = verify(place, again.digest)
    assert any("lockstep-version" in line or "LOCKSTEP_VERSION" in line for line in native.altered), native.altered
    assert one.digest not in {check.version.digest for check in native.checks if check.version}


def test_what_is_logged_into_the_run_later_is_named(place: Fleet, register: Registered, tmp_path: Path) -> None:
    one, client = register("one", 1.0), place.registry.client
    assert verify(place).intact
    client.log_param(one.run_id, "learning_rate", "0.5")
    client.log_metric(one.run_id, "accuracy", 0.99)
    assert only(verify(place), one, "mlflow") == [
        f"run {one.run_id}: parameter learning_rate was added: '0.5'",
        f"run {one.run_id}: metric accuracy was added: '0.99'",
    ]
    client.delete_run(one.run_id)
    told = only(verify(place), one, "mlflow")
    assert f"run {one.run_id} was deleted; its files can vanish at any time" in told
    ended = lockstep("verify", place.model, config=tmp_path / "lockstep.yaml")
    assert ended.status == DigestMismatchError.exit_status
    assert "learning_rate" in ended.out


def test_a_file_added_to_what_was_captured_is_named(place: Fleet, register: Registered) -> None:
    one = register("one", 1.0)
    write_artifact(place, one, captured(one, "files/extra.txt"), b"")
    assert only(verify(place), one, "mlflow") == ["captured file extra.txt is not part of the version"]
