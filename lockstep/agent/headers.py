"""Headers of every answer: no script but our own, no frame, no cache, no referrer."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # forms prove by it where they come from
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
NO_STORE: Final = (b"cache-control", b"no-store")


class Headers:
    """The application with these headers; an answer that says itself how long it may be kept is left alone in that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                cached = any(name.lower() == b"cache-control" for name, _ in given)
                message = {**message, "headers": [*given, *HEADERS, *(() if cached else (NO_STORE,))]}
            await send(message)

        await self._app(scope, receive, tell)
