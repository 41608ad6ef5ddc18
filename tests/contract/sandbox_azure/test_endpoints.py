"""Endpoints, their traffic and their deployments in the Azure sandbox."""

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from tests.contract.azure_account import Account
from tests.contract.sandbox_azure.shelf import Shelf, deploy, operation, refused
from tests.model_files import ModelVersion


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
