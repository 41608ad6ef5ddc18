"""Calls of SageMaker's API that its tests make again and again."""

from typing import Any

from botocore.config import Config

from tests.contract.aws_account import Account
from tests.model_files import ModelVersion


def arn(account: Account, kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:{account.settings['account_id']}:{kind}/{name}"


def flip(account: Account, endpoint: str, **desired: float) -> None:
    account.sm.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[{"VariantName": name, "DesiredWeight": w} for name, w in desired.items()],
    )


def invoke(account: Account, endpoint: str, body: bytes, **more: Any) -> Any:
    return account.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json", **more)


def unchecked() -> Config:
    """Send requests that boto3 itself would refuse."""
    return Config(parameter_validation=False, retries={"total_max_attempts": 1})


def broken(account: Account, model_version: dict[str, ModelVersion], what: str = "0" * 64) -> str:
    """A model whose container refuses to start, since its files do not have the digest that it is told."""
    version = model_version["v1"]
    return account.model(account.upload(version.folder, version.digest), what, "broken")


def register(account: Account, group: str, container: dict[str, Any], **more: Any) -> str:
    allowed = {key: container[key] for key in ("Image", "Environment", "ModelDataSource")}
    answer = account.sm.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [allowed],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        **more,
    )
    return str(answer["ModelPackageArn"])
