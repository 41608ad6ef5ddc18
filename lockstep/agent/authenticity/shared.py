"""Something that both sides know and that is sent along: a token in a header or query, or HTTP basic authentication.

Only as good as the TLS around it, which is the proxy's part. RFC 6750 (bearer), RFC 7617 (basic).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from pydantic import SecretStr

from lockstep.agent.delivery import Delivery, ForgedError, UnprovedError


@dataclass(frozen=True)
class SharedSecret:
    """Accepts a delivery that holds one of the tokens, or one of the pairs of user and password.

    A token is looked for after `Bearer` in `authorization`, as the whole value of `header` where that is another one,
    and in the query's parameter `parameter` where one is named.
    """

    source: str
    tokens: Sequence[SecretStr] = ()
    basic: Sequence[tuple[str, SecretStr]] = ()
    header: str = "authorization"
    parameter: str = ""

    def verify(self, delivery: Delivery) -> str:
        """Returns "": such a delivery has no name of its own. Raises ForgedError."""
        given = delivery.headers.get(self.header, "")
        if self.header == "authorization":
            scheme, _, rest = given.partition(" ")
            token = rest.strip() if scheme.lower() == "bearer" else ""
            pair = _pair(rest) if scheme.lower() == "basic" else b""
        else:
            token, pair = given.strip(), b""
        if self.parameter:
            token = token or delivery.query.get(self.parameter, "")
        known = [token_.get_secret_value().encode() for token_ in self.tokens]
        pairs = [f"{user}:{password.get_secret_value()}".encode() for user, password in self.basic]
        # Both are compared in full, so that the time tells nothing about which of them came close.
        if not (same(token.encode(errors="replace"), known) | same(pair, pairs)):
            raise self._refused(delivery, bool(token or pair), bool(given.strip()))
        return ""

    def _refused(self, delivery: Delivery, held: bool, header: bool) -> ForgedError:
        """Why, for who set the sender up: whether anything was sent, and in the place where it is looked for."""
        if held:
            return ForgedError(f"source {self.source}: the token or password is wrong")
        places = f"the header {self.header}" + (f" or the query's {self.parameter}" if self.parameter else "")
        if header:
            what = "holds neither Bearer and a token nor Basic and a user with password"
            return ForgedError(f"source {self.source}: the header {self.header} {what}")
        return UnprovedError(f"source {self.source}: the token or password is missing: nothing in {places}")


def same(given: bytes, known: Sequence[bytes]) -> bool:
    """Whether `given` is one of `known`, in a time that depends on neither; an empty one never is."""
    hashed = sha256(given).digest()
    found = False
    for secret in known:
        found |= hmac.compare_digest(hashed, sha256(secret).digest()) and bool(secret)
    return found


def _pair(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
