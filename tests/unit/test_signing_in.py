"""Whoever signs in being in trouble is an outage, not wrong credentials: it is tried again."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ClientAuthenticationError
from botocore.exceptions import CredentialRetrievalError
from google.auth.exceptions import RefreshError
from msal.exceptions import MsalServiceError  # type: ignore[import-untyped]  # it ships no types

from lockstep.clouds.azureml import failures
from lockstep.clouds.sagemaker import errors
from lockstep.clouds.vertex import rest
from lockstep.errors import CredentialsError, RetryLaterError


def signed_in(status: str) -> ClientAuthenticationError:
    """What azure-identity makes of what msal raises."""
    inner = MsalServiceError(f"HTTP Error: {status}", error=None, error_description=None)
    error = ClientAuthenticationError(message=f"Authentication failed: {inner}")
    error.__cause__ = inner
    return error


@pytest.mark.parametrize(("status", "passes"), [("500", True), ("503", True), ("429", True), ("400", False)])
def test_entra_id(status: str, passes: bool) -> None:
    error = signed_in(status)
    found = failures.translate(error, "observe", "azure")
    assert isinstance(found, RetryLaterError if passes else CredentialsError)
    assert ("az login" in found.hint) is not passes
    assert failures.is_passing(error) is passes


@pytest.mark.parametrize(("status", "passes"), [("500", True), ("429", True), ("403", False)])
def test_aws_hands_out_credentials(status: str, passes: bool) -> None:
    told = f"Received non 200 response {status} from container metadata: no"
    error = CredentialRetrievalError(provider="container-role", error_msg=told)
    found = errors.translate(error, "observe", "aws", "eu-west-1")
    assert isinstance(found, RetryLaterError if passes else CredentialsError)


@pytest.mark.parametrize("passes", [True, False])
def test_google(passes: bool) -> None:
    error = RefreshError("internal_failure", retryable=passes)  # type: ignore[no-untyped-call]
    found = rest.translate(error, "observe", "gcp")
    assert isinstance(found, RetryLaterError if passes else CredentialsError)
