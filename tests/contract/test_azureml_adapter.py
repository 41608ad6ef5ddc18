"""Azure ML's adapter where Azure is unlike the others; what all clouds share stands in test_clouds.py."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from obstore.store import AzureStore, from_url
from sklearn.datasets import load_breast_cancer

from lockstep.clouds.azureml import AzureML, AzureMLSettings
from lockstep.clouds.azureml.assets import forget_inherited
from lockstep.clouds.azureml.metrics import is_error
from lockstep.errors import (
    BusyError,
    CloudRejectedError,
    ConfigError,
    CredentialsError,
    DeploymentFailedError,
    DigestMismatchError,
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

# azure-ai-ml's schemas warn by the hundred when they are imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NUMBERS = itertools.count(1)
ROWS = [
    {str(name).replace(" ", "_"): value for name, value in row.items()}
    for row in load_breast_cancer(as_frame=True).data.head(2).to_dict("records")
]


class Bench:
    """One sandbox seen by adapters and by the record of calls; every model name is used once."""

    def __init__(self, sandbox: RunningSandbox, files: tuple[ModelVersion, ModelVersion]) -> None:
        self.control = sandbox.control
        self.given = sandbox.settings["azure"]
        self.files = files
        self.cloud = self.adapter()
        address = self.cloud.store()
        self.store = from_url(  # type: ignore[call-overload]
            address.url,
            config=dict(address.options),
            client_options=dict(address.client_options),
        )

    def settings(self, **changes: Any) -> AzureMLSettings:
        known = {name: value for name, value in self.given.items() if name in AzureMLSettings.model_fields}
        quick = {"call_timeout": 5.0, "deploy_timeout": 60.0, "traffic_timeout": 5.0}
        return AzureMLSettings(**{**known, **quick, **changes})

    def adapter(self, **changes: Any) -> AzureML:
        return self.settings(**changes).connect("azure")

    def versions(self) -> tuple[Version, Version]:
        """Two versions of a model of its own, replicated."""
        model = f"m{next(NUMBERS)}-{time.time_ns() % 1_000_000}"
        made = tuple(
            Version(model, str(number), files.digest, f"run-{number}") for number, files in enumerate(self.files, 1)
        )
        for version, files in zip(made, self.files, strict=True):
            for path, content in files.objects().items():
                self.store.put(f"{version.prefix}/{path}", content)
        return made[0], made[1]

    def serving(self) -> tuple[Version, Version]:
        """As `versions`, with the first one deployed and taking all traffic."""
        first, second = self.versions()
        self.cloud.prepare(first)
        return first, second

    def calls(self, since: float) -> Counter[str]:
        """How often each operation was asked for; operations' status and changes left out."""
        asked = [call["operation"] for call in self.control.calls("azure", since)]
        return Counter(name for name in asked if name != "mfeOperationsStatus" and not name.startswith("event:"))


@pytest.fixture(scope="module")
def bench(sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]) -> Bench:
    return Bench(sandbox, model_versions)


@pytest.fixture(scope="module")
def deployed(bench: Bench) -> tuple[Version, Version]:
    """Two versions in slots of one endpoint, for tests that only move its traffic or look."""
    first, second = bench.serving()
    bench.cloud.prepare(second)
    return first, second


@pytest.fixture
def pair(bench: Bench, deployed: tuple[Version, Version]) -> tuple[Version, Version]:
    """The two, with all traffic on the first."""
    bench.cloud.set_traffic(deployed[0].model, TrafficSplit.all_to(deployed[0].slot))
    return deployed


@pytest.fixture(autouse=True)
def _calm(bench: Bench) -> Iterator[None]:
    before = bench.control.delays({})
    yield
    bench.control.clear()
    bench.control.delays(before)


def test_one_version_through_its_life(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = bench.versions()
    assert not bench.cloud.observe(first.model).exists
    assert bench.cloud.registered(first) is None
    native = bench.cloud.register(first)
    assert bench.cloud.registered(first) == native == bench.cloud.register(first)
    record = bench.cloud._workspace.get(f"models/{first.model}/versions/1")
    assert record is not None
    origin = {"lockstep-version": "1", "lockstep-digest": first.digest, "mlflow-run-id": "run-1"}
    assert origin.items() <= record["properties"]["properties"].items()
    assert origin.items() <= record["properties"]["tags"].items()

    bench.cloud.prepare(first)
    bench.cloud.prepare(second)
    state = bench.cloud.observe(first.model)
    assert [(s.weight, s.ready, s.label, s.digest) for s in state.slots] == [
        (100, True, "1", first.digest),
        (0, True, "2", second.digest),
    ]
    canary = TrafficSplit.canary(first.slot, second.slot, 25)
    bench.cloud.set_traffic(first.model, canary)
    assert bench.cloud.verify_traffic(first.model, canary) is True
    assert bench.cloud.verify_traffic(first.model, TrafficSplit.all_to(first.slot)) is False

    began = datetime.now(UTC)
    answer = bench.cloud.invoke(first.model, ROWS, slot=second.slot, request_id="request-1")
    assert (answer.slot, answer.label, answer.digest) == (second.slot, "2", second.digest)
    assert answer.request_id == "request-1"
    with pytest.raises(CloudRejectedError, match="424"):
        bench.cloud.invoke(first.model, [{"no_such_column": 1.0}], slot=second.slot)
    measured = bench.cloud.measure(first.model, began - timedelta(minutes=1), datetime.now(UTC))
    assert [(m.slot, m.requests, m.errors) for m in measured] == [(second.slot, 2, 0)]
    assert 0 < (measured[0].latency_mean or 0) < 10

    with pytest.raises(RefusedError, match="25 %"):
        bench.cloud.retire(first.model, second.slot)
    bench.cloud.set_traffic(first.model, TrafficSplit.all_to(first.slot))
    bench.cloud.retire(first.model, second.slot)
    bench.cloud.retire(first.model, second.slot)
    assert [slot.name for slot in bench.cloud.observe(first.model).slots] == [first.slot]
    assert capsys.readouterr().out == ""  # standard output belongs to the command line's tables and JSON


def test_verbs_ask_little(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, second = pair
    bench.cloud.invoke(first.model, ROWS)
    both = TrafficSplit.canary(first.slot, second.slot, 50)
    began = time.time()
    bench.cloud.prepare(second)
    assert bench.calls(began) == {"OnlineDeployments_Get": 1, "OnlineEndpoints_Get": 1}
    began = time.time()
    bench.cloud.set_traffic(first.model, both)
    asked = {"OnlineEndpoints_Get": 2, "OnlineDeployments_Get": 1, "OnlineEndpoints_CreateOrUpdate": 1}
    assert bench.calls(began) == asked
    began = time.time()
    bench.cloud.set_traffic(first.model, both)
    bench.cloud.verify_traffic(first.model, both)
    bench.cloud.invoke(first.model, ROWS)
    assert bench.calls(began) == {"OnlineEndpoints_Get": 2}


def test_without_the_right_to_list_the_group_each_endpoint_is_read(bench: Bench, pair: tuple[Version, Version]) -> None:
    model = pair[0].model
    closely = bench.cloud.observe(model)
    began = time.time()
    with bench.control.during("azure", "fail", operation="Resources_ListByResourceGroup", status=403):
        found = bench.cloud.observe_many([model, "nobody"])
    assert (found[model], found["nobody"].exists) == (closely, False)
    lists = {"OnlineEndpoints_List": 1, "Resources_ListByResourceGroup": 1}
    assert bench.calls(began) == {**lists, "OnlineEndpoints_Get": 1, "OnlineDeployments_List": 1}


def test_threads_share_clients_and_token(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, _ = pair
    cloud = bench.adapter()
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(lambda _: cloud.observe(first.model), range(16)))
    assert len(set(states)) == 1
    began = time.time()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: cloud.observe(first.model), range(16))) == set(states)
    assert "Token" not in bench.calls(began)


def test_wrong_credentials_name_the_variables(bench: Bench) -> None:
    with pytest.raises(CredentialsError, match="AADSTS7000215") as caught:
        bench.adapter(client_secret="wrong").check()
    assert "AZURE_CLIENT_SECRET" in caught.value.hint


def test_a_sign_in_that_fails_inside_of_entra_is_an_outage(bench: Bench) -> None:
    for kind, status in (("fail", 500), ("fail", 503), ("throttle", 500)):
        with bench.control.during("azure", kind, operation="Token", status=status, seconds=60):
            with pytest.raises(RetryLaterError) as caught:
                bench.adapter().check()
            assert "az login" not in caught.value.hint


def test_wrong_workspace_is_not_an_empty_one(bench: Bench) -> None:
    for wrong in ({"workspace": "nowhere"}, {"resource_group": "nowhere"}, {"subscription_id": "nowhere"}):
        looks: tuple[Callable[[AzureML], object], ...] = (
            lambda cloud: cloud.check(),
            lambda cloud: cloud.observe("anything"),
        )
        for look in looks:
            with pytest.raises(NotFoundError) as caught:
                look(bench.adapter(**wrong))
            assert "workspace" in caught.value.hint


def test_untrusted_and_unreachable_addresses(bench: Bench) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = f"https://127.0.0.1:{listener.getsockname()[1]}"
        for wrong in ({"authority": closed}, {"metrics_endpoint": closed}):
            with pytest.raises(UnreachableError) as caught:
                bench.adapter(**wrong).measure("any", datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC))
            assert "network" in caught.value.hint
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        bench.adapter(ca_file=None).check()
    assert "ca_file" in caught.value.hint
    with pytest.raises(ConfigError, match="CA certificate"):
        bench.adapter(ca_file="/no/such/file.pem").check()


def test_a_silent_cloud_is_given_up_in_two_call_timeouts(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, second = pair
    cloud = bench.adapter(call_timeout=0.5)
    cloud.observe(first.model)
    verbs = (
        lambda: cloud.observe(first.model),
        lambda: cloud.prepare(second),
        lambda: cloud.set_traffic(first.model, TrafficSplit.all_to(first.slot)),
        lambda: cloud.invoke(first.model, ROWS),
    )
    with bench.control.during("azure", "hang", seconds=60.0, delay=4.0):
        for verb in verbs:
            began = time.monotonic()
            with pytest.raises(UnreachableError):
                verb()
            assert time.monotonic() - began < 3.0  # two time-outs, and room for a busy machine
    with bench.control.during("azure", "down"):
        for verb in verbs:
            with pytest.raises(UnreachableError):
                verb()


def test_one_bad_answer_is_nothing_many_are_told(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, _ = pair
    bench.control.fault("azure", "fail", operation="OnlineEndpoints_Get", count=1, status=503)
    assert bench.cloud.observe(first.model).exists
    bench.control.fault("azure", "throttle", operation="OnlineEndpoints_Get", count=5)
    with pytest.raises(ThrottledError):
        bench.cloud.observe(first.model)
    bench.control.clear()
    bench.control.fault("azure", "fail", operation="OnlineEndpoints_Get", count=5, status=500)
    with pytest.raises(RetryLaterError, match="InternalServerError"):
        bench.cloud.observe(first.model)


def test_a_poll_that_fails_does_not_end_the_wait(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, second = pair
    bench.control.delays({"azure.endpoint.traffic": 0.5})
    bench.control.fault("azure", "fail", operation="mfeOperationsStatus", count=4, status=500)
    bench.cloud.set_traffic(first.model, TrafficSplit.all_to(second.slot))
    assert bench.cloud.invoke(first.model, ROWS).slot == second.slot


def test_a_busy_endpoint_is_told_at_once_and_waited_for_in_prepare(bench: Bench) -> None:
    first, second = bench.serving()
    document = bench.cloud._endpoints.existing(first.model, first.model)
    bench.control.delays({"azure.endpoint.traffic": 1.0})
    bench.cloud._workspace.put(f"onlineEndpoints/{first.model}", {**document, "tags": {"by": "another"}})
    assert bench.cloud.observe(first.model).busy
    assert bench.cloud.verify_traffic(first.model, TrafficSplit.all_to(first.slot)) is None
    with pytest.raises(BusyError, match="Updating"):
        bench.cloud.set_traffic(first.model, TrafficSplit.all_to(first.slot))
    bench.cloud.prepare(second)
    assert bench.cloud.observe(first.model).split == TrafficSplit.all_to(first.slot)

    bench.control.delays({"azure.endpoint.traffic": 30.0})
    bench.cloud.retire(first.model, second.slot)
    bench.cloud._workspace.put(f"onlineEndpoints/{first.model}", {**document, "tags": {"by": "another"}})
    with pytest.raises(BusyError):
        bench.adapter(traffic_timeout=0.3).prepare(second)


@pytest.mark.parametrize("fault", ["revert", "ignore"])
def test_a_change_that_azure_took_back_is_noticed(bench: Bench, pair: tuple[Version, Version], fault: str) -> None:
    first, second = pair
    bench.control.fault("azure", fault, operation="OnlineEndpoints_CreateOrUpdate", count=1)
    with pytest.raises(RetryLaterError, match=f"instead of {second.slot} 100 %"):
        bench.adapter(traffic_timeout=1.0).set_traffic(first.model, TrafficSplit.all_to(second.slot))
    assert bench.cloud.verify_traffic(first.model, TrafficSplit.all_to(second.slot)) is False
    bench.cloud.set_traffic(first.model, TrafficSplit.all_to(second.slot))
    assert bench.cloud.invoke(first.model, ROWS).slot == second.slot


def test_stale_reads_do_not_hide_that_the_way_back_is_needed(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, second = pair
    cloud = bench.adapter(traffic_timeout=0.5)
    with bench.control.during("azure", "stale"):
        with pytest.raises(RetryLaterError):
            cloud.set_traffic(first.model, TrafficSplit.all_to(second.slot))
        assert cloud.invoke(first.model, ROWS).slot == second.slot
        # The reads show the first slot, as they did before: the split is written all the same.
        cloud.set_traffic(first.model, TrafficSplit.all_to(first.slot))
        assert cloud.invoke(first.model, ROWS).slot == first.slot


def test_an_attempt_under_way_is_joined(bench: Bench) -> None:
    first, _ = bench.versions()
    bench.control.delays({"azure.deployment.create": 1.0, "azure.endpoint.create": 0.5})
    began = time.time()
    with pytest.raises(RetryLaterError, match=r"v1-.* is InProgress"):
        bench.adapter(deploy_timeout=0.7).prepare(first)
    bench.cloud.prepare(first)
    assert bench.calls(began)["OnlineDeployments_CreateOrUpdate"] == 1
    assert bench.cloud.observe(first.model).slots[0].ready


def test_two_at_once_make_one_endpoint(bench: Bench) -> None:
    first, second = bench.versions()
    bench.control.delays({"azure.endpoint.create": 0.5})
    clouds = (bench.cloud, bench.adapter())
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(cloud.prepare, v) for cloud, v in zip(clouds, (first, second), strict=True)]:
            done.result(timeout=60)
    assert [slot.ready for slot in bench.cloud.observe(first.model).slots] == [True, True]


def test_a_failed_slot_leaves_everything_as_it_was(bench: Bench) -> None:
    first, second = bench.serving()
    before = bench.cloud.observe(first.model)
    bench.control.corrupt("azure", f"{second.prefix}/files/MLmodel")
    with pytest.raises(DeploymentFailedError, match="MLmodel has sha256") as caught:
        bench.cloud.prepare(second)
    assert second.slot in str(caught.value)
    assert bench.cloud.observe(first.model) == before
    assert bench.cloud.invoke(first.model, ROWS).digest == first.digest


def test_what_a_killed_attempt_left_broken_is_made_anew(bench: Bench) -> None:
    first, second = bench.serving()
    slots, path = bench.cloud._slots, f"onlineEndpoints/{first.model}/deployments/{second.slot}"
    where = f"{second.prefix}/files/MLmodel"
    bench.control.corrupt("azure", where)
    operation = slots._start(path, slots._body(second, bench.cloud.image), first.model)
    assert bench.cloud._workspace.outcome(operation, 30).status == "Failed"
    bench.store.put(where, bench.files[1].objects()["files/MLmodel"])
    bench.cloud.prepare(second)
    assert bench.cloud.invoke(first.model, ROWS, slot=second.slot).digest == second.digest


def test_a_slot_or_record_of_other_bytes_is_refused(bench: Bench) -> None:
    first, second = bench.serving()
    slots, path = bench.cloud._slots, f"onlineEndpoints/{first.model}/deployments/{second.slot}"
    body = slots._body(first, bench.cloud.image)
    assert bench.cloud._workspace.outcome(slots._start(path, body, first.model), 30).succeeded
    with pytest.raises(RefusedError, match=first.digest):
        bench.cloud.prepare(second)

    record = f"models/{second.model}/versions/2"
    bench.cloud.register(second)
    found = bench.cloud._workspace.get(record)
    assert found is not None
    changed = {"modelUri": found["properties"]["modelUri"], "properties": {"lockstep-digest": first.digest}}
    bench.cloud._workspace.put(record, {"properties": changed})
    for look in (bench.cloud.register, bench.cloud.registered):
        with pytest.raises(DigestMismatchError, match="digest was changed"):
            look(second)


def test_a_label_that_is_taken_gets_the_digest_beside_it(bench: Bench) -> None:
    first, second = bench.versions()
    again = replace(second, label=first.label)
    assert bench.cloud.register(first).resource.endswith("/versions/1")
    assert bench.cloud.register(again).resource.endswith(f"/versions/1-{second.digest[:12]}")
    assert bench.cloud.registered(again) != bench.cloud.registered(first)


def test_a_new_key_is_fetched_when_the_old_one_is_refused(bench: Bench, pair: tuple[Version, Version]) -> None:
    first, _ = pair
    bench.cloud.invoke(first.model, ROWS)
    bench.cloud._workspace.post(f"onlineEndpoints/{first.model}/regenerateKeys", {"keyType": "Primary"})
    assert bench.cloud.invoke(first.model, ROWS).slot == first.slot


def test_requests_that_nothing_answers(bench: Bench) -> None:
    first, _ = bench.versions()
    with pytest.raises(NotFoundError, match="no endpoint"):
        bench.cloud.invoke(first.model, ROWS)
    with pytest.raises(NotFoundError, match="no endpoint"):
        bench.cloud.set_traffic(first.model, TrafficSplit.all_to(first.slot))
    bench.cloud.prepare(first)
    with pytest.raises(NotFoundError, match="v9-none"):
        bench.cloud.invoke(first.model, ROWS, slot="v9-none")
    with pytest.raises(RefusedError, match=r"v9-none .* not there"):
        bench.cloud.set_traffic(first.model, TrafficSplit.all_to("v9-none"))
    with bench.control.during("azure", "throttle", operation="Score", count=1), pytest.raises(ThrottledError):
        bench.cloud.invoke(first.model, ROWS, slot=first.slot)


def test_names_that_azure_does_not_take(bench: Bench) -> None:
    first, _ = bench.versions()
    with pytest.raises(RefusedError, match="no endpoint named") as caught:
        bench.adapter(endpoint_name="{model}_under_score").prepare(first)
    assert "endpoint_name" in caught.value.hint
    with pytest.raises(RefusedError, match="name of model"):
        bench.cloud.register(replace(first, model="has space"))


def test_store_takes_key_or_token(bench: Bench) -> None:
    assert isinstance(bench.store, AzureStore)
    address = bench.adapter(storage_key=None, blob_endpoint=None).store()
    assert "endpoint" not in address.options
    assert address.credentials is not None
    assert set(address.credentials()) == {"token", "expires_at"}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("status", "model_status", "counts"),
    [("200", "200", False), ("424", "400", False), ("424", "500", True), ("424", "N/A", True), ("503", "N/A", True),
     ("408", "N/A", True), ("429", "N/A", False), ("401", "N/A", False)],
)  # fmt: skip
def test_errors_of_the_serving_side(status: str, model_status: str, counts: bool) -> None:
    assert is_error(status, model_status) is counts


def test_settings_that_cannot_work_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="tenant_id"):
        bench.settings(tenant_id=None)
    assert all((f.description or "").endswith(".") for f in AzureMLSettings.model_fields.values())
    assert threading.active_count() < 200


def test_a_child_of_a_process_that_used_a_cloud_of_ours_can_import_the_sdk() -> None:
    """azure-ai-ml leaves the name of its cloud in the environment, and cannot be imported where it means nothing."""
    script = (
        "import os, sys; from lockstep.clouds.azureml.assets import forget_inherited; "
        "forget_inherited(os.environ, sys.modules); import azure.ai.ml"
    )
    inherited = {**os.environ, "AZUREML_CURRENT_CLOUD": "lockstep-0123456789ab"}
    subprocess.run([sys.executable, "-c", script], env=inherited, check=True, timeout=120)
    chosen = {"AZUREML_CURRENT_CLOUD": "AzureUSGovernment"}
    forget_inherited(chosen, ())
    assert chosen, "a person's choice stays"
