"""S3 Object Lock where moto is lax, and the listing of versions, which Object Lock's users depend on.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from moto.s3.models import FakeKey
from werkzeug.wrappers import Request, Response

from sandbox.aws.errors import AwsError
from sandbox.aws.moto_host import MotoHost

if TYPE_CHECKING:
    from moto.s3.models import FakeDeleteMarker

MODE: Final = "x-amz-object-lock-mode"
UNTIL: Final = "x-amz-object-lock-retain-until-date"
MOST: Final = 1000  # versions in one page
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
PROTECTED: Final = "Access Denied because object protected by object lock."


def check_put(request: Request, moto: MotoHost, bucket: str) -> None:
    """What PutObject asks of the headers that lock the new version."""
    mode, until = request.headers.get(MODE), request.headers.get(UNTIL)
    if mode is None and until is None:
        return
    found = moto.bucket(bucket)
    if found is None:
        return
    if not found.object_lock_enabled:
        raise AwsError("InvalidRequest", "Bucket is missing Object Lock Configuration")
    if mode is None or until is None:
        raise AwsError("InvalidArgument", f"{MODE} and {UNTIL} must both be supplied")
    if mode not in ("COMPLIANCE", "GOVERNANCE"):
        raise AwsError("InvalidArgument", "Unknown wormMode directive.")
    if _time(until) <= datetime.now(UTC):
        raise AwsError("InvalidArgument", "The retain until date must be in the future!")
    names = {name.lower() for name, _ in request.headers}
    if "content-md5" not in names and not any(
        name.startswith("x-amz-checksum-") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer")
        for name in names
    ):
        message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
        raise AwsError("InvalidRequest", message)


def check_retention(request: Request, moto: MotoHost, bucket: str, name: str) -> None:
    """PutObjectRetention: COMPLIANCE is neither shortened nor weakened, GOVERNANCE only by those who may bypass it."""
    key = moto.object(bucket, name, request.args.get("versionId"))
    if key is None or not key.lock_until:
        return
    body = request.get_data(cache=True)
    found = re.search(rb"<RetainUntilDate>([^<]+)</RetainUntilDate>", body)
    shorter = found is None or _time(found.group(1).decode()) < _time(key.lock_until)
    bypass = request.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
    weaker = key.lock_mode == "COMPLIANCE" and b"<Mode>COMPLIANCE</Mode>" not in body
    if weaker or (shorter and not (key.lock_mode == "GOVERNANCE" and bypass)):
        raise AwsError("AccessDenied", PROTECTED, 403)


def check_versioning(request: Request, moto: MotoHost, bucket: str) -> None:
    """PutBucketVersioning: a bucket with Object Lock keeps its versions."""
    found = moto.bucket(bucket)
    if found is not None and found.object_lock_enabled and b"<Status>Enabled</Status>" not in request.get_data():
        message = "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
        raise AwsError("InvalidBucketState", message, 409)


def list_versions(request: Request, moto: MotoHost, bucket: str) -> Response:
    """ListObjectVersions: by key, a key's newest version first. moto copies every object's bytes for each listing."""
    if moto.bucket(bucket) is None:
        raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
    query = request.args
    prefix, most = query.get("prefix", ""), min(int(query.get("max-keys", MOST)), MOST)
    behind, behind_version = query.get("key-marker", ""), query.get("version-id-marker", "")
    shown: list[tuple[FakeKey | FakeDeleteMarker, bool]] = []
    truncated, skipping = False, bool(behind_version)
    for key, latest in moto.versions(bucket, prefix):
        if key.name < behind or (key.name == behind and not behind_version):
            continue
        if key.name == behind and skipping:
            skipping = str(key.version_id) != behind_version
            continue
        if len(shown) == most:
            truncated = True
            break
        shown.append((key, latest))
    encode = query.get("encoding-type") == "url"
    parts = [f"<Name>{bucket}</Name><Prefix>{_key(prefix, encode)}</Prefix><MaxKeys>{most}</MaxKeys>"]
    parts.append(f"<KeyMarker>{_key(behind, encode)}</KeyMarker><VersionIdMarker>{behind_version}</VersionIdMarker>")
    parts.append(f"<IsTruncated>{str(truncated).lower()}</IsTruncated>")
    if encode:
        parts.append("<EncodingType>url</EncodingType>")
    if truncated and shown:
        last = shown[-1][0]
        parts.append(f"<NextKeyMarker>{_key(last.name, encode)}</NextKeyMarker>")
        parts.append(f"<NextVersionIdMarker>{last.version_id}</NextVersionIdMarker>")
    parts += [_entry(key, latest, encode) for key, latest in shown]
    body = f'<?xml version="1.0" encoding="UTF-8"?><ListVersionsResult xmlns="{NAMESPACE}">{"".join(parts)}'
    return Response(f"{body}</ListVersionsResult>", 200, content_type="application/xml")


def _entry(key: FakeKey | FakeDeleteMarker, latest: bool, encode: bool) -> str:
    what = "Version" if isinstance(key, FakeKey) else "DeleteMarker"
    fields = f"<Key>{_key(key.name, encode)}</Key><VersionId>{key.version_id}</VersionId>"
    fields += f"<IsLatest>{str(latest).lower()}</IsLatest>"
    fields += f"<LastModified>{key.last_modified.strftime('%Y-%m-%dT%H:%M:%S.000Z')}</LastModified>"
    if isinstance(key, FakeKey):
        fields += f"<ETag>{escape(key.etag)}</ETag><Size>{key.contentsize}</Size><StorageClass>STANDARD</StorageClass>"
    return f"<{what}>{fields}</{what}>"


def _key(name: str, encode: bool) -> str:
    return quote(name) if encode else escape(name)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
