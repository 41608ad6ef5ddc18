"""IAM and STS, as far as a caller asks who it is and what it may do: three operations of the query protocol.

The principals are one user, whose key the sandbox hands out, and one role under a path, which STS lets be assumed.
SimulatePrincipalPolicy evaluates for both a policy that grants what `sandbox/aws/permissions.py` knows on the account's
own resources, less what was taken away; `iam:PassRole` is granted for SageMaker alone.

Assumed: IAM refuses to evaluate creations, which are authorised by their request's tags as well, beside other actions
("require different authorization information"; it does not document which it will not mix). Pages are short, as the
documentation says that they may be. https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from botocore.model import ListShape, Shape, StructureShape
from werkzeug.wrappers import Request, Response

from sandbox.aws.errors import AwsError, not_implemented
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.permissions import known
from sandbox.aws.shapes import check, refuse_unsupported, service
from sandbox.aws.state import ACCOUNT, CLOUD, REGION
from sandbox.permissions import Permissions

USER: Final = f"arn:aws:iam::{ACCOUNT}:user/people/lockstep"
OPERATOR: Final = f"arn:aws:iam::{ACCOUNT}:role/teams/ml/lockstep-operator"
SERVING: Final = f"arn:aws:iam::{ACCOUNT}:role/lockstep-serving"
NAMESPACES: Final = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}
PASSED_TO: Final = "iam:PassedToService"
SERVICE: Final = "sagemaker.amazonaws.com"
#: Actions that know no resources: a policy grants them on `*`.
NOWHERE: Final = ("sagemaker:ListEndpoints", "sagemaker:ListEndpointConfigs", "cloudwatch:GetMetricData")
PAGE: Final = 3
UNSUPPORTED: Final = (
    "PolicyInputList", "PermissionsBoundaryPolicyInputList", "PolicyExclusionList", "ResourcePolicy", "ResourceOwner",
    "CallerArn", "ResourceHandlingOption",
)  # fmt: skip
OWN: Final = re.compile(rf"arn:aws:(?:sagemaker|logs):{REGION}:{ACCOUNT}:.+")
BUCKET: Final = re.compile(r"arn:aws:s3:::([^/]+)(?:/.+)?")
CREATION: Final = re.compile(r"\w+:Create|sagemaker:AddTags")


class Iam:
    """Answers for one account."""

    def __init__(self, moto: MotoHost, board: Permissions) -> None:
        self._moto = moto
        self._board = board
        self._operations: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            ("iam", "GetRole"): self._get_role,
            ("iam", "SimulatePrincipalPolicy"): self._simulate,
            ("sts", "GetCallerIdentity"): lambda _: {"Arn": USER, "UserId": "AIDALOCKSTEPSANDBOX0", "Account": ACCOUNT},
        }

    def serves(self, signed_for: str, operation: str, key: str) -> bool:
        """Whether this request is answered here: IAM's all, of STS who the user is; sessions are moto's."""
        return signed_for == "iam" or ((signed_for, operation) in self._operations and key.startswith("AKIA"))

    def respond(self, request: Request, signed_for: str, operation: str) -> Response:
        """Answer one request; refusals are raised as AwsError."""
        answer = self._operations.get((signed_for, operation))
        if answer is None:
            raise not_implemented(f"{signed_for} {operation}")
        model = service(signed_for)
        shape = model.operation_model(operation).input_shape
        given = _parsed(shape, request.form, "") if shape is not None else {}
        check(model, operation, given, "ValidationError")
        content = "".join(_xml(name, value) for name, value in answer(given).items())
        text = (
            f'<{operation}Response xmlns="{NAMESPACES[signed_for]}"><{operation}Result>{content}</{operation}Result>'
            f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata></{operation}Response>"
        )
        return Response(text, content_type="text/xml")

    def _get_role(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        found = next((arn for arn in (OPERATOR, SERVING) if arn.rpartition("/")[2] == given["RoleName"]), None)
        if found is None:
            raise AwsError("NoSuchEntity", f"The role with name {given['RoleName']} cannot be found.", 404)
        return {
            "Role": {
                "Path": found.partition(":role")[2].rpartition("/")[0] + "/",
                "RoleName": given["RoleName"],
                "RoleId": "AROALOCKSTEPSANDBOX0",
                "Arn": found,
                "CreateDate": datetime(2024, 1, 1, tzinfo=UTC).isoformat(),
                "AssumeRolePolicyDocument": quote('{"Version": "2012-10-17", "Statement": []}'),
                "MaxSessionDuration": 3600,
            }
        }

    def _simulate(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        refuse_unsupported(given, UNSUPPORTED, "SimulatePrincipalPolicy")
        source = given["PolicySourceArn"]
        if not re.fullmatch(r"arn:aws:iam::\d{12}:(?:user|group|role)/.+", source):
            raise AwsError(
                "InvalidInput", f"Invalid Entity Arn: {source} does not clearly define entity type and name."
            )
        if source not in (USER, OPERATOR, SERVING):
            raise AwsError("NoSuchEntity", f"The entity {source} cannot be found.", 404)
        actions = given["ActionNames"]
        creations = [action for action in actions if CREATION.match(action)]
        others = [action for action in actions if action not in creations]
        if creations and others:
            text = f"Invalid Input Actions: [{','.join(creations)}] and [{','.join(others)}]"
            raise AwsError("InvalidInput", f"{text} require different authorization information.")
        results = [self._evaluated(action, given) for action in actions]
        first = int(given.get("Marker") or 0)
        size = min(PAGE, given.get("MaxItems", 100))
        more = {"Marker": str(first + size)} if first + size < len(results) else {}
        return {"EvaluationResults": results[first : first + size], "IsTruncated": bool(more), **more}

    def _evaluated(self, action: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        context = {one["ContextKeyName"]: one["ContextKeyValues"] for one in given.get("ContextEntries", ())}
        resources = given.get("ResourceArns") or ["*"]
        verdicts = {resource: self._decide(action, resource, context) for resource in resources}
        worst = max(verdicts.values(), key=lambda verdict: verdict[0] != "allowed")
        found = {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": worst[0], "MatchedStatements": []}
        if resources == ["*"]:
            return {**found, "MissingContextValues": worst[1]}
        specific = [
            {
                "EvalResourceName": resource,
                "EvalResourceDecision": decision,
                "MatchedStatements": [],
                "MissingContextValues": missing,
            }
            for resource, (decision, missing) in verdicts.items()
        ]
        return {**found, "ResourceSpecificResults": specific}

    def _decide(self, action: str, resource: str, context: Mapping[str, list[str]]) -> tuple[str, list[str]]:
        if action not in known() or not self._board.grants(CLOUD, action):
            return "implicitDeny", []
        if action == "iam:PassRole":
            if PASSED_TO not in context:
                return "implicitDeny", [PASSED_TO]
            allowed = resource == SERVING and context[PASSED_TO] == [SERVICE]
        elif action.startswith("iam:"):
            allowed = resource in (USER, OPERATOR)
        elif action.startswith("s3:"):
            bucket = BUCKET.fullmatch(resource)
            allowed = bucket is not None and self._moto.bucket(bucket[1]) is not None
        else:
            allowed = action in NOWHERE or OWN.fullmatch(resource) is not None
        return ("allowed" if allowed else "implicitDeny"), []


def _parsed(shape: Shape, given: Mapping[str, str], at: str) -> Any:
    """A request's parameters (`ActionNames.member.1=…`) as the service's description shapes them."""
    if isinstance(shape, StructureShape):
        members = {name: _parsed(member, given, f"{at}.{name}".lstrip(".")) for name, member in shape.members.items()}
        return {name: value for name, value in members.items() if value not in (None, [], {})}
    if isinstance(shape, ListShape):
        found: list[Any] = []
        while any(name == (place := f"{at}.member.{len(found) + 1}") or name.startswith(f"{place}.") for name in given):
            found.append(_parsed(shape.member, given, place))
        return found
    value = given.get(at)
    return int(value) if value is not None and shape.type_name == "integer" and value.isdigit() else value


def _xml(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        content = "".join(_xml(key, item) for key, item in value.items())
    elif isinstance(value, list):
        content = "".join(_xml("member", item) for item in value)
    else:
        content = escape(str(value).lower() if isinstance(value, bool) else str(value))
    return f"<{name}>{content}</{name}>"
