"""The AWS sandbox's model registry, by boto3; and the same operations by sagemaker-core."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account
from tests.contract.sandbox_aws.calls import arn, register


def test_packages_are_numbered_within_their_group(account: Account, group: str, container: dict[str, Any]) -> None:
    first = register(account, group, container, ClientToken="token-" + group)
    assert first == arn(account, "model-package", f"{group}/1")
    assert register(account, group, container, ClientToken="token-" + group) == first
    second = register(account, group, container, CustomerMetadataProperties={"digest": "d", "run": "r"})
    answer = account.sm.describe_model_package(ModelPackageName=second)
    assert (answer["ModelPackageVersion"], answer["ModelApprovalStatus"]) == (2, "PendingManualApproval")
    assert answer["CustomerMetadataProperties"] == {"digest": "d", "run": "r"}
    assert answer["InferenceSpecification"]["Containers"][0]["ImageDigest"].startswith("sha256:")
    mine = account.sm.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    assert [package["ModelPackageVersion"] for package in mine] == [2, 1]
    unversioned = account.sm.list_model_packages(MaxResults=100)["ModelPackageSummaryList"]
    assert first not in [package["ModelPackageArn"] for package in unversioned]
    with pytest.raises(ClientError, match="ConflictException"):
        account.sm.delete_model_package_group(ModelPackageGroupName=group)


def test_approval_has_a_way_in_and_no_way_back(account: Account, group: str, container: dict[str, Any]) -> None:
    package = register(account, group, container)

    def approve(status: str) -> None:
        account.sm.update_model_package(ModelPackageArn=package, ModelApprovalStatus=status)

    model = {"ModelName": account.name("packaged"), "PrimaryContainer": {"ModelPackageName": package}}
    with pytest.raises(ClientError, match="must be Approved to deploy"):
        account.sm.create_model(**model)
    approve("Rejected")
    approve("Approved")
    with pytest.raises(ClientError, match="PendingManualApproval"):
        approve("PendingManualApproval")
    account.sm.create_model(**model)
    account.sm.delete_model(ModelName=model["ModelName"])
    assert account.sm.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"] == "Approved"


def test_a_package_can_be_changed_so_it_proves_nothing(account: Account, group: str, container: dict[str, Any]) -> None:
    package = register(account, group, container, CustomerMetadataProperties={"a": "1", "b": "2"})
    account.sm.update_model_package(
        ModelPackageArn=package,
        SourceUri="s3://elsewhere/model/",
        CustomerMetadataProperties={"c": "3"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    answer = account.sm.describe_model_package(ModelPackageName=package)
    assert answer["SourceUri"] == "s3://elsewhere/model/"
    assert answer["CustomerMetadataProperties"] == {"b": "2", "c": "3"}
    with pytest.raises(ClientError, match="at most 50"):
        account.sm.update_model_package(
            ModelPackageArn=package, CustomerMetadataProperties={f"k{n}": "v" for n in range(49)}
        )


def test_a_versioned_package_takes_no_tags(account: Account, group: str, container: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="Tags are not supported"):
        register(account, group, container, Tags=[{"Key": "a", "Value": "b"}])
    with pytest.raises(ClientError, match="does not exist"):
        register(account, account.name("nowhere"), container)
    with pytest.raises(ClientError, match="already exists"):
        account.sm.create_model_package_group(ModelPackageGroupName=group)


def test_sagemaker_core_works_too(
    account: Account, group: str, container: dict[str, Any], models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = account.settings
    monkeypatch.setenv("AWS_ENDPOINT_URL", settings["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings["secret_access_key"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", settings["region"])
    from sagemaker.core import resources, shapes

    package = resources.ModelPackage.get(model_package_name=register(account, group, container))
    package.update(model_approval_status="Approved")
    assert package.model_approval_status == "Approved"
    assert resources.ModelPackageGroup.get(model_package_group_name=group).model_package_group_status == "Completed"
    variant = shapes.ProductionVariant(
        variant_name="v1", model_name=models["v1"], instance_type="ml.m5.large", initial_instance_count=1
    )
    config = account.name("config")
    resources.EndpointConfig.create(endpoint_config_name=config, production_variants=[variant])
    endpoint = resources.Endpoint.create(endpoint_name=account.name("core"), endpoint_config_name=config)
    account.settled(endpoint.endpoint_name)
    endpoint.refresh()
    assert endpoint.endpoint_status == "InService"
    assert endpoint.production_variants[0].current_weight == 1.0
    endpoint.delete()
    account.gone(endpoint.endpoint_name)
    account.sm.delete_endpoint_config(EndpointConfigName=config)
