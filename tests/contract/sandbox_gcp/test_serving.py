"""Containers of the Google Cloud sandbox, what they answer and what is counted, faults and quotas."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from sandbox.calls import Calls
from sandbox.containers import ContainerRuntime
from sandbox.delays import Delays
from sandbox.faults import Faults
from sandbox.gcp.quota import Limits
from sandbox.gcp.servers import GcpServers
from sandbox.world import World
from tests.contract.gcp_rest import Json, Uploaded, Vertex, checked
from tests.contract.sandbox_gcp.calls import refusal
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


def test_a_container_that_refuses_its_bytes_fails_the_deployment(
    sandbox: RunningSandbox,
    vertex: Vertex,
    store: Callable[[ModelVersion, str], Uploaded],
    uploads: tuple[Uploaded, Uploaded],
    instances: list[Json],
    name: str,
) -> None:
    version = uploads[0].version
    own = store(version, name)
    vertex.upload(vertex.model_body(own.uri, version.digest, "v1"), modelId=name)
    with vertex.endpoint(name):
        kept = vertex.deploy(name, name, 100)
        corrupted = sandbox.control.corrupt("gcp", f"{name}/files/MLmodel", offset=3)
        assert corrupted == f"{own.uri}/files/MLmodel"
        operation = vertex.finished(vertex.endpoints("POST", f"/{name}:deployModel", vertex.deployment(name)))
        assert operation["error"]["code"] == 9
        assert "Model server exited unexpectedly." in operation["error"]["message"]
        assert operation["metadata"]["deploymentStage"] == "FAILED_TO_DEPLOY"
        shown = vertex.endpoints("GET", f"/{name}")
        assert [d["id"] for d in shown["deployedModels"]] == [kept]
        # What was deployed before keeps the bytes that it was deployed with.
        assert vertex.predict(name, instances)["metadata"]["lockstep_digest"] == version.digest
        address = re.search(r"http\S+", operation["error"]["message"])
        assert address is not None
        assert "MLmodel" in requests.get(address[0], timeout=10).text
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_spot_capacity_is_taken_and_comes_back(
    sandbox: RunningSandbox,
    vertex: Vertex,
    model: str,
    serving: tuple[str, str, str],
    instances: list[Json],
    name: str,
) -> None:
    with pytest.raises(ValueError, match="does not run on spot"):
        sandbox.control.evict("gcp", serving[0], "first")
    with pytest.raises(ValueError, match="not found"):
        sandbox.control.evict("gcp", serving[0], "nobody")
    with vertex.endpoint(name):
        slot = vertex.deploy(name, f"{model}@1", 100, spot=True, displayName="cheap")
        stockout = sandbox.control.fault("gcp", "fail", operation="SpotRestart", count=1000)
        assert sandbox.control.evict("gcp", name, "cheap").endswith(f"/endpoints/{name}/deployedModels/{slot}")
        error = refusal(lambda: vertex.predict(name, instances))
        assert (error.code, error.status) == (503, "UNAVAILABLE")
        status = vertex.endpoints("GET", f"/{name}")["deployedModels"][0]["status"]
        assert status["availableReplicaCount"] == 0
        assert "STOCKOUT" in status["message"]
        sandbox.control.clear(stockout)
        deadline = time.monotonic() + 30
        while vertex.endpoints("GET", f"/{name}")["deployedModels"][0]["status"]["availableReplicaCount"] == 0:
            assert time.monotonic() < deadline
        assert vertex.predict(name, instances)["deployedModelId"] == slot


def test_predictions_have_limits_and_name_who_answered(
    vertex: Vertex, serving: tuple[str, str, str], instances: list[Json], model: str, name: str
) -> None:
    endpoint, first, _ = serving
    url = f"{vertex.settings['api_endpoint']}/v1/{vertex.parent}/endpoints/{endpoint}:rawPredict"
    raw = vertex.session.post(url, json={"instances": instances}, timeout=30)
    assert raw.json()["predictions"]
    assert raw.headers["X-Vertex-AI-Deployed-Model-Id"] == first
    assert raw.headers["X-Vertex-AI-Model-Version-Id"] == "1"
    assert raw.headers["X-Vertex-AI-Model"].endswith(f"/models/{model}")
    answer = vertex.predict(endpoint, instances)
    assert (answer["deployedModelId"], answer["modelVersionId"]) == (first, "1")
    assert len(answer["predictions"]) == len(instances)
    error = refusal(lambda: vertex.predict(endpoint, [{"text": "x" * 1_500_001}]))
    assert "exceeds 1.500MB limit" in error.message
    assert refusal(lambda: vertex.endpoints("POST", f"/{endpoint}:predict", {"rows": []})).status == "INVALID_ARGUMENT"
    assert refusal(lambda: vertex.predict(endpoint, [{"nonsense": 1}])).status == "INVALID_ARGUMENT"
    with vertex.endpoint(name):
        assert refusal(lambda: vertex.predict(name, instances)).status == "FAILED_PRECONDITION"


# --- metrics


def time_series(vertex: Vertex, endpoint: str, metric: str, **query: str) -> list[Json]:
    settings = vertex.settings
    now = time.time() + 1
    given = {
        "filter": f'metric.type="aiplatform.googleapis.com/prediction/online/{metric}" '
        f'AND resource.labels.endpoint_id="{endpoint}"',
        "interval.startTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 600)),
        "interval.endTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        **query,
    }
    url = f"{settings['monitoring_endpoint']}/v3/projects/{settings['project']}/timeSeries"
    return list(checked(vertex.session.get(url, params=given, timeout=10)).get("timeSeries", []))


def total(series: list[Json], slot: str, **labels: str) -> int:
    wanted = {"deployed_model_id": slot, **labels}
    return sum(
        int(point["value"]["int64Value"])
        for one in series
        if wanted.items() <= one["metric"]["labels"].items()
        for point in one["points"]
    )


def test_metrics_count_what_each_deployed_model_answered(
    sandbox: RunningSandbox, vertex: Vertex, model: str, instances: list[Json], name: str
) -> None:
    with vertex.endpoint(name):
        first = vertex.deploy(name, f"{model}@1", 100)
        second = vertex.deploy(name, f"{model}@2")
        assert vertex.answering(name, instances, 5) == {first: 5}
        refusal(lambda: vertex.predict(name, [{"nonsense": 1}]))
        vertex.split(name, {second: 100})
        assert vertex.answering(name, instances, 3) == {second: 3}

        counts = time_series(vertex, name, "prediction_count")
        assert (total(counts, first), total(counts, second)) == (6, 3)
        assert counts[0]["resource"]["labels"]["endpoint_id"] == name
        errors = time_series(vertex, name, "error_count")
        assert (total(errors, first), total(errors, second)) == (1, 0)
        codes = time_series(vertex, name, "response_count")
        assert (total(codes, first, response_code="200"), total(codes, first, response_code="400")) == (5, 1)

        aligned = {"aggregation.alignmentPeriod": "600s", "aggregation.perSeriesAligner": "ALIGN_SUM"}
        assert total(time_series(vertex, name, "prediction_count", **aligned), first) == 6
        both = time_series(
            vertex, name, "prediction_count", **aligned, **{"aggregation.crossSeriesReducer": "REDUCE_SUM"}
        )
        assert [p["value"] for s in both for p in s["points"]] == [{"int64Value": "9"}]
        latencies = time_series(vertex, name, "prediction_latencies")
        model_latency = next(
            s for s in latencies if s["metric"]["labels"] == {"deployed_model_id": first, "latency_type": "model"}
        )
        spread = [p["value"]["distributionValue"] for p in model_latency["points"]]
        assert sum(int(d["count"]) for d in spread) == 6
        assert sum(int(c) for d in spread for c in d["bucketCounts"]) == 6
        aligned["aggregation.perSeriesAligner"] = "ALIGN_PERCENTILE_99"
        for series in time_series(vertex, name, "prediction_latencies", **aligned):
            assert 0 <= series["points"][0]["value"]["doubleValue"] < 30_000

        with sandbox.control.during("gcp", "lag", delay=60.0):
            assert time_series(vertex, name, "prediction_count") == []
        aligned["aggregation.perSeriesAligner"] = "ALIGN_RATE"
        assert refusal(lambda: time_series(vertex, name, "prediction_count", **aligned)).code == 501
        assert refusal(lambda: time_series(vertex, name, "prediction_count", filter="nothing")).code == 501


# --- faults and quotas


def test_faults_answer_as_google_does(sandbox: RunningSandbox, vertex: Vertex, serving: tuple[str, str, str]) -> None:
    endpoint = serving[0]

    def read() -> Json:
        return vertex.endpoints("GET", f"/{endpoint}")

    sandbox.control.fault("gcp", "fail", operation="GetEndpoint", resource=endpoint, status=503)
    assert refusal(read).status == "UNAVAILABLE"
    sandbox.control.fault("gcp", "throttle", operation="GetEndpoint", resource=endpoint)
    assert refusal(read).code == 429
    assert read()["name"].endswith(f"/{endpoint}")
    with sandbox.control.during("gcp", "down"), pytest.raises(requests.ConnectionError):
        requests.get(f"{vertex.settings['api_endpoint']}/v1/{vertex.parent}/endpoints", timeout=5)


def test_reads_can_be_stale(
    sandbox: RunningSandbox, vertex: Vertex, serving: tuple[str, str, str], instances: list[Json]
) -> None:
    endpoint, first, second = serving
    with sandbox.control.during("gcp", "stale"):
        vertex.split(endpoint, {second: 100})
        assert vertex.endpoints("GET", f"/{endpoint}")["trafficSplit"] == {first: 100}
        assert vertex.predict(endpoint, instances)["deployedModelId"] == second
    assert vertex.endpoints("GET", f"/{endpoint}")["trafficSplit"] == {second: 100}
    vertex.split(endpoint, {first: 100})


def test_a_split_can_be_ignored_and_reverted(
    sandbox: RunningSandbox, vertex: Vertex, serving: tuple[str, str, str], instances: list[Json]
) -> None:
    endpoint, first, second = serving
    for kind in ("ignore", "revert"):
        sandbox.control.fault("gcp", kind, operation="UpdateEndpoint", resource=endpoint)
        assert vertex.split(endpoint, {second: 100})["trafficSplit"] == {second: 100}
        assert vertex.endpoints("GET", f"/{endpoint}")["trafficSplit"] == {first: 100}
        assert vertex.predict(endpoint, instances)["deployedModelId"] == first


def test_operations_can_be_ignored_reverted_and_slow(
    sandbox: RunningSandbox, vertex: Vertex, model: str, name: str
) -> None:
    with vertex.endpoint(name):
        kept = vertex.deploy(name, f"{model}@1", 100)
        sandbox.control.fault("gcp", "ignore", operation="DeployModel", resource=name)
        vertex.deploy(name, f"{model}@2")
        sandbox.control.fault("gcp", "revert", operation="DeployModel", resource=name)
        body = vertex.deployment(f"{model}@2")
        assert vertex.finished(vertex.endpoints("POST", f"/{name}:deployModel", body))["error"]["code"] == 13
        assert [d["id"] for d in vertex.endpoints("GET", f"/{name}")["deployedModels"]] == [kept]
        sandbox.control.fault("gcp", "busy", operation="UndeployModel", resource=name, delay=0.5)
        began = time.monotonic()
        vertex.done(vertex.endpoints("POST", f"/{name}:undeployModel", {"deployedModelId": kept}))
        assert time.monotonic() - began >= 0.5


def test_quotas_are_enforced_per_minute(tmp_path: Path) -> None:
    world = World(Delays("demo"), Faults(), Calls(), ContainerRuntime(("serving",), tmp_path), tmp_path)
    assert Limits() == Limits(crud=600, submissions=60, predictions=30_000)
    servers = GcpServers(world, Limits(crud=20, submissions=5))
    servers.start()
    try:
        settings = {key: str(value) for key, value in servers.settings().items()}
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {settings['token']}"
        quick = Vertex(session, settings)  # type: ignore[arg-type]  # a session with a fixed token will do here
        for _ in range(5):
            assert refusal(lambda: quick.models("DELETE", "/none")).status == "NOT_FOUND"
        beyond = refusal(lambda: quick.models("DELETE", "/none"))
        assert (beyond.code, beyond.status) == (429, "RESOURCE_EXHAUSTED")
        for _ in range(20 - 6):
            quick.models("GET")
        assert refusal(lambda: quick.models("GET")).status == "RESOURCE_EXHAUSTED"
    finally:
        world.stop.set()
        servers.stop()
