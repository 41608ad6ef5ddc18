"""Bearer tokens: minted by the Entra endpoint, checked by every service that takes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

LIFETIME: Final = 3599  # seconds, as Entra's default access tokens
MANAGEMENT: Final = ("https://management.azure.com", "https://management.core.windows.net")
METRICS: Final = ("https://metrics.monitor.azure.com",)
SCORING: Final = ("https://ml.azure.com",)


class InvalidTokenError(ValueError):
    """The token is not one of ours, is for somebody else, or has expired."""


class Tokens:
    """Signed JSON web tokens of one tenant (RFC 7519, HMAC with SHA-256); `clock` gives Unix seconds."""

    def __init__(self, tenant: str, clock: Callable[[], float] = time.time) -> None:
        self.tenant: Final = tenant
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def mint(self, audience: str, client: str, lifetime: float = LIFETIME) -> str:
        """A token for `audience` (a resource's address without a slash at the end) that lives `lifetime` seconds."""
        now = self._clock()
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant}/",
            "iat": int(now),
            "nbf": int(now),
            "exp": now + lifetime,
            "appid": client,
            "tid": self.tenant,
            "ver": "1.0",
        }
        signed = f"{_encode({'typ': 'JWT', 'alg': 'HS256'})}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}"

    def check(self, token: str, audiences: tuple[str, ...]) -> dict[str, Any]:
        """The claims of a token meant for one of `audiences`; raises InvalidTokenError with the reason."""
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(signature, self._sign(signed)):
            raise InvalidTokenError("The access token is invalid: its signature does not match.")
        claims: dict[str, Any] = json.loads(_decode(signed.partition(".")[2]))
        if claims["exp"] <= self._clock():
            raise InvalidTokenError("The access token expiry UTC time is earlier than current UTC time.")
        if claims["aud"] not in audiences:
            raise InvalidTokenError(
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. "
                f"It should exactly match with one of the allowed audiences '{','.join(audiences)}'."
            )
        return claims

    def _sign(self, signed: str) -> str:
        digest = hmac.digest(self._key, signed.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
