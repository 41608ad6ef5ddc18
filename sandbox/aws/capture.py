"""Data capture: what a capturing endpoint was asked and answered, as JSON Lines in S3, minutes late.

Objects are named `{DestinationS3Uri}/{endpoint}/{variant}/yyyy/mm/dd/hh/{minute}-{second}-{millisecond}-{uuid}.jsonl`
by the hour of the invocation, one line for each of them with request and answer together: `captureData`,
`eventMetadata` (`eventId`, `inferenceTime`, and the caller's `inferenceId` if it gave one) and `eventVersion`, as the
developer guide's "Capture data from real-time endpoint" shows them. Assumed: only answers of 2xx are captured, and
what cannot be written, as to a bucket that does not exist, is lost without a trace.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from sandbox.aws.errors import invalid
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.shapes import refuse_unsupported
from sandbox.aws.state import Document
from sandbox.world import World

FLUSH: Final = "aws.capture.flush"
MODES: Final = {"endpointInput": ("INPUT", "Input"), "endpointOutput": ("OUTPUT", "Output")}


class Capture:
    """Draws samples, buffers lines and writes each buffer once it is old enough."""

    def __init__(self, world: World, moto: MotoHost) -> None:
        self._world = world
        self._moto = moto
        self._random = random.Random(world.seed + 1)  # noqa: S311 - a draw of samples, repeatable
        self._lock = threading.Lock()
        self._buffers: dict[tuple[str, str], list[bytes]] = {}

    def record(
        self,
        config: Document | None,
        endpoint: str,
        variant: str,
        inference_id: str | None,
        given: tuple[str, bytes],
        answered: tuple[str, bytes],
    ) -> None:
        """Capture one invocation if the endpoint's configuration wants it; bodies come with their content types."""
        if config is None or self._random.random() * 100.0 >= float(config["InitialSamplingPercentage"]):
            return
        at = datetime.now(UTC)
        line = _line(config, at, inference_id, given, answered)
        destination = str(config["DestinationS3Uri"]).removeprefix("s3://").rstrip("/")
        bucket, _, prefix = destination.partition("/")
        folder = f"{prefix}/{endpoint}/{variant}/{at:%Y/%m/%d/%H}".lstrip("/")
        with self._lock:
            waiting = self._buffers.setdefault((bucket, folder), [])
            waiting.append(line)
            first = len(waiting) == 1
        if not first:
            return
        seconds = self._world.delays.seconds(FLUSH)
        if not seconds:
            self._flush(bucket, folder, at)
            return

        def late() -> None:
            if not self._world.stop.wait(seconds):
                self._flush(bucket, folder, at)

        threading.Thread(target=late, name=f"capture-{endpoint}", daemon=True).start()

    def _flush(self, bucket: str, folder: str, began: datetime) -> None:
        with self._lock:
            lines = self._buffers.pop((bucket, folder), [])
        name = f"{began:%M-%S}-{began.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
        if lines and self._moto.bucket(bucket) is not None:
            self._moto.put(bucket, f"{folder}/{name}", b"".join(lines))


def checked(config: Document) -> Document:
    """A DataCaptureConfig as the endpoint configuration keeps it; answers 501 for encryption with an own key."""
    refuse_unsupported(config, ("KmsKeyId",), "DataCaptureConfig")
    if not str(config["DestinationS3Uri"]).startswith("s3://"):
        raise invalid(f'DestinationS3Uri "{config["DestinationS3Uri"]}" must be an S3 URI.')
    return {"EnableCapture": True, **config}


def summary(config: Document | None) -> dict[str, Any] | None:
    """DataCaptureConfigSummary of DescribeEndpoint; None for an endpoint whose configuration has none."""
    if config is None:
        return None
    enabled = bool(config["EnableCapture"])
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": "",
    }


def _line(
    config: Document, at: datetime, inference_id: str | None, given: tuple[str, bytes], answered: tuple[str, bytes]
) -> bytes:
    wanted = {option["CaptureMode"] for option in config["CaptureOptions"]}
    captured: dict[str, Any] = {}
    for (key, (mode, option)), (content_type, body) in zip(MODES.items(), (given, answered), strict=True):
        if wanted & {option, "InputAndOutput"}:
            encoding, data = _encoded(config, content_type, body)
            captured[key] = {
                "observedContentType": content_type,
                "mode": mode,
                "data": data,
                "encoding": encoding,
            }
    metadata = {"eventId": str(uuid.uuid4())}
    if inference_id is not None:
        metadata["inferenceId"] = inference_id
    metadata["inferenceTime"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    event = {"captureData": captured, "eventMetadata": metadata, "eventVersion": "0"}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _encoded(config: Document, content_type: str, body: bytes) -> tuple[str, str]:
    """Bodies are base64 unless the configuration lists their content type."""
    headers = config.get("CaptureContentTypeHeader", {})
    plain = content_type.partition(";")[0].strip()
    for encoding, listed in (("JSON", "JsonContentTypes"), ("CSV", "CsvContentTypes")):
        if plain in headers.get(listed, ()):
            return encoding, body.decode(errors="replace")
    return "BASE64", base64.b64encode(body).decode()
