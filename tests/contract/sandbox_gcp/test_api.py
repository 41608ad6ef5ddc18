"""The Google Cloud sandbox by the official SDK, who may call it, and what goes over the wire."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth import jwt
from google.auth.crypt import RSASigner
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from sandbox.gcp.discovery import ENUM_NUMBERS
from tests.contract.gcp_rest import Json, Uploaded, Vertex, checked
from tests.contract.sandbox_gcp.calls import SCOPES, refusal


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
