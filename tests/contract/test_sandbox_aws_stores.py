"""The AWS sandbox's S3, STS, CloudWatch and front door, by boto3 and obstore alone."""

import base64
import hashlib
import io
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import obstore
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError, FlexibleChecksumError
from obstore.store import S3Store

from tests.contract.aws_account import Account
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="module")
def account(sandbox: RunningSandbox) -> Account:
    return Account(sandbox.settings["aws"])


@pytest.fixture(scope="module")
def store(account: Account) -> S3Store:
    settings = account.settings
    return S3Store(
        account.bucket,
        endpoint=settings["endpoint_url"],
        region=settings["region"],
        access_key_id=settings["access_key_id"],
        secret_access_key=settings["secret_access_key"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "20s"},
    )


def refusal(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_settings_are_those_of_an_account_with_a_versioned_bucket(account: Account) -> None:
    settings = account.settings
    identity = account.client("sts").get_caller_identity()
    assert identity["Account"] == settings["account_id"]
    assert account.s3.get_bucket_versioning(Bucket=settings["bucket"])["Status"] == "Enabled"
    repository, _, digest = settings["image"].partition("@sha256:")
    assert repository.endswith(".amazonaws.com/lockstep-serving")
    assert len(bytes.fromhex(digest)) == 32


@pytest.mark.parametrize("service", ["s3", "sts", "sagemaker", "cloudwatch"])
def test_an_unknown_access_key_is_refused(account: Account, service: str) -> None:
    client = account.client(service, aws_access_key_id="AKIAUNKNOWNUNKNOWN00")
    calls: dict[str, Callable[[], object]] = {
        "s3": lambda: client.list_objects_v2(Bucket=account.bucket),
        "sts": lambda: client.get_caller_identity(),
        "sagemaker": lambda: client.list_models(),
        "cloudwatch": lambda: client.list_metrics(),
    }
    with pytest.raises(ClientError) as caught:
        calls[service]()
    assert refusal(caught)[1] == 403
    assert "Invalid" in refusal(caught)[0] or "Unrecognized" in refusal(caught)[0]


def test_what_is_not_emulated_says_so(account: Account) -> None:
    calls: list[Callable[[], object]] = [
        lambda: account.client("dynamodb").list_tables(),
        lambda: account.client("iam").list_roles(),
        lambda: account.sm.list_training_jobs(),
        lambda: account.client("sns").subscribe(TopicArn="arn:aws:sns:us-east-1:1:t", Protocol="sqs", Endpoint="x"),
        lambda: account.client("cloudwatch").put_metric_alarm(
            AlarmName="a",
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            Threshold=1.0,
            Metrics=[{"Id": "e", "Expression": "ANOMALY_DETECTION_BAND(m)", "Period": 60}],
        ),
        lambda: account.client("sagemaker", region_name="eu-west-1").list_models(),
    ]
    for call in calls:
        with pytest.raises(ClientError, match="not implemented by the sandbox") as caught:
            call()
        assert refusal(caught)[1] == 501


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
def test_a_wrong_checksum_is_refused_and_a_right_one_kept(account: Account, algorithm: str) -> None:
    key = account.name("checksum")
    answer = account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"model", ChecksumAlgorithm=algorithm)
    right = answer[f"Checksum{algorithm}"]
    read = account.s3.get_object(Bucket=account.bucket, Key=key, ChecksumMode="ENABLED")
    assert (read["Body"].read(), read[f"Checksum{algorithm}"]) == (b"model", right)
    with pytest.raises(ClientError) as caught:
        account.s3.put_object(Bucket=account.bucket, Key=key + "x", Body=b"other", **{f"Checksum{algorithm}": right})
    assert refusal(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError):
        account.s3.head_object(Bucket=account.bucket, Key=key + "x")


def test_a_wrong_content_md5_is_refused(account: Account) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(ClientError) as caught:
        account.s3.put_object(Bucket=account.bucket, Key=account.name("md5"), Body=b"model", ContentMD5=wrong)
    assert refusal(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError) as caught:
        account.s3.put_object(Bucket=account.bucket, Key=account.name("md5"), Body=b"model", ContentMD5="bm8=")
    assert refusal(caught) == ("InvalidDigest", 400)


def test_a_part_with_a_wrong_checksum_is_refused(account: Account) -> None:
    key = account.name("parts")
    upload = account.s3.create_multipart_upload(Bucket=account.bucket, Key=key)["UploadId"]
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    with pytest.raises(ClientError) as caught:
        account.s3.upload_part(
            Bucket=account.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"part", ChecksumSHA256=wrong
        )
    assert refusal(caught) == ("BadDigest", 400)
    account.s3.abort_multipart_upload(Bucket=account.bucket, Key=key, UploadId=upload)


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=2-4", 2, 4), ("bytes=7-", 7, 9), ("bytes=-3", 7, 9), ("bytes=8-99", 8, 9)]
)
def test_ranges(account: Account, asked: str, first: int, last: int) -> None:
    key = account.name("range")
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"0123456789", Metadata={"run": "r1"})
    answer = account.s3.get_object(Bucket=account.bucket, Key=key, Range=asked)
    assert answer["Body"].read() == b"0123456789"[first : last + 1]
    assert answer["ContentRange"] == f"bytes {first}-{last}/10"
    assert answer["Metadata"] == {"run": "r1"}
    assert answer["VersionId"]


def test_a_range_beyond_the_end_is_refused(account: Account) -> None:
    key = account.name("range")
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"0123")
    with pytest.raises(ClientError) as caught:
        account.s3.get_object(Bucket=account.bucket, Key=key, Range="bytes=4-")
    assert refusal(caught) == ("InvalidRange", 416)


def test_a_range_of_a_big_object_does_not_read_it_all(account: Account) -> None:
    def least_seconds(key: str) -> float:
        taken = []
        for _ in range(12):
            began = time.perf_counter()
            account.s3.get_object(Bucket=account.bucket, Key=key, Range="bytes=2-9")["Body"].read()
            taken.append(time.perf_counter() - began)
        return min(taken)

    small, big = account.name("small"), account.name("big")
    account.s3.put_object(Bucket=account.bucket, Key=small, Body=bytes(10))
    account.s3.put_object(Bucket=account.bucket, Key=big, Body=bytes(64 * 1024 * 1024))
    assert least_seconds(big) < 3 * least_seconds(small)
    account.s3.delete_object(Bucket=account.bucket, Key=big)


def test_of_many_conditional_creations_one_wins(account: Account) -> None:
    key, won, lost = account.name("once"), [], []

    def create(number: int) -> None:
        try:
            account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"%d" % number * 1000, IfNoneMatch="*")
            won.append(number)
        except ClientError as error:
            lost.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == ["PreconditionFailed"] * 7
    assert account.s3.get_object(Bucket=account.bucket, Key=key)["Body"].read(1) == b"%d" % won[0]


def test_versions_are_kept(account: Account) -> None:
    key = account.name("versions")
    old = account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"old")["VersionId"]
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"new")
    account.s3.delete_object(Bucket=account.bucket, Key=key)
    with pytest.raises(ClientError):
        account.s3.get_object(Bucket=account.bucket, Key=key)
    answer = account.s3.get_object(Bucket=account.bucket, Key=key, VersionId=old, Range="bytes=0-1")
    assert answer["Body"].read() == b"ol"


def test_compliance_retention_cannot_be_shortened(account: Account) -> None:
    bucket = account.name("locked")
    account.s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    account.s3.put_object(Bucket=bucket, Key="k", Body=b"kept", ChecksumAlgorithm="SHA256")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)

    def retain(days: int, mode: str = "COMPLIANCE") -> None:
        account.s3.put_object_retention(
            Bucket=bucket, Key="k", Retention={"Mode": mode, "RetainUntilDate": until + timedelta(days=days)}
        )

    retain(0)
    retain(1)
    for days, mode in ((0, "COMPLIANCE"), (5, "GOVERNANCE")):
        with pytest.raises(ClientError) as caught:
            retain(days, mode)
        assert refusal(caught) == ("AccessDenied", 403)


def test_a_presigned_address_works(account: Account) -> None:
    key = account.name("signed")
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"model")
    address = account.s3.generate_presigned_url("get_object", Params={"Bucket": account.bucket, "Key": key})
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.read() == b"model"


def test_obstore_writes_reads_lists_and_creates_once(account: Account, store: S3Store) -> None:
    prefix = account.name("obstore")
    obstore.put(store, f"{prefix}/a", b"0123456789")
    assert bytes(obstore.get(store, f"{prefix}/a").bytes()) == b"0123456789"
    assert bytes(obstore.get_range(store, f"{prefix}/a", start=3, end=6)) == b"345"
    assert [bytes(part) for part in obstore.get_ranges(store, f"{prefix}/a", starts=[0, 8], ends=[2, 10])] == [
        b"01",
        b"89",
    ]
    obstore.put(store, f"{prefix}/sub/b", b"b", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, f"{prefix}/sub/b", b"c", mode="create")
    listed = [meta["path"] for batch in obstore.list(store, prefix) for meta in batch]
    assert sorted(listed) == [f"{prefix}/a", f"{prefix}/sub/b"]
    assert obstore.list_with_delimiter(store, prefix)["common_prefixes"] == [f"{prefix}/sub"]
    assert obstore.head(store, f"{prefix}/a")["size"] == 10
    obstore.copy(store, f"{prefix}/a", f"{prefix}/c")
    obstore.delete(store, [f"{prefix}/a", f"{prefix}/c", f"{prefix}/sub/b"])
    assert [meta for batch in obstore.list(store, prefix) for meta in batch] == []


def test_obstore_uploads_in_parts(account: Account, store: S3Store) -> None:
    key, data = account.name("multipart"), bytes(range(256)) * 4096 * 12
    obstore.put(store, key, data, chunk_size=5 * 1024 * 1024, use_multipart=True)
    head = account.s3.head_object(Bucket=account.bucket, Key=key)
    assert head["ContentLength"] == len(data)
    assert head["ETag"].endswith('-3"')
    assert hashlib.sha256(obstore.get(store, key).bytes()).digest() == hashlib.sha256(data).digest()
    obstore.delete(store, key)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_boto3_uploads_and_downloads_in_parts(account: Account, algorithm: str) -> None:
    key, data = account.name("transfer"), bytes(range(256)) * 4096 * 10
    parts = TransferConfig(multipart_threshold=5 * 1024 * 1024, multipart_chunksize=5 * 1024 * 1024)
    account.s3.upload_fileobj(
        io.BytesIO(data), account.bucket, key, Config=parts, ExtraArgs={"ChecksumAlgorithm": algorithm}
    )
    read = io.BytesIO()
    account.s3.download_fileobj(account.bucket, key, read, Config=parts)
    assert read.getvalue() == data
    account.s3.delete_object(Bucket=account.bucket, Key=key)


def test_a_condition_on_a_range_is_honoured(account: Account) -> None:
    key = account.name("pinned")
    etag = account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"0123")["ETag"]
    asked = {"Bucket": account.bucket, "Key": key, "Range": "bytes=1-2", "IfMatch": etag}
    assert account.s3.get_object(**asked)["Body"].read() == b"12"
    account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"4567")
    with pytest.raises(ClientError) as caught:
        account.s3.get_object(**asked)
    assert refusal(caught) == ("PreconditionFailed", 412)


def test_a_retained_version_cannot_be_deleted(account: Account) -> None:
    bucket = account.name("kept")
    account.s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    version = account.s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"kept",
        ChecksumAlgorithm="SHA256",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(days=1),
    )["VersionId"]
    with pytest.raises(ClientError) as caught:
        account.s3.delete_object(Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
    assert refusal(caught) == ("AccessDenied", 403)
    assert account.s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"


def test_a_corrupted_object_keeps_its_etag(account: Account, sandbox: RunningSandbox) -> None:
    key = account.name("corrupt")
    etag = account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"model")["ETag"]
    assert sandbox.control.corrupt("aws", key, 1) == f"s3://{account.bucket}/{key}"
    unchecked = account.client("s3", config=Config(response_checksum_validation="when_required"))
    answer = unchecked.get_object(Bucket=account.bucket, Key=key)
    assert (answer["Body"].read(), answer["ETag"]) == (b"m\x90del", etag)
    with pytest.raises(FlexibleChecksumError):
        account.s3.get_object(Bucket=account.bucket, Key=key)["Body"].read()


def test_an_ignored_write_leaves_no_object(account: Account, sandbox: RunningSandbox) -> None:
    key = account.name("ignored")
    sandbox.control.fault("aws", "ignore", operation="PutObject", resource=f"*{key}")
    assert account.s3.put_object(Bucket=account.bucket, Key=key, Body=b"model")["ETag"]
    with pytest.raises(ClientError):
        account.s3.head_object(Bucket=account.bucket, Key=key)


def test_throttling_has_each_services_own_words(account: Account, sandbox: RunningSandbox) -> None:
    expected = {"s3": ("SlowDown", 503), "sagemaker": ("ThrottlingException", 400), "sts": ("Throttling", 400)}
    calls: dict[str, tuple[str, Callable[[], object]]] = {
        "s3": ("ListObjectsV2", lambda: account.s3.list_objects_v2(Bucket=account.bucket)),
        "sagemaker": ("ListModels", lambda: account.sm.list_models()),
        "sts": ("GetCallerIdentity", lambda: account.client("sts").get_caller_identity()),
    }
    for service, (operation, call) in calls.items():
        sandbox.control.fault("aws", "throttle", operation=operation)
        with pytest.raises(ClientError) as caught:
            call()
        assert refusal(caught) == expected[service]
        call()


def test_a_failing_cloudwatch_answers_so_that_boto3_understands(account: Account, sandbox: RunningSandbox) -> None:
    sandbox.control.fault("aws", "fail", operation="ListMetrics")
    with pytest.raises(ClientError) as caught:
        account.client("cloudwatch").list_metrics()
    assert refusal(caught) == ("InternalFailure", 500)


def test_metrics_have_statistics_and_percentiles(account: Account) -> None:
    cloudwatch, namespace = account.client("cloudwatch"), account.name("Test")
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
    cloudwatch.put_metric_data(
        Namespace=namespace,
        MetricData=[
            {"MetricName": "Latency", "Timestamp": at, "Values": [float(n) for n in range(1, 101)], "Unit": "Seconds"},
            {"MetricName": "Latency", "Timestamp": at + timedelta(minutes=1), "Value": 7.0, "Unit": "Seconds"},
        ],
    )
    window = {"StartTime": at - timedelta(minutes=1), "EndTime": at + timedelta(minutes=5)}
    common = {"Namespace": namespace, "MetricName": "Latency", "Period": 60, **window}
    points = cloudwatch.get_metric_statistics(Statistics=["Sum", "Average", "SampleCount", "Maximum"], **common)
    first = min(points["Datapoints"], key=lambda point: point["Timestamp"])
    assert (first["Sum"], first["Average"], first["SampleCount"], first["Maximum"]) == (5050.0, 50.5, 100.0, 100.0)
    assert (first["Timestamp"], first["Unit"]) == (at, "Seconds")
    points = cloudwatch.get_metric_statistics(ExtendedStatistics=["p95", "p99"], **common)
    assert min(points["Datapoints"], key=lambda p: p["Timestamp"])["ExtendedStatistics"] == {"p95": 95.0, "p99": 99.0}
    stat = {"Metric": {"Namespace": namespace, "MetricName": "Latency"}, "Period": 60, "Stat": "p50"}
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": stat}], ScanBy="TimestampAscending", **window
    )["MetricDataResults"][0]
    assert (answer["Values"], answer["Label"]) == ([50.0, 7.0], "Latency")
    with pytest.raises(ClientError, match="not implemented by the sandbox"):
        cloudwatch.get_metric_data(MetricDataQueries=[{"Id": "m", "Expression": "SUM(METRICS())"}], **window)


def test_statistics_beyond_1440_datapoints_are_refused(account: Account) -> None:
    end = datetime.now(UTC)
    with pytest.raises(ClientError, match="1440"):
        account.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            StartTime=end - timedelta(days=2),
            EndTime=end,
            Period=60,
            Statistics=["Sum"],
        )


def test_lagging_metrics_are_not_visible_yet(account: Account, sandbox: RunningSandbox) -> None:
    cloudwatch, namespace = account.client("cloudwatch"), account.name("Test")
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": "N", "Value": 1.0}])
    end = datetime.now(UTC) + timedelta(minutes=1)

    def seen() -> int:
        stat = {"Metric": {"Namespace": namespace, "MetricName": "N"}, "Period": 60, "Stat": "Sum"}
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": stat}], StartTime=end - timedelta(minutes=5), EndTime=end
        )
        return len(answer["MetricDataResults"][0]["Values"])

    assert seen() == 1
    number = sandbox.control.fault("aws", "lag", delay=30.0)
    assert seen() == 0
    sandbox.control.clear(number)
    assert seen() == 1


def test_route53_weighted_records_and_sns_topics_pass(account: Account) -> None:
    topic = account.client("sns").create_topic(Name=account.name("topic"))["TopicArn"]
    assert account.client("sns").publish(TopicArn=topic, Message="hello")["MessageId"]
    account.client("sns").delete_topic(TopicArn=topic)
    route53 = account.client("route53")
    zone = route53.create_hosted_zone(Name="example.com", CallerReference=account.name("zone"))["HostedZone"]["Id"]
    assert any(found["Id"] == zone for found in route53.list_hosted_zones()["HostedZones"])
    route53.delete_hosted_zone(Id=zone)


@pytest.fixture
def locked(account: Account) -> str:
    """A bucket with Object Lock."""
    bucket = account.name("lock")
    account.s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return bucket


def lock_until(days: float) -> dict[str, object]:
    return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=days)}


def test_the_archive_is_a_bucket_with_object_lock(account: Account) -> None:
    found = account.s3.get_object_lock_configuration(Bucket=account.settings["archive_bucket"])
    assert found["ObjectLockConfiguration"] == {"ObjectLockEnabled": "Enabled"}
    with pytest.raises(ClientError) as caught:
        account.s3.get_object_lock_configuration(Bucket=account.bucket)
    assert refusal(caught) == ("ObjectLockConfigurationNotFoundError", 404)


def test_a_locked_version_is_neither_deleted_nor_released_and_may_be_kept_longer(account: Account, locked: str) -> None:
    version = account.s3.put_object(Bucket=locked, Key="k", Body=b"kept", **lock_until(2))["VersionId"]
    named = {"Bucket": locked, "Key": "k", "VersionId": version}
    sooner, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 3))
    acts: tuple[Callable[[], object], ...] = (
        lambda: account.s3.delete_object(**named, BypassGovernanceRetention=True),
        lambda: account.s3.put_object_retention(**named, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": sooner}),
        lambda: account.s3.put_object_retention(
            **named, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later}, BypassGovernanceRetention=True
        ),
        lambda: account.s3.put_object_retention(**named, Retention={}, BypassGovernanceRetention=True),
    )
    for act in acts:
        with pytest.raises(ClientError) as caught:
            act()
        assert refusal(caught) == ("AccessDenied", 403)
    bulk = account.s3.delete_objects(Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": version}]})
    assert [error["Code"] for error in bulk["Errors"]] == ["AccessDenied"]
    account.s3.put_object_retention(**named, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": later})
    kept = account.s3.get_object(**named)
    assert (kept["Body"].read(), kept["ObjectLockMode"]) == (b"kept", "COMPLIANCE")
    assert abs(kept["ObjectLockRetainUntilDate"] - later) < timedelta(seconds=1)


def test_object_lock_is_not_turned_off_by_way_of_versioning(account: Account, locked: str) -> None:
    with pytest.raises(ClientError) as caught:
        account.s3.put_bucket_versioning(Bucket=locked, VersioningConfiguration={"Status": "Suspended"})
    assert refusal(caught) == ("InvalidBucketState", 409)
    assert account.s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    account.s3.put_bucket_versioning(Bucket=account.bucket, VersioningConfiguration={"Status": "Enabled"})


def test_a_lock_needs_a_bucket_that_allows_it_and_a_time_to_come(account: Account, locked: str) -> None:
    with pytest.raises(ClientError, match="missing Object Lock Configuration") as caught:
        account.s3.put_object(Bucket=account.bucket, Key=account.name("lock"), Body=b"x", **lock_until(1))
    assert refusal(caught) == ("InvalidRequest", 400)
    wrong: tuple[dict[str, object], ...] = (lock_until(-1), {"ObjectLockMode": "COMPLIANCE"})
    for fields in wrong:
        with pytest.raises(ClientError) as caught:
            account.s3.put_object(Bucket=locked, Key="k", Body=b"x", **fields)
        assert refusal(caught) == ("InvalidArgument", 400)
    assert "Versions" not in account.s3.list_object_versions(Bucket=locked)


def test_versions_are_listed_newest_first_in_pages_that_join(account: Account, locked: str) -> None:
    made = [
        (key, account.s3.put_object(Bucket=locked, Key=key, Body=b"x")["VersionId"])
        for key in ("a/1", "a/1", "a/2 ü", "a/1", "a/3", "b")
    ]
    marker = account.s3.delete_object(Bucket=locked, Key="a/2 ü")["VersionId"]
    expected = [*reversed([one for one in made if one[0] == "a/1"]), ("a/2 ü", marker), made[2], made[4]]
    for size in (1, 2, 3, 1000):
        pages = account.s3.get_paginator("list_object_versions").paginate(
            Bucket=locked, Prefix="a/", PaginationConfig={"PageSize": size}
        )
        seen = [each for page in pages for each in (*page.get("Versions", []), *page.get("DeleteMarkers", []))]
        if size == 1:
            assert [(each["Key"], each["VersionId"]) for each in seen] == expected
        assert sorted((each["Key"], each["VersionId"]) for each in seen) == sorted(expected)
        latest = {each["Key"]: each["VersionId"] for each in seen if each["IsLatest"]}
        assert latest == {"a/1": made[3][1], "a/2 ü": marker, "a/3": made[4][1]}
    behind = account.s3.list_object_versions(Bucket=locked, KeyMarker="a/1")
    assert [each["Key"] for each in behind["Versions"]] == ["a/2 ü", "a/3", "b"]
