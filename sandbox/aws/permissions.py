"""Which IAM actions AWS's operations take, and how each service words that one is not allowed.

SageMaker's actions are called like its operations. https://docs.aws.amazon.com/service-authorization/latest/reference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from werkzeug.wrappers import Request

from sandbox.aws.errors import AwsError
from sandbox.aws.shapes import service
from sandbox.aws.state import ACCOUNT, CLOUD, arn
from sandbox.permissions import Permissions

#: By service, as requests are signed for it; what is not here takes no permission that can be taken away.
TABLE: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "monitoring": {"GetMetricData": ("cloudwatch:GetMetricData",)},
    "logs": {"DescribeLogStreams": ("logs:DescribeLogStreams",), "GetLogEvents": ("logs:GetLogEvents",)},
    "iam": {"GetRole": ("iam:GetRole",), "SimulatePrincipalPolicy": ("iam:SimulatePrincipalPolicy",)},
    "sts": {"GetCallerIdentity": ()},
    "s3": {
        "ListObjectsV2": ("s3:ListBucket",),
        "ListObjects": ("s3:ListBucket",),
        "ListObjectVersions": ("s3:ListBucketVersions",),
        "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
        "GetObject": ("s3:GetObject",),
        "HeadObject": ("s3:GetObject",),
        "PutObject": ("s3:PutObject",),
        "CreateMultipartUpload": ("s3:PutObject",),
        "UploadPart": ("s3:PutObject",),
        "CompleteMultipartUpload": ("s3:PutObject",),
        "AbortMultipartUpload": ("s3:AbortMultipartUpload",),
        "DeleteObjects": ("s3:DeleteObject",),
        "DeleteObject": ("s3:DeleteObject",),
    },
}
#: Asked for with an operation's own by what its request holds.
RETENTION: Final = "s3:PutObjectRetention"
VERSION: Final = "s3:GetObjectVersion"
PASSING: Final = "iam:PassRole"
TAGS: Final = "sagemaker:AddTags"
KINDS: Final = {
    "EndpointName": "endpoint",
    "EndpointConfigName": "endpoint-config",
    "ModelName": "model",
    "ModelPackageGroupName": "model-package-group",
}


def known() -> frozenset[str]:
    """Every action that can be taken away."""
    tables = {action for table in TABLE.values() for actions in table.values() for action in actions}
    names = (*service("sagemaker").operation_names, *service("sagemaker-runtime").operation_names)
    return frozenset({*tables, RETENTION, VERSION, PASSING, *(f"sagemaker:{name}" for name in names)})


def needed(signed_for: str, operation: str, request: Request, body: Mapping[str, Any]) -> tuple[str, ...]:
    """The actions that one request takes; `body` is SageMaker's."""
    if signed_for == "sagemaker":
        passes = (PASSING,) if operation == "CreateModel" else ()
        tags = (TAGS,) if body.get("Tags") and operation.startswith("Create") else ()
        return (f"sagemaker:{operation}", *passes, *tags)
    if operation == "PutObject" and "x-amz-object-lock-mode" in request.headers:
        return ("s3:PutObject", RETENTION)
    if operation in ("GetObject", "HeadObject") and "versionId" in request.args:
        return (VERSION,)
    return TABLE.get(signed_for, {}).get(operation, ())


def admit(
    board: Permissions, signed_for: str, operation: str, request: Request, body: Mapping[str, Any], caller: str
) -> None:
    """Refuse a request that takes an action which `caller` (an ARN) does not have."""
    if board.all_granted(CLOUD):
        return
    action = board.lacking(CLOUD, needed(signed_for, operation, request, body))
    if not action:
        return
    text = (
        f"User: {caller} is not authorized to perform: {action} on resource: {_resource(signed_for, request, body)} "
        f"because no identity-based policy allows the {action} action"
    )
    if signed_for in ("sagemaker", "logs"):
        raise AwsError("AccessDeniedException", text)
    raise AwsError("AccessDenied", text, 403)


def _resource(signed_for: str, request: Request, body: Mapping[str, Any]) -> str:
    if signed_for == "s3":
        return f"arn:aws:s3:::{request.path.lstrip('/')}"
    if signed_for == "iam":
        return str(request.form.get("PolicySourceArn") or f"arn:aws:iam::{ACCOUNT}:role/{request.form.get('RoleName')}")
    return next((arn(kind, str(body[name])) for name, kind in KINDS.items() if body.get(name)), "*")
