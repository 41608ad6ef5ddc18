"""Everything AWS at one address: a request is led to its service by the credential scope that it was signed for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from werkzeug.wrappers import Request, Response

from sandbox.aws import permissions, s3
from sandbox.aws.errors import AwsError, error_response, not_implemented, protocol_of
from sandbox.aws.iam import OPERATOR, USER, Iam
from sandbox.aws.moto_host import SERVICES, MotoHost
from sandbox.aws.operations import route53
from sandbox.aws.runtime import Runtime
from sandbox.aws.sagemaker import SageMaker
from sandbox.aws.sns_api import PublicPages, public_operation
from sandbox.aws.state import ACCOUNT, CLOUD, REGION
from sandbox.faults import Fault
from sandbox.permissions import Permissions
from sandbox.web import Target

ACCESS_KEY: Final = "AKIALOCKSTEPSANDBOX0"
SECRET_KEY: Final = "sandbox-secret-access-key-not-a-secret"  # noqa: S105 - opens nothing
SCOPE: Final = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
INVOCATION: Final = re.compile(r"/endpoints/([^/]+)/(invocations|async-invocations|invocations-response-stream)")
#: What names the resource in a SageMaker request, most telling first.
NAMES: Final = (
    "EndpointName",
    "EndpointConfigName",
    "ModelName",
    "ModelPackageArn",
    "ModelPackageName",
    "ModelPackageGroupName",
    "ResourceArn",
)
REFUSED_KEY: Final[Mapping[str, tuple[str, str]]] = {
    "s3": ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "sts": ("InvalidClientTokenId", "The security token included in the request is invalid."),
    "iam": ("InvalidClientTokenId", "The security token included in the request is invalid."),
    "sns": ("InvalidClientTokenId", "The security token included in the request is invalid."),
}


class Aws:
    """The `Service` (sandbox/web.py) that AWS is to the frame."""

    cloud = CLOUD

    def __init__(
        self,
        moto: MotoHost,
        store: s3.S3,
        sagemaker: SageMaker,
        runtime: Runtime,
        public: PublicPages,
        iam: Iam,
        board: Permissions,
    ) -> None:
        self._moto = moto
        self._store = store
        self._sagemaker = sagemaker
        self._runtime = runtime
        self._public = public
        self._iam = iam
        self._board = board

    def identify(self, request: Request) -> Target:
        """Operation and resource as the vendor names them."""
        key, _, service = scope(request)
        if service == "sns" and not key:
            return Target(public_operation(request))
        if service == "s3":
            operation, resource = s3.operation_of(request)
            return Target(operation, resource, quiet=operation in s3.DATA)
        invocation = INVOCATION.fullmatch(request.path)
        if service == "sagemaker" and invocation is not None:
            return Target("InvokeEndpoint", unquote(invocation.group(1)), quiet=True)
        if service == "sagemaker":
            body = _json(request)
            resource = next((str(body[name]) for name in NAMES if body.get(name)), "")
            return Target(_target(request), resource)
        if service == "route53":
            return Target(route53(request.method, request.path))
        return Target(_target(request))

    def respond(self, request: Request, target: Target) -> Response:
        """Answer by the service that was asked for."""
        key, region, service = scope(request)
        try:
            if service == "sns" and not key:
                return self._public.respond(request, target.operation)
            self._admit(request, key, region, service)
            body = _json(request) if service == "sagemaker" and target.operation != "InvokeEndpoint" else {}
            permissions.admit(self._board, service, target.operation, request, body, _caller(key))
            if service == "s3":
                return self._store.respond(request, target.operation, target.resource)
            if self._iam.serves(service, target.operation, key):
                return self._iam.respond(request, service, target.operation)
            if service != "sagemaker":
                return self._moto.respond(request)
            if target.operation == "InvokeEndpoint":
                if not request.path.endswith("/invocations"):
                    raise not_implemented(request.path.rpartition("/")[2])
                return self._runtime.invoke(request, target.resource)
            if not request.headers.get("X-Amz-Target", "").startswith("SageMaker."):
                raise not_implemented(f"{request.method} {request.path}")
            return _answer(self._sagemaker.answer(target.operation, body, target.resource))
        except AwsError as error:
            return error_response(protocol_of(service, dict(request.headers)), error, target.resource)

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """Throttling and internal errors in each service's words."""
        service = scope(request)[2]
        if fault.kind == "throttle":
            if service == "s3":
                error = AwsError("SlowDown", "Please reduce your request rate.", 503)
            elif service in ("sts", "iam", "sns", "route53"):
                error = AwsError("Throttling", "Rate exceeded")
            else:
                error = AwsError("ThrottlingException", "Rate exceeded")
        elif service == "s3":
            error = AwsError("InternalError", "We encountered an internal error. Please try again.", fault.status)
        else:
            code = "ServiceUnavailable" if fault.status == 503 else "InternalFailure"
            error = AwsError(code, "The request processing has failed because of an internal error.", fault.status)
        return error_response(protocol_of(service, dict(request.headers)), error, target.resource)

    @staticmethod
    def _admit(request: Request, key: str, region: str, service: str) -> None:
        if service not in ("sagemaker", "iam", *SERVICES) or request.path.startswith(("/moto-api", "/latest/")):
            raise not_implemented(f"service {service}")
        if key and key != ACCESS_KEY and not key.startswith("ASIA"):
            refusal = ("UnrecognizedClientException", "The security token included in the request is invalid.")
            raise AwsError(*REFUSED_KEY.get(service, refusal), 403)
        if not key and service != "s3":
            raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        if region != REGION:
            raise not_implemented(f"{service} in region {region} (only {REGION})")


def _caller(key: str) -> str:
    """Whose key it is: the user's, or that of a session of the one role."""
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{OPERATOR.rpartition('/')[2]}/session"
    return USER if key == ACCESS_KEY else session


def scope(request: Request) -> tuple[str, str, str]:
    """Access key id, region and service of a request's signature; an unsigned request is one for S3, rarely for SNS."""
    match = SCOPE.search(request.headers.get("Authorization", ""))
    if match is None:
        match = SCOPE.search(f"Credential={request.args.get('X-Amz-Credential', '')}")
    if match is None:
        return "", REGION, "sns" if public_operation(request) else "s3"
    return match.group(1), match.group(2), match.group(3)


def _target(request: Request) -> str:
    named = request.headers.get("X-Amz-Target", "")
    if named:
        return named.rpartition(".")[2]
    if "/operation/" in request.path:
        return request.path.rpartition("/")[2]
    return str(request.values.get("Action", "")) if _is_form(request) else f"{request.method} {request.path}"


def _is_form(request: Request) -> bool:
    request.get_data(cache=True, parse_form_data=False)  # keep the bytes: parsing a form would use them up
    return "Action" in request.args or request.mimetype == "application/x-www-form-urlencoded"


def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.get_data(cache=True) or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _answer(document: Any) -> Response:
    body = b"" if document is None else json.dumps(document).encode()
    return Response(body, 200, content_type="application/x-amz-json-1.1")
