"""Azure Storage's Shared Key authorization, for what the sandbox answers in Azurite's place.

Source: the REST reference, "Authorize with Shared Key" (Blob service, version 2015-02-21 and later).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import unquote, urlsplit

from werkzeug.wrappers import Request

HEADERS: Final = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


def is_signed(request: Request, account: str, key: str) -> bool:
    """Whether the request's Authorization is by the account's key (base64)."""
    expected = hmac.new(base64.b64decode(key), _string_to_sign(request, account).encode(), hashlib.sha256).digest()
    given = request.headers.get("Authorization", "")
    return hmac.compare_digest(given, f"SharedKey {account}:{base64.b64encode(expected).decode()}")


def _string_to_sign(request: Request, account: str) -> str:
    sent = {name.lower(): value for name, value in request.headers.items()}
    standard = [sent.get(name, "") for name in HEADERS]
    if standard[2] == "0":
        standard[2] = ""
    own = sorted((name, " ".join(value.split())) for name, value in sent.items() if name.startswith("x-ms-"))
    path = urlsplit(request.environ.get("REQUEST_URI") or request.full_path).path
    query = sorted((name.lower(), ",".join(sorted(values))) for name, values in request.args.lists())
    resource = f"/{account}{path}" + "".join(f"\n{name}:{unquote(values)}" for name, values in query)
    return "\n".join([request.method, *standard, *(f"{name}:{value}" for name, value in own), resource])
