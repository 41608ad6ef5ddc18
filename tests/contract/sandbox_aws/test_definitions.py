"""What the AWS sandbox's SageMaker refuses, lists and tags, by boto3 alone."""

import json
from collections.abc import Callable

import pytest
import requests
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account
from tests.contract.sandbox_aws.calls import arn, unchecked
from tests.model_files import ModelVersion


def test_missing_things_are_validation_errors(account: Account, pair: str) -> None:
    sm = account.sm
    wanted: dict[str, Callable[[], object]] = {
        "endpoint": lambda: sm.describe_endpoint(EndpointName="nowhere"),
        "endpoint configuration": lambda: sm.describe_endpoint_config(EndpointConfigName="nowhere"),
        "model": lambda: sm.describe_model(ModelName="nowhere"),
    }
    for what, call in wanted.items():
        with pytest.raises(ClientError) as caught:
            call()
        error = caught.value.response["Error"]
        assert error["Code"] == "ValidationException"
        kind = "endpoint-config" if what == "endpoint configuration" else what
        assert error["Message"] == f'Could not find {what} "{arn(account, kind, "nowhere")}".'
    with pytest.raises(ClientError, match='Could not find endpoint configuration "'):
        sm.create_endpoint(EndpointName=account.name("e"), EndpointConfigName="nowhere")
    with pytest.raises(ClientError, match='Could not find endpoint configuration "'):
        sm.update_endpoint(EndpointName=pair, EndpointConfigName="nowhere")
    with pytest.raises(ClientError, match='Could not find model "'):
        account.config(("v1", "nowhere", 1))


def test_nothing_is_created_twice(account: Account, pair: str, models: dict[str, str]) -> None:
    config = account.sm.describe_endpoint(EndpointName=pair)["EndpointConfigName"]
    with pytest.raises(ClientError, match="Cannot create already existing endpoint "):
        account.sm.create_endpoint(EndpointName=pair, EndpointConfigName=config)
    with pytest.raises(ClientError, match="Cannot create already existing endpoint configuration"):
        account.sm.create_endpoint_config(
            EndpointConfigName=config,
            ProductionVariants=[
                {
                    "VariantName": "v",
                    "ModelName": models["v1"],
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                }
            ],
        )
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        account.sm.create_model(
            ModelName=models["v1"],
            PrimaryContainer=account.sm.describe_model(ModelName=models["v1"])["PrimaryContainer"],
        )


def test_requests_are_checked_against_the_service_description(account: Account, models: dict[str, str]) -> None:
    sm = account.client("sagemaker", config=unchecked())
    container = {"Image": account.settings["image"]}
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: sm.create_model(ModelName="a_b", PrimaryContainer=container), "regular expression pattern"),
        (lambda: sm.create_model(ModelName="a" * 64, PrimaryContainer=container), "less than or equal to 63"),
        (lambda: sm.create_model(PrimaryContainer=container), "'modelName' failed to satisfy constraint"),
        (lambda: sm.create_model(ModelName="a", PrimaryContainer={"Image": "python:3.11"}), "non-ECR image"),
        (lambda: account.config(*((f"v{n}", models["v1"], 1) for n in range(11))), "less than or equal to 10"),
        (lambda: account.config(("v", models["v1"], 1), ("v", models["v1"], 1)), "unique"),
        (
            lambda: sm.create_endpoint_config(
                EndpointConfigName="a",
                ProductionVariants=[{"VariantName": "v", "ModelName": models["v1"], "InstanceType": "ml.huge"}],
            ),
            "enum value set",
        ),
        (lambda: account.sm.list_models(NextToken="nonsense"), "pagination token"),
    ]
    for call, text in cases:
        with pytest.raises(ClientError, match=text) as caught:
            call()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError, match="Could not find model"):
        sm.describe_model(ModelName="a")


def test_members_that_the_service_does_not_have_are_refused(account: Account) -> None:
    scope = f"{account.settings['access_key_id']}/20260101/us-east-1/sagemaker/aws4_request"
    answer = requests.post(
        account.settings["endpoint_url"],
        data=json.dumps({"ModelName": "a", "Surprise": 1}),
        headers={
            "X-Amz-Target": "SageMaker.DescribeModel",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        },
        timeout=10,
    )
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")
    assert "Surprise" in answer.json()["message"]


def test_a_shadow_variant_is_not_emulated(account: Account, models: dict[str, str]) -> None:
    variant = {
        "VariantName": "s",
        "ModelName": models["v1"],
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    with pytest.raises(ClientError, match="not implemented by the sandbox") as caught:
        account.config(("v1", models["v1"], 1), ShadowProductionVariants=[variant])
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_models_and_configurations_read_back_what_was_written(
    account: Account, models: dict[str, str], model_version: dict[str, ModelVersion]
) -> None:
    version = model_version["v1"]
    model = account.sm.describe_model(ModelName=models["v1"])
    container = account.container(account.upload(version.folder, version.digest), version.digest, "v1")
    assert {key: model["PrimaryContainer"][key] for key in container} == container
    config = account.config(("v1", models["v1"], 0.5), Tags=[{"Key": "team", "Value": "a"}])
    answer = account.sm.describe_endpoint_config(EndpointConfigName=config)
    assert answer["ProductionVariants"][0]["InitialVariantWeight"] == 0.5
    account.sm.delete_endpoint_config(EndpointConfigName=config)
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        account.sm.delete_endpoint_config(EndpointConfigName=config)


def test_lists_come_in_pages(account: Account, model_version: dict[str, ModelVersion]) -> None:
    version = model_version["v1"]
    stem = account.name("page")
    uri = account.upload(version.folder, version.digest)
    names = [f"{stem}-{number}" for number in range(5)]
    for name in names:
        account.sm.create_model(ModelName=name, PrimaryContainer=account.container(uri, version.digest))
    first = account.sm.list_models(NameContains=stem, MaxResults=2)
    assert [m["ModelName"] for m in first["Models"]] == [names[4], names[3]]
    pages = account.sm.get_paginator("list_models").paginate(
        NameContains=stem, SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    assert [m["ModelName"] for page in pages for m in page["Models"]] == names
    for name in names:
        account.sm.delete_model(ModelName=name)
    assert account.sm.list_models(NameContains=stem)["Models"] == []


def test_endpoints_are_listed_by_status(account: Account, pair: str) -> None:
    found = account.sm.list_endpoints(StatusEquals="InService", NameContains=pair)["Endpoints"]
    assert [endpoint["EndpointName"] for endpoint in found] == [pair]
    assert account.sm.list_endpoints(StatusEquals="Failed", NameContains=pair)["Endpoints"] == []


def test_tags(account: Account, pair: str) -> None:
    resource = arn(account, "endpoint", pair)
    account.sm.add_tags(ResourceArn=resource, Tags=[{"Key": "model", "Value": "m"}, {"Key": "owner", "Value": "o"}])
    account.sm.delete_tags(ResourceArn=resource, TagKeys=["owner"])
    assert account.sm.list_tags(ResourceArn=resource)["Tags"] == [{"Key": "model", "Value": "m"}]
    with pytest.raises(ClientError, match="Too many tags"):
        account.sm.add_tags(ResourceArn=resource, Tags=[{"Key": f"k{n}", "Value": "v"} for n in range(50)])
    with pytest.raises(ClientError, match="pattern"):
        account.sm.add_tags(ResourceArn=resource, Tags=[{"Key": "a", "Value": "über*"}])
    with pytest.raises(ClientError, match="Could not find"):
        account.sm.list_tags(ResourceArn=arn(account, "endpoint", "nowhere"))
