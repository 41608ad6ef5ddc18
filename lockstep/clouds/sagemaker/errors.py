"""What botocore's errors mean to Lockstep."""

from __future__ import annotations

import re
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

#: Error codes without the "Exception" that some of AWS's protocols add.
THROTTLED: Final = frozenset(
    {"Throttling", "Throttled", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "RequestThrottled"}
)
FORBIDDEN: Final = frozenset({"AccessDenied", "UnauthorizedOperation", "Forbidden", "NotAuthorized", "403"})
EXPIRED: Final = frozenset({"ExpiredToken", "RequestExpired", "TokenRefreshRequired"})
UNKNOWN_KEY: Final = frozenset(
    {
        "UnrecognizedClient",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "InvalidSignature",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "AuthFailure",
        "InvalidToken",
    }
)
UNAVAILABLE: Final = frozenset(
    {"InternalFailure", "InternalError", "ServiceUnavailable", "InternalDependency", "ModelNotReady", "RequestTimeout"}
)
#: IAM actions of the calls that go to other services than SageMaker.
ACTIONS: Final = {
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "GetObject": "s3:GetObject (s3:GetObjectVersion in the archive)",
    "PutObject": "s3:PutObject and s3:PutObjectRetention",
    "ListObjectVersions": "s3:ListBucketVersions",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetMetricData": "cloudwatch:GetMetricData",
    "DescribeLogStreams": "logs:DescribeLogStreams",
    "GetLogEvents": "logs:GetLogEvents",
}
# SageMaker answers 400 ValidationException to nearly everything; only the text tells what it means.
MISSING: Final = re.compile(r"could not find|does not exist|not found", re.IGNORECASE)
EXISTING: Final = re.compile(r"already exist", re.IGNORECASE)
#: A container's or machine's own credentials could not be fetched, and nothing was said against them.
PASSING: Final = re.compile(r"non 200 response (408|429|5\d\d)|Received error when attempting to retrieve")
IN_PROGRESS: Final = re.compile(r"in-progress|in progress|is being|currently (being|updating|creating)", re.IGNORECASE)


def code_of(error: BaseException) -> str:
    """The service's error code without "Exception", "" for an error that did not come from the service."""
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    return code.removesuffix("Exception")


def is_missing(error: BaseException) -> bool:
    """The resource does not exist."""
    code = code_of(error)
    return code in ("ResourceNotFound", "NoSuchKey", "NoSuchBucket", "404") or (
        code in ("Validation", "ValidationError") and MISSING.search(str(error)) is not None
    )


def is_existing(error: BaseException) -> bool:
    """A resource of that name exists already."""
    return bool(code_of(error)) and EXISTING.search(str(error)) is not None


def is_busy(error: BaseException) -> bool:
    """The resource is in the middle of an earlier change."""
    code = code_of(error)
    return code in ("ResourceInUse", "Conflict") or (
        code in ("Validation", "ValidationError") and IN_PROGRESS.search(str(error)) is not None
    )


def is_throttled(error: BaseException) -> bool:
    """The service asks for fewer requests."""
    return code_of(error) in THROTTLED


def translate(error: Exception, action: str, cloud: str, region: str) -> LockstepError | None:
    """The Lockstep error for one of botocore's; None for anything else."""
    if isinstance(error, ModuleNotFoundError):
        hint = "install what this cloud needs: pip install 'lockstep[aws]'"
        return ConfigError(f"could not {action}: {error}", cloud=cloud, hint=hint)
    from botocore import exceptions

    problem = f"could not {action}: {error}"
    if isinstance(error, exceptions.ClientError):
        return _refusal(error, problem, cloud, region)
    if isinstance(error, exceptions.CredentialRetrievalError) and PASSING.search(str(error)):
        return RetryLaterError(problem, cloud=cloud, hint="what hands out credentials here is in trouble: try again")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.TokenRetrievalError
        | exceptions.SSOError
        | exceptions.ProfileNotFound,
    ):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or this cloud's keys in lockstep.yaml"
        return CredentialsError(problem, cloud=cloud, hint=f"{hint}; `aws sts get-caller-identity` shows who you are")
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        hint = f"check the network and endpoint_url, then https://health.aws.amazon.com for SageMaker in {region}"
        return UnreachableError(problem, cloud=cloud, hint=hint)
    if isinstance(error, exceptions.ParamValidationError):
        return RefusedError(problem, cloud=cloud, hint="correct this cloud's settings in lockstep.yaml")
    if isinstance(error, exceptions.BotoCoreError):
        return CloudRejectedError(problem, cloud=cloud, hint="correct this cloud's settings in lockstep.yaml")
    return None


def _refusal(error: Exception, problem: str, cloud: str, region: str) -> LockstepError:
    code = code_of(error)
    operation = str(getattr(error, "operation_name", ""))
    response = getattr(error, "response", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in FORBIDDEN or (code == "Validation" and "not authorized" in str(error).lower()):
        role = "" if operation in ACTIONS else ", and iam:PassRole on role_arn where it creates a model"
        hint = f"allow {ACTIONS.get(operation, f'sagemaker:{operation}')} to this identity in IAM{role}"
        return CredentialsError(problem, cloud=cloud, hint=hint)
    if code in EXPIRED:
        return CredentialsError(problem, cloud=cloud, hint="the session has expired: sign in again (`aws sso login`)")
    if code in UNKNOWN_KEY:
        hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and this machine's clock"
        return CredentialsError(problem, cloud=cloud, hint=hint)
    if code in THROTTLED:
        return ThrottledError(problem, cloud=cloud, hint="too many requests to this account: wait a few seconds")
    if code == "ModelError":
        return _model_error(response, problem, cloud)
    if is_busy(error):
        return BusyError(problem, cloud=cloud, hint="an earlier change is still running: try again when it has ended")
    if code == "NoSuchBucket":
        hint = "create the bucket as docs/clouds.md says, or correct bucket or archive_bucket"
        return NotFoundError(problem, cloud=cloud, hint=hint)
    if is_missing(error):
        return NotFoundError(problem, cloud=cloud, hint=f"look at `aws sagemaker list-endpoints --region {region}`")
    if code == "ResourceLimitExceeded":
        hint = f"ask for more at https://{region}.console.aws.amazon.com/servicequotas, or retire a slot"
        return CloudRejectedError(problem, cloud=cloud, hint=hint)
    if code in UNAVAILABLE or (status >= 500 and status != 501):
        hint = f"an error inside AWS: try again; https://health.aws.amazon.com shows SageMaker in {region}"
        return RetryLaterError(problem, cloud=cloud, hint=hint)
    return CloudRejectedError(problem, cloud=cloud, hint="correct what the text names; asking again will not help")


def _model_error(response: dict[str, object], problem: str, cloud: str) -> LockstepError:
    status, text = response.get("OriginalStatusCode"), response.get("OriginalMessage")
    log = response.get("LogStreamArn") or "/aws/sagemaker/Endpoints in CloudWatch Logs"
    if isinstance(status, int) and 400 <= status < 500:
        hint = "the rows do not fit the model's signature: correct them"
        return CloudRejectedError(f"{problem} (container: {status} {text})", cloud=cloud, hint=hint)
    return RetryLaterError(f"{problem} (container: {status} {text})", cloud=cloud, hint=f"see its log: {log}")
