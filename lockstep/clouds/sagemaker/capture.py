"""Requests that SageMaker captured: JSON Lines in S3, minutes late.

Objects lie under `{DestinationS3Uri}/{endpoint}/{variant}/yyyy/mm/dd/hh/`, by the hour (UTC) of the invocation; a line
is one request with its answer. `eventMetadata.inferenceId` is the InferenceId that the caller gave to InvokeEndpoint:
only such requests can be found again. Which variant answered stands in the key alone. Source: the SageMaker developer
guide, "Capture data from real-time endpoint".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from lockstep.clouds.sagemaker.errors import is_missing
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.errors import RefusedError
from lockstep.rules.measurement import CapturedRequest

#: Most objects, and bytes, that one question reads.
MAX_OBJECTS: Final = 2000
MAX_BYTES: Final = 512 * 2**20
READERS: Final = 8
FOLDER: Final = "captured"
#: An id that JSON writes as it is, so that a line without it need not be parsed.
PLAIN: Final = re.compile(r"[\w.:-]+", re.ASCII)


def destination(settings: SageMakerSettings) -> str:
    """Where endpoints made by Lockstep put what they capture."""
    return f"{settings.uri}/{FOLDER}"


def capture_config(settings: SageMakerSettings) -> dict[str, Any] | None:
    """DataCaptureConfig for these settings; None when nothing is to be captured."""
    if not settings.capture_percent:
        return None
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": settings.capture_percent,
        "DestinationS3Uri": destination(settings),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }


def find_captured(
    s3: Any, cloud: str, uri: str, endpoint: str, request_id: str, since: datetime, until: datetime
) -> tuple[CapturedRequest, ...]:
    """Captured requests with this InferenceId between two aware times, oldest first, from the destination `uri`.

    Raises RefusedError, before anything is read, when the time holds more than MAX_OBJECTS or MAX_BYTES.
    """
    bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    top = f"{prefix}/{endpoint}/".lstrip("/")
    objects: list[tuple[str, str]] = []
    size = 0
    for slot in _slots(s3, bucket, top):
        for key, length in _keys(s3, bucket, f"{top}{slot}/", since, until):
            objects.append((slot, key))
            size += length
            if len(objects) > MAX_OBJECTS or size > MAX_BYTES:
                raise RefusedError(
                    f"{endpoint} captured too much between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC to "
                    f"look for a request: more than {MAX_OBJECTS} objects or {MAX_BYTES // 2**20} MiB under "
                    f"s3://{bucket}/{top}",
                    cloud=cloud,
                    hint="name the time of the request: --time",
                )

    def read(slot: str, key: str) -> list[CapturedRequest]:
        source = f"s3://{bucket}/{key}"
        return [
            CapturedRequest(cloud, slot, request_id, at, source)
            for at in _times(_content(s3, bucket, key), request_id)
            if since.replace(microsecond=0) <= at <= until  # inferenceTime has whole seconds
        ]

    with ThreadPoolExecutor(READERS) as pool:
        found = [one for part in pool.map(lambda place: read(*place), objects) for one in part]
    return tuple(sorted(found, key=lambda one: (one.at, one.source)))


def _slots(s3: Any, bucket: str, top: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=top, Delimiter="/")
    folders = [folder["Prefix"] for page in pages for folder in page.get("CommonPrefixes") or ()]
    return [str(folder).removeprefix(top).rstrip("/") for folder in folders]


def _keys(s3: Any, bucket: str, folder: str, since: datetime, until: datetime) -> Iterator[tuple[str, int]]:
    """Keys and sizes of the hours concerned: they sort as time goes, so the listing begins and ends with them."""
    first, last = (f"{moment.astimezone(UTC):%Y/%m/%d/%H}" for moment in (since, until))
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder, StartAfter=folder + first)
    for page in pages:
        for item in page.get("Contents") or ():
            if item["Key"].removeprefix(folder)[: len(last)] > last:
                return
            yield item["Key"], int(item["Size"])


def _content(s3: Any, bucket: str, key: str) -> bytes:
    from botocore.exceptions import ClientError

    try:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if not is_missing(error):
            raise
        return b""  # a lifecycle rule took it away since the listing
    return content


def _times(content: bytes, request_id: str) -> Iterator[datetime]:
    needle = request_id.encode() if PLAIN.fullmatch(request_id) else b""
    for line in content.splitlines():
        if not line.strip() or needle not in line:
            continue
        try:
            metadata = json.loads(line)["eventMetadata"]
        except (ValueError, KeyError, TypeError):
            continue  # no line of the service's
        if metadata.get("inferenceId") == request_id:
            yield datetime.fromisoformat(metadata["inferenceTime"]).astimezone(UTC)
