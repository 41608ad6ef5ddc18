"""What MLflow's errors mean. Its client reports an unreachable server, a refusal and a missing thing by one class."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Final

from lockstep.errors import (
    CredentialsError,
    LockstepError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
    ThrottledError,
    UnreachableError,
)
from lockstep.stores.mlflow_rest import RestError

# Downloads run in MLflow's threads, and what went wrong there arrives as text alone.
HTTP_STATUS: Final = re.compile(r"\b([45]\d\d) (?:Client|Server) Error")
TOO_MANY: Final = re.compile(r"too many (\d{3}) error responses")
NO_ANSWER: Final = re.compile(
    r"Max retries exceeded|Connection ?Error|Connection refused|Connection aborted|timed out|NameResolution|RemoteDisc"
)
CAUSE: Final = re.compile(r"(?:\[Errno -?\d+\] |ReadTimeoutError\(\"[^\"]*: )([^\"')]+)")


@contextlib.contextmanager
def translated(address: str, action: str) -> Iterator[None]:
    """Raise Lockstep's errors for MLflow's; `action` completes the sentence "MLflow at ... could not ..."."""
    try:
        yield
    except LockstepError:
        raise
    except Exception as error:
        translation = _translate(error, f"MLflow at {address} could not {action}", address)
        if translation is None:
            raise
        raise translation from error


def already_exists(error: Exception) -> bool:
    """Whether MLflow refused to create something because it is there already."""
    return getattr(error, "error_code", "") in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")


def _translate(error: Exception, problem: str, address: str) -> LockstepError | None:
    import requests

    if isinstance(error, RestError):
        return _by_status(error.status, f"{problem}: {_reason(str(error))}")
    text = str(error)
    status = 0
    # Imported only if somebody else has: without its client there are none of its errors.
    mlflow = sys.modules.get("mlflow.exceptions")
    if isinstance(error, requests.RequestException):
        status = error.response.status_code if error.response is not None else 0
    elif mlflow is not None and isinstance(error, mlflow.MlflowException):
        status = int(error.get_http_status_code())
    else:
        return None
    # An error code that MLflow's client made up for a request that never got through says 500.
    told = HTTP_STATUS.search(text) or TOO_MANY.search(text)
    if status in (0, 500) and told:
        status = int(told[1])
    elif status in (0, 500) and (NO_ANSWER.search(text) or isinstance(error, requests.RequestException)):
        return UnreachableError(
            f"no answer from MLflow at {address}: {_reason(text)}",
            hint="start MLflow, or correct mlflow.tracking_uri in lockstep.yaml, then run the same command again",
        )
    return _by_status(status, f"{problem}: {_reason(text)}")


def _by_status(status: int, problem: str) -> LockstepError:
    if status in (401, 403):
        return CredentialsError(
            problem,
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to a user "
            "that may do this",
        )
    if status == 404:
        return NotFoundError(problem)
    if status == 429:
        return ThrottledError(problem, hint="try again in a minute")
    if status in (502, 503, 504):
        return UnreachableError(problem, hint="MLflow is starting or overloaded; try again")
    if 400 <= status < 500:
        return RefusedError(problem)
    return RetryLaterError(problem, hint="look into the log of the MLflow server")


def _reason(text: str) -> str:
    """The cause out of the nested text of MLflow, requests and urllib3, on one line."""
    line = " ".join(text.split())
    if cause := CAUSE.search(line):
        return cause[1]
    return line if len(line) <= 300 else f"...{line[-300:]}"
