"""SageMaker's adapter where SageMaker is unlike the others; what all clouds share stands in test_clouds.py."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from lockstep.clouds.base import Cloud
from lockstep.clouds.sagemaker import SageMaker, SageMakerSettings
from lockstep.clouds.sagemaker.names import config_name, config_stem, is_own_config, model_name
from lockstep.errors import (
    BusyError,
    CloudRejectedError,
    CredentialsError,
    DeploymentFailedError,
    DigestMismatchError,
    LockstepError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
    ThrottledError,
    UnreachableError,
)
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

NUMBERS = itertools.count(1)


class Bench:
    """One sandbox seen by an adapter, by boto3, and by the record of calls; every model name is used once."""

    def __init__(self, sandbox: RunningSandbox, versions: tuple[ModelVersion, ModelVersion]) -> None:
        self.control = sandbox.control
        self.given = sandbox.settings["aws"]
        self.versions = versions
        self._adapters: dict[str, SageMaker] = {}
        self.cloud = self.adapter()
        self.sm: Any = self.cloud._clients.sagemaker

    def settings(self, **changes: Any) -> SageMakerSettings:
        names = ("endpoint_url", "region", "access_key_id", "secret_access_key", "role_arn", "bucket", "image")
        return SageMakerSettings(**{**{name: self.given[name] for name in names}, **changes})

    def adapter(self, **changes: Any) -> SageMaker:
        """One adapter per way of setting it up: making boto3's clients is what takes longest here."""
        if repr(changes) not in self._adapters:
            settings = self.settings(**{"call_timeout": 5.0, "deploy_timeout": 60.0, **changes})
            self._adapters[repr(changes)] = SageMaker("aws", settings)
        return self._adapters[repr(changes)]

    def model(self) -> str:
        return f"tumour-{next(NUMBERS)}-{time.time_ns() % 100_000}"

    def version(self, model: str, number: int, *, replicate: bool = True, digest: str = "") -> Version:
        sealed = self.versions[number - 1]
        version = Version(model, str(number), digest or sealed.digest, run_id=f"{number:032x}")
        if replicate:
            store = open_store(self.cloud)
            for path, content in sealed.objects().items():
                obstore.put(store, f"{version.prefix}/{path}", content)
            obstore.put(store, f"{version.prefix}/COMMIT", version.digest.encode())
        return version

    def serving(self, *numbers: int) -> tuple[str, list[Version]]:
        """A model with these versions placed in order; the first has all traffic."""
        model = self.model()
        versions = [self.version(model, number) for number in numbers]
        for version in versions:
            self.cloud.prepare(version)
        return model, versions

    def calls(self, since: float) -> Counter[str]:
        rows = self.control.calls("aws", since)
        return Counter(str(row["operation"]) for row in rows if not str(row["operation"]).startswith("event:"))

    def deployed(self, model: str, since: float) -> list[str]:
        """Slots whose containers came up."""
        rows = self.control.calls("aws", since)
        return [row["detail"] for row in rows if row["operation"] == "event:deploy" and row["resource"] == model]

    def leftovers(self, model: str) -> tuple[list[str], list[str]]:
        """Names of the SageMaker models and configurations of a model's endpoint."""
        models = self.sm.list_models(NameContains=model)["Models"]
        configs = self.sm.list_endpoint_configs(NameContains=model)["EndpointConfigs"]
        return sorted(m["ModelName"] for m in models), sorted(c["EndpointConfigName"] for c in configs)


def open_store(cloud: Cloud) -> S3Store:
    address = cloud.store()
    return S3Store.from_url(
        address.url,
        config=dict(address.options),  # type: ignore[arg-type]  # obstore's TypedDict has the same keys
        client_options=dict(address.client_options),  # type: ignore[arg-type]
        credential_provider=address.credentials,  # type: ignore[arg-type]
    )


def rows(count: int = 2) -> list[dict[str, object]]:
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).data.rename(columns=lambda name: name.replace(" ", "_"))
    return [{str(key): value for key, value in row.items()} for row in frame.head(count).to_dict("records")]


@pytest.fixture(scope="module")
def bench(sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]) -> Bench:
    return Bench(sandbox, model_versions)


@pytest.fixture(autouse=True)
def calm(bench: Bench) -> Iterator[None]:
    before = bench.control.delays({})
    yield
    bench.control.clear()
    bench.control.delays({name: value for name, value in before.items() if name.startswith("aws.")})


def test_life_of_two_versions(bench: Bench) -> None:
    model = bench.model()
    cloud, v1, v2 = bench.cloud, bench.version(model, 1), bench.version(model, 2)
    cloud.check()
    assert not cloud.observe(model).exists
    assert cloud.registered(v1) is None

    native = cloud.register(v1)
    assert cloud.register(v1) == native == cloud.registered(v1)
    package = bench.sm.describe_model_package(ModelPackageName=native.resource)
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["CustomerMetadataProperties"] == {
        "lockstep-version": "1",
        "lockstep-digest": v1.digest,
        "lockstep-run-id": v1.run_id,
    }

    cloud.prepare(v1)
    assert cloud.observe(model).split == TrafficSplit.all_to(v1.slot)
    cloud.prepare(v2)
    state = cloud.observe(model)
    assert [(s.name, s.weight, s.ready, s.label, s.digest) for s in state.slots] == [
        (v1.slot, 100, True, "1", v1.digest),
        (v2.slot, 0, True, "2", v2.digest),
    ]

    split = TrafficSplit.canary(v1.slot, v2.slot, 25)
    assert cloud.verify_traffic(model, split) is False
    cloud.set_traffic(model, split)
    assert cloud.verify_traffic(model, split) is True
    began = datetime.now(UTC)
    answer = cloud.invoke(model, rows(), slot=v2.slot, request_id="request-7")
    assert (answer.slot, answer.label, answer.digest) == (v2.slot, "2", v2.digest)
    assert answer.request_id == "request-7"
    assert len(json.loads(answer.body)["predictions"]) == 2
    for _ in range(3):
        assert cloud.invoke(model, rows(1), slot=v1.slot).slot == v1.slot
    with pytest.raises(CloudRejectedError, match="container: 4"):
        cloud.invoke(model, [{"unknown": 1}], slot=v1.slot)
    measured = {m.slot: m for m in cloud.measure(model, began, datetime.now(UTC) + timedelta(minutes=1))}
    assert (measured[v1.slot].requests, measured[v1.slot].errors) == (4, 0)
    assert measured[v2.slot].requests == 1
    assert 0 < (measured[v1.slot].latency_mean or 0) < 5
    assert 0 < (measured[v1.slot].latency_p95 or 0) < 5

    with pytest.raises(RefusedError, match="25 %"):
        cloud.retire(model, v2.slot)
    cloud.set_traffic(model, TrafficSplit.all_to(v1.slot))
    cloud.retire(model, v2.slot)
    cloud.retire(model, v2.slot)
    assert [slot.name for slot in cloud.observe(model).slots] == [v1.slot]
    models, configs = bench.leftovers(model)
    assert models == [model_name(model, v1.slot)]
    assert len(configs) == 1


def test_repeated_verbs_change_nothing_and_the_hot_path_is_short(bench: Bench) -> None:
    model, (v1, v2) = bench.serving(1, 2)
    split = TrafficSplit.all_to(v2.slot)
    fresh = bench.adapter(call_timeout=4.0)
    since = time.time()
    fresh.observe(model)
    fresh.set_traffic(model, split)
    assert fresh.verify_traffic(model, split) is True
    calls = bench.calls(since)
    assert calls.pop("DescribeEndpoint") <= 5  # observe, before, at least one poll, verify
    assert calls == {"ListTags": 1, "UpdateEndpointWeightsAndCapacities": 1}
    since = time.time()
    fresh.set_traffic(model, split)
    fresh.prepare(v1)
    fresh.prepare(v2)
    assert all(operation.startswith("Describe") for operation in bench.calls(since))


def test_bytes_that_are_not_the_version_leave_everything_as_it_was(bench: Bench) -> None:
    model, (v1,) = bench.serving(1)
    before, kept = bench.cloud.observe(model), bench.leftovers(model)
    v2 = bench.version(model, 2)
    bench.control.corrupt("aws", _some_file(bench, v2))
    with pytest.raises(DeploymentFailedError, match="sha256") as caught:
        bench.cloud.prepare(v2)
    assert "refused" in str(caught.value)
    assert bench.cloud.observe(model) == before
    assert bench.leftovers(model) == kept
    assert bench.cloud.invoke(model, rows(1)).digest == v1.digest


def _some_file(bench: Bench, version: Version) -> str:
    sealed = bench.versions[int(version.label) - 1]
    return f"{version.prefix}/{next(path for path in sealed.objects() if path.endswith('MLmodel'))}"


def test_first_deployment_that_fails_leaves_nothing_and_can_be_repeated(bench: Bench) -> None:
    model = bench.model()
    version = bench.version(model, 1)
    bench.control.corrupt("aws", _some_file(bench, version))
    with pytest.raises(DeploymentFailedError, match=r"(?s)ping health check.*MLmodel"):
        bench.cloud.prepare(version)
    assert not bench.cloud.observe(model).exists
    assert bench.leftovers(model) == ([], [])
    bench.version(model, 1)
    bench.cloud.prepare(version)
    assert bench.cloud.observe(model).split == TrafficSplit.all_to(version.slot)


def test_silent_revert_of_a_new_slot_is_seen(bench: Bench) -> None:
    model, (v1,) = bench.serving(1)
    before, kept = bench.cloud.observe(model), bench.leftovers(model)
    v2 = bench.version(model, 2)
    with (
        bench.control.during("aws", "revert", operation="UpdateEndpoint", resource=model),
        pytest.raises(DeploymentFailedError, match="took the endpoint back"),
    ):
        bench.cloud.prepare(v2)
    assert bench.cloud.observe(model) == before
    assert bench.leftovers(model) == kept
    bench.cloud.prepare(v2)
    assert bench.cloud.observe(model).slot(v2.slot) is not None
    assert v1.slot != v2.slot


def test_silent_revert_of_traffic_is_seen(bench: Bench) -> None:
    model, (v1, v2) = bench.serving(1, 2)
    split = TrafficSplit.all_to(v2.slot)
    bench.control.fault("aws", "revert", operation="UpdateEndpointWeightsAndCapacities", resource=model)
    with pytest.raises(CloudRejectedError, match=f"went back.*{v1.slot} 100 %"):
        bench.cloud.set_traffic(model, split)
    bench.cloud.set_traffic(model, split)
    assert bench.cloud.verify_traffic(model, split) is True


def test_write_that_was_only_answered_is_not_believed(bench: Bench) -> None:
    model, (_, v2) = bench.serving(1, 2)
    bench.control.fault("aws", "ignore", operation="UpdateEndpointWeightsAndCapacities", resource=model)
    with pytest.raises(RetryLaterError, match="does not show it yet"):
        bench.adapter(traffic_timeout=0.5).set_traffic(model, TrafficSplit.all_to(v2.slot))


def test_update_that_was_only_answered_is_not_cleaned_up_after(bench: Bench) -> None:
    model, (_,) = bench.serving(1)
    v2 = bench.version(model, 2)
    bench.control.fault("aws", "ignore", operation="UpdateEndpoint", resource=model)
    with pytest.raises(RetryLaterError, match="does not show the change"):
        bench.adapter(deploy_timeout=0.3).prepare(v2)
    assert len(bench.leftovers(model)[0]) == 2
    bench.cloud.prepare(v2)
    assert bench.cloud.observe(model).slot(v2.slot) is not None


def test_stale_reads_are_not_taken_for_a_revert(bench: Bench) -> None:
    model, (_, v2) = bench.serving(1, 2)
    bench.control.fault("aws", "stale", operation="DescribeEndpoint", seconds=1.0)
    bench.cloud.set_traffic(model, TrafficSplit.all_to(v2.slot))
    bench.control.clear()
    assert bench.cloud.verify_traffic(model, TrafficSplit.all_to(v2.slot)) is True


def test_deployment_of_a_killed_attempt_is_joined(bench: Bench) -> None:
    model, (v1,) = bench.serving(1)
    v2 = bench.version(model, 2)
    bench.control.delays({"aws.endpoint.update": 1.5})
    since = time.time()
    with pytest.raises(RetryLaterError, match="still Updating"):
        bench.adapter(deploy_timeout=0.3).prepare(v2)
    bench.adapter(traffic_timeout=0.3).prepare(v2)
    assert bench.calls(since)["UpdateEndpoint"] == 1
    assert bench.cloud.observe(model).split == TrafficSplit.all_to(v1.slot)


def test_endpoint_of_a_killed_attempt_is_joined(bench: Bench) -> None:
    model = bench.model()
    version = bench.version(model, 1)
    bench.control.delays({"aws.endpoint.create": 1.5})
    since = time.time()
    with pytest.raises(RetryLaterError, match="still Creating"):
        bench.adapter(deploy_timeout=0.3).prepare(version)
    bench.cloud.prepare(version)
    assert bench.calls(since)["CreateEndpoint"] == 1


def test_flip_of_a_killed_attempt_is_joined_and_another_refused_at_once(bench: Bench) -> None:
    model, (v1, v2) = bench.serving(1, 2)
    bench.control.delays({"aws.endpoint.weights": 1.5})
    since = time.time()
    with pytest.raises(RetryLaterError):
        bench.adapter(traffic_timeout=0.3).set_traffic(model, TrafficSplit.all_to(v2.slot))
    assert bench.cloud.verify_traffic(model, TrafficSplit.all_to(v2.slot)) is None
    began = time.monotonic()
    with pytest.raises(BusyError, match="Updating"):
        bench.cloud.set_traffic(model, TrafficSplit.canary(v1.slot, v2.slot, 50))
    assert time.monotonic() - began < 1.0
    bench.cloud.set_traffic(model, TrafficSplit.all_to(v2.slot))
    assert bench.calls(since)["UpdateEndpointWeightsAndCapacities"] == 1


def test_change_by_somebody_else_is_waited_for_and_then_reported(bench: Bench) -> None:
    model, (v1, v2) = bench.serving(1, 2)
    bench.control.delays({"aws.endpoint.weights": 4.0})
    mover = threading.Thread(target=bench.cloud.set_traffic, args=(model, TrafficSplit.all_to(v2.slot)))
    mover.start()
    while not bench.cloud.observe(model).busy:
        time.sleep(0.02)
    with pytest.raises(BusyError, match="by somebody else"):
        bench.adapter(traffic_timeout=0.2).retire(model, v2.slot)
    bench.cloud.retire(model, v1.slot)  # waits for the flip, after which the slot takes no traffic
    mover.join()
    assert [slot.name for slot in bench.cloud.observe(model).slots] == [v2.slot]


def test_slot_that_serves_is_ready_at_once_while_another_comes(bench: Bench) -> None:
    model, (v1,) = bench.serving(1)
    v2 = bench.version(model, 2)
    bench.control.delays({"aws.endpoint.update": 2.0})
    with pytest.raises(RetryLaterError, match="still Updating"):
        bench.adapter(deploy_timeout=0.3).prepare(v2)
    bench.cloud.prepare(v1)
    assert bench.cloud.observe(model).busy
    with pytest.raises(BusyError) as caught:
        bench.cloud.set_traffic(model, TrafficSplit.canary(v1.slot, v2.slot, 50))
    assert "InService" in caught.value.hint


def test_two_threads_place_one_slot_once(bench: Bench) -> None:
    model, (v1,) = bench.serving(1)
    v2 = bench.version(model, 2)
    bench.control.delays({"aws.endpoint.update": 0.5})
    since, problems = time.time(), list[Exception]()

    def place() -> None:
        try:
            bench.cloud.prepare(v2)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=place) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert bench.deployed(model, since) == [v2.slot]
    assert {slot.name for slot in bench.cloud.observe(model).slots} == {v1.slot, v2.slot}


def test_registration_that_somebody_changed_is_refused(bench: Bench) -> None:
    version = bench.version(bench.model(), 1)
    arn = bench.cloud.register(version).resource
    bench.sm.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={"lockstep-digest": "0" * 64})
    with pytest.raises(DigestMismatchError, match="digest is '0000"):
        bench.cloud.register(version)
    with pytest.raises(DigestMismatchError) as caught:
        bench.cloud.registered(version)
    assert "CloudTrail" in caught.value.hint


def test_registration_that_somebody_rejected_is_not_repeated(bench: Bench) -> None:
    version = bench.version(bench.model(), 1)
    arn = bench.cloud.register(version).resource
    bench.sm.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription="unfair to some"
    )
    with pytest.raises(RefusedError, match="unfair to some"):
        bench.cloud.register(version)


def test_two_threads_register_one_version_once(bench: Bench) -> None:
    version = bench.version(bench.model(), 1)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(bench.cloud.register(version).resource)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_model_of_another_digest_under_our_name_is_refused(bench: Bench) -> None:
    version = bench.version(bench.model(), 1)
    bench.sm.create_model(
        ModelName=model_name(version.model, version.slot),
        PrimaryContainer={"Image": bench.given["image"], "Environment": {"LOCKSTEP_DIGEST": "f" * 64}},
        ExecutionRoleArn=bench.given["role_arn"],
    )
    with pytest.raises(RefusedError, match="pins digest ffff"):
        bench.cloud.prepare(version)
    assert not bench.cloud.observe(version.model).exists


def test_version_that_is_not_replicated_is_named(bench: Bench) -> None:
    version = bench.version(bench.model(), 1, replicate=False)
    with pytest.raises(NotFoundError, match="not replicated") as caught:
        bench.cloud.prepare(version)
    assert "replicate" in caught.value.hint
    assert bench.leftovers(version.model) == ([], [])


@pytest.mark.parametrize("model", ["breast_cancer", "a" * 64, "-tumour", "tumour v2"])
def test_names_that_sagemaker_refuses_are_refused_with_the_rule(bench: Bench, model: str) -> None:
    with pytest.raises(RefusedError, match="letters, digits and dashes") as caught:
        bench.cloud.observe(model)
    assert "endpoint_name" in caught.value.hint


def test_derived_names_are_short_and_distinct() -> None:
    long, other = "m" * 63, "m" * 62 + "n"
    assert len(model_name(long, "v1-0123abcd")) <= 63
    assert model_name(long, "v1-0123abcd") != model_name(other, "v1-0123abcd")
    assert config_stem(long) != config_stem(other)
    name = config_name(long, {"ProductionVariants": []})
    assert len(name) <= 63
    assert is_own_config(long, name)
    assert not is_own_config(other, name)
    assert not is_own_config("tumour", config_name("tumour-b", {}))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"access_key_id": "AKIAWRONGWRONGWRONG0"}, CredentialsError),
        ({"endpoint_url": "http://127.0.0.1:9"}, UnreachableError),
        ({"access_key_id": None, "secret_access_key": None, "profile": "no-such-profile"}, CredentialsError),
    ],
)
def test_wrong_settings_are_told_apart(bench: Bench, changes: dict[str, Any], error: type[LockstepError]) -> None:
    cloud = bench.adapter(**changes)
    for verb in (
        cloud.check,
        lambda: cloud.observe("tumour"),
        lambda: cloud.set_traffic("t", TrafficSplit.all_to("v")),
    ):
        with pytest.raises(error) as caught:
            verb()
        assert caught.value.hint
        assert caught.value.cloud == "aws"


def test_missing_credentials_are_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    cloud = bench.adapter(access_key_id=None, secret_access_key=None)
    with pytest.raises(CredentialsError, match="redentials"):
        cloud.observe("tumour")
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        cloud.store()


def test_default_chain_opens_cloud_and_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bench.given["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bench.given["secret_access_key"])
    cloud = bench.adapter(access_key_id=None, secret_access_key=None, call_timeout=6.0)
    cloud.check()
    store = open_store(cloud)
    obstore.put(store, "chain/hello", b"x")
    assert bytes(obstore.get(store, "chain/hello").bytes()) == b"x"


def test_dead_and_silent_cloud_fails_in_time(bench: Bench) -> None:
    cloud = bench.adapter(call_timeout=0.5)
    with bench.control.during("aws", "down", seconds=20), pytest.raises(UnreachableError, match="observe tumour"):
        cloud.observe("tumour")
    began = time.monotonic()
    with bench.control.during("aws", "hang", count=4, delay=2.0), pytest.raises(UnreachableError):
        cloud.observe("tumour")
    assert time.monotonic() - began < 2.5


def test_throttling_is_told_and_does_not_end_a_wait(bench: Bench) -> None:
    model, (_, v2) = bench.serving(1, 2)
    with bench.control.during("aws", "throttle", count=2), pytest.raises(ThrottledError, match="Rate exceeded"):
        bench.cloud.observe(model)
    bench.control.delays({"aws.endpoint.weights": 0.5})
    mover_problem: list[Exception] = []

    def move() -> None:
        try:
            bench.cloud.set_traffic(model, TrafficSplit.all_to(v2.slot))
        except Exception as error:
            mover_problem.append(error)

    mover = threading.Thread(target=move)
    mover.start()
    while not bench.cloud.observe(model).busy and mover.is_alive():
        time.sleep(0.02)
    bench.control.fault("aws", "throttle", operation="DescribeEndpoint", count=4)
    mover.join()
    assert mover_problem == []


def test_internal_error_can_be_repeated(bench: Bench) -> None:
    with bench.control.during("aws", "fail", count=2), pytest.raises(RetryLaterError, match="InternalFailure"):
        bench.cloud.observe("tumour")


def test_unknown_endpoint_and_slot_are_named(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="no endpoint"):
        bench.cloud.set_traffic("nothing", TrafficSplit.all_to("v1"))
    with pytest.raises(NotFoundError):
        bench.cloud.invoke("nothing", rows(1))
    model, (v1,) = bench.serving(1)
    with pytest.raises(RefusedError, match=f"it has {v1.slot}"):
        bench.cloud.set_traffic(model, TrafficSplit.all_to("v9-00000000"))
    assert bench.cloud.verify_traffic("nothing", TrafficSplit.all_to("v1")) is False


def test_weights_that_others_set_are_read_as_shares(bench: Bench) -> None:
    model, (v1, v2) = bench.serving(1, 2)
    bench.sm.update_endpoint_weights_and_capacities(
        EndpointName=model,
        DesiredWeightsAndCapacities=[
            {"VariantName": v1.slot, "DesiredWeight": 2.0},
            {"VariantName": v2.slot, "DesiredWeight": 1.0},
        ],
    )
    while bench.cloud.observe(model).busy:
        time.sleep(0.02)
    assert {slot.name: slot.weight for slot in bench.cloud.observe(model).slots} == {v1.slot: 67, v2.slot: 33}
    assert bench.cloud.verify_traffic(model, TrafficSplit.canary(v1.slot, v2.slot, 33)) is False
