"""The AWS sandbox's CloudWatch alarms and SNS, by boto3 and an HTTP receiver alone."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
import yaml
from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidSignature
from sklearn.datasets import load_breast_cancer

from lockstep.agent.source_settings import SnsSource
from tests.contract.aws_account import Account
from tests.contract.sns_receiver import Received, Receiver, receiving, until, verify
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

ASKED = "SubscriptionConfirmation"
TOLD = "Notification"
LEFT = "UnsubscribeConfirmation"


@pytest.fixture(scope="module")
def account(sandbox: RunningSandbox) -> Iterator[Account]:
    account = Account(sandbox.settings["aws"])
    yield account
    account.clean()


@pytest.fixture(scope="module", autouse=True)
def quick(sandbox: RunningSandbox) -> Iterator[None]:
    """An alarm's minute lasts half a second."""
    before = sandbox.control.delays({})
    sandbox.control.delays({"aws.alarm.minute": 0.5, "aws.sns.retry": 0.1})
    yield
    sandbox.control.delays(before)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def sns(account: Account) -> Any:
    return account.client("sns")


@pytest.fixture(scope="module")
def cloudwatch(account: Account) -> Any:
    return account.client("cloudwatch")


@pytest.fixture
def topic(account: Account, sns: Any) -> Iterator[str]:
    made: str = sns.create_topic(Name=account.name("topic"))["TopicArn"]
    yield made
    sns.delete_topic(TopicArn=made)


@pytest.fixture
def path(account: Account) -> str:
    """Where at the receiver a test's messages arrive."""
    return f"/{account.name('hook')}"


@pytest.fixture
def subscription(sns: Any, topic: str, receiver: Receiver, path: str, account: Account) -> str:
    """A confirmed subscription of the test's path."""
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=receiver.url + path)
    confirm(receiver.wait(path, ASKED)[0], account)
    arn: str = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"][0]["SubscriptionArn"]
    return arn


@pytest.fixture
def alarm(account: Account, cloudwatch: Any) -> Iterator[dict[str, Any]]:
    """What PutMetricAlarm needs for an alarm on a metric of the test's own."""
    name = account.name("alarm")
    yield {
        "AlarmName": name,
        "Namespace": name,
        "MetricName": "errors",
        "Dimensions": [{"Name": "VariantName", "Value": "v7"}],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 2.0,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    with contextlib.suppress(ClientError):
        cloudwatch.delete_alarms(AlarmNames=[name])


def confirm(asked: Received, account: Account) -> requests.Response:
    """Visit a message's SubscribeURL."""
    return requests.get(asked.document["SubscribeURL"], verify=account.settings["ca_file"], timeout=30)


def verified(received: Received, account: Account) -> str:
    return verify(received.document, account.settings["sns_certificate_host"], account.settings["ca_file"])


def state_of(cloudwatch: Any, name: str) -> str:
    return str(cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])


def put(cloudwatch: Any, alarm: dict[str, Any], value: float) -> None:
    datum = {"MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"], "Value": value}
    cloudwatch.put_metric_data(Namespace=alarm["Namespace"], MetricData=[datum])


def refused(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# ---- subscriptions


@pytest.mark.parametrize("version", ["1", "2"])
def test_nothing_is_told_before_the_endpoint_has_confirmed(
    sns: Any, topic: str, receiver: Receiver, path: str, account: Account, version: str
) -> None:
    sns.set_topic_attributes(TopicArn=topic, AttributeName="SignatureVersion", AttributeValue=version)
    answer = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=receiver.url + path)
    assert answer["SubscriptionArn"] == "pending confirmation"
    (asked,) = receiver.wait(path)
    assert verified(asked, account) == version
    assert asked.headers["content-type"] == "text/plain; charset=UTF-8"
    assert asked.headers["x-amz-sns-topic-arn"] == asked.document["TopicArn"] == topic
    assert sns.get_topic_attributes(TopicArn=topic)["Attributes"]["SubscriptionsPending"] == "1"
    sns.publish(TopicArn=topic, Message="too early")
    assert "<SubscriptionArn>" in confirm(asked, account).text
    (listed,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    published = sns.publish(TopicArn=topic, Message="it rains\n", Subject="Wetter: naß")["MessageId"]
    (told,) = receiver.wait(path, TOLD)
    assert verified(told, account) == version
    assert (told.document["Message"], told.document["Subject"]) == ("it rains\n", "Wetter: naß")
    assert told.document["MessageId"] == told.headers["x-amz-sns-message-id"] == published
    assert told.headers["x-amz-sns-subscription-arn"] == listed["SubscriptionArn"]
    changed = {**told.document, "Message": "it does not rain"}
    with pytest.raises(InvalidSignature):
        verify(changed, account.settings["sns_certificate_host"], account.settings["ca_file"])


def test_a_subscription_is_confirmed_by_its_own_token(
    sns: Any, topic: str, receiver: Receiver, path: str, account: Account
) -> None:
    endpoint = {"TopicArn": topic, "Protocol": "http", "Endpoint": receiver.url + path}
    arn = sns.subscribe(**endpoint, ReturnSubscriptionArn=True)["SubscriptionArn"]
    assert arn.startswith(topic + ":")
    (asked,) = receiver.wait(path)
    for wrong, code in (
        ({"TopicArn": topic, "Token": "0" * 256}, "InvalidParameter"),
        ({"TopicArn": topic + "x", "Token": asked.document["Token"]}, "NotFound"),
    ):
        with pytest.raises(ClientError) as caught:
            sns.confirm_subscription(**wrong)
        assert refused(caught)[0] == code
    (listed,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert listed["SubscriptionArn"] == "PendingConfirmation"
    assert sns.confirm_subscription(TopicArn=topic, Token=asked.document["Token"])["SubscriptionArn"] == arn
    attributes = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    assert (attributes["PendingConfirmation"], attributes["ConfirmationWasAuthenticated"]) == ("false", "true")
    assert sns.subscribe(**endpoint)["SubscriptionArn"] == arn  # not asked again
    assert len(receiver.at(path)) == 1


def test_who_leaves_is_told_and_may_come_back(
    sns: Any, topic: str, subscription: str, receiver: Receiver, path: str, account: Account
) -> None:
    sns.publish(TopicArn=topic, Message="first")
    (told,) = receiver.wait(path, TOLD)
    link = told.document["UnsubscribeURL"]
    assert requests.get(link, verify=account.settings["ca_file"], timeout=30).ok
    (left,) = receiver.wait(path, LEFT)
    assert verified(left, account) == "1"
    assert not sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    sns.publish(TopicArn=topic, Message="missed")
    assert confirm(left, account).ok
    sns.publish(TopicArn=topic, Message="second")
    assert [each.document["Message"] for each in receiver.wait(path, TOLD, count=2)] == ["first", "second"]
    sns.unsubscribe(SubscriptionArn=subscription)
    assert len(receiver.wait(path, LEFT, count=2)) == 2


def test_raw_delivery_and_filters(sns: Any, topic: str, subscription: str, receiver: Receiver, path: str) -> None:
    for name, value in (("RawMessageDelivery", "true"), ("FilterPolicy", json.dumps({"kind": ["wanted"]}))):
        sns.set_subscription_attributes(SubscriptionArn=subscription, AttributeName=name, AttributeValue=value)
    for kind in ("unwanted", "wanted"):
        attributes = {"kind": {"DataType": "String", "StringValue": kind}}
        sns.publish(TopicArn=topic, Message=f"{kind}: ü", MessageAttributes=attributes)
    (told,) = receiver.wait(path, TOLD)
    assert told.body.decode() == "wanted: ü"
    assert told.headers["x-amz-sns-rawdelivery"] == "true"


# ---- deliveries


def test_a_delivery_is_tried_again_as_the_policy_says(
    sns: Any, topic: str, subscription: str, receiver: Receiver, path: str
) -> None:
    receiver.answer(path, 500, 429)
    sns.publish(TopicArn=topic, Message="heard at last")
    attempts = receiver.wait(path, TOLD, count=3)
    assert len({each.body for each in attempts}) == 1
    policy = {"healthyRetryPolicy": {"numRetries": 1, "minDelayTarget": 1, "maxDelayTarget": 1}}
    sns.set_subscription_attributes(
        SubscriptionArn=subscription, AttributeName="DeliveryPolicy", AttributeValue=json.dumps(policy)
    )
    receiver.answer(path, 404)
    sns.publish(TopicArn=topic, Message="refused")
    receiver.wait(path, TOLD, count=4)
    receiver.answer(path, 503, 503)
    sns.publish(TopicArn=topic, Message="given up")
    receiver.wait(path, TOLD, count=6)
    sns.publish(TopicArn=topic, Message="end")
    said = [each.document["Message"] for each in receiver.wait(path, TOLD, count=7)]
    assert said == ["heard at last"] * 3 + ["refused", "given up", "given up", "end"]


def test_nothing_is_delivered_while_the_cloud_is_down(
    sandbox: RunningSandbox,
    cloudwatch: Any,
    alarm: dict[str, Any],
    topic: str,
    subscription: str,
    receiver: Receiver,
    path: str,
) -> None:
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData="ignore", AlarmActions=[topic])
    with sandbox.control.during("aws", "down", operation="Publish"):
        cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="ALARM", StateReason="by hand")
        acted = cloudwatch.describe_alarm_history(AlarmName=alarm["AlarmName"], HistoryItemType="Action")
        assert len(acted["AlarmHistoryItems"]) == 1
        over = time.monotonic()
    (told,) = receiver.wait(path, TOLD)
    assert told.at >= over


# ---- alarms


@pytest.fixture(scope="module")
def endpoint(account: Account, model_versions: tuple[ModelVersion, ModelVersion]) -> str:
    """An endpoint with one variant, v1."""
    version = model_versions[0]
    model = account.model(account.upload(version.folder, version.digest), version.digest, version.label)
    name = account.endpoint(account.config(("v1", model, 100)))
    assert account.settled(name)["EndpointStatus"] == "InService"
    return name


def test_a_variants_errors_raise_the_alarm_and_its_recovery_ends_it(
    account: Account,
    cloudwatch: Any,
    endpoint: str,
    topic: str,
    subscription: str,
    receiver: Receiver,
    path: str,
) -> None:
    frame = load_breast_cancer(as_frame=True).data.head(1)
    frame.columns = frame.columns.str.replace(" ", "_")
    good = json.dumps({"dataframe_split": frame.to_dict(orient="split")}).encode()

    def invoke(body: bytes) -> None:
        with contextlib.suppress(ClientError):
            account.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json")

    name = account.name("errors")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription="more than half of the answers are errors",
        Namespace="AWS/SageMaker",
        MetricName="InvocationModelErrors",
        Dimensions=[{"Name": "VariantName", "Value": "v1"}, {"Name": "EndpointName", "Value": endpoint}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=2,
        DatapointsToAlarm=2,
        Threshold=0.5,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
        OKActions=[topic],
    )
    until(lambda: state_of(cloudwatch, name) == "ALARM", lambda: invoke(b"not JSON"))
    until(lambda: state_of(cloudwatch, name) == "OK", lambda: invoke(good))
    cloudwatch.delete_alarms(AlarmNames=[name])
    told = [each for each in receiver.wait(path, TOLD, count=2) if verified(each, account)]
    said = [(each.alarm["OldStateValue"], each.alarm["NewStateValue"]) for each in told]
    assert said[-1] == ("ALARM", "OK")
    assert said[-2][1] == "ALARM"
    document = told[-2].alarm
    assert told[-2].document["Subject"] == f'ALARM: "{name}" in US East (N. Virginia)'
    assert document["AlarmArn"] == f"arn:aws:cloudwatch:us-east-1:{account.settings['account_id']}:alarm:{name}"
    assert document["AlarmDescription"] == "more than half of the answers are errors"
    assert document["NewStateReason"].startswith("Threshold Crossed: 2 out of the last 2 datapoints [1.0 (")
    assert document["NewStateReason"].endswith(
        "were greater than the threshold (0.5) (minimum 2 datapoints for OK -> ALARM transition)."
    )
    assert datetime.strptime(document["StateChangeTime"], "%Y-%m-%dT%H:%M:%S.%f%z") <= datetime.now(UTC)
    assert document["Trigger"] == {
        "MetricName": "InvocationModelErrors",
        "Namespace": "AWS/SageMaker",
        "StatisticType": "Statistic",
        "Statistic": "AVERAGE",
        "Unit": None,
        "Dimensions": [{"value": "v1", "name": "VariantName"}, {"value": endpoint, "name": "EndpointName"}],
        "Period": 60,
        "EvaluationPeriods": 2,
        "DatapointsToAlarm": 2,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0.5,
        "TreatMissingData": "missing",
        "EvaluateLowSampleCountPercentile": "",
    }


def test_the_example_sets_an_alarm_on_every_variant(
    sandbox: RunningSandbox,
    account: Account,
    cloudwatch: Any,
    sns: Any,
    endpoint: str,
    receiver: Receiver,
    path: str,
) -> None:
    def run(*more: str) -> str:
        command = [sys.executable, "examples/sandbox/alarm.py", endpoint, *more]
        done = subprocess.run(
            command, input=json.dumps(sandbox.settings), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    source = yaml.safe_load(run())["sources"]["cloudwatch"]
    believed = SnsSource.model_validate(source)
    assert believed.pinned_host == account.settings["sns_certificate_host"]
    (shown,) = cloudwatch.describe_alarms(AlarmNamePrefix=endpoint)["MetricAlarms"]
    assert {"Name": "VariantName", "Value": "v1"} in shown["Dimensions"]
    until(lambda: state_of(cloudwatch, shown["AlarmName"]) == "OK")  # which is told, to whoever has subscribed by then
    run("--hook", receiver.url + path)
    assert confirm(receiver.wait(path, ASKED)[0], account).ok
    cloudwatch.set_alarm_state(AlarmName=shown["AlarmName"], StateValue="ALARM", StateReason="by hand")
    told = receiver.wait(path, TOLD)[0]
    assert (told.alarm["NewStateValue"], verified(told, account)) == ("ALARM", "2")
    cloudwatch.delete_alarms(AlarmNames=[shown["AlarmName"]])
    sns.delete_topic(TopicArn=believed.topics[0])


def test_what_is_put_is_watched_and_remembered(cloudwatch: Any, alarm: dict[str, Any]) -> None:
    name = alarm["AlarmName"]
    cloudwatch.put_metric_alarm(**alarm, Tags=[{"Key": "model", "Value": "churn"}])
    until(lambda: state_of(cloudwatch, name) == "ALARM", lambda: put(cloudwatch, alarm, 5.0))
    (shown,) = cloudwatch.describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    data = json.loads(shown["StateReasonData"])
    assert (data["statistic"], data["period"], data["threshold"]) == ("Sum", 60, 2.0)
    assert data["evaluatedDatapoints"][0]["value"] == data["recentDatapoints"][-1] >= 5.0
    assert cloudwatch.list_tags_for_resource(ResourceARN=shown["AlarmArn"])["Tags"]
    cloudwatch.put_metric_alarm(**{**alarm, "Threshold": 1e9})  # its state is kept until it is evaluated
    until(lambda: state_of(cloudwatch, name) == "OK", lambda: put(cloudwatch, alarm, 5.0))
    items = cloudwatch.describe_alarm_history(AlarmName=name, ScanBy="TimestampAscending")["AlarmHistoryItems"]
    said = [each["HistorySummary"] for each in items]
    assert said[0] == f'Alarm "{name}" created'
    assert said[-2:] == [f'Alarm "{name}" updated', "Alarm updated from ALARM to OK"]
    first = cloudwatch.describe_alarm_history(AlarmName=name, MaxRecords=1)
    assert first["AlarmHistoryItems"] == items[-1:]
    assert first["NextToken"]


def test_an_expression_over_several_metrics(
    cloudwatch: Any, alarm: dict[str, Any], topic: str, subscription: str, receiver: Receiver, path: str
) -> None:
    """The share of errors, from two sums."""
    name, dimensions = alarm["AlarmName"], alarm["Dimensions"]
    queries: list[dict[str, Any]] = [{"Id": "share", "Expression": "100 * errors / calls", "Label": "errors, %"}]
    for metric in ("errors", "calls"):
        of = {"Namespace": name, "MetricName": metric, "Dimensions": dimensions}
        queries.append({"Id": metric, "MetricStat": {"Metric": of, "Period": 60, "Stat": "Sum"}, "ReturnData": False})
    settings = {key: alarm[key] for key in ("AlarmName", "EvaluationPeriods", "ComparisonOperator")}
    cloudwatch.put_metric_alarm(**settings, Threshold=10.0, Metrics=queries, AlarmActions=[topic])

    def calls(errors: float) -> None:
        data = [
            {"MetricName": metric, "Dimensions": dimensions, "Value": value}
            for metric, value in (("errors", errors), ("calls", 100.0))
        ]
        cloudwatch.put_metric_data(Namespace=name, MetricData=data)

    until(lambda: state_of(cloudwatch, name) == "OK", lambda: calls(5.0))
    until(lambda: state_of(cloudwatch, name) == "ALARM", lambda: calls(20.0))
    trigger = receiver.wait(path, TOLD)[0].alarm["Trigger"]
    assert (trigger["Period"], trigger["Threshold"], "MetricName" in trigger) == (60, 10.0, False)
    assert trigger["Metrics"][0]["Expression"] == "100 * errors / calls"
    assert trigger["Metrics"][1]["MetricStat"]["Metric"]["Dimensions"] == [{"value": "v7", "name": "VariantName"}]
    with pytest.raises(ClientError, match="not implemented"):
        cloudwatch.put_metric_alarm(
            **settings, Threshold=1.0, Metrics=[{**queries[0], "Expression": "RATE(errors)"}, *queries[1:]]
        )


def test_a_stale_read_of_alarms(sandbox: RunningSandbox, cloudwatch: Any, alarm: dict[str, Any]) -> None:
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData="ignore")
    with sandbox.control.during("aws", "stale"):
        cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="ALARM", StateReason="by hand")
        assert state_of(cloudwatch, alarm["AlarmName"]) == "INSUFFICIENT_DATA"
    assert state_of(cloudwatch, alarm["AlarmName"]) == "ALARM"


@pytest.mark.parametrize(
    ("treatment", "state"), [("breaching", "ALARM"), ("notBreaching", "OK"), ("missing", "INSUFFICIENT_DATA")]
)
def test_missing_data(cloudwatch: Any, alarm: dict[str, Any], treatment: str, state: str) -> None:
    """From any state, no data leads to the one that the alarm says."""
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData=treatment)
    for other in {"OK", "ALARM", "INSUFFICIENT_DATA"} - {state}:
        cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue=other, StateReason="by hand")
        until(lambda: state_of(cloudwatch, alarm["AlarmName"]) == state)


def test_ignored_missing_data_keeps_the_state(cloudwatch: Any, alarm: dict[str, Any]) -> None:
    kept, watched = alarm["AlarmName"], f"{alarm['AlarmName']}-watched"
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData="ignore")
    cloudwatch.put_metric_alarm(**{**alarm, "AlarmName": watched}, TreatMissingData="missing")
    for name in (kept, watched):
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="by hand")
    until(lambda: state_of(cloudwatch, watched) == "INSUFFICIENT_DATA")
    assert state_of(cloudwatch, kept) == "ALARM"
    cloudwatch.delete_alarms(AlarmNames=[watched])


def test_metrics_that_lag_are_missing_to_alarms(
    sandbox: RunningSandbox, cloudwatch: Any, alarm: dict[str, Any]
) -> None:
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData="notBreaching")
    until(lambda: state_of(cloudwatch, alarm["AlarmName"]) == "ALARM", lambda: put(cloudwatch, alarm, 5.0))
    with sandbox.control.during("aws", "lag", delay=3600.0):
        until(lambda: state_of(cloudwatch, alarm["AlarmName"]) == "OK", lambda: put(cloudwatch, alarm, 5.0))


def test_an_alarm_acts_once_per_change_unless_it_may_not(
    cloudwatch: Any, alarm: dict[str, Any], topic: str, subscription: str, receiver: Receiver, path: str
) -> None:
    """With missing data ignored no evaluation changes the state that is set here."""
    name = alarm["AlarmName"]
    actions = {"AlarmActions": [topic], "InsufficientDataActions": [topic], "OKActions": [topic + "-that-is-gone"]}
    cloudwatch.put_metric_alarm(**alarm, TreatMissingData="ignore", **actions)

    def change(state: str) -> None:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=f"by hand: {state}")

    change("ALARM")
    change("ALARM")
    change("OK")
    cloudwatch.disable_alarm_actions(AlarmNames=[name])
    change("ALARM")
    cloudwatch.enable_alarm_actions(AlarmNames=[name])
    change("INSUFFICIENT_DATA")
    told = receiver.wait(path, TOLD, count=2)
    assert {each.alarm["NewStateReason"] for each in told} == {"by hand: ALARM", "by hand: INSUFFICIENT_DATA"}
    history = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType="Action", ScanBy="TimestampAscending")
    done = [json.loads(each["HistoryData"])["actionState"] for each in history["AlarmHistoryItems"]]
    assert done == ["Succeeded", "Failed", "Succeeded"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Statistic": "Middle"}, "enum value set"),
        ({"ExtendedStatistic": "p95"}, "either Statistic or ExtendedStatistic"),
        ({"Statistic": None, "ExtendedStatistic": "q95"}, "ExtendedStatistic is not supported"),
        ({"Period": 61}, "multiple of 60"),
        ({"EvaluationPeriods": 1500}, "more than a day"),
        ({"DatapointsToAlarm": 2}, "less than or equal to EvaluationPeriods"),
        ({"TreatMissingData": "sometimes"}, "TreatMissingData"),
        ({"AlarmActions": ["me@example.org"]}, "Invalid arn"),
        ({"AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]}, "not implemented"),
        ({"Threshold": None}, "Threshold"),
    ],
)
def test_an_alarm_that_cannot_be_is_refused(
    cloudwatch: Any, alarm: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    given = {name: value for name, value in {**alarm, **change}.items() if value is not None}
    with pytest.raises(ClientError, match=said) as caught:
        cloudwatch.put_metric_alarm(**given)
    assert refused(caught) in {("ValidationError", 400), ("NotImplemented", 501)}
    assert not cloudwatch.describe_alarms(AlarmNames=[alarm["AlarmName"]])["MetricAlarms"]


def test_faults_hit_alarms_too(sandbox: RunningSandbox, cloudwatch: Any, alarm: dict[str, Any]) -> None:
    with (
        sandbox.control.during("aws", "throttle", operation="PutMetricAlarm"),
        pytest.raises(ClientError, match="Rate exceeded"),
    ):
        cloudwatch.put_metric_alarm(**alarm)
    with sandbox.control.during("aws", "ignore", operation="PutMetricAlarm"):
        cloudwatch.put_metric_alarm(**alarm)
    assert not cloudwatch.describe_alarms(AlarmNames=[alarm["AlarmName"]])["MetricAlarms"]
    with pytest.raises(cloudwatch.exceptions.ResourceNotFound):
        cloudwatch.delete_alarms(AlarmNames=[alarm["AlarmName"]])
