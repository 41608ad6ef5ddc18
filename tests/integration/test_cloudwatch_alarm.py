"""A CloudWatch alarm on one variant takes the model back on every cloud, over SNS, as at real accounts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.integration.agents import VIEWER, Running, running_agent
from tests.integration.deployed import Deployed

pytestmark = pytest.mark.timeout(400)
SOON = 90.0
RULE = {
    "name": "a variant answers with errors",
    "when": {"metric": "InvocationModelErrors"},
    "model": "{dimensions.EndpointName}",
    "action": "rollback",
}


@pytest.fixture(autouse=True)
def quick(deployed: Deployed) -> Iterator[None]:
    """An alarm's minute lasts half a second."""
    before = deployed.control.delays({})
    deployed.control.delays({"aws.alarm.minute": 0.5, "aws.sns.retry": 0.1})
    yield
    deployed.control.delays(before)


def client(deployed: Deployed, service: str) -> Any:
    """A boto3 client of the sandbox."""
    aws = deployed.sandbox.settings["aws"]
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=aws["endpoint_url"],
        region_name=aws["region"],
        aws_access_key_id=aws["access_key_id"],
        aws_secret_access_key=aws["secret_access_key"],
        config=Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
    )


def example(deployed: Deployed, *more: str) -> str:
    """What examples/sandbox/alarm.py prints for the deployed model."""
    command = [sys.executable, "examples/sandbox/alarm.py", deployed.model, *more]
    settings = json.dumps(deployed.sandbox.settings)
    done = subprocess.run(command, input=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def alerts(deployed: Deployed) -> Iterator[dict[str, Any]]:
    """alerts.yaml that believes the sandbox's topic, with alarms on every variant."""
    made: dict[str, Any] = yaml.safe_load(example(deployed))
    yield {**made, "rules": [RULE]}
    cloudwatch, sns = client(deployed, "cloudwatch"), client(deployed, "sns")
    shown = cloudwatch.describe_alarms(AlarmNamePrefix=deployed.model)["MetricAlarms"]
    cloudwatch.delete_alarms(AlarmNames=[one["AlarmName"] for one in shown])
    sns.delete_topic(TopicArn=made["sources"]["cloudwatch"]["topics"][0])


def until(holds: Callable[[], Any], meanwhile: Callable[[], None] = lambda: None) -> Any:
    """What `holds` gives once it is true; other processes' states, which tell nobody here."""
    deadline = time.monotonic() + SOON
    while not (found := holds()):
        assert time.monotonic() < deadline
        meanwhile()
        threading.Event().wait(0.05)
    return found


def test_a_variants_alarm_takes_the_model_back_on_every_cloud(
    deployed: Deployed, alerts: dict[str, Any], tmp_path: Path
) -> None:
    topic = alerts["sources"]["cloudwatch"]["topics"][0]
    sns, runtime = client(deployed, "sns"), client(deployed, "sagemaker-runtime")
    before = {entry.number for entry in deployed.fleet.ledger.entries()}

    def confirmed() -> bool:
        subscriptions = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        return [one["SubscriptionArn"].startswith(topic) for one in subscriptions] == [True]

    def fail() -> None:
        with contextlib.suppress(ClientError):
            runtime.invoke_endpoint(EndpointName=deployed.model, Body=b"not JSON", ContentType="application/json")

    def ended(agent: Running) -> Any:
        return [one for one in agent.get("/api/intents", VIEWER).json() if not one["open"]]

    with running_agent(deployed, tmp_path, alerts, prove_every=0) as agent:
        example(deployed, "--hook", f"{agent.base}/hooks/cloudwatch")
        until(confirmed)
        (intent,) = until(lambda: ended(agent), fail)
    assert (intent["state"], intent["model"], intent["actor"]) == ("done", deployed.model, "alert:cloudwatch"), intent
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    new = [entry for entry in deployed.fleet.ledger.entries() if entry.number not in before]
    received = [entry for entry in new if entry.kind == "alert.received" and entry.body["status"] == "firing"]
    assert {entry.body["answer"] for entry in received} == {intent["id"]}
    assert deployed.v2.slot in str(received[0].body["id"]), "the alarm of the variant that failed"
    (done,) = [entry for entry in new if entry.kind == "rollback.outcome"]
    assert (done.body["digest"], done.body["error"]) == (deployed.v1.digest, "")
