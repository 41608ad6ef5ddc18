"""HMAC-SHA256 over the raw body, as each vendor does it, with several secrets while one is being replaced.

Grafana: hex over `time:body` where its contact point names a timestamp header, else over the body
(https://github.com/grafana/alerting, http/hmac.go). PagerDuty: `v1=<hex>` over the body, one for each active secret,
joined by commas (https://developer.pagerduty.com/docs/webhook-signatures). MLflow: `v1,<base64>` over `id.time.body`
(https://mlflow.org/docs/latest/ml/webhooks/). Ours for anything else: hex or base64 over the body or `time.body`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from pydantic import SecretStr

from lockstep.agent.delivery import Delivery, ForgedError, UnprovedError

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_TIME: Final = re.compile(r"[0-9]{1,12}")
HEX: Final = "64 hexadecimal digits"
BASE64: Final = "32 bytes in base64"
#: Signatures of one header that are looked at: PagerDuty's active secrets of one subscription are a handful.
_MOST_SIGNATURES: Final = 8


@dataclass(frozen=True)
class GrafanaSignature:
    """Grafana's; `timestamp_header` as in its contact point, "" where none is configured there."""

    source: str
    secrets: Sequence[SecretStr]
    header: str
    timestamp_header: str
    window: float

    def verify(self, delivery: Delivery) -> str:
        """Returns the signature where it covers a time, else ""; raises ForgedError."""
        given = _given(self.source, delivery, self.header)
        time = _signed_time(self.source, delivery, self.timestamp_header) if self.timestamp_header else ""
        content = f"{time}:".encode() + delivery.body if time else delivery.body
        digest = _check(self.source, self.secrets, content, _hexadecimal([given]), HEX)
        if not time:
            return ""
        refuse_old(self.source, float(time), delivery.at, self.window)
        return digest


@dataclass(frozen=True)
class PagerDutySignature:
    """PagerDuty's, which covers no header with a time; the event's own time is in the body."""

    source: str
    secrets: Sequence[SecretStr]

    def verify(self, delivery: Delivery) -> str:
        """Returns the body's digest under a secret; raises ForgedError."""
        given = [part.strip() for part in _given(self.source, delivery, "x-pagerduty-signature").split(",")]
        signatures = [part.removeprefix("v1=") for part in given if part.startswith("v1=")]
        return _check(self.source, self.secrets, delivery.body, _hexadecimal(signatures), f"v1= and {HEX}")


@dataclass(frozen=True)
class MlflowSignature:
    """MLflow's, over the delivery's identifier and time, too."""

    source: str
    secrets: Sequence[SecretStr]
    window: float

    def verify(self, delivery: Delivery) -> str:
        """Returns the delivery's identifier; raises ForgedError."""
        version, _, encoded = _given(self.source, delivery, "x-mlflow-signature").partition(",")
        name = delivery.headers.get("x-mlflow-delivery-id", "")
        # A point in the identifier would let it swallow the time that follows it.
        if not name or "." in name or len(name) > 128:
            raise ForgedError(f"source {self.source}: the delivery's id is missing or malformed")
        time = _signed_time(self.source, delivery, "x-mlflow-timestamp")
        content = f"{name}.{time}.".encode() + delivery.body
        signatures = _base64([encoded] if version == "v1" else [])
        _check(self.source, self.secrets, content, signatures, f"v1, and {BASE64}")
        refuse_old(self.source, float(time), delivery.at, self.window)
        return name


@dataclass(frozen=True)
class BodySignature:
    """Any sender's: `prefix` before the signature in `header`, and a time that is signed with the body if named."""

    source: str
    secrets: Sequence[SecretStr]
    header: str
    prefix: str
    encoding: Literal["hex", "base64"]
    timestamp_header: str
    window: float

    def verify(self, delivery: Delivery) -> str:
        """Returns the signature where it covers a time, else ""; raises ForgedError."""
        given = _given(self.source, delivery, self.header)
        found = [given.removeprefix(self.prefix)] if given.startswith(self.prefix) else []
        time = _signed_time(self.source, delivery, self.timestamp_header) if self.timestamp_header else ""
        content = f"{time}.".encode() + delivery.body if time else delivery.body
        decoded = _hexadecimal(found) if self.encoding == "hex" else _base64(found)
        form = HEX if self.encoding == "hex" else BASE64
        form = f"{self.prefix} and {form}" if self.prefix else form
        digest = _check(self.source, self.secrets, content, decoded, form)
        if not time:
            return ""
        refuse_old(self.source, float(time), delivery.at, self.window)
        return digest


def refuse_old(source: str, said: float, arrived: float, window: float) -> None:
    """Raises ForgedError for what was signed more than `window` seconds before it arrived, or after."""
    if not abs(arrived - said) <= window:
        raise ForgedError(
            f"source {source}: the delivery was made more than {window:g} s ago, or is ahead of us: see both clocks"
        )


def _given(source: str, delivery: Delivery, header: str) -> str:
    """The header with the signature; raises UnprovedError where there is none."""
    given = delivery.headers.get(header, "").strip()
    if not given:
        raise UnprovedError(f"source {source}: the signature is missing, which should stand in the header {header}")
    return given


def _signed_time(source: str, delivery: Delivery, header: str) -> str:
    given = delivery.headers.get(header, "")
    if not _TIME.fullmatch(given):
        what = "no time in seconds since 1970" if given else "missing"
        raise ForgedError(f"source {source}: the time that should be signed, in the header {header}, is {what}")
    return given


def _check(source: str, secrets: Sequence[SecretStr], content: bytes, given: Iterable[bytes], form: str) -> str:
    """The digest, in hex, that one of the secrets gives and one of the signatures is; raises ForgedError.

    `form` is how a signature is written.
    """
    signatures = list(given)[:_MOST_SIGNATURES]
    matching = ""
    for secret in secrets:
        key = secret.get_secret_value().encode()
        expected = hmac.digest(key, content, "sha256")
        for signature in signatures:
            if hmac.compare_digest(expected, signature) and key:
                matching = expected.hex()
    if not matching:
        what = "wrong: another secret, or the body was changed on its way" if signatures else f"malformed, not {form}"
        raise ForgedError(f"source {source}: the signature is {what}")
    return matching


def _hexadecimal(given: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in given if _HEX.fullmatch(text)]


def _base64(given: Iterable[str]) -> list[bytes]:
    found = []
    for text in given:
        try:
            decoded = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(decoded) == sha256().digest_size:
            found.append(decoded)
    return found
