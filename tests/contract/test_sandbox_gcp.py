"""The Google sandbox's rules, one test each, through Google's own clients: Vertex AI and who may call it."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth import jwt
from google.auth.crypt import RSASigner
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.oauth2 import service_account

from sandbox.calls import Calls
from sandbox.containers import ContainerRuntime
from sandbox.delays import Delays
from sandbox.faults import Faults
from sandbox.gcp.discovery import ENUM_NUMBERS
from sandbox.gcp.quota import Limits
from sandbox.gcp.servers import GcpServers
from sandbox.world import World
from tests.contract.gcp_rest import Json, RefusedError, Uploaded, Vertex, checked
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture(scope="module")
def settings(sandbox: RunningSandbox) -> dict[str, str]:
    return dict(sandbox.settings["gcp"])


@pytest.fixture(scope="module")
def credentials(settings: dict[str, str]) -> service_account.Credentials:
    made: service_account.Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        settings["credentials_file"], scopes=SCOPES
    )
    return made


@pytest.fixture(scope="module")
def vertex(settings: dict[str, str], credentials: service_account.Credentials) -> Vertex:
    return Vertex(AuthorizedSession(credentials), settings)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def bucket(settings: dict[str, str], credentials: service_account.Credentials) -> storage.Bucket:
    options = {"api_endpoint": settings["storage_endpoint"]}
    client = storage.Client(project=settings["project"], credentials=credentials, client_options=options)
    return client.bucket(settings["bucket"])


@pytest.fixture(scope="module")
def store(bucket: storage.Bucket) -> Callable[[ModelVersion, str], Uploaded]:
    def put(version: ModelVersion, prefix: str) -> Uploaded:
        for name, content in version.objects().items():
            bucket.blob(f"{prefix}/{name}").upload_from_string(content, timeout=30)
        return Uploaded(version, f"gs://{bucket.name}/{prefix}")

    return put


@pytest.fixture(scope="module")
def uploads(
    store: Callable[[ModelVersion, str], Uploaded], model_versions: tuple[ModelVersion, ModelVersion]
) -> tuple[Uploaded, Uploaded]:
    return store(model_versions[0], "sandbox-gcp/v1"), store(model_versions[1], "sandbox-gcp/v2")


@pytest.fixture
def model_body(vertex: Vertex, uploads: tuple[Uploaded, Uploaded]) -> Json:
    version = uploads[0].version
    return vertex.model_body(uploads[0].uri, version.digest, version.label)


@pytest.fixture
def name() -> str:
    return "t" + uuid.uuid4().hex[:12]


@pytest.fixture(scope="module")
def model(vertex: Vertex, uploads: tuple[Uploaded, Uploaded]) -> Iterator[str]:
    """A model with two versions that can be deployed."""
    model_id = "m" + uuid.uuid4().hex[:12]
    for n, uploaded in enumerate(uploads):
        version = uploaded.version
        where = {"parentModel": f"{vertex.parent}/models/{model_id}"} if n else {"modelId": model_id}
        vertex.upload(vertex.model_body(uploaded.uri, version.digest, version.label), **where)
    yield model_id
    vertex.done(vertex.models("DELETE", f"/{model_id}"))


@pytest.fixture(scope="module")
def serving(vertex: Vertex, model: str) -> Iterator[tuple[str, str, str]]:
    """An endpoint that serves both versions: its id and the two deployed model ids; all traffic goes to the first."""
    with vertex.endpoint("e" + uuid.uuid4().hex[:12]) as endpoint:
        first = vertex.deploy(endpoint, f"{model}@1", 100, displayName="first")
        second = vertex.deploy(endpoint, f"{model}@2", displayName="second")
        yield endpoint, first, second


@pytest.fixture(scope="module")
def instances() -> list[Json]:
    from sklearn.datasets import load_breast_cancer

    frame, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = frame.rename(columns=lambda column: column.replace(" ", "_"))
    return list(json.loads(frame.head(2).to_json(orient="records")))


def refusal(call: Callable[[], object]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value


# --- the official SDK


def test_the_official_sdk_registers_deploys_splits_and_predicts(
    settings: dict[str, str],
    credentials: service_account.Credentials,
    uploads: tuple[Uploaded, Uploaded],
    instances: list[Json],
    name: str,
) -> None:
    from google.api_core import exceptions
    from google.cloud import aiplatform
    from google.cloud.aiplatform_v1 import types
    from google.cloud.aiplatform_v1.types.deployment_stage import DeploymentStage

    enums: tuple[tuple[Any, str], ...] = (
        (types.AcceleratorType, "ACCELERATOR_TYPE_UNSPECIFIED"),
        (types.Model.DeploymentResourcesType, "DEPLOYMENT_RESOURCES_TYPE_UNSPECIFIED"),
        (DeploymentStage, "DEPLOYMENT_STAGE_UNSPECIFIED"),
        (types.ModelSourceInfo.ModelSourceType, "MODEL_SOURCE_TYPE_UNSPECIFIED"),
    )
    for enum, unspecified in enums:
        for value, number in ENUM_NUMBERS[unspecified].items():
            assert enum[value] == number

    aiplatform.init(
        project=settings["project"],
        location=settings["location"],
        api_endpoint=settings["api_endpoint"],
        api_transport="rest",
        credentials=credentials,
    )

    def upload(uploaded: Uploaded, **where: Any) -> aiplatform.Model:
        made: aiplatform.Model = aiplatform.Model.upload(
            display_name=name,
            artifact_uri=uploaded.uri,
            serving_container_image_uri=settings["image"],
            serving_container_predict_route="/predict",
            serving_container_health_route="/health",
            serving_container_environment_variables={"LOCKSTEP_DIGEST": uploaded.version.digest},
            labels={"digest": uploaded.version.digest},
            upload_request_timeout=30,
            **where,
        )
        return made

    first = upload(uploads[0], model_id=name)
    second = upload(uploads[1], parent_model=name, is_default_version=False, version_aliases=["challenger"])
    registry = first.versioning_registry
    assert (first.version_id, second.version_id) == ("1", "2")
    assert [v.version_id for v in registry.list_versions()] == ["2", "1"]
    registry.add_version_aliases(["champion"], "2")
    assert aiplatform.Model(f"{name}@champion").version_id == "2"
    assert first.supported_deployment_resources_types == [
        aiplatform.gapic.Model.DeploymentResourcesType.DEDICATED_RESOURCES
    ]
    assert [m.name for m in aiplatform.Model.list(filter=f'display_name="{name}"')] == [name]

    endpoint = aiplatform.Endpoint.create(display_name=name, endpoint_id=name, create_request_timeout=30)
    try:
        deploy: dict[str, Any] = {"machine_type": "n1-standard-2", "min_replica_count": 1, "deploy_request_timeout": 30}
        endpoint.deploy(first, traffic_percentage=100, **deploy)
        endpoint.deploy(second, traffic_percentage=0, spot=True, **deploy)
        ids = {m.model_version_id: m.id for m in endpoint.list_models()}
        assert endpoint.predict(instances, timeout=30).deployed_model_id == ids["1"]
        endpoint.update(traffic_split={ids["1"]: 0, ids["2"]: 100})
        answer = endpoint.predict(instances, timeout=30)
        assert (answer.deployed_model_id, answer.model_version_id) == (ids["2"], "2")
        assert answer.metadata is not None
        assert answer.metadata["lockstep_digest"] == uploads[1].version.digest
        with pytest.raises(exceptions.BadRequest, match="is deployed or being deployed"):
            first.delete()
        stale = aiplatform.Endpoint(name)
        assert stale.display_name == name  # an Endpoint is read when it is first looked at, and kept with its etag
        endpoint.update(display_name="newer")
        with pytest.raises(exceptions.Conflict):
            stale.update(display_name="older")
        endpoint.undeploy(ids["1"])
        assert endpoint.traffic_split == {ids["2"]: 100}
    finally:
        endpoint.undeploy_all()
        endpoint.delete()
    first.delete()


# --- who may call


def test_a_token_is_needed_and_self_signed_ones_are_accepted(settings: dict[str, str], vertex: Vertex) -> None:
    url = f"{settings['api_endpoint']}/v1/{vertex.parent}/models"
    signed = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        settings["credentials_file"], scopes=SCOPES, always_use_jwt_access=True
    )
    signed._create_self_signed_jwt("https://aiplatform.googleapis.com/")
    session = AuthorizedSession(signed)  # type: ignore[no-untyped-call]
    assert session.get(url, timeout=10).status_code == 200
    given = {"Authorization": f"Bearer {settings['token']}"}
    assert requests.get(url, headers=given, timeout=10).status_code == 200
    assert Path(settings["credentials_file"]).stat().st_mode & 0o777 == 0o600
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        answer = requests.get(url, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_the_token_endpoint_refuses_another_key(settings: dict[str, str]) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = json.loads(Path(settings["credentials_file"]).read_text())
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    claims = {"iss": key["client_email"], "aud": key["token_uri"], "scope": SCOPES[0], "iat": int(time.time())}
    signer = RSASigner.from_string(other.decode())  # type: ignore[no-untyped-call]
    encoded = jwt.encode(signer, {**claims, "exp": int(time.time()) + 600})  # type: ignore[no-untyped-call]
    assertion = encoded.decode()
    body = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = requests.post(key["token_uri"], data=body, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_another_project_and_another_region_are_refused(vertex: Vertex, settings: dict[str, str]) -> None:
    other = refusal(lambda: vertex.call("GET", f"projects/other/locations/{settings['location']}/models"))
    assert other.status == "PERMISSION_DENIED"
    elsewhere = f"projects/{settings['project']}/locations/europe-west4/models"
    assert refusal(lambda: vertex.call("GET", elsewhere)).status == "INVALID_ARGUMENT"


# --- the wire


def test_unknown_fields_parameters_and_types_are_refused_by_the_published_schema(vertex: Vertex, name: str) -> None:
    for body, query, message in (
        ({"displayName": name, "colour": "red"}, {}, 'Unknown name "colour"'),
        ({"displayName": 5}, {}, "display_name"),
        ({"displayName": name}, {"colour": "red"}, "Cannot bind query parameter"),
    ):
        error = refusal(partial(vertex.endpoints, "POST", "", body, **query))
        assert error.status == "INVALID_ARGUMENT"
        assert message in error.message


def test_names_answer_with_the_project_number_and_enums_as_asked(vertex: Vertex, model: str) -> None:
    by_name = vertex.models("GET", f"/{model}@2")
    assert by_name[
        "name"
    ] == f"{vertex.parent.replace(vertex.settings['project'], vertex.settings['project_number'])}" + (
        f"/models/{model}"
    )
    assert by_name["supportedDeploymentResourcesTypes"] == ["DEDICATED_RESOURCES"]
    by_number = vertex.models("GET", f"/{model}@2", **{"$alt": "json;enum-encoding=int"})
    assert by_number["supportedDeploymentResourcesTypes"] == [1]


def test_what_is_not_emulated_says_so_and_what_does_not_exist_is_not_found(vertex: Vertex, model: str) -> None:
    error = refusal(lambda: vertex.models("POST", ":copy", {}))
    assert (error.code, error.status) == (501, "UNIMPLEMENTED")
    assert "not implemented by the sandbox: aiplatform.projects.locations.models.copy" in error.message
    assert refusal(lambda: vertex.models("POST", f"/{model}:sing", {})).code == 404
    assert refusal(lambda: vertex.models("GET", "", filter='display_name="a" OR display_name="b"')).code == 501


def test_operations_are_read_under_both_paths_waited_for_and_listed(vertex: Vertex, name: str) -> None:
    operation = vertex.endpoints("POST", "", {"displayName": name}, endpointId=name)
    vertex.done(operation)
    url = f"{vertex.settings['api_endpoint']}/ui/{operation['name']}"
    assert checked(vertex.session.get(url, timeout=10))["done"] is True
    listed = vertex.endpoints("GET", f"/{name}/operations")
    assert [o["name"] for o in listed["operations"]] == [operation["name"]]
    vertex.done(vertex.endpoints("DELETE", f"/{name}"))
    assert refusal(lambda: vertex.call("GET", f"{vertex.parent}/operations/12")).status == "NOT_FOUND"


# --- models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"displayName": ""}, "display name is required"),
        ({"displayName": "x" * 129}, "128 characters"),
        ({"containerSpec": {"imageUri": "docker.io/library/nginx"}}, "Artifact Registry"),
        ({"containerSpec": {}}, "container_spec"),
        ({"artifactUri": "/tmp/model"}, "gs://bucket/path"),
        ({"labels": {"digest": "sha256:abc"}}, "Label value"),
        ({"labels": {"Digest": "abc"}}, "Label key"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "No more than 64"),
        ({"versionAliases": ["not_an_alias"]}, "version alias"),
    ],
)
def test_an_upload_is_checked(vertex: Vertex, model_body: Json, change: Json, message: str) -> None:
    error = refusal(lambda: vertex.models("POST", ":upload", {"model": {**model_body, **change}}))
    assert error.status == "INVALID_ARGUMENT"
    assert message in error.message


def test_a_sha256_fits_into_a_label_and_ids_are_unique(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload({**model_body, "labels": {"digest": "a" * 64}}, modelId=name)
    again = refusal(lambda: vertex.upload(model_body, modelId=name))
    assert (again.code, again.status) == (409, "ALREADY_EXISTS")
    assert refusal(lambda: vertex.upload(model_body, modelId="9lives")).status == "INVALID_ARGUMENT"
    both = {"modelId": "x", "parentModel": f"{vertex.parent}/models/{name}"}
    assert refusal(lambda: vertex.upload(model_body, **both)).status == "INVALID_ARGUMENT"
    assert refusal(lambda: vertex.upload(model_body, parentModel=f"{vertex.parent}/models/none")).status == "NOT_FOUND"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_an_upload_without_files_fails_in_its_operation(vertex: Vertex, model_body: Json, name: str) -> None:
    body = {"model": {**model_body, "artifactUri": model_body["artifactUri"] + "-none"}, "modelId": name}
    error = vertex.finished(vertex.models("POST", ":upload", body))["error"]
    assert error["code"] == 9
    assert "There are no files under" in error["message"]
    assert refusal(lambda: vertex.models("GET", f"/{name}")).status == "NOT_FOUND"


def test_versions_and_aliases(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)
    parent = {"parentModel": f"{vertex.parent}/models/{name}"}
    vertex.upload({**model_body, "versionAliases": ["default", "fresh"]}, **parent)
    vertex.upload(model_body, **parent)

    def aliases(version: str) -> list[str]:
        return list(vertex.models("GET", f"/{name}@{version}").get("versionAliases", []))

    assert (aliases("1"), aliases("2"), aliases("3")) == ([], ["default", "fresh"], [])
    assert vertex.models("GET", f"/{name}")["versionId"] == "2"

    def merge(version: str, *wanted: str) -> Json:
        return vertex.models("POST", f"/{name}{version}:mergeVersionAliases", {"versionAliases": wanted})

    assert merge("@3", "champion")["versionAliases"] == ["champion"]
    merge("@1", "champion", "default")
    assert (aliases("1"), aliases("2"), aliases("3")) == (["champion", "default"], ["fresh"], [])
    assert vertex.models("GET", f"/{name}@champion")["versionId"] == "1"
    merge("@1", "-champion")
    assert aliases("1") == ["default"]
    assert "must include a version ID" in refusal(lambda: merge("", "champion")).message
    assert "cannot be removed" in refusal(lambda: merge("@1", "-default")).message
    assert "version alias" in refusal(lambda: merge("@1", "has_underscore")).message
    listed = vertex.models("GET", f"/{name}:listVersions", pageSize="2")
    assert [m["versionId"] for m in listed["models"]] == ["3", "2"]
    rest = vertex.models("GET", f"/{name}:listVersions", pageSize="2", pageToken=listed["nextPageToken"])
    assert [m["versionId"] for m in rest["models"]] == ["1"]
    assert refusal(lambda: vertex.models("GET", f"/{name}@9")).status == "NOT_FOUND"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_an_update_changes_words_only(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)
    changed = vertex.models("PATCH", f"/{name}@1", {"versionDescription": "v1"}, updateMask="version_description")
    assert changed["versionDescription"] == "v1"
    for mask in ("artifactUri", "containerSpec.imageUri", ""):
        error = refusal(partial(vertex.models, "PATCH", f"/{name}@1", {}, updateMask=mask))
        assert error.status == "INVALID_ARGUMENT"
    stale = {"description": "x", "etag": "old"}
    assert refusal(lambda: vertex.models("PATCH", f"/{name}", stale, updateMask="description")).status == "ABORTED"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_versions_are_deleted_by_the_rules(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)

    def delete(version: str) -> Json:
        return vertex.done(vertex.models("DELETE", f"/{name}{version}:deleteVersion"))

    assert "only version" in refusal(lambda: delete("@1")).message
    vertex.upload(model_body, parentModel=f"{vertex.parent}/models/{name}")
    assert "default version" in refusal(lambda: delete("@1")).message
    assert "must include a version" in refusal(lambda: delete("")).message
    delete("@2")
    third = vertex.upload(model_body, parentModel=f"{vertex.parent}/models/{name}")
    assert third["modelVersionId"] == "3"  # numbers are never used twice
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_a_deployed_model_is_not_deleted(vertex: Vertex, model: str, serving: tuple[str, str, str]) -> None:
    for path in (f"/{model}", f"/{model}@2:deleteVersion"):
        error = refusal(partial(vertex.models, "DELETE", path))
        assert error.status == "FAILED_PRECONDITION"
        assert serving[0] in error.message
    shown = vertex.models("GET", f"/{model}@2")["deployedModels"]
    assert [d["deployedModelId"] for d in shown] == [serving[2]]


# --- endpoints and traffic


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


# --- containers


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
