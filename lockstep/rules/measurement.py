"""What a cloud, or the user's own records, counted per slot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class SlotMetrics:
    """One slot's counts over a period; latencies in seconds, None where the cloud reported none.

    `errors` are answers that failed on the serving side (5xx, model errors, time-outs), not the caller's mistakes.
    """

    cloud: str
    slot: str
    requests: int
    errors: int
    latency_mean: float | None = None
    latency_p95: float | None = None


@dataclass(frozen=True)
class Answer:
    """One prediction: which slot the cloud says gave it, and which version and digest the container named.

    `latency` is in seconds, measured by the caller; `label` and `digest` are empty where the cloud hid them.
    """

    cloud: str
    slot: str
    label: str
    digest: str
    body: bytes
    request_id: str
    latency: float


@dataclass(frozen=True)
class NativeVersion:
    """A version as a cloud's own registry knows it: its resource name there, and where a person can look at it."""

    cloud: str
    resource: str
    console_url: str


@dataclass(frozen=True)
class CapturedRequest:
    """One request as its cloud kept it: the slot that answered, the caller's id, and when (aware).

    `source` is what proves it: the object or the table's row where it stands.
    """

    cloud: str
    slot: str
    request_id: str
    at: datetime
    source: str
