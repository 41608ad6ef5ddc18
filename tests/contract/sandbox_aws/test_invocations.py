"""The AWS sandbox's runtime and the traffic of its endpoints, by boto3 alone."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account, weights
from tests.contract.sandbox_aws.calls import arn, flip, invoke, unchecked
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


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
