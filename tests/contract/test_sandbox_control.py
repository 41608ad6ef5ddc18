"""The control address: every kind of fault on every cloud, and a refusal of whatever would have no effect."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from azure.core.exceptions import AzureError, HttpResponseError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.contract import aws_account, azure_account
from tests.sandbox_control import Control, RunningSandbox, running_sandbox

CLOUDS = ("aws", "azure", "gcp")


@dataclass(frozen=True)
class Door:
    """A cheap read and a cheap write of one cloud's control plane, and its store, by its own clients."""

    cloud: str
    control: Control
    read: str
    write: str
    names: Callable[[], set[str]]
    make: Callable[[str], object]
    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]

    def fault(self, kind: str, **more: object) -> int:
        return self.control.fault(self.cloud, kind, **more)

    def status(self) -> int:
        """HTTP status of one read; 0 when the connection ended without an answer."""
        try:
            self.names()
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        except HttpResponseError as error:
            return int(error.status_code or 0)
        except requests.HTTPError as error:
            return int(error.response.status_code)
        except (BotoCoreError, AzureError, requests.ConnectionError):
            return 0
        return 200


def aws(sandbox: RunningSandbox) -> Door:
    account = aws_account.Account(sandbox.settings["aws"])
    sm, bucket = account.sm, account.bucket
    trusting = Config(response_checksum_validation="when_required", retries={"total_max_attempts": 1})
    s3 = account.client("s3", config=trusting)

    def names() -> set[str]:
        pages = sm.get_paginator("list_model_package_groups").paginate()
        return {g["ModelPackageGroupName"] for page in pages for g in page["ModelPackageGroupSummaryList"]}

    return Door(
        "aws",
        sandbox.control,
        "ListModelPackageGroups",
        "CreateModelPackageGroup",
        names,
        lambda name: sm.create_model_package_group(ModelPackageGroupName=name),
        lambda key, content: s3.put_object(Bucket=bucket, Key=key, Body=content),
        lambda key: bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read()),
    )


def azure(sandbox: RunningSandbox) -> Door:
    account = azure_account.Account(sandbox.settings["azure"], sandbox.control)

    def checked(answer: Any) -> Any:
        if answer.status_code >= 400:
            raise HttpResponseError(response=answer)
        return answer.json()

    return Door(
        "azure",
        sandbox.control,
        "EnvironmentContainers_List",
        "EnvironmentVersions_CreateOrUpdate",
        lambda: {found["name"] for found in checked(account.ask("GET", "/environments"))["value"]},
        lambda name: checked(
            account.ask("PUT", f"/environments/{name}/versions/1", {"properties": {"image": account.settings["image"]}})
        ),
        lambda key, content: account.blobs.upload_blob(key, content),
        lambda key: bytes(account.blobs.download_blob(key).readall()),
    )


def gcp(sandbox: RunningSandbox) -> Door:
    s = sandbox.settings["gcp"]
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {s['token']}"
    place = f"{s['api_endpoint']}/v1/projects/{s['project']}/locations/{s['location']}/endpoints"

    def ask(method: str, url: str, **more: Any) -> requests.Response:
        answer = session.request(method, url, timeout=60, **more)
        answer.raise_for_status()
        return answer

    return Door(
        "gcp",
        sandbox.control,
        "ListEndpoints",
        "CreateEndpoint",
        lambda: {e["name"].rpartition("/")[2] for e in ask("GET", place).json().get("endpoints", ())},
        lambda name: ask("POST", place, params={"endpointId": name}, json={"displayName": name}),
        lambda key, content: ask("PUT", f"{s['storage_endpoint']}/{s['bucket']}/{key}", data=content),
        lambda key: ask("GET", f"{s['storage_endpoint']}/{s['bucket']}/{key}").content,
    )


@pytest.fixture(scope="module")
def doors(sandbox: RunningSandbox) -> dict[str, Door]:
    return {"aws": aws(sandbox), "azure": azure(sandbox), "gcp": gcp(sandbox)}


@pytest.fixture(params=CLOUDS)
def door(request: pytest.FixtureRequest, doors: dict[str, Door]) -> Iterator[Door]:
    found = doors[request.param]
    yield found
    found.control.clear()


def new_name() -> str:
    return "c" + uuid.uuid4().hex[:10]


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.05)


# ---- every kind, on every cloud


def test_failures_and_throttling_are_counted(door: Door) -> None:
    door.fault("fail", operation=door.read, count=2, status=503)
    assert [door.status() for _ in range(3)] == [503, 503, 200]
    door.fault("fail", operation=door.read)
    assert [door.status() for _ in range(2)] == [500, 200]
    door.fault("throttle", operation=door.read, count=2)
    assert [door.status() for _ in range(3)] == [*[{"aws": 400, "azure": 429, "gcp": 429}[door.cloud]] * 2, 200]


def test_a_fault_hits_only_its_operation_and_cloud(door: Door, doors: dict[str, Door]) -> None:
    door.fault("fail", operation=door.write)
    assert {other.status() for other in doors.values()} == {200}
    with pytest.raises((ClientError, HttpResponseError, requests.HTTPError)):
        door.make(new_name())


def test_slow_answers_come_late_and_hanging_ones_not_at_all(door: Door) -> None:
    door.fault("slow", operation=door.read, delay=0.5)
    for status in (200, 0):
        began = time.monotonic()
        assert door.status() == status
        assert time.monotonic() - began >= 0.5
        door.fault("hang", operation=door.read, delay=0.5)
    door.control.clear()
    assert door.status() == 200


def test_a_cloud_that_is_down_gives_no_answer_anywhere_until_its_time_is_over(door: Door) -> None:
    key = f"control/{new_name()}"
    door.put(key, b"bytes")
    number = door.fault("down")
    assert [door.status() for _ in range(3)] == [0, 0, 0]
    with pytest.raises((BotoCoreError, AzureError, requests.ConnectionError)):
        door.get(key)
    door.control.clear(number)
    assert door.get(key) == b"bytes"
    door.fault("down", seconds=0.7)
    assert door.status() == 0
    until(lambda: door.status() == 200)


def test_stale_reads_show_the_past_until_they_end(door: Door) -> None:
    before, after = new_name(), new_name()
    door.make(before)
    until(lambda: before in door.names())
    number = door.fault("stale")
    door.make(after)
    assert before in door.names()
    assert after not in door.names()
    door.control.clear(number)
    until(lambda: after in door.names())


def test_an_ignored_write_is_answered_and_not_done(door: Door) -> None:
    ignored, done = new_name(), new_name()
    door.fault("ignore", operation=door.write)
    door.make(ignored)
    door.make(done)
    until(lambda: done in door.names())
    assert ignored not in door.names()


# ---- how long faults last


def test_counts_durations_and_numbers(door: Door) -> None:
    def board() -> dict[int, Any]:
        return {f["number"]: f for f in requests.get(f"{door.control.url}/faults", timeout=10).json()}

    once = door.fault("fail", operation=door.read)
    timed = door.fault("fail", operation=door.write, seconds=0.5)
    lasting = door.fault("lag", delay=5)
    assert {n: board()[n]["left"] for n in (once, timed, lasting)} == {once: 1, timed: None, lasting: None}
    assert door.status() == 500
    assert once not in board()
    until(lambda: timed not in board())
    assert lasting in board()
    door.control.clear(once)  # gone already: harmless
    door.control.clear(lasting)
    assert board() == {}


def pattern(seed: int) -> list[int]:
    with running_sandbox("--clouds", "gcp", "--seed", str(seed)) as sandbox:
        door = gcp(sandbox)
        door.fault("fail", operation=door.read, count=1000, probability=0.5)
        return [door.status() for _ in range(40)]


def test_chance_is_repeated_by_the_same_seed_and_by_no_other() -> None:
    with ThreadPoolExecutor(3) as pool:
        first, again, other = pool.map(pattern, (5, 5, 6))
    assert first == again != other
    assert 8 <= first.count(500) <= 32


# ---- what would have no effect is refused


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"cloud": "mars", "kind": "fail"}, "cloud must be one of aws, azure, gcp, not 'mars'"),
        ({"cloud": "aws", "kind": "explode"}, "kind must be one of fail, throttle,"),
        ({"cloud": "aws", "kind": "fail", "colour": 1}, "has no field 'colour'; fields: cloud, count,"),
        ({"cloud": "aws"}, "needs 'kind'"),
        ({"cloud": "aws", "kind": "fail", "operation": "UpdateEndpont"}, "did you mean UpdateEndpoint"),
        ({"cloud": "azure", "kind": "fail", "operation": "Online*_Get?"}, "azure has no operation 'Online*_Get?'"),
        ({"cloud": "gcp", "kind": "fail", "operation": "UpdateEndpointWeightsAndCapacities"}, "gcp has no operation"),
        ({"cloud": "aws", "kind": "fail", "operation": 3}, "operation is a pattern"),
        ({"cloud": "aws", "kind": "fail", "count": 0}, "count is a number of calls >= 1, not 0"),
        ({"cloud": "aws", "kind": "fail", "count": "2"}, "count is a number of calls >= 1, not '2'"),
        ({"cloud": "aws", "kind": "down", "seconds": -1}, "seconds is a duration > 0, not -1"),
        ({"cloud": "aws", "kind": "slow", "delay": -1}, "delay is a number of seconds >= 0, not -1"),
        ({"cloud": "aws", "kind": "fail", "status": 200}, "status is an HTTP error's, 400 to 599, not 200"),
        ({"cloud": "aws", "kind": "fail", "probability": 2}, "probability is between 0 and 1, not 2"),
        ({"cloud": "aws", "kind": "stale", "resource": "x"}, "stale is a state of the whole cloud: it has no resource"),
        ({"cloud": "aws", "kind": "lag"}, "lag needs a delay > 0"),
        (["aws"], "takes a JSON object"),
    ],
)
def test_faults_without_an_effect_are_refused(sandbox: RunningSandbox, body: object, words: str) -> None:
    answer = requests.post(f"{sandbox.control.url}/faults", json=body, timeout=10)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert requests.get(f"{sandbox.control.url}/faults", timeout=10).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", "/delays", {"aws.endpoint.fly": 1}, 400, "unknown operation 'aws.endpoint.fly'; known: aws."),
        ("PUT", "/delays", {"aws.endpoint.create": -1}, 400, "aws.endpoint.create: a delay is a number of seconds"),
        ("PUT", "/delays", {"aws.endpoint.create": "soon"}, 400, "not 'soon'"),
        ("GET", "/calls?cloud=mars", None, 400, "cloud 'mars' does not run here"),
        ("GET", "/calls?since=yesterday", None, 400, "yesterday"),
        ("POST", "/corrupt", {"cloud": "aws"}, 400, "/corrupt needs 'key'"),
        ("POST", "/corrupt", {"cloud": "aws", "key": "x", "offset": "1"}, 400, "offset is a whole number of bytes"),
        ("POST", "/corrupt", {"cloud": "aws", "key": "no/such/key"}, 404, "not found"),
        ("POST", "/corrupt", {"cloud": "azure", "key": "no/such/key"}, 404, "not found"),
        ("POST", "/corrupt", {"cloud": "gcp", "key": "no/such/key"}, 404, "not found"),
        ("POST", "/evict", {"cloud": "gcp", "endpoint": "e", "slot": "s", "at": 1}, 400, "/evict has no field 'at'"),
        ("POST", "/evict", {"cloud": "gcp", "endpoint": "nowhere", "slot": "s"}, 404, "nowhere"),
        ("POST", "/evict", {"cloud": "aws", "endpoint": "nowhere", "slot": "s"}, 404, "no spot"),
        ("GET", "/nowhere", None, 404, "not found"),
        ("POST", "/settings", None, 405, "not allowed"),
    ],
)
def test_other_requests_without_an_effect_are_refused(
    sandbox: RunningSandbox, method: str, path: str, body: Mapping[str, object] | None, status: int, words: str
) -> None:
    answer = requests.request(method, sandbox.control.url + path, json=body, timeout=10)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_body_that_is_not_json_is_refused(sandbox: RunningSandbox) -> None:
    answer = requests.post(f"{sandbox.control.url}/faults", data=b"{", timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]


# ---- delays, calls, bytes


def test_delays_change_while_it_runs(doors: dict[str, Door]) -> None:
    door = doors["gcp"]
    before = door.control.delays({})
    slow, name = {"gcp.endpoint.create": 0.8}, new_name()
    assert door.control.delays(slow) == {**before, **slow}
    try:
        began = time.monotonic()
        door.make(name)
        assert name not in door.names()
        until(lambda: name in door.names())
        assert time.monotonic() - began >= 0.8
    finally:
        assert door.control.delays(before) == before


def test_calls_are_kept_in_order_and_scoring_and_objects_are_not(door: Door) -> None:
    name, began = new_name(), time.time()
    door.fault("fail", operation=door.read, status=503)
    door.status()
    door.make(name)
    door.put(f"control/{name}", b"x")
    calls = door.control.calls(door.cloud, began)
    ours = [c for c in calls if c["operation"] in (door.read, door.write)]
    assert [(c["operation"], c["status"] >= 400) for c in ours] == [(door.read, True), (door.write, False)]
    assert all(c["cloud"] == door.cloud and began <= c["at"] <= time.time() and c["seconds"] >= 0 for c in ours)
    assert not [c for c in calls if c["operation"] in ("PutObject", "PutBlob", "storage.objects.insert")]
    assert door.control.calls(door.cloud, time.time() + 60) == []
    assert [c for c in door.control.calls(since=began) if c in ours] == ours


def test_one_byte_of_an_object_is_flipped(door: Door) -> None:
    key, content = f"control/{new_name()}", b"0123456789"
    door.put(key, content)
    assert door.control.corrupt(door.cloud, key, 4).endswith(key)
    changed = door.get(key)
    assert [n for n, (a, b) in enumerate(zip(content, changed, strict=True)) if a != b] == [4]
