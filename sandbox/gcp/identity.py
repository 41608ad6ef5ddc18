"""Who may call: a service account with a key file, the token endpoint that its key is exchanged at, and bearer tokens.

The exchange is RFC 7523's JWT bearer grant as Google's OAuth server answers it. JWTs that google-auth signs itself with
the account's key (`always_use_jwt_access`) are accepted as bearer tokens too, as Google's own services accept them.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.errors import GoogleError, error_response
from sandbox.web import Target

GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME: Final = 3600
SCOPES: Final = "https://www.googleapis.com/auth/"


class Identity:
    """One service account and the tokens that were given out to it."""

    def __init__(self, project: str, folder: Path) -> None:
        self.email: Final = f"lockstep@{project}.iam.gserviceaccount.com"
        self.token: Final = "ya29." + secrets.token_urlsafe(48)
        self.key_file: Final = folder / "google-service-account.json"
        self._project = project
        self._key_id = secrets.token_hex(20)
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = (
            self._key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )
        self._issued: dict[str, float] = {}
        self._signed: dict[str, float] = {}

    def write_key_file(self, token_uri: str) -> None:
        """Write the account's key as the console's download has it, readable by its owner alone."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        content = {
            "type": "service_account",
            "project_id": self._project,
            "private_key_id": self._key_id,
            "private_key": key.decode(),
            "client_email": self.email,
            "client_id": str(10**20 + secrets.randbelow(10**20)),
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "universe_domain": "googleapis.com",
        }
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(json.dumps(content, indent=2))

    def exchange(self, assertion: str) -> dict[str, object]:
        """An access token for a JWT that the account's key signed; raises ValueError as `invalid_grant` reports it."""
        claims = self._verify(assertion)
        if claims.get("iss") != self.email:
            raise ValueError(f"Invalid grant: account not found: {claims.get('iss')}")
        if not str(claims.get("scope", "")).startswith(SCOPES):
            raise ValueError("Invalid OAuth scope or ID token audience provided.")
        token = "ya29.c." + secrets.token_urlsafe(48)
        self._issued[token] = time.time() + LIFETIME
        return {"access_token": token, "expires_in": LIFETIME - 1, "token_type": "Bearer"}

    def check(self, request: Request, *, anonymous: bool = False) -> None:
        """Raise UNAUTHENTICATED unless the request carries a token that is valid now (or none, where allowed)."""
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if not kind and anonymous:
            return
        if kind.lower() != "bearer" or not token:
            raise GoogleError(
                "UNAUTHENTICATED",
                "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie "
                "or other valid authentication credential. "
                "See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            )
        if not self._valid(token):
            raise GoogleError(
                "UNAUTHENTICATED",
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential. "
                "See https://developers.google.com/identity/sign-in/web/devconsole-project.",
            )

    def _valid(self, token: str) -> bool:
        if token == self.token:
            return True
        now = time.time()
        if token in self._issued:
            return now < self._issued[token]
        if token not in self._signed:
            try:
                claims = self._verify(token)
            except ValueError:
                return False
            if claims.get("iss") != self.email or claims.get("sub") != self.email:
                return False
            self._signed[token] = float(str(claims["exp"]))
        return now < self._signed[token]

    def _verify(self, token: str) -> dict[str, object]:
        claims = jwt.decode(token, certs=self._public)  # type: ignore[no-untyped-call]
        return dict(claims)


class TokenService:
    """`POST /token`: Google's OAuth token endpoint, for the JWT bearer grant alone."""

    cloud = "gcp"

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def identify(self, request: Request) -> Target:
        """The only operation is `Token`."""
        return Target("Token")

    def respond(self, request: Request, target: Target) -> Response:
        """Exchange a signed assertion for an access token."""
        if request.method != "POST" or request.path != "/token":
            return error_response("NOT_FOUND", f"{request.path} was not found on this server.")
        if request.form.get("grant_type") != GRANT:
            return _oauth_error("unsupported_grant_type", f"Invalid grant_type: {request.form.get('grant_type', '')}")
        try:
            return Response(json.dumps(self._identity.exchange(request.form.get("assertion", ""))), 200, _JSON)
        except ValueError as error:
            return _oauth_error("invalid_grant", str(error))

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """The token endpoint's answer while it is out of order."""
        status = 429 if fault.kind == "throttle" else fault.status
        return Response(json.dumps({"error": "internal_failure"}), status, _JSON)


_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}


def _oauth_error(error: str, description: str) -> Response:
    return Response(json.dumps({"error": error, "error_description": description}), 400, _JSON)
