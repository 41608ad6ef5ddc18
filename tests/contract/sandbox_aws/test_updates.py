"""UpdateEndpoint in the AWS sandbox, and deployments that do not come up, by boto3 alone."""

import threading

import pytest
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account, weights
from tests.contract.sandbox_aws.calls import broken, flip, invoke
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


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
