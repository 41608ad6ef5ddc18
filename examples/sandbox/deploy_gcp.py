"""Two versions behind one Vertex AI endpoint, by google-cloud-aiplatform and google-cloud-storage.

python -m sandbox --clouds gcp --json > sandbox.json &
python examples/sandbox/deploy_gcp.py sandbox.json
"""

# ruff: noqa: T201 - a script for people

from __future__ import annotations

import logging
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPICallError
from google.cloud import aiplatform, storage
from google.oauth2 import service_account
from model import Version, holds, refused, rows, settings, two_versions

GCP = settings("gcp", __doc__)
NAME = f"tumour-{uuid.uuid4().hex[:6]}"

logging.disable(logging.INFO)  # the SDK tells each step on stdout; here the script does
credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
    GCP["credentials_file"], scopes=["https://www.googleapis.com/auth/cloud-platform"]
)
bucket = storage.Client(
    project=GCP["project"], credentials=credentials, client_options={"api_endpoint": GCP["storage_endpoint"]}
).bucket(GCP["bucket"])
aiplatform.init(
    project=GCP["project"],
    location=GCP["location"],
    api_endpoint=GCP["api_endpoint"],
    api_transport="rest",
    credentials=credentials,
)
DEPLOY: dict[str, Any] = {"machine_type": "n1-standard-2", "min_replica_count": 1, "deploy_request_timeout": 60}


def upload(version: Version, **where: Any) -> Any:
    """Upload the version's files and register them with Vertex AI; `where` says below which model."""
    prefix = f"examples/{NAME}/{version.digest}"
    for name, content in version.objects():
        bucket.blob(f"{prefix}/{name}").upload_from_string(content, if_generation_match=0, timeout=30)
    return aiplatform.Model.upload(
        display_name=NAME,
        artifact_uri=f"gs://{GCP['bucket']}/{prefix}",
        serving_container_image_uri=GCP["image"],
        serving_container_predict_route="/predict",
        serving_container_health_route="/health",
        serving_container_environment_variables={
            "LOCKSTEP_DIGEST": version.digest,
            "LOCKSTEP_VERSION": version.label,
        },
        upload_request_timeout=60,
        **where,
    )


def main() -> None:
    """Deploy, split, predict, be refused, clean up."""
    with tempfile.TemporaryDirectory() as folder:
        versions = two_versions(Path(folder))
        print("uploading and registering both as versions of one model")
        first = upload(versions[0], model_id=NAME)
        second = upload(versions[1], parent_model=first.resource_name, is_default_version=False)
    print(f"creating endpoint {NAME} and deploying both: v1 gets the traffic, v2 stands by")
    endpoint = aiplatform.Endpoint.create(display_name=NAME, endpoint_id=NAME, create_request_timeout=30)
    endpoint.deploy(first, traffic_percentage=100, **DEPLOY)
    endpoint.deploy(second, traffic_percentage=0, **DEPLOY)
    ids = {f"v{deployed.model_version_id}": deployed.id for deployed in endpoint.list_models()}
    split = rows()
    instances = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]

    def predict() -> Any:
        return endpoint.predict(instances, timeout=30)

    def share(**percent: int) -> None:
        endpoint.update(
            traffic_split={ids[label]: value for label, value in percent.items()}, update_request_timeout=30
        )

    holds("all requests go to v1", {predict().deployed_model_id for _ in range(5)} == {ids["v1"]})
    print("asking each version")
    answers = {}
    for version in versions:  # Vertex AI has no header that picks a deployed model: its share must
        share(**{each.label: 100 * (each is version) for each in versions})
        answers[version.label] = predict()
        served = answers[version.label].metadata["lockstep_digest"]
        holds(f"{version.label} serves digest {version.digest[:12]}", served == version.digest)
    holds("the two predict differently", answers["v1"].predictions != answers["v2"].predictions)

    print("splitting 50/50")
    share(v1=50, v2=50)
    seen = Counter(predict().deployed_model_id for _ in range(40))
    holds(f"both answer: {dict(seen)}", min(seen[ids["v1"]], seen[ids["v2"]]) >= 5)

    print("asking for what the rules refuse")
    refused("a split that does not sum to 100", GoogleAPICallError, lambda: share(v1=50, v2=30), "100")
    refused("deleting a version that is deployed", GoogleAPICallError, first.delete, "is deployed")
    stale = aiplatform.Endpoint(NAME)
    holds("an endpoint is read with its etag", stale.display_name == NAME)
    endpoint.update(labels={"changed": "meanwhile"}, update_request_timeout=30)
    refused("a change from before another", GoogleAPICallError, lambda: stale.update(display_name="x"), "etag")

    print("cleaning up")
    endpoint.undeploy_all()
    endpoint.delete()
    first.delete()
    holds("nothing is left", not aiplatform.Endpoint.list(filter=f'display_name="{NAME}"'))


if __name__ == "__main__":
    main()
