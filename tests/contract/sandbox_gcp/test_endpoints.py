"""Endpoints, their traffic and their deployments in the Google Cloud sandbox."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests

from tests.contract.gcp_rest import Json, Vertex
from tests.contract.sandbox_gcp.calls import refusal
from tests.sandbox_control import RunningSandbox


def test_a_split_sums_to_a_hundred_over_models_that_exist(vertex: Vertex, serving: tuple[str, str, str]) -> None:
    endpoint, first, second = serving
    for split, message in (
        ({first: 60, second: 60}, "must be 100, but it is 120"),
        ({first: 100, "0": 0}, "The following DeployedModel ID(s) [0] do not exist."),
        ({first: 150, second: -50}, "between 0 and 100"),
    ):
        error = refusal(partial(vertex.split, endpoint, split))
        assert error.status == "INVALID_ARGUMENT"
        assert message in error.message
    masks: tuple[dict[str, str], ...] = ({}, {"updateMask": "deployedModels"})
    for mask in masks:
        error = refusal(partial(vertex.endpoints, "PATCH", f"/{endpoint}", {}, **mask))
        assert "mask" in error.message


def test_an_etag_guards_an_update_and_without_one_it_is_blind(vertex: Vertex, serving: tuple[str, str, str]) -> None:
    endpoint = serving[0]
    shown = vertex.endpoints("GET", f"/{endpoint}")
    vertex.endpoints("PATCH", f"/{endpoint}", {"description": "a"}, updateMask="description")
    stale = {"description": "b", "etag": shown["etag"]}
    error = refusal(lambda: vertex.endpoints("PATCH", f"/{endpoint}", stale, updateMask="description"))
    assert (error.code, error.status) == (409, "ABORTED")
    fresh = {"description": "c", "etag": vertex.endpoints("GET", f"/{endpoint}")["etag"]}
    assert vertex.endpoints("PATCH", f"/{endpoint}", fresh, updateMask="description")["description"] == "c"


def test_traffic_follows_the_split_and_a_read_shows_it(
    vertex: Vertex, serving: tuple[str, str, str], instances: list[Json]
) -> None:
    endpoint, first, second = serving
    assert vertex.split(endpoint, {first: 70, second: 30})["trafficSplit"] == {first: 70, second: 30}
    answered = vertex.answering(endpoint, instances, 80)
    assert set(answered) == {first, second}
    assert answered[first] > answered[second]
    assert vertex.split(endpoint, {first: 100})["trafficSplit"] == {first: 100}
    assert set(vertex.answering(endpoint, instances, 10)) == {first}


def test_a_split_takes_effect_after_its_answer(
    sandbox: RunningSandbox, vertex: Vertex, serving: tuple[str, str, str], instances: list[Json]
) -> None:
    endpoint, first, second = serving
    since = time.time()
    sandbox.control.delays({"gcp.endpoint.traffic": 1.0})
    try:
        began = time.monotonic()
        assert vertex.split(endpoint, {second: 100})["trafficSplit"] == {second: 100}
        assert vertex.predict(endpoint, instances)["deployedModelId"] == first
        assert vertex.endpoints("GET", f"/{endpoint}")["trafficSplit"] == {first: 100}
        assert time.monotonic() - began < 0.9
        while vertex.predict(endpoint, instances)["deployedModelId"] == first:
            assert time.monotonic() - began < 10
        assert time.monotonic() - began >= 1.0
        assert vertex.endpoints("GET", f"/{endpoint}")["trafficSplit"] == {second: 100}
    finally:
        sandbox.control.delays({"gcp.endpoint.traffic": 0.0})
    vertex.split(endpoint, {first: 100})
    seen = [c for c in sandbox.control.calls("gcp", since) if c["operation"] == "event:traffic"]
    assert [(c["resource"], c["detail"]) for c in seen] == [(endpoint, f"{second}=100"), (endpoint, f"{first}=100")]
    assert seen[0]["seconds"] >= 1.0


def test_no_request_is_lost_by_flips_and_undeployment(
    vertex: Vertex, model: str, instances: list[Json], name: str
) -> None:
    stop = threading.Event()
    with vertex.endpoint(name) as endpoint:
        first = vertex.deploy(endpoint, f"{model}@1", 100)

        def ask() -> int:
            session = requests.Session()
            headers = {"Authorization": f"Bearer {vertex.settings['token']}"}
            url = f"{vertex.settings['api_endpoint']}/v1/{vertex.parent}/endpoints/{endpoint}:predict"
            count = 0
            while not stop.is_set():
                answer = session.post(url, json={"instances": instances}, headers=headers, timeout=30)
                assert answer.status_code == 200, answer.text
                count += 1
            return count

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            try:
                second = vertex.deploy(endpoint, f"{model}@2")
                for split in ({first: 50, second: 50}, {second: 100}, {first: 100}, {second: 100}):
                    vertex.split(endpoint, split)
                vertex.done(vertex.endpoints("POST", f"/{endpoint}:undeployModel", {"deployedModelId": first}))
            finally:
                stop.set()
            assert sum(future.result() for future in asking) > 0


def test_undeployment_and_deletion_need_an_end_of_traffic(
    vertex: Vertex, serving: tuple[str, str, str], model: str, name: str
) -> None:
    endpoint, first, _ = serving
    body = {"deployedModelId": first}
    error = refusal(lambda: vertex.endpoints("POST", f"/{endpoint}:undeployModel", body))
    assert error.status == "FAILED_PRECONDITION"
    assert "traffic" in error.message
    missing = {"deployedModelId": "17"}
    assert refusal(lambda: vertex.endpoints("POST", f"/{endpoint}:undeployModel", missing)).status == "NOT_FOUND"
    error = refusal(lambda: vertex.endpoints("DELETE", f"/{endpoint}"))
    assert (error.code, error.status) == (400, "FAILED_PRECONDITION")
    with vertex.endpoint(name):
        gone = vertex.deploy(name, f"{model}@1", 100, id="7")
        assert gone == "7"
        stays = vertex.deploy(name, f"{model}@2")
        moved = {"deployedModelId": gone, "trafficSplit": {stays: 100}}
        vertex.done(vertex.endpoints("POST", f"/{name}:undeployModel", moved))
        shown = vertex.endpoints("GET", f"/{name}")
        assert shown["trafficSplit"] == {stays: 100}
        assert [d["id"] for d in shown["deployedModels"]] == [stays]


def test_a_split_during_an_undeployment_stands(
    sandbox: RunningSandbox, vertex: Vertex, model: str, instances: list[Json], name: str
) -> None:
    with vertex.endpoint(name):
        leaving = vertex.deploy(name, f"{model}@2", 100)
        first, second = vertex.deploy(name, f"{model}@1"), vertex.deploy(name, f"{model}@2")
        vertex.split(name, {first: 100})
        sandbox.control.fault("gcp", "busy", operation="UndeployModel", delay=0.5, resource=name)
        running = vertex.endpoints("POST", f"/{name}:undeployModel", {"deployedModelId": leaving})
        error = refusal(lambda: vertex.split(name, {leaving: 100}))
        assert "do not exist" in error.message
        vertex.split(name, {second: 100})
        vertex.done(running)
        assert vertex.endpoints("GET", f"/{name}")["trafficSplit"] == {second: 100}
        assert vertex.predict(name, instances)["deployedModelId"] == second


def test_one_operation_at_a_time_on_an_endpoint(
    sandbox: RunningSandbox, vertex: Vertex, serving: tuple[str, str, str], model: str
) -> None:
    endpoint, _, second = serving
    sandbox.control.fault("gcp", "busy", operation="MutateDeployedModel", delay=1.0, resource=endpoint)
    change = {"deployedModel": {"id": second, "dedicatedResources": {"minReplicaCount": 2, "maxReplicaCount": 3}}}
    mask = {"updateMask": "dedicatedResources.minReplicaCount,dedicatedResources.maxReplicaCount"}
    running = vertex.endpoints("POST", f"/{endpoint}:mutateDeployedModel", {**change, **mask})
    error = refusal(lambda: vertex.endpoints("POST", f"/{endpoint}:deployModel", vertex.deployment(f"{model}@1")))
    assert error.status == "FAILED_PRECONDITION"
    assert running["name"] in error.message
    vertex.done(running)
    resources = vertex.endpoints("GET", f"/{endpoint}")["deployedModels"][1]["dedicatedResources"]
    assert (resources["minReplicaCount"], resources["maxReplicaCount"]) == (2, 3)


def test_only_replicas_are_mutable(vertex: Vertex, serving: tuple[str, str, str]) -> None:
    endpoint, _, second = serving

    def mutate(mask: str, **resources: object) -> Json:
        body = {"deployedModel": {"id": second, "dedicatedResources": resources}, "updateMask": mask}
        return vertex.endpoints("POST", f"/{endpoint}:mutateDeployedModel", body)

    assert "not supported" in refusal(lambda: mutate("dedicatedResources.spot", spot=True)).message
    error = refusal(lambda: mutate("dedicatedResources.minReplicaCount", minReplicaCount=0))
    assert "greater than or equal to 1" in error.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}}}, "min_replica_count"),
        ({"dedicatedResources": {"minReplicaCount": 1}}, "machine_type"),
        ({"automaticResources": {"minReplicaCount": 1}}, "not supported"),
        ({"id": "12345678901"}, "1-10 characters"),
        ({"model": "tumour"}, "Invalid resource name"),
    ],
)
def test_a_deployment_is_checked(
    vertex: Vertex, serving: tuple[str, str, str], model: str, change: Json, message: str
) -> None:
    body = vertex.deployment(f"{model}@1")
    body["deployedModel"].update(change)
    error = refusal(lambda: vertex.endpoints("POST", f"/{serving[0]}:deployModel", body))
    assert error.status == "INVALID_ARGUMENT"
    assert message in error.message


@pytest.mark.parametrize("endpoint_id", ["Upper", "1234567890", "012", "ends-with-", "x" * 64])
def test_endpoint_ids_are_checked(vertex: Vertex, endpoint_id: str) -> None:
    error = refusal(lambda: vertex.endpoints("POST", "", {"displayName": "x"}, endpointId=endpoint_id))
    assert "Invalid endpoint ID" in error.message
