"""Faults that SageMaker has in the AWS sandbox, by boto3 alone."""

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account, weights
from tests.contract.sandbox_aws.calls import flip, invoke
from tests.sandbox_control import RunningSandbox


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
