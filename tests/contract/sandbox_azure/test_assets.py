"""Models and environments in the Azure sandbox, and all of it by the rich SDK."""

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.contract.azure_account import Account
from tests.contract.sandbox_azure.shelf import Shelf, refused


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
