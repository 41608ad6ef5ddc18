"""Azure's errors in Lockstep's words, each with the next step for whoever is on call."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lockstep.errors import (
    BusyError,
    CloudRejectedError,
    ConfigError,
    CredentialsError,
    LockstepError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
    ThrottledError,
    UnreachableError,
)

ROLES: Final = "'AzureML Data Scientist' on the workspace and 'Storage Blob Data Contributor' on the storage account"
SERVER_ERRORS: Final = (500, 502, 503, 504)
PASSING: Final = (408, 429, *SERVER_ERRORS)
BUSY_SIGNS: Final = ("already running method", "provisioning state", "anotheroperationinprogress")
#: How a sign-in that failed inside of Entra ID is told of where its answer itself is lost.
SIGN_IN_STATUS: Final = re.compile(r"HTTP Error: (\d{3})")
SIGN_IN_BUSY: Final = ("AADSTS90055", "AADSTS90033", "temporarily_unavailable")
WRONG_SCOPE: Final = ("SubscriptionNotFound", "InvalidSubscriptionId", "ResourceGroupNotFound")


def translate(error: Exception, action: str, cloud: str) -> LockstepError | None:
    """The Lockstep error for one of azure-core, azure-identity, azure-ai-ml or requests; None for any other."""
    if isinstance(error, ImportError) and (error.name or "").startswith("azure"):
        return ConfigError(
            f"could not {action}: {error}", cloud=cloud, hint="install Azure's libraries: pip install 'lockstep[azure]'"
        )
    import requests
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    problem = f"could not {action}: {_text(error)}"
    if "CERTIFICATE_VERIFY_FAILED" in problem:
        return UnreachableError(
            problem, cloud=cloud, hint="the address shows a certificate that nobody here trusts: set ca_file"
        )
    if is_silence(error):
        if isinstance(error, ClientAuthenticationError):  # azure-identity calls every failed sign-in that
            problem = f"could not {action}: no answer while signing in: {_text(error)}"
        return UnreachableError(
            problem,
            cloud=cloud,
            hint="check the network and https://azure.status.microsoft; nothing is known of it now",
        )
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return _answered(error, problem, cloud)
    if isinstance(error, ClientAuthenticationError):
        return _identity(error, problem, cloud)
    if isinstance(error, AzureError | requests.RequestException):
        return CloudRejectedError(problem, cloud=cloud, hint="read Azure's reason above and correct the request")
    return None


def is_silence(error: Exception) -> bool:
    """Whether no answer came: refused, reset, timed out; also behind an identity library's own error."""
    import requests
    from azure.core.exceptions import IncompleteReadError, ServiceRequestError, ServiceResponseError

    silent = (
        ServiceRequestError,
        ServiceResponseError,
        IncompleteReadError,
        requests.ConnectionError,
        requests.Timeout,
    )
    return any(isinstance(cause, silent) for cause in _causes(error))


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return error.status_code in PASSING
    return is_silence(error) or (isinstance(error, ClientAuthenticationError) and _sign_in_passes(error))


def _sign_in_passes(error: Exception) -> bool:
    """Whether whoever signs in was in trouble, and nothing was said of the credentials."""
    for cause in _causes(error):
        found = SIGN_IN_STATUS.search(str(cause))
        status = getattr(cause, "status_code", None) or (int(found.group(1)) if found else None)
        if status in PASSING:
            return True
    return any(sign in str(error) for sign in SIGN_IN_BUSY)


def _answered(error: Exception, problem: str, cloud: str) -> LockstepError:
    status, code = getattr(error, "status_code", 0), _code(error)
    text = str(error).lower()
    if status == 401:
        return _identity(error, problem, cloud)
    if status == 403:
        return CredentialsError(problem, cloud=cloud, hint=f"ask for the roles {ROLES}")
    if status == 429:
        return ThrottledError(problem, cloud=cloud, hint="Azure asks for fewer requests: try again in a minute")
    if status in (408, *SERVER_ERRORS):
        return RetryLaterError(
            problem, cloud=cloud, hint="Azure failed to answer: try again; see https://azure.status.microsoft"
        )
    if status == 409 or (status == 400 and any(sign in text for sign in BUSY_SIGNS)):
        return BusyError(problem, cloud=cloud, hint="another change is under way: try again when it has ended")
    if status == 404:
        if code == "ContainerNotFound":
            hint = "create the container as docs/clouds.md says, or correct container or archive_container"
            return NotFoundError(problem, cloud=cloud, hint=hint)
        settings = "subscription_id, resource_group and workspace"
        hint = f"check {settings}" if code in WRONG_SCOPE or "workspaces/" in text else "look at it in Azure ML studio"
        return NotFoundError(problem, cloud=cloud, hint=hint)
    if "non-zero traffic" in text:
        return RefusedError(problem, cloud=cloud, hint="move its traffic to another slot first")
    if "quota" in f"{code} {text}".lower():
        return CloudRejectedError(
            problem, cloud=cloud, hint="ask for more quota for the instance type, or retire a slot that is not needed"
        )
    return CloudRejectedError(problem, cloud=cloud, hint="read Azure's reason above and correct the request")


def _identity(error: Exception, problem: str, cloud: str) -> LockstepError:
    if any(sign in problem for sign in SIGN_IN_BUSY):
        return ThrottledError(problem, cloud=cloud, hint="Entra ID is busy: try again in a minute")
    if _sign_in_passes(error):
        return RetryLaterError(
            problem,
            cloud=cloud,
            hint="Entra ID, which signs in, is in trouble, and says nothing against the credentials: try again in a "
            "minute; see https://azure.status.microsoft",
        )
    return CredentialsError(
        problem,
        cloud=cloud,
        hint="give tenant_id, client_id and client_secret, set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET, or run `az login`",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _code(error: Exception) -> str:
    found = getattr(getattr(error, "error", None), "code", "") or getattr(error, "error_code", "")  # ARM's, Storage's
    return str(getattr(found, "value", found) or "")


def _text(error: Exception) -> str:
    """Azure's own words, on one line."""
    inner = getattr(error, "error", None)
    message, code = getattr(inner, "message", None), _code(error)
    words = f"{code}: {message}" if message and code else str(getattr(error, "message", "") or error)
    return " ".join(words.split())
