"""The peer of bench/alerts.py: the agent's own kind of server with nothing behind it.

python bench/bare.py PORT

It reads a body and answers 202. What the agent costs beyond that is its own doing.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """One request."""
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    uvicorn.run(answer, host="127.0.0.1", port=int(sys.argv[1]), http="h11", lifespan="off", log_level="warning")
