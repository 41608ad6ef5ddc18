"""Two versions behind one Azure online endpoint, by azure-ai-ml, azure-storage-blob and requests.

python -m sandbox --clouds azure --json > sandbox.json &
python examples/sandbox/deploy_azure.py sandbox.json
"""

# ruff: noqa: T201 - a script for people

from __future__ import annotations

import tempfile
import uuid
from collections import Counter
from pathlib import Path

import requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import Environment, ManagedOnlineDeployment, ManagedOnlineEndpoint, Model
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.storage.blob import ContainerClient
from model import Version, holds, refused, rows, settings, two_versions

AZURE = settings("azure", __doc__)
NAME = f"tumour-{uuid.uuid4().hex[:6]}"
SLOTS = {"v1": "blue", "v2": "green"}
BASE, CA = AZURE["resource_manager"], AZURE["ca_file"]

credential = ClientSecretCredential(
    AZURE["tenant_id"],
    AZURE["client_id"],
    AZURE["client_secret"],
    authority=AZURE["authority"],
    disable_instance_discovery=True,
    connection_verify=CA,
)
ml = MLClient(  # the sandbox is a cloud of its own to the SDK, as Azure China is
    credential,
    AZURE["subscription_id"],
    AZURE["resource_group"],
    AZURE["workspace"],
    cloud="lockstep-sandbox",
    cloud_metadata={
        "azure_portal": BASE,
        "resource_manager": BASE,
        "active_directory": AZURE["authority"],
        "aml_resource_id": "https://ml.azure.com",
        "storage_endpoint": "core.windows.net",
        "registry_discovery_endpoint": BASE,
    },
    connection_verify=CA,
    enable_telemetry=False,
    show_progress=False,
    polling_interval=1,
)
blobs = ContainerClient(
    AZURE["blob_endpoint"], AZURE["container"], credential=AZURE["storage_key"], connection_verify=CA
)


def register(version: Version, number: int) -> str:
    """Upload the version's files and register them as an Azure ML model; returns the model's identifier."""
    prefix = f"examples/{NAME}/{version.digest}"
    for name, content in version.objects():
        blobs.upload_blob(f"{prefix}/{name}", content)
    path = f"azureml://datastores/{AZURE['datastore']}/paths/{prefix}"
    return str(ml.models.create_or_update(Model(name=NAME, version=str(number), path=path, type="custom_model")).id)


def deploy(version: Version, model: str, environment: str) -> None:
    """Deploy the version in its slot, and wait for it."""
    deployment = ManagedOnlineDeployment(
        name=SLOTS[version.label],
        endpoint_name=NAME,
        model=model,
        environment=environment,
        instance_type="Standard_DS3_v2",
        instance_count=1,
        environment_variables={"LOCKSTEP_DIGEST": version.digest, "LOCKSTEP_VERSION": version.label},
    )
    ml.online_deployments.begin_create_or_update(deployment).result(timeout=120)


def split(**traffic: int) -> None:
    """Give each deployment its percentage, and wait."""
    endpoint = ManagedOnlineEndpoint(name=NAME, auth_mode="key", traffic=traffic)
    ml.online_endpoints.begin_create_or_update(endpoint).result(timeout=60)


def main() -> None:
    """Deploy, split, predict, be refused, clean up."""
    with tempfile.TemporaryDirectory() as folder:
        versions = two_versions(Path(folder))
        print("uploading and registering both")
        models = [register(version, number) for number, version in enumerate(versions, 1)]
    health, score = {"path": "/health", "port": 8080}, {"path": "/score", "port": 8080}
    routes = {"liveness_route": health, "readiness_route": health, "scoring_route": score}
    environment = ml.environments.create_or_update(
        Environment(name=NAME, version="1", image=AZURE["image"], inference_config=routes)
    )
    print(f"creating endpoint {NAME} and both deployments")
    endpoint = ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=NAME, auth_mode="key")).result()
    for version, model in zip(versions, models, strict=True):
        deploy(version, model, environment.id)
    split(blue=100)
    key = ml.online_endpoints.get_keys(NAME).primary_key

    def predict(**headers: str) -> requests.Response:
        headers |= {"Authorization": f"Bearer {key}"}
        body = {"dataframe_split": rows()}
        answer = requests.post(endpoint.scoring_uri, json=body, headers=headers, verify=CA, timeout=30)
        answer.raise_for_status()
        return answer

    holds("all requests go to blue, v1", {predict().headers["azureml-model-deployment"] for _ in range(5)} == {"blue"})
    print("asking each deployment")
    answers = {version.label: predict(**{"azureml-model-deployment": SLOTS[version.label]}) for version in versions}
    for version in versions:
        served = answers[version.label].headers["X-Lockstep-Digest"]
        holds(f"{version.label} serves digest {version.digest[:12]}", served == version.digest)
    holds("the two predict differently", answers["v1"].json() != answers["v2"].json())

    print("splitting 50/50")
    split(blue=50, green=50)
    seen = Counter(predict().headers["azureml-model-deployment"] for _ in range(40))
    holds(f"both answer: {dict(seen)}", min(seen["blue"], seen["green"]) >= 5)

    print("asking for what the rules refuse")
    refused("traffic that does not sum to 100", HttpResponseError, lambda: split(blue=50, green=30), "100")
    remove = ml.online_deployments.begin_delete
    refused("deleting what has traffic", HttpResponseError, lambda: remove(name="green", endpoint_name=NAME), "traffic")
    other = Model(name=NAME, version="1", path=f"azureml://datastores/{AZURE['datastore']}/paths/other")
    refused("other files for a version", HttpResponseError, lambda: ml.models.create_or_update(other), "cannot be")

    print("cleaning up")
    ml.online_endpoints.begin_delete(NAME).result(timeout=60)
    for number in ("1", "2"):
        ml.models.archive(name=NAME, version=number)
    holds("nothing is left", NAME not in [found.name for found in ml.online_endpoints.list()])


if __name__ == "__main__":
    main()
