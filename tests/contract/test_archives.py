"""Every cloud's archive over the sandbox: written once, first version read, protection asked of the store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient, ImmutabilityPolicy
from botocore.exceptions import ClientError
from google.api_core.exceptions import GoogleAPIError
from google.cloud import storage
from google.oauth2.credentials import Credentials

from lockstep.clouds.archive import Archive
from lockstep.errors import CredentialsError, LockstepError, NotFoundError, RetryLaterError, UnreachableError
from tests.contract.clouds import sandbox_settings, settings_classes
from tests.sandbox_control import Control, RunningSandbox

#: How the sandbox's cloud calls the write of one object, for faults.
WRITE = {"aws": "PutObject", "azure": "PutBlob", "gcp": "storage.objects.insert"}
LIST = {"aws": "ListObjectVersions", "azure": "ListBlobs", "gcp": "storage.objects.list"}


@dataclass
class Subject:
    """One cloud's archive in a folder of its own, and hands on its store that go past the adapter."""

    home: str
    archive: Archive
    control: Control
    overwrite: Callable[[str, bytes], object]
    delete: Callable[[str], object]
    destroy: Callable[[str, str], object]
    connect: Callable[..., Archive]
    locked: bool = False  # Azure's container with version-level immutability, rather than the plain one

    def put(self, name: str, content: bytes) -> bool:
        return self.archive.create(name, content, soon())

    def attempt(self, change: Callable[..., object], *given: Any) -> bool:
        """Whether the store let somebody do it."""
        try:
            change(*given)
        except (ClientError, GoogleAPIError, HttpResponseError) as refusal:
            return not any(word in str(refusal) for word in ("AccessDenied", "retention", "BlobImmutableDueToPolicy"))
        return True


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


LOCKED = "azureml-locked"


@pytest.fixture(params=sorted([*settings_classes(), LOCKED]))
def subject(request: pytest.FixtureRequest, sandbox: RunningSandbox) -> Iterator[Subject]:
    folder = f"ledger-{uuid.uuid4().hex[:8]}"
    kind, locked = request.param.removesuffix("-locked"), request.param == LOCKED
    if locked and "azure" not in sandbox.settings:
        pytest.skip("the sandbox runs without Azure")
    place = {"archive_container": sandbox.settings["azure"]["locked_archive_container"]} if locked else {}

    def connect(**changes: object) -> Archive:
        home, settings = sandbox_settings(kind, sandbox, **{"archive_folder": folder, **place, **changes})
        assert settings is not None
        archive = settings.connect(home or "").archive()
        assert archive is not None
        return archive

    home, _ = sandbox_settings(kind, sandbox)
    if home is None:
        pytest.skip(f"the sandbox runs without the home of {kind}")
    printed = {**sandbox.settings[home], **place}
    hands = {"aws": s3_hands, "azure": blob_hands, "gcp": gcs_hands}[home](printed, folder)
    yield Subject(home, connect(), sandbox.control, *hands, connect, locked)
    sandbox.control.clear()


Hands = tuple[Callable[[str, bytes], object], Callable[[str], object], Callable[[str, str], object]]


def s3_hands(printed: dict[str, Any], folder: str) -> Hands:
    bucket = printed["archive_bucket"]
    s3 = boto3.client(
        "s3",
        endpoint_url=printed["endpoint_url"],
        region_name=printed["region"],
        aws_access_key_id=printed["access_key_id"],
        aws_secret_access_key=printed["secret_access_key"],
    )
    return (
        lambda name, content: s3.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=content),
        lambda name: s3.delete_object(Bucket=bucket, Key=f"{folder}/{name}"),
        lambda name, version: s3.delete_object(Bucket=bucket, Key=f"{folder}/{name}", VersionId=version),
    )


def blob_hands(printed: dict[str, Any], folder: str) -> Hands:
    container = ContainerClient(
        printed["blob_endpoint"],
        printed["archive_container"],
        credential=printed["storage_key"],
        connection_verify=printed["ca_file"],
        retry_total=0,
    )
    return (
        lambda name, content: container.upload_blob(f"{folder}/{name}", content, overwrite=True),
        lambda name: container.delete_blob(f"{folder}/{name}"),
        lambda name, version: container.delete_blob(f"{folder}/{name}", version_id=version),
    )


def gcs_client(printed: dict[str, Any]) -> storage.Client:
    return storage.Client(
        project=printed["project"],
        credentials=Credentials(token=printed["token"]),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": printed["storage_endpoint"]},
    )


def gcs_hands(printed: dict[str, Any], folder: str) -> Hands:
    bucket = gcs_client(printed).bucket(printed["archive_bucket"])
    return (
        lambda name, content: bucket.blob(f"{folder}/{name}").upload_from_string(content, timeout=10),
        lambda name: bucket.blob(f"{folder}/{name}").delete(timeout=10),
        lambda name, version: bucket.blob(f"{folder}/{name}", generation=int(version)).delete(timeout=10),
    )


def test_what_was_created_is_read_back_and_never_written_again(subject: Subject) -> None:
    assert subject.archive.read("tile/0/000") is None
    assert subject.put("tile/0/000", b"first")
    assert not subject.put("tile/0/000", b"second")
    assert subject.archive.read("tile/0/000") == b"first"
    assert subject.archive.tampered("") == ()


def test_names_are_sorted_and_may_begin_behind_one(subject: Subject) -> None:
    names = ["checkpoint/02", "tile/0/000", "tile/0/000.p/7", "checkpoint/01", "checkpoint/10"]
    for name in names:
        assert subject.put(name, name.encode())
    assert subject.archive.names("") == tuple(sorted(names))
    assert subject.archive.names("checkpoint/") == ("checkpoint/01", "checkpoint/02", "checkpoint/10")
    assert subject.archive.names("checkpoint/", after="checkpoint/01") == ("checkpoint/02", "checkpoint/10")
    assert subject.archive.names("checkpoint/", after="checkpoint/05") == ("checkpoint/10",)
    assert subject.archive.names("nothing/") == ()
    # A name that begins another's must not be taken for it.
    assert subject.archive.read("tile/0/00") is None
    assert subject.archive.read("tile/0/000") == b"tile/0/000"


def test_protection_is_what_the_store_says(subject: Subject) -> None:
    found = subject.archive.protection()
    expected = {
        "aws": (True, "S3 Object Lock, COMPLIANCE mode on every copy"),
        "azure": (False, "not write-once: Blob Storage reports no immutability policy on the container"),
        "gcp": (True, "Cloud Storage retention policy of 400 days, locked"),
    }
    if subject.locked:
        expected["azure"] = (True, "Azure version-level immutability, a locked policy on every copy")
    assert (found.enforced, found.text) == expected[subject.home]


def test_the_first_version_stays_whatever_somebody_does(subject: Subject) -> None:
    subject.put("checkpoint/1", b"first")
    subject.put("checkpoint/2", b"untouched")
    replaced = subject.attempt(subject.overwrite, "checkpoint/1", b"forged")
    deleted = subject.attempt(subject.delete, "checkpoint/1")
    if subject.archive.protection().enforced:
        assert subject.archive.read("checkpoint/1") == b"first"
        assert subject.archive.names("checkpoint/") == ("checkpoint/1", "checkpoint/2")
        assert subject.archive.tampered("checkpoint/") == (("checkpoint/1",) if replaced or deleted else ())
        # A name that is hidden by a mark of deletion is taken all the same.
        assert not subject.put("checkpoint/1", b"anew")
        assert subject.archive.read("checkpoint/1") == b"first"
    else:  # what `protection` says is so: the first version is gone
        assert (replaced, deleted) == (True, True)
        assert subject.archive.read("checkpoint/1") is None
    assert subject.archive.read("checkpoint/2") == b"untouched"


def test_a_version_that_is_kept_cannot_be_destroyed(subject: Subject) -> None:
    """Not by its own name either, and neither before nor after another one was laid over it."""
    if not subject.archive.protection().enforced:
        pytest.skip(f"{subject.archive.place}: {subject.archive.protection().text}")
    subject.put("checkpoint/1", b"first")
    (first,) = subject.archive._versions("checkpoint/1", exact=True)
    assert not subject.attempt(subject.destroy, "checkpoint/1", first.number)
    subject.attempt(subject.overwrite, "checkpoint/1", b"forged")
    subject.attempt(subject.delete, "checkpoint/1")
    assert not subject.attempt(subject.destroy, "checkpoint/1", first.number)
    assert subject.archive.read("checkpoint/1") == b"first"


def test_azures_locked_policy_is_neither_shortened_nor_removed(sandbox: RunningSandbox) -> None:
    if "azure" not in sandbox.settings:
        pytest.skip("the sandbox runs without Azure")
    printed = sandbox.settings["azure"]
    place = printed["locked_archive_container"]
    home, settings = sandbox_settings("azureml", sandbox, archive_container=place, archive_folder=uuid.uuid4().hex)
    assert settings is not None
    archive = settings.connect(home or "").archive()
    assert archive is not None
    assert archive.create("checkpoint/1", b"first", soon())
    blob = ContainerClient(
        printed["blob_endpoint"], place, credential=printed["storage_key"], connection_verify=printed["ca_file"],
        retry_total=0,
    ).get_blob_client(archive.place.rpartition("/")[2] + "/checkpoint/1")  # fmt: skip
    sooner = ImmutabilityPolicy(expiry_time=datetime.now(UTC) + timedelta(seconds=1), policy_mode="Unlocked")
    for change in (
        lambda: blob.set_immutability_policy(sooner),
        blob.delete_immutability_policy,
        lambda: blob.set_blob_metadata({"by": "somebody"}),
    ):
        with pytest.raises(HttpResponseError, match="BlobImmutableDueToPolicy"):
            change()
    later = ImmutabilityPolicy(expiry_time=soon() + timedelta(days=1), policy_mode="Locked")
    blob.set_immutability_policy(later)
    with pytest.raises(HttpResponseError, match=r"AuthorizationFailure|AuthenticationFailed"):
        ContainerClient(
            printed["blob_endpoint"], place, credential="d3Jvbmc=", connection_verify=printed["ca_file"], retry_total=0
        ).get_blob_client(blob.blob_name).delete_immutability_policy()


def test_only_one_of_two_writers_wins(subject: Subject) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: subject.put("checkpoint/7", b"%d" % number), range(8)))
    assert won.count(True) == 1
    assert subject.archive.read("checkpoint/7") == b"%d" % won.index(True)
    assert subject.archive.tampered("") == ()


def test_errors_are_translated(subject: Subject) -> None:
    subject.put("checkpoint/1", b"first")
    for operation, verb in (
        (WRITE[subject.home], lambda: subject.put("checkpoint/2", b"second")),
        (LIST[subject.home], lambda: subject.archive.names("")),
        (LIST[subject.home], lambda: subject.archive.tampered("")),
    ):
        with subject.control.during(subject.home, "fail", operation=operation, seconds=60, status=503):
            with pytest.raises(RetryLaterError) as caught:
                verb()
            assert caught.value.cloud == subject.home
            assert caught.value.hint
    with subject.control.during(subject.home, "down"), pytest.raises(UnreachableError):
        subject.archive.read("checkpoint/1")
    assert subject.archive.names("") == ("checkpoint/1",)


def test_a_bucket_that_is_not_there_is_named_with_what_to_do(subject: Subject) -> None:
    where = "archive_container" if subject.home == "azure" else "archive_bucket"
    archive = subject.connect(**{where: "no-such-place"})
    for verb in (archive.protection, lambda: archive.names(""), lambda: archive.create("x", b"x", soon())):
        with pytest.raises(NotFoundError, match="no-such-place") as caught:
            verb()
        assert where in caught.value.hint


def test_a_silent_store_is_given_up_within_the_calls_time(subject: Subject) -> None:
    began = datetime.now(UTC)
    archive = subject.connect(call_timeout=0.5)
    hanging = subject.control.during(subject.home, "hang", operation=LIST[subject.home], seconds=30)
    with hanging, pytest.raises(LockstepError):
        archive.names("")
    assert datetime.now(UTC) - began < timedelta(seconds=10)


def test_no_archive_is_configured_by_default(sandbox: RunningSandbox) -> None:
    for kind in settings_classes():
        home, settings = sandbox_settings(kind, sandbox, archive_bucket=None)
        if kind == "azureml":
            home, settings = sandbox_settings(kind, sandbox, archive_container=None)
        assert settings is None or settings.connect(home or "").archive() is None


def test_s3_without_object_lock_says_so_and_keeps_copies_all_the_same(sandbox: RunningSandbox) -> None:
    home, settings = sandbox_settings("sagemaker", sandbox, archive_bucket="lockstep-models", archive_folder="plain")
    if settings is None:
        pytest.skip("the sandbox runs without AWS")
    archive = settings.connect(home or "").archive()
    assert archive is not None
    assert not archive.protection().enforced
    assert archive.protection().text == "not write-once: the bucket has no S3 Object Lock"
    assert archive.create(f"checkpoint/{uuid.uuid4().hex}", b"first", soon())


def test_gcs_objects_may_have_a_retention_of_their_own(sandbox: RunningSandbox) -> None:
    if "gcp" not in sandbox.settings:
        pytest.skip("the sandbox runs without Google Cloud")
    bucket = gcs_client(sandbox.settings["gcp"]).bucket(f"own-{uuid.uuid4().hex[:8]}")
    bucket.versioning_enabled = True
    bucket.create(enable_object_retention=True, timeout=10)
    home, settings = sandbox_settings("vertex", sandbox, archive_bucket=bucket.name)
    assert settings is not None
    archive = settings.connect(home or "").archive()
    assert archive is not None
    found = archive.protection()
    assert (found.enforced, found.text) == (True, "Cloud Storage object retention, locked on every copy")
    assert archive.create("checkpoint/1", b"first", soon())
    kept = bucket.blob("ledger/checkpoint/1")
    kept.reload(timeout=10)
    assert kept.retention.mode == "Locked"
    kept.upload_from_string(b"forged", timeout=10)
    kept.delete(timeout=10)
    assert archive.read("checkpoint/1") == b"first"
    assert archive.tampered("checkpoint/") == ("checkpoint/1",)
    assert not archive.create("checkpoint/1", b"anew", soon())
    with pytest.raises(GoogleAPIError, match="retention"):
        bucket.blob("ledger/checkpoint/1", generation=generations(bucket)[0]).delete(timeout=10)


def generations(bucket: storage.Bucket) -> list[int]:
    return sorted(int(blob.generation) for blob in bucket.client.list_blobs(bucket, versions=True, timeout=10))


def test_a_wrong_key_is_refused_in_our_words(sandbox: RunningSandbox) -> None:
    home, settings = sandbox_settings("sagemaker", sandbox, access_key_id="AKIAUNKNOWNUNKNOWN00")
    if settings is None:
        pytest.skip("the sandbox runs without AWS")
    archive = settings.connect(home or "").archive()
    assert archive is not None
    with suppress(NotFoundError), pytest.raises(CredentialsError):
        archive.protection()
