"""Two versions behind one SageMaker endpoint, by boto3 alone.

python -m sandbox --clouds aws --json > sandbox.json &
python examples/sandbox/deploy_aws.py sandbox.json
"""

# ruff: noqa: T201 - a script for people

from __future__ import annotations

import json
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from model import Version, holds, refused, rows, settings, two_versions

AWS = settings("aws", __doc__)
NAME = f"tumour-{uuid.uuid4().hex[:6]}"


def client(service: str) -> Any:
    """A client of the sandbox instead of AWS: only `endpoint_url` differs from production."""
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=AWS["endpoint_url"],
        region_name=AWS["region"],
        aws_access_key_id=AWS["access_key_id"],
        aws_secret_access_key=AWS["secret_access_key"],
        config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
    )


s3, sagemaker, runtime = client("s3"), client("sagemaker"), client("sagemaker-runtime")


def create_model(version: Version) -> str:
    """Upload the version's files and make a SageMaker model of them."""
    prefix = f"examples/{NAME}/{version.digest}/"
    for name, content in version.objects():
        s3.put_object(Bucket=AWS["bucket"], Key=prefix + name, Body=content, ChecksumAlgorithm="SHA256")
    source = {"S3Uri": f"s3://{AWS['bucket']}/{prefix}", "S3DataType": "S3Prefix", "CompressionType": "None"}
    container = {
        "Image": AWS["image"],
        "Environment": {"LOCKSTEP_DIGEST": version.digest, "LOCKSTEP_VERSION": version.label},
        "ModelDataSource": {"S3DataSource": source},
    }
    name = f"{NAME}-{version.label}"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=AWS["role_arn"], PrimaryContainer=container)
    return name


def set_weights(**weights: float) -> None:
    """Ask for traffic weights by variant; SageMaker takes them over later."""
    wanted = [{"VariantName": name, "DesiredWeight": weight} for name, weight in weights.items()]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=NAME, DesiredWeightsAndCapacities=wanted)


def create() -> None:
    """Create the endpoint by its configuration."""
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)


def update() -> None:
    """Roll the endpoint's own configuration out anew."""
    sagemaker.update_endpoint(EndpointName=NAME, EndpointConfigName=NAME)


def in_service() -> None:
    """Wait until no change is under way."""
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 120})


def invoke(**chosen: str) -> tuple[str, str, list[float]]:
    """One request: the variant that answered, what it says about itself, and its predictions."""
    body = json.dumps({"dataframe_split": rows()}).encode()
    answer = runtime.invoke_endpoint(EndpointName=NAME, Body=body, ContentType="application/json", **chosen)
    return answer["InvokedProductionVariant"], answer["CustomAttributes"], json.load(answer["Body"])["predictions"]


def main() -> None:
    """Deploy, split, predict, be refused, clean up."""
    with tempfile.TemporaryDirectory() as folder:
        versions = two_versions(Path(folder))
        print("uploading both and creating models")
        models = [create_model(version) for version in versions]
    print(f"creating endpoint {NAME}: v1 gets the traffic, v2 stands by")
    variant = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    variants = [
        {"VariantName": v.label, "ModelName": m, "InitialVariantWeight": w, **variant}
        for v, m, w in zip(versions, models, (1.0, 0.0), strict=True)
    ]
    sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=variants)
    create()
    refused("UpdateEndpoint during a change", ClientError, update, "Cannot update in-progress endpoint")
    in_service()
    holds("all requests go to v1", {invoke()[0] for _ in range(5)} == {"v1"})

    print("asking each version")
    answers = {version.label: invoke(TargetVariant=version.label) for version in versions}
    for version in versions:
        holds(f"{version.label} serves digest {version.digest[:12]}", version.digest in answers[version.label][1])
    holds("the two predict differently", answers["v1"][2] != answers["v2"][2])

    print("splitting 50/50")
    set_weights(v1=0.5, v2=0.5)
    in_service()
    seen = Counter(invoke()[0] for _ in range(40))
    holds(f"both answer: {dict(seen)}", min(seen["v1"], seen["v2"]) >= 5)

    print("asking for what the rules refuse")
    refused("weights that are all zero", ClientError, lambda: set_weights(v1=0, v2=0), "greater than 0")
    refused("a variant that is not there", ClientError, lambda: invoke(TargetVariant="v9"), "v9")
    refused("a second endpoint of that name", ClientError, create, "Cannot create already existing endpoint")

    print("cleaning up")
    sagemaker.delete_endpoint(EndpointName=NAME)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    sagemaker.delete_endpoint_config(EndpointConfigName=NAME)
    for model in models:
        sagemaker.delete_model(ModelName=model)
    left = sagemaker.list_endpoints(NameContains=NAME)["Endpoints"] + sagemaker.list_models(NameContains=NAME)["Models"]
    holds("nothing is left", not left)


if __name__ == "__main__":
    main()
