"""Which permissions Google's operations take, its refusals, and the addresses that tell a caller what it may do.

The caller has everything that the table names in its project, on the project's buckets and on its service accounts,
less what was taken away (`sandbox/permissions.py`). `testIamPermissions` takes no permission itself; it knows no
wildcards, at most a hundred permissions at once, and none that a resource of that kind cannot be granted.
https://cloud.google.com/iam/docs/testing-permissions
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.discovery import document
from sandbox.gcp.errors import GoogleError, error_response, invalid, not_emulated, status_for_http
from sandbox.gcp.identity import Identity
from sandbox.permissions import Permissions
from sandbox.web import Target

ACT_AS: Final = "iam.serviceAccounts.actAs"
#: By operation; what is not here takes nothing that can be taken away.
TABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "ListEndpoints": ("aiplatform.endpoints.list",),
    "GetEndpoint": ("aiplatform.endpoints.get",),
    "CreateEndpoint": ("aiplatform.endpoints.create",),
    "UpdateEndpoint": ("aiplatform.endpoints.update",),
    "DeleteEndpoint": ("aiplatform.endpoints.delete",),
    "DeployModel": ("aiplatform.endpoints.deploy",),
    "MutateDeployedModel": ("aiplatform.endpoints.deploy",),
    "UndeployModel": ("aiplatform.endpoints.undeploy",),
    "Predict": ("aiplatform.endpoints.predict",),
    "RawPredict": ("aiplatform.endpoints.predict",),
    "GetModel": ("aiplatform.models.get",),
    "ListModels": ("aiplatform.models.list",),
    "ListModelVersions": ("aiplatform.models.list",),
    "UploadModel": ("aiplatform.models.upload",),
    "ListOperations": ("aiplatform.operations.list",),
    "GetOperation": ("aiplatform.operations.list",),
    "jobs.query": ("bigquery.jobs.create", "bigquery.tables.getData"),
    "ListTimeSeries": ("monitoring.timeSeries.list",),
    "storage.buckets.get": ("storage.buckets.get",),
    "storage.objects.list": ("storage.objects.list",),
    "storage.objects.get": ("storage.objects.get",),
    "storage.objects.insert": ("storage.objects.create",),
    "storage.objects.delete": ("storage.objects.delete",),
}
MOST: Final = 100
PROJECT: Final = re.compile(r"/v3/projects/([^/:]+):testIamPermissions")
ACCOUNT: Final = re.compile(r"/v1/projects/([^/:]+)/serviceAccounts/([^/:]+):testIamPermissions")


def known() -> frozenset[str]:
    """Every permission that can be taken away."""
    return frozenset({ACT_AS, *(name for names in TABLE.values() for name in names)})


class Guard:
    """Refuses what the caller may not do; `held` is what `testIamPermissions` answers."""

    def __init__(self, board: Permissions) -> None:
        self._board = board

    def lacking(self, operation: str) -> str:
        """The permission that an operation takes and the caller does not have; "" when it has all."""
        return self._board.lacking("gcp", TABLE.get(operation, ()))

    def admit(self, operation: str, resource: str) -> None:
        """Raise PERMISSION_DENIED for an operation that takes one which is denied."""
        permission = self.lacking(operation)
        if permission:
            self.require(permission, resource)

    def require(self, permission: str, resource: str) -> None:
        """Raise PERMISSION_DENIED unless the caller has this one."""
        if not self._board.grants("gcp", permission):
            text = f"Permission '{permission}' denied on resource '{resource}' (or it may not exist)."
            raise GoogleError("PERMISSION_DENIED", text)

    def held(self, asked: Sequence[str], grantable: Callable[[str], bool]) -> list[str]:
        """Those of `asked` that the caller has; INVALID_ARGUMENT for one that such a resource cannot be granted."""
        if len(asked) > MOST:
            raise invalid(f"At most {MOST} permissions can be tested at once.")
        for name in asked:
            if "*" in name:
                raise invalid(f"Permission {name} has a wildcard, which is not allowed.")
            if name not in known() or not grantable(name):
                raise invalid(f"Permission {name} is not valid for this resource.")
        return [name for name in asked if self._board.grants("gcp", name)]


class PolicyService:
    """Resource Manager's and IAM's addresses, as far as a project and its service accounts are asked about."""

    cloud = "gcp"

    def __init__(self, identity: Identity, guard: Guard, project: Iterable[str]) -> None:
        self._identity = identity
        self._guard = guard
        self._project = frozenset(project)

    def identify(self, request: Request) -> Target:
        """The method's name in the discovery document of its API."""
        if request.method == "POST" and (found := PROJECT.fullmatch(request.path)):
            return Target("projects.testIamPermissions", found[1])
        if request.method == "POST" and (found := ACCOUNT.fullmatch(request.path)):
            return Target("projects.serviceAccounts.testIamPermissions", found[2])
        return Target("unknown")

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """INTERNAL, what belongs to the fault's status, or RESOURCE_EXHAUSTED for a throttle."""
        if fault.kind == "throttle":
            return error_response("RESOURCE_EXHAUSTED", "Quota exceeded for iam.googleapis.com requests.")
        return error_response(status_for_http(fault.status), "Internal error encountered.", fault.status)

    def respond(self, request: Request, target: Target) -> Response:
        """Answer one request."""
        try:
            self._identity.check(request)
            held = self._held(request, target)
            return Response(json.dumps({"permissions": held} if held else {}), content_type="application/json")
        except GoogleError as error:
            return error_response(error.status, error.message)

    def _held(self, request: Request, target: Target) -> list[str]:
        if target.operation == "unknown":
            raise not_emulated(f"{request.method} {request.path}")
        about_project = target.operation == "projects.testIamPermissions"
        api = document("cloudresourcemanager.v3" if about_project else "iam.v1")
        method = f"{'cloudresourcemanager' if about_project else 'iam'}.{target.operation}"
        asked = api.read_request(method, request.get_json(silent=True) or {}).get("permissions", [])
        if about_project:
            if target.resource not in self._project:
                text = f"The caller does not have permission on {target.resource} (or it may not exist)."
                raise GoogleError("PERMISSION_DENIED", text)
            return self._guard.held(asked, lambda name: True)
        if not any(target.resource.endswith(f"@{name}.iam.gserviceaccount.com") for name in self._project):
            raise GoogleError("NOT_FOUND", f"Unknown service account: {target.resource}")
        return self._guard.held(asked, lambda name: name.startswith("iam.serviceAccounts."))
