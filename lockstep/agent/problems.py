"""The one shape in which the agent tells programs that something was not done: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from lockstep.mistakes import IN_WORDS

#: Where FastAPI looks for parts of a request; its errors name that first.
PLACES: Final = frozenset({"body", "query", "path", "header", "cookie"})
AS_JSON: Final = "send one object of JSON, with the header Content-Type: application/json"


class Problem(BaseModel):
    """Why something was not done, and what to do."""

    error: str = Field(description="What is wrong.")
    hint: str = Field("", description="What to do; empty where there is nothing to be done but to read the error.")


def problem(status: int, error: str, hint: str = "", headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer of that shape."""
    return JSONResponse({"error": error, "hint": hint}, status, headers=dict(headers or {}))


def invalid(errors: Sequence[Any], method: str, path: str) -> JSONResponse:
    """The answer to a request that is not as it should be, from pydantic's errors; nothing that was sent is in it."""
    first = errors[0]
    steps = [str(step) for step in first["loc"]]
    place = steps.pop(0) if steps and steps[0] in PLACES else ""
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "json_invalid":
        return problem(422, f"the body is not JSON: {first['ctx']['error']}", AS_JSON)
    if not steps:
        what = "is missing" if first["type"] == "missing" else "is no object of JSON"
        return problem(422, f"the {place or 'request'} {what}{more}", AS_JSON)
    message = IN_WORDS.get(first["type"]) or first["msg"]
    return problem(422, f"{'.'.join(steps)}: {message}{more}", f"/openapi.json says what {method} {path} takes")
