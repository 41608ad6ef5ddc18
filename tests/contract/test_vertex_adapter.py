"""What is Vertex AI's own: its errors, its long-running operations, and what its reads may hide."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lockstep.clouds.vertex import Vertex, VertexSettings, metrics, records
from lockstep.errors import (
    BusyError,
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
from tests.contract.clouds import Subject, breast_cancer_rows, eventually, sandbox_settings
from tests.model_files import ModelVersion
from tests.sandbox_control import Control, RunningSandbox


def connect(sandbox: RunningSandbox, **changes: object) -> Vertex:
    _, settings = sandbox_settings("vertex", sandbox, **changes)
    if settings is None:
        pytest.skip("the sandbox runs without Google Cloud")
    assert isinstance(settings, VertexSettings)
    return settings.connect("gcp")


@pytest.fixture(scope="module")
def subject(sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]) -> Subject:
    """A model of its own, on spot machines, both versions uploaded."""
    model = f"vertex-{uuid.uuid4().hex[:8]}"
    stable, canary = (Version(model, str(n), sealed.digest, f"{n}" * 32) for n, sealed in enumerate(model_versions, 1))
    made = Subject(
        kind="vertex",
        cloud=connect(sandbox, spot=True),
        stable=stable,
        canary=canary,
        rows=breast_cancer_rows(1),
        objects={sealed.digest: sealed.objects() for sealed in model_versions},
        control=sandbox.control,
        sandbox_cloud="gcp",
    )
    for version in (stable, canary):
        made.upload(version, made.objects[version.digest])
    return made


@pytest.fixture
def pair(subject: Subject, control: Control) -> Subject:
    subject.have_both()
    return subject


@pytest.fixture
def control(sandbox: RunningSandbox) -> Any:
    yield sandbox.control
    sandbox.control.clear()


def google(sandbox: RunningSandbox, method: str, path: str, **rest: Any) -> dict[str, Any]:
    """A call of somebody else's, past the adapter."""
    given = sandbox.settings["gcp"]
    url = f"{given['api_endpoint']}/v1/projects/{given['project']}/locations/{given['location']}/{path}"
    answer = requests.request(method, url, headers={"Authorization": f"Bearer {given['token']}"}, timeout=10, **rest)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def calls(control: Control, operation: str, resource: str, since: float) -> int:
    return sum(
        call["operation"] == operation and call["resource"] in (resource, "") for call in control.calls("gcp", since)
    )


# -- errors ----------------------------------------------------------------------------------------------------


def test_a_key_that_google_does_not_know_is_a_credentials_error(sandbox: RunningSandbox, tmp_path: Path) -> None:
    good = json.loads(Path(sandbox.settings["gcp"]["credentials_file"]).read_text())
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    wrong = tmp_path / "key.json"
    wrong.write_text(json.dumps({**good, "private_key": pem.decode()}))
    with pytest.raises(CredentialsError) as raised:
        connect(sandbox, credentials_file=str(wrong)).check()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in raised.value.hint


def test_a_key_file_that_is_missing_is_named(sandbox: RunningSandbox, tmp_path: Path) -> None:
    missing = str(tmp_path / "absent.json")
    with pytest.raises(CredentialsError, match=r"absent\.json"):
        connect(sandbox, credentials_file=missing).check()


def test_the_default_chain_is_used_without_a_file(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", sandbox.settings["gcp"]["credentials_file"])
    connect(sandbox, credentials_file=None).check()


def test_nobody_listening_is_unreachable(sandbox: RunningSandbox) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UnreachableError, match="observe"):
        connect(sandbox, api_endpoint=f"http://127.0.0.1:{port}").observe("tumour")


def test_a_silent_cloud_is_given_up_within_two_time_outs(sandbox: RunningSandbox, control: Control) -> None:
    cloud = connect(sandbox, call_timeout=0.5)
    cloud.check()
    began = time.monotonic()
    with control.during("gcp", "hang", count=5), pytest.raises(UnreachableError):
        cloud.check()
    assert time.monotonic() - began < 1.5


def test_a_permission_that_is_missing_is_named(sandbox: RunningSandbox, control: Control) -> None:
    cloud = connect(sandbox)
    cloud.check()
    with (
        control.during("gcp", "fail", operation="ListEndpoints", status=403),
        pytest.raises(CredentialsError) as raised,
    ):
        cloud.check()
    assert "roles/aiplatform.user" in raised.value.hint


def test_a_quota_that_is_used_up_is_throttling(sandbox: RunningSandbox, control: Control) -> None:
    cloud = connect(sandbox)
    cloud.check()
    with control.during("gcp", "throttle", operation="ListEndpoints"), pytest.raises(ThrottledError, match="Quota"):
        cloud.check()


def test_traffic_of_a_model_that_is_not_there(sandbox: RunningSandbox) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        connect(sandbox).set_traffic("absent", TrafficSplit.all_to("v1-00000000"))


def test_a_dropped_connection_costs_no_request(pair: Subject, control: Control) -> None:
    number = control.fault("gcp", "down", operation="Predict", count=1)
    assert pair.cloud.invoke(pair.model, pair.rows).slot == pair.stable.slot
    control.clear(number)


# -- traffic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ignore", "revert"])
def test_traffic_that_google_takes_back_is_noticed(
    sandbox: RunningSandbox, pair: Subject, control: Control, kind: str
) -> None:
    hasty = connect(sandbox, traffic_timeout=0.5)
    wanted = TrafficSplit.all_to(pair.canary.slot)
    control.fault("gcp", kind, operation="UpdateEndpoint", count=1)
    with pytest.raises(RetryLaterError, match=pair.stable.slot):
        hasty.set_traffic(pair.model, wanted)
    assert hasty.verify_traffic(pair.model, wanted) is False
    assert pair.observe().split == TrafficSplit.all_to(pair.stable.slot)


def test_an_old_record_is_no_proof_of_an_old_split(pair: Subject, control: Control) -> None:
    old, new = TrafficSplit.all_to(pair.stable.slot), TrafficSplit.all_to(pair.canary.slot)
    assert pair.cloud.verify_traffic(pair.model, old) is True
    number = control.fault("gcp", "stale")
    thread = threading.Thread(target=pair.cloud.set_traffic, args=(pair.model, new))
    thread.start()
    try:
        assert eventually(lambda: pair.cloud.invoke(pair.model, pair.rows).slot == pair.canary.slot)
        assert pair.cloud.verify_traffic(pair.model, old) is None
        assert pair.cloud.verify_traffic(pair.model, new) is False
    finally:
        control.clear(number)
        thread.join(timeout=30)
    assert pair.cloud.verify_traffic(pair.model, new) is True


def test_a_split_that_takes_effect_late_is_waited_for(pair: Subject, control: Control) -> None:
    wanted = TrafficSplit.canary(pair.stable.slot, pair.canary.slot, 20)
    before = control.delays({})["gcp.endpoint.traffic"]
    control.delays({"gcp.endpoint.traffic": 0.6})
    try:
        began = time.monotonic()
        pair.cloud.set_traffic(pair.model, wanted)
        assert time.monotonic() - began >= 0.5
    finally:
        control.delays({"gcp.endpoint.traffic": before})
    assert pair.cloud.verify_traffic(pair.model, wanted) is True


def test_a_slot_without_traffic_cannot_be_asked(pair: Subject) -> None:
    with pytest.raises(RefusedError, match="takes no traffic"):
        pair.cloud.invoke(pair.model, pair.rows, slot=pair.canary.slot)


def test_an_evicted_slot_is_not_ready_and_gets_no_traffic(pair: Subject, control: Control) -> None:
    third = pair.variant()
    pair.cloud.prepare(third)
    busy = {"gcp.endpoint.deploy": 30.0}
    before = control.delays({})["gcp.endpoint.deploy"]
    control.delays(busy)
    try:
        control.evict("gcp", pair.cloud.endpoint(pair.model), third.slot)
        state = pair.observe().slot(third.slot)
        assert state is not None
        assert not state.ready
        with pytest.raises(RefusedError, match="not ready"):
            pair.cloud.set_traffic(pair.model, TrafficSplit.all_to(third.slot))
    finally:
        control.delays({"gcp.endpoint.deploy": before})
    pair.cloud.retire(pair.model, third.slot)


# -- long-running operations -----------------------------------------------------------------------------------


def test_what_a_killed_attempt_left_running_is_joined(
    sandbox: RunningSandbox, subject: Subject, control: Control
) -> None:
    """Upload, endpoint and deployment are each started once, by whichever attempt comes first."""
    began = time.time()
    version = Version(f"joined-{uuid.uuid4().hex[:8]}", "1", subject.stable.digest)
    cloud = connect(sandbox)
    Subject("vertex", cloud, version, version, [], {}).upload(version, subject.objects[version.digest])
    before = control.delays({})
    slow = {"gcp.model.upload": 0.8, "gcp.endpoint.create": 0.8, "gcp.endpoint.deploy": 0.8}
    control.delays(slow)
    given_up = 0
    try:
        while given_up < 60:  # every attempt is gone before the step that it meets has ended
            try:
                connect(sandbox, deploy_timeout=0.4).prepare(version)
                break
            except RetryLaterError:
                given_up += 1
    finally:
        control.delays({name: before[name] for name in slow})
    assert given_up >= 3
    for operation in ("UploadModel", "CreateEndpoint", "DeployModel"):
        assert calls(control, operation, version.model, began) == 1
    state = cloud.observe(version.model)
    assert [(slot.name, slot.weight, slot.digest) for slot in state.slots] == [(version.slot, 100, version.digest)]


def test_an_endpoint_that_others_change_is_busy(sandbox: RunningSandbox, pair: Subject, control: Control) -> None:
    third = pair.variant()
    pair.cloud.register(third)
    fourth = pair.variant()
    pair.cloud.register(fourth)
    number = control.fault("gcp", "busy", operation="DeployModel", delay=2.0)
    other = threading.Thread(target=pair.cloud.prepare, args=(third,))
    other.start()
    try:
        assert eventually(lambda: pair.observe().busy, 5)
        with pytest.raises(BusyError, match="still running"):
            connect(sandbox, deploy_timeout=0.5).prepare(fourth)
    finally:
        other.join(timeout=60)
        control.clear(number)
    assert {slot.name for slot in pair.observe().slots} >= {third.slot}
    assert pair.observe().slot(fourth.slot) is None


def test_a_failed_deployment_tells_google_s_reason(pair: Subject, control: Control) -> None:
    third = pair.variant()
    before = pair.observe()
    control.fault("gcp", "revert", operation="DeployModel")
    with pytest.raises(DeploymentFailedError, match="Internal error") as raised:
        pair.cloud.prepare(third)
    assert "log" in raised.value.hint
    assert pair.observe() == before
    pair.cloud.prepare(third)
    assert pair.observe().slot(third.slot) is not None


# -- through the generated clients -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ({"kind": "fail", "status": 403}, CredentialsError, r"roles/aiplatform\.user"),
        ({"kind": "throttle"}, ThrottledError, r"Quota exceeded.*raise the quota"),
        ({"kind": "fail", "status": 503}, UnreachableError, r"status\.cloud\.google\.com"),
        ({"kind": "hang"}, UnreachableError, r"no answer"),
        ({"kind": "down"}, UnreachableError, r"no answer"),
    ],
    ids=["permission", "quota", "outage", "silence", "cut"],
)
def test_an_upload_that_fails_says_why_and_is_sent_once(
    sandbox: RunningSandbox,
    subject: Subject,
    control: Control,
    fault: dict[str, Any],
    error: type[LockstepError],
    said: str,
) -> None:
    """The fault hits one call: a second one would go well, and might be a second version."""
    cloud, version = connect(sandbox, call_timeout=1.0), subject.variant()
    with control.during("gcp", operation="UploadModel", count=1, **fault), pytest.raises(error) as raised:
        cloud.register(version)
    assert re.search(said, f"{raised.value} {raised.value.hint}", re.DOTALL)
    assert f"register {version}" in str(raised.value)
    assert "POST http" not in str(raised.value)  # Google's text alone, without the SDK's address in front
    cloud.register(version)


PROOF = """
import json, sys
from datetime import UTC, datetime, timedelta
from lockstep.clouds.vertex import VertexSettings
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit

given = json.load(sys.stdin)
stable, other, new = (Version(**one) for one in given["versions"])
cloud = VertexSettings(**given["settings"]).connect("gcp")
shown = {}

def note(step):
    shown[step] = sorted(m for m in sys.modules if m.startswith(("google.cloud.aiplatform", "google.api_core", "grpc")))

split, now = TrafficSplit.all_to(stable.slot), datetime.now(UTC)
cloud.check()
cloud.observe(stable.model)
cloud.registered(stable)
cloud.set_traffic(stable.model, split)
assert cloud.verify_traffic(stable.model, split) is True
cloud.measure(stable.model, now - timedelta(minutes=5), now)
assert cloud.invoke(stable.model, given["rows"], slot=stable.slot).slot == stable.slot
cloud.retire(stable.model, other.slot)
cloud.register(stable)
cloud.prepare(stable)
note("hot")
cloud.register(new)
note("register")
cloud.prepare(new)
note("prepare")
json.dump(shown, sys.stdout)
"""


def test_the_sdk_is_for_register_and_prepare_alone(pair: Subject, control: Control) -> None:
    """In a process of its own: what looks, moves traffic, removes or finds its work done imports no SDK."""
    other, new = pair.variant(), pair.variant()
    pair.cloud.prepare(other)
    versions = [
        {"model": one.model, "label": one.label, "digest": one.digest, "run_id": one.run_id}
        for one in (pair.stable, other, new)
    ]
    assert isinstance(pair.cloud, Vertex)
    given = {"settings": pair.cloud._settings.model_dump(), "versions": versions, "rows": pair.rows}
    began = time.time()
    ran = subprocess.run(
        [sys.executable, "-c", PROOF], input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert shown["hot"] == []
    for step in ("register", "prepare"):
        assert "google.cloud.aiplatform_v1.services.model_service" in shown[step]
        assert "google.cloud.aiplatform" not in shown[step]  # the face with one address per process
    for operation in ("UploadModel", "DeployModel"):
        assert calls(control, operation, new.model, began) == 1
    pair.cloud.retire(pair.model, new.slot)


# -- the registry ----------------------------------------------------------------------------------------------


def test_the_console_shows_where_a_version_came_from(sandbox: RunningSandbox, subject: Subject) -> None:
    native = subject.cloud.register(subject.stable)
    name = native.resource.rpartition("/models/")[2]
    shown = google(sandbox, "GET", f"models/{name}")
    assert shown["labels"] == {
        "lockstep-version": "1",
        "lockstep-digest": subject.stable.digest,
        "lockstep-run-id": "1" * 32,
    }
    assert subject.stable.slot in shown["versionAliases"]
    first_default = google(sandbox, "GET", f"models/{subject.model}@default")["versionId"]
    subject.cloud.register(subject.canary)
    assert google(sandbox, "GET", f"models/{subject.model}@default")["versionId"] == first_default


def test_a_label_that_was_changed_is_a_mismatch(sandbox: RunningSandbox, subject: Subject) -> None:
    version = subject.variant()
    name = subject.cloud.register(version).resource.rpartition("/models/")[2]
    labels = {"lockstep-version": version.label, "lockstep-digest": "0" * 64}
    google(sandbox, "PATCH", f"models/{name}", params={"updateMask": "labels"}, json={"labels": labels})
    with pytest.raises(DigestMismatchError, match=version.digest):
        subject.cloud.register(version)


def test_a_record_over_another_store_is_a_mismatch(sandbox: RunningSandbox, subject: Subject) -> None:
    subject.cloud.register(subject.stable)
    with pytest.raises(DigestMismatchError, match="elsewhere"):
        connect(sandbox, prefix="elsewhere").register(subject.stable)


# -- without a cloud -------------------------------------------------------------------------------------------


def test_importing_the_adapter_loads_no_sdk() -> None:
    sdk = ("google.auth", "google.cloud.")
    code = f"import sys, lockstep.clouds.vertex; print([m for m in sys.modules if m.startswith({sdk})])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]"


def test_ids_are_allowed_stable_and_distinct() -> None:
    names = ["tumour", "Tumour", "tumour!", "7", "größe", "a" * 63, "a" * 64, "fraud_model", "x-", "-"]
    ids = [records.resource_id(name) for name in names]
    assert ids[0] == "tumour"
    assert len(set(ids)) == len(ids)
    assert ids == [records.resource_id(name) for name in names]
    for one in ids:
        assert len(one) <= 63
        assert one[0].isalpha()
        assert one[-1].isalnum()
        assert set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_latencies_are_merged_over_minutes() -> None:
    def point(count: int, mean: float, buckets: list[int]) -> dict[str, Any]:
        options = {"exponentialBuckets": {"numFiniteBuckets": 4, "growthFactor": 2.0, "scale": 10.0}}
        value = {"count": str(count), "mean": mean, "bucketOptions": options, "bucketCounts": [str(n) for n in buckets]}
        return {"value": {"distributionValue": value}}

    series = [
        {
            "metric": {"labels": {"deployed_model_id": "7", "latency_type": kind}},
            "points": [point(15, 12.0, [0, 15]), point(5, 60.0, [0, 0, 0, 5])],
        }
        for kind in ("model", "overhead")
    ]
    counts: dict[str, metrics.Counts] = {}
    metrics.add_latencies(series, counts)
    mean, p95 = counts["7"].latency_mean, counts["7"].latency_p95
    assert mean is not None
    assert math.isclose(mean, 2 * (15 * 12.0 + 5 * 60.0) / 20 / 1000)
    assert p95 is not None
    assert math.isclose(p95, (40 + 40 * 4 / 5) / 1000)  # 19th of 20: four fifths into the bucket from 40 to 80 ms
