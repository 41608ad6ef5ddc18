"""Microsoft Entra ID, as far as a service principal with a client secret needs it (OAuth 2.0 client credentials)."""

from __future__ import annotations

import hmac
import json
import uuid
from typing import Final

from werkzeug.wrappers import Request, Response

from sandbox.azure.tokens import LIFETIME, MANAGEMENT, METRICS, SCORING, Tokens
from sandbox.faults import Fault
from sandbox.web import Target

OPERATIONS: Final = frozenset({"Token", "OpenIdConfiguration"})
STORAGE: Final = ("https://storage.azure.com",)


class Entra:
    """One tenant with one application. `resources` are further addresses that tokens may be asked for."""

    cloud = "azure"

    def __init__(self, tokens: Tokens, client: str, secret: str) -> None:
        self._tokens = tokens
        self._client = client
        self._secret = secret
        self._resources = {*MANAGEMENT, *METRICS, *SCORING, *STORAGE}

    def allow(self, resource: str) -> None:
        """Issue tokens for one more resource."""
        self._resources.add(resource.rstrip("/"))

    def identify(self, request: Request) -> Target:
        """`Token` or `OpenIdConfiguration`."""
        if request.path.endswith("/oauth2/v2.0/token"):
            return Target("Token", self._client)
        if request.path.endswith("/.well-known/openid-configuration"):
            return Target("OpenIdConfiguration")
        return Target(f"Entra {request.method} {request.path}")

    def respond(self, request: Request, target: Target) -> Response:
        """Discovery and tokens."""
        tenant = request.path.strip("/").partition("/")[0]
        if target.operation not in OPERATIONS:
            return _json({"error": f"not implemented by the sandbox: {request.method} {request.path}"}, 501)
        if tenant != self._tokens.tenant:
            return _refuse(400, "invalid_tenant", f"AADSTS90002: Tenant '{tenant}' not found.")
        if target.operation == "OpenIdConfiguration":
            base = f"{request.host_url}{tenant}"
            return _json(
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "jwks_uri": f"{base}/discovery/v2.0/keys",
                    "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["pairwise"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    "scopes_supported": ["openid"],
                }
            )
        return self._token(request)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """Entra's own words for being busy or broken."""
        if fault.kind == "throttle":
            return _refuse(429, "temporarily_unavailable", "AADSTS90055: The server is busy.", {"Retry-After": "1"})
        return _refuse(fault.status, "server_error", "AADSTS90033: A transient error has occurred. Please try again.")

    def _token(self, request: Request) -> Response:
        form = request.form
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        if request.authorization is not None and request.authorization.type == "basic":
            client, secret = request.authorization.username or "", request.authorization.password or ""
        if form.get("grant_type") != "client_credentials":
            return _refuse(
                400,
                "unsupported_grant_type",
                f"AADSTS70003: The app requested an unsupported grant type '{form.get('grant_type')}'.",
            )
        if client != self._client:
            return _refuse(
                400,
                "unauthorized_client",
                f"AADSTS700016: Application with identifier '{client}' was not found in the directory "
                f"'{self._tokens.tenant}'.",
            )
        if not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return _refuse(
                401,
                "invalid_client",
                "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the "
                f"client secret value, not the client secret ID, for a secret added to app '{client}'.",
            )
        scope = form.get("scope", "").split(" ")[0]
        resource = scope.removesuffix(".default").rstrip("/")
        if not scope.endswith("/.default") or resource not in self._resources:
            return _refuse(
                400,
                "invalid_scope" if not scope.endswith("/.default") else "invalid_resource",
                f"AADSTS500011: The resource principal named {resource} was not found in the tenant named "
                f"{self._tokens.tenant}.",
            )
        return _json(
            {
                "token_type": "Bearer",
                "expires_in": LIFETIME,
                "ext_expires_in": LIFETIME,
                "access_token": self._tokens.mint(resource, client),
            }
        )


def _json(body: dict[str, object], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json; charset=utf-8")


def _refuse(status: int, error: str, text: str, headers: dict[str, str] | None = None) -> Response:
    trace = str(uuid.uuid4())
    code = text.partition(":")[0].removeprefix("AADSTS")
    body: dict[str, object] = {
        "error": error,
        "error_description": f"{text} Trace ID: {trace}",
        "error_codes": [int(code)] if code.isdigit() else [],
        "trace_id": trace,
        "correlation_id": trace,
    }
    return _json(body, status, headers)
