"""Signed webhooks to others, in the format of Standard Webhooks 1.0 (https://www.standardwebhooks.com).

Headers `webhook-id`, `webhook-timestamp` (seconds) and `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over
`id.timestamp.body`, one for each secret, separated by spaces. A secret is `whsec_` and base64, or any other text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import requests

from lockstep.agent.notice import Notice
from lockstep.agent_settings import WebhookSettings
from lockstep.errors import CloudRejectedError, RetryLaterError, UnreachableError
from lockstep.rules.alerts.routing import fits

PREFIX: Final = "whsec_"
GONE: Final = 410  # the receiver wants no more, says the standard


def signatures(secrets: Sequence[str], message: str, timestamp: int, body: bytes) -> str:
    """Value of `webhook-signature`."""
    signed = f"{message}.{timestamp}.".encode() + body
    codes = [hmac.new(_key(secret), signed, hashlib.sha256).digest() for secret in secrets]
    return " ".join("v1," + base64.b64encode(code).decode() for code in codes)


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        return secret.encode()


class Webhook:
    """One receiver."""

    def __init__(self, settings: WebhookSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._session = requests.Session()
        parts = urlsplit(settings.url)
        # The address may hold a token, so it is told of by its host and a digest of the whole.
        digest = hashlib.sha256(settings.url.encode()).hexdigest()[:8]
        self.name = f"webhook {parts.hostname} {digest}"

    def wants(self, notice: Notice) -> bool:
        """See Receiver."""
        return any(fits(pattern, notice.event) for pattern in self._settings.events)

    def send(self, notice: Notice) -> None:
        """See Receiver. An answer that sends elsewhere is not followed."""
        body, headers = self.request(notice)
        try:
            answer = self._session.post(
                self._settings.url,
                data=body,
                headers=dict(headers),
                timeout=self._settings.timeout,
                allow_redirects=False,
                stream=True,  # what it answers is not read: a body without end would be held in memory
            )
            answer.close()
        except requests.RequestException as error:
            raise UnreachableError(f"{self.name} does not answer: {type(error).__name__}") from error
        if answer.status_code == GONE:
            raise CloudRejectedError(f"{self.name} is gone (410)", hint="take it out of agent.webhooks")
        if not 200 <= answer.status_code < 300:
            raise RetryLaterError(f"{self.name} answered {answer.status_code}")

    def request(self, notice: Notice) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of the notice, signed now; the id is the same however often it is sent."""
        content = {
            "type": notice.event,
            "timestamp": datetime.fromtimestamp(notice.at, UTC).isoformat().replace("+00:00", "Z"),
            "data": {**notice.data, "title": notice.title, "text": notice.text, "urgent": notice.urgent},
        }
        body = json.dumps(content, separators=(",", ":")).encode()
        timestamp = int(self._clock())
        secrets = [secret.get_secret_value() for secret in self._settings.secrets]
        return body, {
            "content-type": "application/json",
            "user-agent": "lockstep",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(secrets, notice.id, timestamp, body),
        }
