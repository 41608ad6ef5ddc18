"""One endpoint of two variants, and what it is made of, for all tests of the AWS sandbox's SageMaker."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer

from tests.contract.aws_account import Account
from tests.contract.sandbox_aws.calls import flip
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="package")
def account(sandbox: RunningSandbox) -> Iterator[Account]:
    account = Account(sandbox.settings["aws"])
    yield account
    account.clean()


@pytest.fixture(scope="package")
def model_version(model_versions: tuple[ModelVersion, ModelVersion]) -> dict[str, ModelVersion]:
    return {version.label: version for version in model_versions}


@pytest.fixture(scope="package")
def body() -> bytes:
    """A request that both versions can answer."""
    frame = load_breast_cancer(as_frame=True).data.head(2)
    frame.columns = frame.columns.str.replace(" ", "_")
    return json.dumps({"dataframe_split": frame.to_dict(orient="split")}).encode()


@pytest.fixture(scope="package")
def models(account: Account, model_version: dict[str, ModelVersion]) -> dict[str, str]:
    """Model names of the two versions."""
    return {
        label: account.model(account.upload(version.folder, version.digest), version.digest, label)
        for label, version in model_version.items()
    }


@pytest.fixture(scope="package")
def pair(account: Account, models: dict[str, str]) -> str:
    """An endpoint on which v1 has all the traffic and v2 stands by."""
    name = account.endpoint(account.config(("v1", models["v1"], 100), ("v2", models["v2"], 0)))
    answer = account.settled(name)
    assert answer["EndpointStatus"] == "InService", answer.get("FailureReason")
    return name


@pytest.fixture
def slow(sandbox: RunningSandbox) -> Iterator[Callable[[dict[str, float]], object]]:
    """Change delays for one test."""
    before = sandbox.control.delays({})
    yield sandbox.control.delays
    sandbox.control.delays(before)


@pytest.fixture
def balanced(account: Account, pair: str) -> Iterator[str]:
    """Put the traffic of the shared endpoint back."""
    yield pair
    account.settled(pair)
    flip(account, pair, v1=100, v2=0)
    account.settled(pair)


@pytest.fixture
def group(account: Account) -> Iterator[str]:
    name = account.name("group")
    account.sm.create_model_package_group(ModelPackageGroupName=name, Tags=[{"Key": "k", "Value": "v"}])
    yield name
    for package in account.sm.list_model_packages(ModelPackageGroupName=name, MaxResults=100)[
        "ModelPackageSummaryList"
    ]:
        account.sm.delete_model_package(ModelPackageName=package["ModelPackageArn"])
    account.sm.delete_model_package_group(ModelPackageGroupName=name)


@pytest.fixture(scope="package")
def container(account: Account, model_version: dict[str, ModelVersion]) -> dict[str, Any]:
    version = model_version["v1"]
    return account.container(account.upload(version.folder, version.digest), version.digest, "v1")
