"""Bad input and clouds in trouble: each gives a clear error that says what to do, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.replicate import replicate
from lockstep.operations.rollback import rollback
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, Version
from lockstep.rules.traffic import TrafficSplit
from tests.contract.clouds import eventually
from tests.integration.deployed import Deployed, Ended, lockstep
from tests.integration.fleets import registered, save_model

pytestmark = pytest.mark.timeout(180)

CLOUDS = ("aws", "azure", "gcp")
NOWHERE = "http://127.0.0.1:1"
#: Impatient, so that what never comes is not waited for long.
IMPATIENT: Mapping[str, object] = {
    **{f"clouds__{cloud}__traffic_timeout": 0.4 for cloud in CLOUDS},
    **{f"clouds__{cloud}__call_timeout": 3.0 for cloud in CLOUDS},
}
FLIP = {"aws": "UpdateEndpointWeightsAndCapacities", "azure": "OnlineEndpoints_CreateOrUpdate", "gcp": "UpdateEndpoint"}


def says(ended: Ended, status: int, *words: str) -> None:
    """The exit status, and an error that holds all words and has a next step."""
    assert ended.status == status, ended
    assert ended.err.count("error:") == 1, ended.err
    message = ended.err[ended.err.index("error:") :]
    assert "next:" in message, message
    assert "Traceback" not in ended.err
    assert [word for word in words if word not in message] == [], message


def test_unknown_names(deployed: Deployed) -> None:
    model = deployed.model
    cases: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
        (("status", "nobody"), 4, ("'nobody'", f"there: {model}", "add it under models:")),
        (("rollback", "nobody"), 4, ("'nobody'", f"there: {model}")),
        (("deploy", model, "99"), 4, (model, "'99'", "1 (", "3 (", "champion", "name a number")),
        (("replicate", model, "canary"), 4, (model, "'canary'", "aliases: champion, fallback")),
        (("rollback", model, "--to", "99"), 4, (model, "'99'", "name a number")),
    ]
    with deployed.unchanged():
        for arguments, status, words in cases:
            says(lockstep(*arguments, config=deployed.config), status, *words)
        falling = lockstep("deploy", model, "3", "--steps", "50,20", config=deployed.config)
    assert falling.status == 2
    assert "50,20" in falling.err


def test_an_unknown_cloud_is_named_with_its_line(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(tmp_path / "c.yaml", fleets__default__clouds=["aws", "ibm"])
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if text.strip() == "- ibm")
    says(
        lockstep("status", deployed.model, config=config),
        3,
        f"{config}, line {line}: fleets.default.clouds.1: ",
        "there is no cloud 'ibm' under clouds: (there: aws, azure, gcp)",
    )
    says(
        lockstep("status", "lost", config=deployed.configured(config, models={"lost": {"fleet": "x"}})), 3, "fleet 'x'"
    )


WRONG_CREDENTIALS: tuple[tuple[str, Mapping[str, object], tuple[str, ...]], ...] = (
    ("aws", {"access_key_id": "AKIAWRONG"}, ("InvalidAccessKeyId", "credentials")),
    ("azure", {"client_secret": "wrong"}, ("AADSTS7000215", "AZURE_CLIENT_SECRET")),
    ("azure", {"client_secret": "wrong", "storage_key": None}, ("AADSTS7000215", "AZURE_CLIENT_SECRET")),
    ("azure", {"storage_key": "d3Jvbmc="}, ("403 Forbidden", "credentials")),
    ("gcp", {"credentials_file": "/nowhere.json"}, ("/nowhere.json", "GOOGLE_APPLICATION_CREDENTIALS")),
)


def test_wrong_credentials(deployed: Deployed, tmp_path: Path) -> None:
    with deployed.unchanged():
        for cloud, wrong, words in WRONG_CREDENTIALS:
            changes = {f"clouds__{cloud}__{key}": value for key, value in wrong.items()}
            config = deployed.configured(tmp_path / "c.yaml", **changes)
            says(lockstep("deploy", deployed.model, "3", config=config), 5, f"{cloud}: ", *words)
            checked = lockstep("check", "--json", config=config)
            assert checked.status == 5
            assert list(checked.document["problems"]) == [cloud]


def test_no_credentials_at_all(deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    config = deployed.configured(
        tmp_path / "c.yaml", clouds__aws__access_key_id=None, clouds__aws__secret_access_key=None,
        clouds__gcp__credentials_file=None,
    )  # fmt: skip
    with deployed.unchanged():
        problems = lockstep("check", "--json", config=config).document["problems"]
        says(lockstep("deploy", deployed.model, "3", config=config), 5)
    assert set(problems) == {"aws", "gcp"}
    assert "AWS_PROFILE" in problems["aws"]
    assert "gcloud auth application-default login" in problems["gcp"]


def test_mlflow_cannot_be_reached(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(tmp_path / "c.yaml", mlflow__tracking_uri=NOWHERE)
    with deployed.unchanged():
        for command in (
            ("deploy", "3"),
            ("replicate", "3"),
            ("condemn", "1", "--reason", "x"),
            ("monitor",),
        ):
            ended = lockstep(command[0], deployed.model, *command[1:], config=config)
            says(ended, 5, f"no answer from MLflow at {NOWHERE}", "mlflow.tracking_uri")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cloud_that_is_down(deployed: Deployed, cloud: str) -> None:
    """A rollout is refused, a look says what it does not know, and the other clouds are shown all the same."""
    with deployed.unchanged(), deployed.control.during(cloud, "down"):
        says(lockstep("deploy", deployed.model, "3", config=deployed.config), 5, f"{cloud}: ", "network")
        seen = lockstep("status", deployed.model, "--json", config=deployed.config)
        assert seen.status == 6
        assert list(seen.document["out_of_step"]) == [cloud]
        assert "check" in seen.document["clouds"][cloud]["unreachable"]
        checked = lockstep("check", config=deployed.config)
        assert checked.status == 5
        assert checked.out.count(" ok\n") == 3


@pytest.mark.parametrize("cloud", CLOUDS)
def test_endpoints_that_are_down_while_the_store_answers(deployed: Deployed, cloud: str) -> None:
    """Only the look at the endpoint fails: the rollout is refused at the last moment before it changes something."""
    reads = {"aws": "DescribeEndpoint", "azure": "OnlineEndpoints_Get", "gcp": "*Endpoint*"}[cloud]
    with deployed.unchanged(), deployed.control.during(cloud, "down", operation=reads):
        ended = lockstep("deploy", deployed.model, "3", config=deployed.config)
        says(ended, 5, f"{deployed.v3} was not deployed", f"{cloud}: ", "nothing was changed")


WRONG_ADDRESSES = (
    ("aws", "endpoint_url", NOWHERE),
    ("azure", "blob_endpoint", "https://127.0.0.1:1/account"),
    ("azure", "authority", "https://127.0.0.1:1"),
    ("gcp", "api_endpoint", NOWHERE),
    ("gcp", "storage_endpoint", NOWHERE),
)


def test_wrong_addresses(deployed: Deployed, tmp_path: Path) -> None:
    with deployed.unchanged():
        for cloud, key, address in WRONG_ADDRESSES:
            config = deployed.configured(tmp_path / "c.yaml", **{f"clouds__{cloud}__{key}": address})
            says(lockstep("deploy", deployed.model, "3", config=config), 5, f"{cloud}: ", "check", "refused")


def test_a_bucket_that_is_not_there_is_no_missing_version(deployed: Deployed, tmp_path: Path) -> None:
    with deployed.unchanged():
        for cloud in ("aws", "gcp"):
            config = deployed.configured(tmp_path / "c.yaml", **{f"clouds__{cloud}__bucket": "nothing-there"})
            says(
                lockstep("deploy", deployed.model, "3", config=config), 5, f"{cloud}: ", "NoSuchBucket", "lockstep.yaml"
            )


@pytest.fixture(scope="module")
def unreplicated(two_versions: Deployed) -> Version:
    """A version that is in MLflow alone."""
    folder = save_model(two_versions.folder / "v4", regularisation=0.1)
    return registered(two_versions.fleet, folder)


def test_a_version_that_is_not_replicated(deployed: Deployed, unreplicated: Version) -> None:
    with deployed.unchanged(), deployed.only_reads():
        ended = lockstep("deploy", deployed.model, unreplicated.label, config=deployed.config)
        says(ended, 3, str(unreplicated), *CLOUDS, f"lockstep replicate {deployed.model} {unreplicated.label}")
        dry = lockstep("deploy", deployed.model, unreplicated.label, "--dry-run", config=deployed.config)
        says(dry, 3, f"lockstep replicate {deployed.model} {unreplicated.label}")


def test_a_rollback_to_a_version_that_was_never_replicated(deployed: Deployed, unreplicated: Version) -> None:
    with deployed.unchanged(), deployed.only_reads():
        ended = lockstep("rollback", deployed.model, "--to", unreplicated.label, config=deployed.config)
        says(ended, 3, f"{unreplicated} was never replicated", f"lockstep replicate {deployed.model}")


def test_reasons_that_are_too_long_or_missing(deployed: Deployed) -> None:
    model, long = deployed.model, "x" * 1001
    cases = (
        ("rollback", model, "--reason", long),
        ("rollback", model, "--accept-broken-seal", long),
        ("rollback", model, "--dry-run", "--accept-broken-seal", long),
        ("deploy", model, "3", "--accept-broken-seal", long),
        ("condemn", model, "1", "--reason", long),
        ("lift", model, "1", "--reason", long),
    )
    with deployed.unchanged(), deployed.only_reads():
        for arguments in cases:
            says(
                lockstep(*arguments, config=deployed.config), 3, "1001 characters; at most 1000", "nothing was changed"
            )
        for command in ("condemn", "lift"):
            says(lockstep(command, model, "1", "--reason", " ", config=deployed.config), 3, "empty")
            assert lockstep(command, model, "1", config=deployed.config).status == 2


def test_a_fleet_without_a_cloud(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(tmp_path / "c.yaml", fleets__default__clouds=[])
    with deployed.unchanged():
        says(lockstep("rollback", deployed.model, config=config), 3, "fleets.default.clouds", "at least 1")
        with pytest.raises(RefusedError, match="has no cloud"):
            rollback(replace(deployed.fleet, clouds=()))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_corrupted_object(deployed: Deployed, cloud: str) -> None:
    """Found by replicate, refused by the serving container in a deployment, put right by a repair."""
    # Google keeps a container's log to itself; the others' ends with the server's own words.
    refused = ("container's log",) if cloud == "gcp" else ("serving: refused: model.pkl has sha256",)
    deployed.control.corrupt(cloud, f"{deployed.v3.prefix}/files/model.pkl", offset=100)
    try:
        with deployed.unchanged():
            ended = lockstep("replicate", deployed.model, "3", config=deployed.config)
            says(ended, 6, str(deployed.v3), f"{cloud}: ", "model.pkl has sha256", "replicate", "--repair")
        with deployed.unchanged():
            ended = lockstep("deploy", deployed.model, "3", config=deployed.config)
            says(ended, 5, str(deployed.v3), f"{cloud}: ", *refused)
    finally:
        replicate(deployed.fleet, deployed.v3, repair=True)
    assert lockstep("replicate", deployed.model, "3", config=deployed.config).status == 0


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_busy_endpoint(deployed: Deployed, cloud: str) -> None:
    """Another change is under way on one cloud: a rollout is refused before it touches any."""
    adapter, model = deployed.fleet.cloud(cloud), deployed.model
    if cloud == "gcp":  # a traffic split is no operation there: a deployment is
        deployed.control.fault(cloud, "busy", operation="DeployModel", delay=8)
        change = partial(adapter.prepare, deployed.v3)
    else:
        adapter.set_traffic(model, TrafficSplit.canary(deployed.v2.slot, deployed.v1.slot, 1))
        deployed.control.fault(cloud, "busy", operation=FLIP[cloud], delay=8)
        change = partial(adapter.set_traffic, model, TrafficSplit.all_to(deployed.v2.slot))
    failures: list[LockstepError] = []

    def other() -> None:
        try:
            change()
        except LockstepError as error:
            failures.append(error)

    before = deployed.show()
    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert eventually(lambda: adapter.observe(model).busy, 10)
        ended = lockstep("deploy", model, "3", config=deployed.config)
        says(ended, 5, str(deployed.v3), f"{cloud}: {adapter.endpoint(model)} is ", "nothing was changed")
    finally:
        thread.join()
    assert failures == []
    after = deployed.show()
    assert (after.aliases, after.tags) == (before.aliases, before.tags)
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    others = [state for state in after.clouds.clouds if state.cloud != cloud]
    assert others == [state for state in before.clouds.clouds if state.cloud != cloud]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_slot_that_cannot_start_is_taken_back_everywhere(deployed: Deployed, cloud: str) -> None:
    operation = {"aws": "UpdateEndpoint", "azure": "OnlineDeployments_CreateOrUpdate", "gcp": "DeployModel"}[cloud]
    with deployed.unchanged():
        number = deployed.control.fault(cloud, "throttle", operation=operation, count=100)
        ended = lockstep("deploy", deployed.model, "3", config=deployed.config)
        deployed.control.clear(number)
        says(ended, 5, str(deployed.v3), "every cloud", f"{cloud}: ", "deploy again")


def test_a_rollback_with_a_cloud_down_ends_split_and_is_finished_later(deployed: Deployed) -> None:
    config = deployed.config
    with deployed.control.during("azure", "down"):
        ended = lockstep("rollback", deployed.model, "--reason", "alert 7", config=config)
    says(ended, 6, "split", str(deployed.v1), "azure: ", "aws", "gcp", f"lockstep reconcile {deployed.model} --wait")
    assert deployed.answers() == {**deployed.everywhere(deployed.v1), "azure": deployed.v2.digest}
    seen = lockstep("status", deployed.model, "--json", config=deployed.config)
    assert (seen.status, list(seen.document["out_of_step"])) == (6, ["azure"])

    again = lockstep("rollback", deployed.model, "--reason", "alert 7", config=config)
    assert again.status == 0, again
    assert "rolled back to" in again.out
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert lockstep("status", deployed.model, "--prove", config=deployed.config).status == 0
    assert deployed.show().aliases == {CHAMPION: "1"}
    assert "alert 7" in deployed.fleet.registry.tags(deployed.v2)[CONDEMNED_TAG]
    says(lockstep("deploy", deployed.model, "2", config=config), 3, "condemned", "alert 7")
    says(lockstep("rollback", deployed.model, "--to", "2", config=config), 3, "condemned", "choose another")


def test_a_rollback_to_what_serves_verifies_and_says_so(deployed: Deployed) -> None:
    with deployed.unchanged():
        ended = lockstep("rollback", deployed.model, "--to", "2", config=deployed.config)
        assert ended.status == 0, ended
        assert f"already on {deployed.v2}, verified on every cloud" in ended.out


def test_a_second_alert_of_one_incident_stays_where_the_first_led(deployed: Deployed) -> None:
    first = lockstep("rollback", deployed.model, "--reason", "alert 1", "--json", config=deployed.config)
    second = lockstep("rollback", deployed.model, "--reason", "alert 2", "--json", config=deployed.config)
    assert (first.status, second.status) == (0, 0), second
    assert first.document["target"] == second.document["target"] == deployed.v1.label
    assert (first.document["left"], second.document["left"]) == ([deployed.v2.label], [])


def test_a_rollback_without_a_fallback_says_what_to_do(deployed: Deployed) -> None:
    deployed.fleet.registry.delete_alias(deployed.model, FALLBACK)
    with deployed.unchanged():
        ended = lockstep("rollback", deployed.model, config=deployed.config)
        says(ended, 3, deployed.model, "no known-good version", "fallback", f"rollback {deployed.model} --to VERSION")


def test_a_rollback_to_a_condemned_version_says_why_and_how_that_is_lifted(deployed: Deployed) -> None:
    deployed.fleet.registry.tag(deployed.v1, CONDEMNED_TAG, "wrong labels")
    with deployed.unchanged(), deployed.only_reads():
        for options in ((), ("--dry-run",)):
            ended = lockstep("rollback", deployed.model, "--to", "1", *options, config=deployed.config)
            says(ended, 3, str(deployed.v1), "condemned: wrong labels", f"lockstep lift {deployed.model} 1 --reason")


def test_a_rollback_of_a_model_without_a_history_says_what_to_do(deployed: Deployed, tmp_path: Path) -> None:
    """First nothing is registered, then one version that never served."""
    fleet = deployed.other_model()
    model = fleet.model
    config = deployed.configured(tmp_path / "c.yaml", models={model: {}})
    with deployed.unchanged(), deployed.only_reads():
        for options in ((), ("--dry-run",), ("--to", "1")):
            says(lockstep("rollback", model, *options, config=config), 4, model, "lockstep register")
        registered(fleet, str(deployed.folder / "v1"))
        for options in ((), ("--dry-run",)):
            ended = lockstep("rollback", model, *options, config=config)
            says(ended, 3, f"{model} has no known-good version", "no other version", "--to VERSION")


LIES = ("ignore", "revert", "stale")


@pytest.mark.parametrize("turn", range(3))
def test_a_flip_whose_success_is_a_lie_is_never_called_done(deployed: Deployed, tmp_path: Path, turn: int) -> None:
    """Each cloud lies in each way, three at a time; the same command finishes once they are honest."""
    config = deployed.configured(tmp_path / "c.yaml", **IMPATIENT)
    for which, cloud in enumerate(CLOUDS):
        kind = LIES[(which + turn) % 3]
        deployed.control.fault(cloud, kind, **({} if kind == "stale" else {"operation": FLIP[cloud], "count": 50}))
    ended = lockstep("rollback", deployed.model, config=config)
    says(ended, 6, "split", "no cloud", *(f"{cloud}: " for cloud in CLOUDS))
    assert "verified" not in ended.out
    assert [entry.body["ending"] for entry in deployed.fleet.ledger.entries(deployed.model, "rollback.outcome")][
        -1
    ] == ("nowhere")
    deployed.control.clear()
    assert lockstep("rollback", deployed.model, config=config).status == 0
    assert deployed.answers() == deployed.everywhere(deployed.v1)


def test_monitor_rolls_back_on_bad_outcomes_but_not_without_leave(deployed: Deployed) -> None:
    deployed.write_outcomes(deployed.v2, good=40, bad=60)
    with deployed.unchanged(), deployed.only_reads():
        looked = lockstep("monitor", deployed.model, "--no-act", "--json", config=deployed.config)
        assert looked.status == 7
        assert (looked.document["verdict"], looked.document["rolled_back_to"]) == ("fail", None)
        assert all(any(cloud in reason for reason in looked.document["reasons"]) for cloud in CLOUDS)
    acted = lockstep("monitor", deployed.model, config=deployed.config)
    assert acted.status == 7, acted
    assert f"rolled back to {deployed.v1}" in acted.out
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert "bad outcomes" in deployed.fleet.registry.tags(deployed.v2)[CONDEMNED_TAG]


def test_monitor_without_enough_to_see_does_nothing(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(tmp_path / "c.yaml", fleets__default__monitor__min_requests=100_000)
    with deployed.unchanged(), deployed.only_reads():
        ended = lockstep("monitor", deployed.model, "--json", config=config)
        assert (ended.status, ended.document["verdict"]) == (0, "inconclusive")


def test_nothing_is_left_as_challenger(deployed: Deployed) -> None:
    assert CHALLENGER not in deployed.show().aliases
