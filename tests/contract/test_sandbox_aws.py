"""The AWS sandbox's SageMaker, by boto3 and sagemaker-core alone."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from sklearn.datasets import load_breast_cancer

from tests.contract.aws_account import Account, weights
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="module")
def account(sandbox: RunningSandbox) -> Iterator[Account]:
    account = Account(sandbox.settings["aws"])
    yield account
    account.clean()


@pytest.fixture(scope="module")
def model_version(model_versions: tuple[ModelVersion, ModelVersion]) -> dict[str, ModelVersion]:
    return {version.label: version for version in model_versions}


@pytest.fixture(scope="module")
def body() -> bytes:
    """A request that both versions can answer."""
    frame = load_breast_cancer(as_frame=True).data.head(2)
    frame.columns = frame.columns.str.replace(" ", "_")
    return json.dumps({"dataframe_split": frame.to_dict(orient="split")}).encode()


@pytest.fixture(scope="module")
def models(account: Account, model_version: dict[str, ModelVersion]) -> dict[str, str]:
    """Model names of the two versions."""
    return {
        label: account.model(account.upload(version.folder, version.digest), version.digest, label)
        for label, version in model_version.items()
    }


@pytest.fixture(scope="module")
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


def arn(account: Account, kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:{account.settings['account_id']}:{kind}/{name}"


def flip(account: Account, endpoint: str, **desired: float) -> None:
    account.sm.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[{"VariantName": name, "DesiredWeight": w} for name, w in desired.items()],
    )


def invoke(account: Account, endpoint: str, body: bytes, **more: Any) -> Any:
    return account.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json", **more)


# ---- invocations


def test_each_variant_serves_its_own_bytes(
    account: Account, pair: str, model_version: dict[str, ModelVersion], body: bytes
) -> None:
    for label, version in model_version.items():
        answer = invoke(account, pair, body, TargetVariant=label, InferenceId="request-1")
        assert answer["InvokedProductionVariant"] == label
        assert answer["CustomAttributes"] == f"lockstep-version={label};lockstep-digest={version.digest}"
        assert json.loads(answer["Body"].read())["predictions"]


def test_describe_names_the_image_by_digest(account: Account, pair: str) -> None:
    answer = account.sm.describe_endpoint(EndpointName=pair)
    image = answer["ProductionVariants"][0]["DeployedImages"][0]
    assert image["SpecifiedImage"] == image["ResolvedImage"] == account.settings["image"]
    assert answer["ProductionVariants"][1]["DesiredWeight"] == 0.0


def test_unknown_endpoint_and_unknown_variant(account: Account, pair: str) -> None:
    with pytest.raises(ClientError, match="Endpoint nowhere of account 123456789012 not found") as caught:
        invoke(account, "nowhere", b"")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="Variant v9 not found for Request"):
        invoke(account, pair, b"", TargetVariant="v9")


def test_a_models_error_is_a_model_error(account: Account, pair: str) -> None:
    with pytest.raises(account.runtime.exceptions.ModelError) as caught:
        invoke(account, pair, b"not JSON", TargetVariant="v1")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == 400
    assert response["OriginalMessage"]
    assert "Received client error (400) from primary" in response["Error"]["Message"]


def test_a_body_over_the_limit_is_refused(account: Account, pair: str) -> None:
    with pytest.raises(ClientError) as caught:
        invoke(account, pair, bytes(6_291_457))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_metrics_are_kept_per_variant(account: Account, pair: str, body: bytes) -> None:
    before = datetime.now(UTC).replace(second=0, microsecond=0)
    for _ in range(5):
        invoke(account, pair, body, TargetVariant="v2")
    with pytest.raises(ClientError):
        invoke(account, pair, b"not JSON", TargetVariant="v2")

    def metric(name: str, stat: str) -> float:
        dimensions = [{"Name": "EndpointName", "Value": pair}, {"Name": "VariantName", "Value": "v2"}]
        answer = account.client("cloudwatch").get_metric_data(
            MetricDataQueries=[
                {
                    "Id": "m",
                    "MetricStat": {
                        "Metric": {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": dimensions},
                        "Period": 3600,
                        "Stat": stat,
                    },
                }
            ],
            StartTime=before - timedelta(minutes=30),
            EndTime=before + timedelta(minutes=5),
        )
        return float(answer["MetricDataResults"][0]["Values"][0])

    requests = metric("Invocations", "Sum")
    assert requests >= 6
    assert metric("Invocation4XXErrors", "Sum") >= 1
    assert metric("InvocationModelErrors", "Sum") >= 1
    assert metric("Invocation5XXErrors", "Sum") == 0
    assert metric("Invocation4XXErrors", "Average") < 1
    assert metric("ModelLatency", "SampleCount") == requests
    assert 100 < metric("ModelLatency", "p95") < 30e6  # microseconds
    assert metric("OverheadLatency", "Average") > 0


# ---- traffic


@pytest.fixture
def balanced(account: Account, pair: str) -> Iterator[str]:
    """Put the traffic of the shared endpoint back."""
    yield pair
    account.settled(pair)
    flip(account, pair, v1=100, v2=0)
    account.settled(pair)


def scored(account: Account, endpoint: str, body: bytes, count: int) -> Counter[str]:
    return Counter(invoke(account, endpoint, body)["InvokedProductionVariant"] for _ in range(count))


def test_weights_take_effect_at_the_end_of_the_update(
    account: Account, balanced: str, slow: Callable[[dict[str, float]], object], body: bytes
) -> None:
    slow({"aws.endpoint.weights": 1.0})
    flip(account, balanced, v1=0, v2=100)
    answer = account.sm.describe_endpoint(EndpointName=balanced)
    assert answer["EndpointStatus"] == "Updating"
    assert (weights(answer), weights(answer, "Desired")) == ({"v1": 100, "v2": 0}, {"v1": 0, "v2": 100})
    assert set(scored(account, balanced, body, 5)) == {"v1"}
    assert weights(account.settled(balanced)) == {"v1": 0, "v2": 100}
    assert set(scored(account, balanced, body, 20)) == {"v2"}


def test_traffic_follows_the_shares(account: Account, balanced: str, body: bytes) -> None:
    flip(account, balanced, v1=3, v2=1)
    account.settled(balanced)
    counts = scored(account, balanced, body, 40)
    assert 1 <= counts["v2"] <= 24  # 10 expected; outside by chance once in 80 000 runs


def test_an_updating_endpoint_refuses_every_change(
    account: Account, balanced: str, slow: Callable[[dict[str, float]], object], models: dict[str, str]
) -> None:
    config = account.config(("v1", models["v1"], 1))
    slow({"aws.endpoint.weights": 1.0})
    flip(account, balanced, v1=50, v2=50)
    calls: list[Callable[[], object]] = [
        lambda: flip(account, balanced, v1=0, v2=100),
        lambda: account.sm.update_endpoint(EndpointName=balanced, EndpointConfigName=config),
        lambda: account.sm.delete_endpoint(EndpointName=balanced),
    ]
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call()
        error = caught.value.response["Error"]
        assert error["Code"] == "ValidationException"
        assert error["Message"] == f'Cannot update in-progress endpoint "{arn(account, "endpoint", balanced)}".'
    assert weights(account.settled(balanced)) == {"v1": 50, "v2": 50}


def test_no_traffic_at_all_and_unknown_variants_are_refused(
    account: Account, pair: str, models: dict[str, str]
) -> None:
    with pytest.raises(ClientError, match="greater than 0"):
        flip(account, pair, v1=0, v2=0)
    with pytest.raises(ClientError, match="v9"):
        flip(account, pair, v9=1)
    with pytest.raises(ClientError, match="at least 1"):
        account.sm.update_endpoint_weights_and_capacities(
            EndpointName=pair, DesiredWeightsAndCapacities=[{"VariantName": "v2", "DesiredInstanceCount": 0}]
        )
    with pytest.raises(ClientError, match="greater than or equal to 0"):
        account.client("sagemaker", config=unchecked()).update_endpoint_weights_and_capacities(
            EndpointName=pair, DesiredWeightsAndCapacities=[{"VariantName": "v1", "DesiredWeight": -1}]
        )
    with pytest.raises(ClientError, match="greater than 0"):
        account.config(("v1", models["v1"], 0))


def unchecked() -> Config:
    """Send requests that boto3 itself would refuse."""
    return Config(parameter_validation=False, retries={"total_max_attempts": 1})


def test_no_request_is_lost_while_traffic_flips(
    account: Account, balanced: str, body: bytes, sandbox: RunningSandbox
) -> None:
    failures: list[Exception] = []
    stop = threading.Event()
    began = time.time()

    def load() -> None:
        runtime = account.client("sagemaker-runtime", config=unchecked())
        while not stop.is_set():
            try:
                runtime.invoke_endpoint(EndpointName=balanced, Body=body, ContentType="application/json")
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        flip(account, balanced, v1=100 * (number % 2), v2=100 * ((number + 1) % 2))
        account.settled(balanced)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    switches = [c for c in sandbox.control.calls("aws", began) if c["operation"] == "event:traffic"]
    assert [c["detail"] for c in switches][-1] == "v1=100,v2=0"
    assert len(switches) == 6


# ---- UpdateEndpoint


def test_an_update_starts_only_what_is_new_and_stops_what_is_gone(
    account: Account, models: dict[str, str], body: bytes, sandbox: RunningSandbox
) -> None:
    name = account.endpoint(account.config(("v1", models["v1"], 60)), Tags=[{"Key": "k", "Value": "v"}])
    assert account.settled(name)["EndpointStatus"] == "InService"
    flip(account, name, v1=80)
    account.settled(name)
    failures: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                invoke(account, name, body)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    both = account.config(("v1", models["v1"], 60), ("v2", models["v2"], 20))
    account.sm.update_endpoint(EndpointName=name, EndpointConfigName=both, RetainAllVariantProperties=True)
    assert weights(account.settled(name)) == {"v1": 80, "v2": 20}
    account.sm.update_endpoint(
        EndpointName=name,
        EndpointConfigName=both,
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    assert weights(account.settled(name)) == {"v1": 60, "v2": 20}
    only = account.config(("v2", models["v2"], 1))
    account.sm.update_endpoint(EndpointName=name, EndpointConfigName=only)
    answer = account.settled(name)
    stop.set()
    thread.join()
    assert (weights(answer), answer["EndpointConfigName"]) == ({"v2": 1}, only)
    assert failures == []
    events = [
        (c["operation"], c["detail"])
        for c in sandbox.control.calls("aws")
        if c["resource"] == name and c["operation"] in ("event:deploy", "event:undeploy")
    ]
    assert events == [("event:deploy", "v1"), ("event:deploy", "v2"), ("event:undeploy", "v1")]


def broken(account: Account, model_version: dict[str, ModelVersion], what: str = "0" * 64) -> str:
    """A model whose container refuses to start, since its files do not have the digest that it is told."""
    version = model_version["v1"]
    return account.model(account.upload(version.folder, version.digest), what, "broken")


def test_an_update_that_does_not_come_up_leaves_the_old_configuration(
    account: Account, pair: str, models: dict[str, str], model_version: dict[str, ModelVersion]
) -> None:
    config = account.sm.describe_endpoint(EndpointName=pair)["EndpointConfigName"]
    bad = account.config(("v1", models["v1"], 1), ("v3", broken(account, model_version), 0))
    account.sm.update_endpoint(EndpointName=pair, EndpointConfigName=bad)
    answer = account.settled(pair)
    assert (answer["EndpointStatus"], answer["EndpointConfigName"]) == ("InService", config)
    assert "production variant v3 did not pass the ping health check" in answer["FailureReason"]
    assert weights(answer) == {"v1": 100, "v2": 0}
    logs = account.client("logs")
    group = f"/aws/sagemaker/Endpoints/{pair}"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="v3/")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"])["events"]
    assert any("refused" in event["message"] for event in events)


def test_a_creation_that_does_not_come_up_is_failed_and_can_only_be_deleted(
    account: Account, models: dict[str, str], model_version: dict[str, ModelVersion]
) -> None:
    name = account.endpoint(account.config(("v1", broken(account, model_version), 1)))
    answer = account.settled(name)
    assert answer["EndpointStatus"] == "Failed"
    assert "ping health check" in answer["FailureReason"]
    good = account.config(("v1", models["v1"], 1))
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        account.sm.update_endpoint(EndpointName=name, EndpointConfigName=good)
    with pytest.raises(ClientError, match="not found"):
        invoke(account, name, b"")
    account.sm.delete_endpoint(EndpointName=name)
    account.gone(name)


def test_missing_and_unplaceable_model_data(account: Account, model_version: dict[str, ModelVersion]) -> None:
    with pytest.raises(ClientError, match=r"Could not access model data at s3://.*/nothing/"):
        account.model(f"s3://{account.bucket}/nothing/", "0" * 64)
    with pytest.raises(ClientError, match="forward slash"):
        account.model(f"s3://{account.bucket}/nothing", "0" * 64)
    cases = {"gone": ["a"], "marker": ["a", "sub/"], "both": ["a", "a/b"]}
    for case, keys in cases.items():
        prefix = account.name(case)
        for key in keys:
            account.s3.put_object(Bucket=account.bucket, Key=f"{prefix}/{key}", Body=b"x")
        model = account.model(f"s3://{account.bucket}/{prefix}/", "0" * 64)
        if case == "gone":
            account.s3.delete_object(Bucket=account.bucket, Key=f"{prefix}/a")
        answer = account.settled(account.endpoint(account.config(("v1", model, 1))))
        assert answer["EndpointStatus"] == "Failed"
        assert answer["FailureReason"].startswith("Failed to download model data for container")


def test_bytes_are_read_as_they_lie_there_when_deployed(
    account: Account, model_version: dict[str, ModelVersion], sandbox: RunningSandbox
) -> None:
    version = model_version["v1"]
    prefix = account.name("rot")
    for path in sorted(version.folder.rglob("*")):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(version.folder).as_posix()}"
            account.s3.put_object(Bucket=account.bucket, Key=key, Body=path.read_bytes())
    model = account.model(f"s3://{account.bucket}/{prefix}/", version.digest)
    config = account.config(("v1", model, 1))
    sandbox.control.corrupt("aws", f"{prefix}/files/MLmodel", 0)
    assert account.settled(account.endpoint(config))["EndpointStatus"] == "Failed"


def test_deployment_policies(account: Account, pair: str, models: dict[str, str]) -> None:
    config = account.config(("v1", models["v1"], 1))
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": 0, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}}
    with pytest.raises(ClientError, match="not implemented by the sandbox"):
        account.sm.update_endpoint(
            EndpointName=pair,
            EndpointConfigName=config,
            DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
        )
    with pytest.raises(ClientError, match="less than or equal to 3600"):
        account.sm.update_endpoint(
            EndpointName=pair,
            EndpointConfigName=config,
            DeploymentConfig={
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
                    "TerminationWaitInSeconds": 3601,
                }
            },
        )


# ---- what is not there, what is there twice, what is malformed


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


# ---- the model registry


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


@pytest.fixture(scope="module")
def container(account: Account, model_version: dict[str, ModelVersion]) -> dict[str, Any]:
    version = model_version["v1"]
    return account.container(account.upload(version.folder, version.digest), version.digest, "v1")


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


# ---- faults


def test_a_stale_read_shows_the_past(account: Account, balanced: str, sandbox: RunningSandbox) -> None:
    number = sandbox.control.fault("aws", "stale")
    flip(account, balanced, v1=10, v2=90)
    answer = account.sm.describe_endpoint(EndpointName=balanced)
    assert (answer["EndpointStatus"], weights(answer)) == ("InService", {"v1": 100, "v2": 0})
    sandbox.control.clear(number)
    assert weights(account.settled(balanced)) == {"v1": 10, "v2": 90}


@pytest.mark.parametrize("kind", ["ignore", "revert"])
def test_a_write_that_is_lost(account: Account, pair: str, sandbox: RunningSandbox, kind: str) -> None:
    sandbox.control.fault("aws", kind, operation="UpdateEndpointWeightsAndCapacities", resource=pair)
    flip(account, pair, v1=10, v2=90)
    assert weights(account.settled(pair)) == {"v1": 100, "v2": 0}


def test_an_ignored_creation_is_not_there_afterwards(
    account: Account, container: dict[str, Any], sandbox: RunningSandbox
) -> None:
    name = account.name("ignored")
    sandbox.control.fault("aws", "ignore", operation="CreateModel", resource=name)
    assert account.sm.create_model(ModelName=name, PrimaryContainer=container)["ModelArn"]
    with pytest.raises(ClientError, match="Could not find model"):
        account.sm.describe_model(ModelName=name)


def test_a_busy_endpoint_stays_updating(account: Account, balanced: str, sandbox: RunningSandbox) -> None:
    sandbox.control.fault("aws", "busy", operation="UpdateEndpointWeightsAndCapacities", delay=0.7)
    began = time.monotonic()
    flip(account, balanced, v1=10, v2=90)
    account.settled(balanced)
    assert time.monotonic() - began >= 0.7


def test_throttled_and_failing_calls(account: Account, pair: str, sandbox: RunningSandbox) -> None:
    sandbox.control.fault("aws", "throttle", operation="DescribeEndpoint")
    with pytest.raises(ClientError, match="Rate exceeded"):
        account.sm.describe_endpoint(EndpointName=pair)
    sandbox.control.fault("aws", "fail", operation="InvokeEndpoint", status=503, resource=pair)
    with pytest.raises(ClientError) as caught:
        invoke(account, pair, b"")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_there_is_no_spot_capacity_to_take_away(account: Account, pair: str, sandbox: RunningSandbox) -> None:
    with pytest.raises(Exception, match="no spot"):
        sandbox.control.evict("aws", pair, "v1")


# ---- sagemaker-core, which offers the same operations as resources


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
