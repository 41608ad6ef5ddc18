"""The Google sandbox's Cloud Storage through google-cloud-storage (JSON API) and obstore (XML API)."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import google_crc32c
import obstore
import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.exceptions import NotFound
from google.oauth2 import service_account
from obstore.store import GCSStore

from tests.sandbox_control import RunningSandbox

if TYPE_CHECKING:
    from obstore.store import ClientConfig


@pytest.fixture(scope="module")
def settings(sandbox: RunningSandbox) -> dict[str, str]:
    return dict(sandbox.settings["gcp"])


@pytest.fixture(scope="module")
def client(settings: dict[str, str]) -> storage.Client:
    credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        settings["credentials_file"]
    )
    options = {"api_endpoint": settings["storage_endpoint"]}
    return storage.Client(project=settings["project"], credentials=credentials, client_options=options)


@pytest.fixture
def make_bucket(client: storage.Client) -> Iterator[Callable[..., storage.Bucket]]:
    made: list[storage.Bucket] = []

    def make(**changes: Any) -> storage.Bucket:
        retention = bool(changes.pop("object_retention", False))
        bucket = client.bucket(f"b-{uuid.uuid4().hex[:12]}")
        for name, value in changes.items():
            setattr(bucket, name, value)
        bucket.create(enable_object_retention=retention, timeout=10)
        made.append(bucket)
        return bucket

    yield make
    for bucket in made:
        for blob in client.list_blobs(bucket, versions=True, timeout=10):
            if blob.temporary_hold or blob.event_based_hold:
                blob.temporary_hold = blob.event_based_hold = False
                blob.patch(timeout=10)
            try:
                blob.delete(timeout=10)
            except exceptions.Forbidden:
                break  # retained beyond the test: the bucket goes with the sandbox
        else:
            bucket.delete(timeout=10)


@pytest.fixture
def bucket(make_bucket: Callable[..., storage.Bucket]) -> storage.Bucket:
    return make_bucket()


def write(bucket: storage.Bucket, name: str, content: bytes, **options: Any) -> storage.Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(content, timeout=10, **options)
    return blob


def xml_store(settings: dict[str, str], bucket: storage.Bucket, **changes: Any) -> GCSStore:
    given = {"config": {"base_url": settings["storage_endpoint"], "bearer_token": settings["token"]}, **changes}
    given["config"] = {"base_url": settings["storage_endpoint"], **given["config"]}
    options: ClientConfig = {"allow_http": True, "timeout": "20s"}
    return GCSStore(bucket.name, client_options=options, retry_config={"max_retries": 1}, **given)


def test_bytes_metadata_and_checksums_come_back(bucket: storage.Bucket) -> None:
    blob = bucket.blob("a folder/näme.txt")
    blob.metadata = {"digest": "abc"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"hello", content_type="text/plain", checksum="crc32c", timeout=10)
    read = bucket.get_blob("a folder/näme.txt", timeout=10)
    assert read is not None
    assert read.download_as_bytes(timeout=10) == b"hello"
    assert (read.size, read.content_type, read.metadata, read.cache_control) == (
        5,
        "text/plain",
        {"digest": "abc"},
        "no-store",
    )
    assert read.md5_hash == base64.b64encode(hashlib.md5(b"hello").digest()).decode()
    assert read.crc32c == base64.b64encode(google_crc32c.value(b"hello").to_bytes(4, "big")).decode()
    assert read.download_as_bytes(start=1, end=3, timeout=10) == b"ell"
    read.metadata = {"digest": "new"}
    before = read.metageneration
    read.patch(timeout=10)
    assert read.metageneration == before + 1
    assert read.generation == blob.generation


def test_a_resumable_upload_arrives_whole(bucket: storage.Bucket) -> None:
    content = bytes(range(256)) * 4096
    blob = bucket.blob("large", chunk_size=256 * 1024)
    with blob.open("wb", chunk_size=256 * 1024, timeout=10) as file:
        for begin in range(0, len(content), 100_000):
            file.write(content[begin : begin + 100_000])
    assert bucket.blob("large").download_as_bytes(timeout=10) == content
    blob = bucket.blob("limited", chunk_size=512 * 1024)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.create_resumable_upload_session(if_generation_match=5, timeout=10)


def test_wrong_checksums_are_refused(settings: dict[str, str], bucket: storage.Bucket) -> None:
    wrong = base64.b64encode(b"0000").decode()
    url = f"{settings['storage_endpoint']}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
    answer = requests.post(url, data=b"hello", headers={"x-goog-hash": f"crc32c={wrong}"}, timeout=10)
    assert answer.status_code == 400
    assert "doesn't match calculated CRC32C hash" in answer.json()["error"]["message"]
    url = f"{settings['storage_endpoint']}/{bucket.name}/x"
    answer = requests.put(url, data=b"hello", headers={"Content-MD5": wrong}, timeout=10)
    assert answer.status_code == 400
    assert "<Code>BadDigest</Code>" in answer.text
    assert bucket.get_blob("x", timeout=10) is None


def test_generation_preconditions(bucket: storage.Bucket) -> None:
    blob = write(bucket, "once", b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        write(bucket, "once", b"2", if_generation_match=0)
    write(bucket, "once", b"2", if_generation_match=blob.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("once").delete(if_generation_match=blob.generation, timeout=10)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("once").download_as_bytes(if_generation_match=blob.generation, timeout=10)
    current = bucket.get_blob("once", timeout=10)
    assert current is not None
    with pytest.raises(exceptions.NotModified):
        bucket.blob("once").reload(if_generation_not_match=current.generation, timeout=10)
    with pytest.raises(exceptions.PreconditionFailed):
        current.patch(if_metageneration_match=9, timeout=10)
    with pytest.raises(NotFound):
        bucket.blob("never").download_as_bytes(timeout=10)


def test_versioning_keeps_old_generations(client: storage.Client, make_bucket: Callable[..., storage.Bucket]) -> None:
    bucket = make_bucket(versioning_enabled=True)
    first = write(bucket, "f", b"1").generation
    second = write(bucket, "f", b"22").generation
    bucket.blob("f").delete(timeout=10)
    assert bucket.get_blob("f", timeout=10) is None
    kept = list(client.list_blobs(bucket, versions=True, timeout=10))
    assert [b.generation for b in kept] == [first, second]
    assert all(b.time_deleted for b in kept)
    assert bucket.blob("f", generation=first).download_as_bytes(timeout=10) == b"1"
    restored = bucket.copy_blob(bucket.blob("f"), bucket, "f", source_generation=first, timeout=10)
    assert restored.download_as_bytes(timeout=10) == b"1"
    bucket.blob("f", generation=second).delete(timeout=10)
    assert [b.generation for b in client.list_blobs(bucket, versions=True, timeout=10)] == [first, restored.generation]


def test_a_retention_policy_keeps_objects_and_its_lock_holds(make_bucket: Callable[..., storage.Bucket]) -> None:
    bucket = make_bucket(retention_period=3600)
    blob = write(bucket, "kept", b"1")
    blob.reload(timeout=10)
    assert blob.retention_expiration_time > datetime.now(UTC) + timedelta(minutes=50)
    acts: tuple[Callable[[], object], ...] = (
        lambda: blob.delete(timeout=10),
        lambda: write(bucket, "kept", b"2"),
    )
    for act in acts:
        with pytest.raises(exceptions.Forbidden, match="retention policy"):
            act()
    bucket.reload(timeout=10)
    bucket.lock_retention_policy(timeout=10)
    assert bucket.retention_policy_locked
    for period in (60, None):
        bucket.retention_period = period
        with pytest.raises(exceptions.Forbidden, match="Cannot reduce"):
            bucket.patch(timeout=10)
    bucket.reload(timeout=10)
    bucket.retention_period = 7200
    bucket.patch(timeout=10)
    assert bucket.retention_period == 7200


def test_holds_keep_an_object(bucket: storage.Bucket) -> None:
    for hold in ("temporary_hold", "event_based_hold"):
        blob = write(bucket, hold, b"1")
        setattr(blob, hold, True)
        blob.patch(timeout=10)
        with pytest.raises(exceptions.Forbidden, match="hold"):
            blob.delete(timeout=10)
        setattr(blob, hold, False)
        blob.patch(timeout=10)
        blob.delete(timeout=10)


def test_an_object_is_retained_until_its_own_time(make_bucket: Callable[..., storage.Bucket]) -> None:
    bucket = make_bucket(object_retention=True)
    blob = write(bucket, "worm", b"1")
    until = datetime.now(UTC) + timedelta(hours=1)
    blob.retention.mode = "Unlocked"
    blob.retention.retain_until_time = until
    blob.patch(timeout=10)
    with pytest.raises(exceptions.Forbidden, match="object's retention"):
        blob.delete(timeout=10)
    blob.retention.retain_until_time = until - timedelta(minutes=30)
    with pytest.raises(exceptions.Forbidden, match="overrideUnlockedRetention"):
        blob.patch(timeout=10)
    blob.patch(override_unlocked_retention=True, timeout=10)
    blob.retention.mode = "Locked"
    blob.retention.retain_until_time = until
    blob.patch(override_unlocked_retention=True, timeout=10)
    blob.retention.mode = None
    blob.retention.retain_until_time = None
    with pytest.raises(exceptions.Forbidden, match="locked"):
        blob.patch(override_unlocked_retention=True, timeout=10)


def test_listing_by_prefix_delimiter_and_page(client: storage.Client, bucket: storage.Bucket) -> None:
    names = ["a/1", "a/2", "a/b/3", "c", "d/4"]
    for name in names:
        write(bucket, name, b"x")
    assert [b.name for b in client.list_blobs(bucket, timeout=10)] == names
    assert [b.name for b in client.list_blobs(bucket, prefix="a/", page_size=2, timeout=10)] == names[:3]
    listing = client.list_blobs(bucket, delimiter="/", timeout=10)
    assert ([b.name for b in listing], listing.prefixes) == (["c"], {"a/", "d/"})
    paged = client.list_blobs(bucket, delimiter="/", page_size=1, timeout=10)
    assert ([b.name for b in paged], paged.prefixes) == (["c"], {"a/", "d/"})
    assert [b.name for b in client.list_blobs(bucket, start_offset="a/b", end_offset="d", timeout=10)] == names[2:4]
    with pytest.raises(exceptions.MethodNotImplemented):
        list(client.list_blobs(bucket, match_glob="*", retry=None, timeout=10))


def test_rewrite_carries_bytes_and_checksums(make_bucket: Callable[..., storage.Bucket]) -> None:
    source, target = make_bucket(), make_bucket()
    blob = write(source, "x", b"bytes", content_type="text/x")
    copied = target.blob("deep/y")
    token, done, size = copied.rewrite(blob, timeout=10)
    assert (token, done, size) == (None, 5, 5)
    assert (copied.md5_hash, copied.content_type) == (blob.md5_hash, "text/x")


def test_a_corrupted_object_keeps_its_checksums(
    sandbox: RunningSandbox, settings: dict[str, str], bucket: storage.Bucket
) -> None:
    blob = write(bucket, "sound", b"0123456789")
    assert sandbox.control.corrupt("gcp", f"{bucket.name}/sound", 4) == f"gs://{bucket.name}/sound"
    blob.reload(timeout=10)
    assert blob.md5_hash == base64.b64encode(hashlib.md5(b"0123456789").digest()).decode()
    content = bytes(obstore.get(xml_store(settings, bucket), "sound").bytes())
    assert [n for n in range(10) if content[n] != b"0123456789"[n]] == [4]
    with pytest.raises(Exception, match=r"[Cc]hecksum|md5|MD5"):
        blob.download_as_bytes(checksum="md5", timeout=10)


def test_buckets_have_rules_too(client: storage.Client, bucket: storage.Bucket) -> None:
    with pytest.raises(exceptions.Conflict):
        client.create_bucket(bucket.name, timeout=10)
    with pytest.raises(exceptions.BadRequest):
        client.create_bucket("Upper_Case", timeout=10)
    write(bucket, "x", b"1")
    with pytest.raises(exceptions.Conflict, match="not empty"):
        bucket.delete(timeout=10)
    assert bucket.name in [b.name for b in client.list_buckets(timeout=10)]
    with pytest.raises(NotFound):
        client.get_bucket("no-such-bucket-here", timeout=10)


def test_signed_out_clients_are_served_and_wrong_tokens_refused(
    settings: dict[str, str], bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(bucket, "x", b"1")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", settings["storage_endpoint"])
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
    anonymous = storage.Client(project=settings["project"], credentials=nobody)
    assert anonymous.bucket(bucket.name).blob("x").download_as_bytes(timeout=10) == b"1"
    with pytest.raises(obstore.exceptions.UnauthenticatedError):
        obstore.get(xml_store(settings, bucket, config={"bearer_token": "wrong"}), "x")


def test_obstore_reads_writes_and_lists(settings: dict[str, str], bucket: storage.Bucket) -> None:
    store = xml_store(settings, bucket, prefix="pre")
    obstore.put(store, "a/b.txt", b"hello", attributes={"Content-Type": "text/plain", "digest": "d"})
    obstore.put(store, "odd %2F ü?#.txt", b"odd")
    found = obstore.get(store, "a/b.txt")
    assert bytes(found.bytes()) == b"hello"
    assert found.attributes == {"Content-Type": "text/plain", "digest": "d"}
    assert bytes(obstore.get(store, "odd %2F ü?#.txt").bytes()) == b"odd"
    assert bytes(obstore.get_range(store, "a/b.txt", start=1, end=3)) == b"el"
    assert bytes(obstore.get(store, "a/b.txt", options={"range": {"suffix": 2}}).bytes()) == b"lo"
    obstore.copy(store, "a/b.txt", "c.txt")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.copy(store, "a/b.txt", "c.txt", overwrite=False)
    obstore.rename(store, "c.txt", "d.txt")
    assert [o["path"] for o in obstore.list(store).collect()] == ["a/b.txt", "d.txt", "odd %2F ü?#.txt"]
    listed = obstore.list_with_delimiter(store)
    assert ([o["path"] for o in listed["objects"]], listed["common_prefixes"]) == (
        ["d.txt", "odd %2F ü?#.txt"],
        ["a"],
    )
    assert obstore.head(store, "d.txt")["size"] == 5
    obstore.delete(store, ["a/b.txt", "d.txt"])
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "d.txt")


def test_obstore_writes_conditionally(settings: dict[str, str], bucket: storage.Bucket) -> None:
    store = xml_store(settings, bucket)
    first = obstore.put(store, "x", b"1", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "x", b"2", mode="create")
    second = obstore.put(store, "x", b"2", mode={"e_tag": first["e_tag"], "version": first["version"]})
    with pytest.raises(obstore.exceptions.PreconditionError):
        obstore.put(store, "x", b"3", mode={"e_tag": first["e_tag"], "version": first["version"]})
    with pytest.raises(obstore.exceptions.NotModifiedError):
        obstore.get(store, "x", options={"if_none_match": second["e_tag"]})
    assert obstore.head(store, "x")["version"] == second["version"]


def test_obstore_uploads_in_parts(settings: dict[str, str], bucket: storage.Bucket) -> None:
    content = bytes(range(256)) * (64 * 1024)
    obstore.put(xml_store(settings, bucket), "big", content, chunk_size=6 * 1024 * 1024, max_concurrency=3)
    blob = bucket.get_blob("big", timeout=10)
    assert blob is not None
    assert blob.crc32c == base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    assert blob.md5_hash is None
    assert bytes(obstore.get(xml_store(settings, bucket), "big").bytes()) == content
    url = f"{settings['storage_endpoint']}/{bucket.name}/parts"
    begun = requests.post(url, params={"uploads": ""}, timeout=10).text
    number = begun.partition("<UploadId>")[2].partition("</UploadId>")[0]
    etags = [
        requests.put(url, params={"uploadId": number, "partNumber": n}, data=b"small", timeout=10).headers["ETag"]
        for n in (1, 2)
    ]
    parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in enumerate(etags, 1))
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
    refused = requests.post(url, params={"uploadId": number}, data=body, timeout=10)
    assert refused.status_code == 400
    assert "EntityTooSmall" in refused.text
    assert requests.delete(url, params={"uploadId": number}, timeout=10).status_code == 204


def test_obstore_takes_a_key_file_or_a_provider(settings: dict[str, str], bucket: storage.Bucket) -> None:
    obstore.put(xml_store(settings, bucket, config={"service_account_path": settings["credentials_file"]}), "a", b"1")

    def provide() -> Any:
        return {"token": settings["token"], "expires_at": datetime.now(UTC) + timedelta(hours=1)}

    provided = xml_store(settings, bucket, config={}, credential_provider=provide)
    assert bytes(obstore.get(provided, "a").bytes()) == b"1"


def test_a_fault_answers_as_the_store_does(
    sandbox: RunningSandbox, settings: dict[str, str], bucket: storage.Bucket
) -> None:
    write(bucket, "x", b"1")
    sandbox.control.fault("gcp", "fail", operation="storage.objects.get", resource=f"{bucket.name}/x", status=503)
    with pytest.raises(exceptions.ServiceUnavailable):
        bucket.blob("x").reload(retry=None, timeout=10)
    sandbox.control.fault("gcp", "throttle", operation="storage.objects.get", resource=f"{bucket.name}/x")
    with pytest.raises(exceptions.TooManyRequests):
        bucket.blob("x").reload(retry=None, timeout=10)
    bucket.blob("x").reload(retry=None, timeout=10)


def test_what_is_not_emulated_says_so(settings: dict[str, str], bucket: storage.Bucket) -> None:
    write(bucket, "x", b"1")
    with pytest.raises(exceptions.MethodNotImplemented, match="not implemented by the sandbox"):
        bucket.blob("y").compose([bucket.blob("x")], retry=None, timeout=10)
    answer = requests.get(f"{settings['storage_endpoint']}/{bucket.name}?lifecycle", timeout=10)
    assert answer.status_code == 501
