"""Bearer tokens that an identity provider signed (OpenID Connect): Google's for Pub/Sub, Entra's, anyone's.

The algorithm is pinned by configuration and must fit the key's type, so neither `none` nor an HMAC with the public key
as its secret gets in. Keys come from the configured address only; `jku`, `x5u` and `jwk` of a token are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import jwt
from jwt import PyJWK

from lockstep.agent.authenticity.fetching import Fetch, Kept
from lockstep.agent.delivery import Delivery, ForgedError, UnprovedError
from lockstep.agent.source_settings import OidcSettings
from lockstep.errors import UnreachableError

#: A token of Entra with many groups has 4 KiB.
_LONGEST_TOKEN: Final = 16 * 1024
#: An unknown key makes us look again, but not more often than this.
_LOOK_AGAIN: Final = 30.0
#: Keys that were fetched are believed for a day if their server does not answer.
_STALE: Final = 86400.0
_KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC"}
#: What PyJWT and what it stands on raise for tokens that are no tokens.
_MALFORMED: Final = (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class OidcToken:
    """Accepts a delivery whose bearer token is signed by the issuer, for us, by whom it should be."""

    def __init__(self, source: str, settings: OidcSettings, fetch: Fetch) -> None:
        self._source = source
        self._settings = settings
        self._keys = Kept(fetch, settings.timeout, settings.keys_for, stale=_STALE)

    def verify(self, delivery: Delivery) -> str:
        """Returns "": a token names no delivery. Raises ForgedError, and UnreachableError without the keys."""
        scheme, _, token = delivery.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise UnprovedError(f"source {self._source}: the bearer token is missing in the header Authorization")
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise self._forged("the bearer token is malformed")
        key, algorithm = self._key(token)
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=list(self._settings.issuers),
                audience=list(self._settings.audiences),
                leeway=self._settings.leeway,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise self._forged("the bearer token has expired") from None
        except _MALFORMED as error:
            raise self._forged(f"the bearer token is not believed ({type(error).__name__})") from None
        for name, wanted in self._settings.claims.items():
            if not set(_texts(claims.get(name))) & set(wanted):
                raise self._forged(f"the bearer token's {name} is not one that is expected")
        return ""

    def _key(self, token: str) -> tuple[PyJWK, str]:
        try:
            header = jwt.get_unverified_header(token)
        except _MALFORMED:
            raise self._forged("the bearer token is malformed") from None
        algorithm, name = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms or not isinstance(algorithm, str):
            raise self._forged("the bearer token's algorithm is not one that is expected")
        if not isinstance(name, str) or not name:
            raise self._forged("the bearer token names no key")
        key = self._found(name, algorithm, None) or self._found(name, algorithm, _LOOK_AGAIN)
        if key is None:
            raise self._forged("the bearer token's key is not one of its issuer")
        return key, algorithm

    def _found(self, name: str, algorithm: str, not_older_than: float | None) -> PyJWK | None:
        body = self._keys.get(self._settings.jwks, not_older_than)
        try:
            listed = json.loads(body)["keys"]
            for given in listed:
                if given.get("kid") == name and given.get("kty") == _KEY_TYPES[algorithm] and _is_for_signing(given):
                    return PyJWK(given, algorithm=algorithm)
        except _MALFORMED as error:
            raise UnreachableError(
                f"source {self._source}: what {self._settings.jwks} answers are no keys ({type(error).__name__})",
                hint="set jwks to the issuer's jwks_uri",
            ) from error
        return None

    def _forged(self, why: str) -> ForgedError:
        return ForgedError(f"source {self._source}: {why}")


def _is_for_signing(key: Mapping[str, object]) -> bool:
    return key.get("use", "sig") == "sig"


def _texts(claim: object) -> tuple[str, ...]:
    match claim:
        case bool():
            return ("true" if claim else "false",)
        case str():
            return (claim,)
        case list():
            return tuple(one for one in claim if isinstance(one, str))
        case _:
            return ()
