"""Vertex AI's REST address: routes, bearer check, quotas, and JSON checked against the published schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.gcp.discovery import document
from sandbox.gcp.errors import GoogleError, error_response, invalid, not_emulated, status_for_http
from sandbox.gcp.identity import Identity
from sandbox.gcp.permissions import ACT_AS, Guard
from sandbox.gcp.quota import Limits, Quota
from sandbox.gcp.vertex_deployments import Deployments
from sandbox.gcp.vertex_endpoints import Endpoints
from sandbox.gcp.vertex_models import Models
from sandbox.gcp.vertex_names import JsonObject
from sandbox.gcp.vertex_operations import Operation, Operations
from sandbox.gcp.vertex_scoring import Scoring
from sandbox.web import Target

PLACE: Final = r"/v1/projects/(?P<project>[^/:]+)/locations/(?P<location>[^/:]+)"
MODEL: Final = PLACE + r"/models/(?P<id>[^/:]+)"
ENDPOINT: Final = PLACE + r"/endpoints/(?P<id>[^/:]+)"
OPERATION: Final = (
    r"/(?:v1|ui)/projects/(?P<project>[^/:]+)/locations/(?P<location>[^/:]+)(?P<of>(?:/\w+/[^/:]+)*)"
    r"/operations/(?P<id>[^/:]+)"
)
SUBMISSIONS: Final = {"UploadModel", "DeleteModel", "DeleteModelVersion", "CreateEndpoint", "DeleteEndpoint"} | {
    "DeployModel",
    "UndeployModel",
    "MutateDeployedModel",
}
QUIET: Final = {"Predict", "RawPredict"}
#: method, path, the RPC's name, the method's name in the discovery document below projects.locations
ROUTES: Final = tuple(
    (method, re.compile(path), rpc, "aiplatform.projects.locations." + described)
    for method, path, rpc, described in (
        ("POST", ENDPOINT + ":predict", "Predict", "endpoints.predict"),
        ("POST", ENDPOINT + ":rawPredict", "RawPredict", "endpoints.rawPredict"),
        ("POST", PLACE + "/models:upload", "UploadModel", "models.upload"),
        ("GET", PLACE + "/models", "ListModels", "models.list"),
        ("GET", MODEL, "GetModel", "models.get"),
        ("PATCH", MODEL, "UpdateModel", "models.patch"),
        ("DELETE", MODEL, "DeleteModel", "models.delete"),
        ("GET", MODEL + ":listVersions", "ListModelVersions", "models.listVersions"),
        ("DELETE", MODEL + ":deleteVersion", "DeleteModelVersion", "models.deleteVersion"),
        ("POST", MODEL + ":mergeVersionAliases", "MergeVersionAliases", "models.mergeVersionAliases"),
        ("POST", PLACE + "/endpoints", "CreateEndpoint", "endpoints.create"),
        ("GET", PLACE + "/endpoints", "ListEndpoints", "endpoints.list"),
        ("GET", ENDPOINT, "GetEndpoint", "endpoints.get"),
        ("PATCH", ENDPOINT, "UpdateEndpoint", "endpoints.patch"),
        ("DELETE", ENDPOINT, "DeleteEndpoint", "endpoints.delete"),
        ("POST", ENDPOINT + ":deployModel", "DeployModel", "endpoints.deployModel"),
        ("POST", ENDPOINT + ":undeployModel", "UndeployModel", "endpoints.undeployModel"),
        ("POST", ENDPOINT + ":mutateDeployedModel", "MutateDeployedModel", "endpoints.mutateDeployedModel"),
        ("GET", OPERATION, "GetOperation", "operations.get"),
        ("POST", OPERATION + ":wait", "WaitOperation", "operations.wait"),
        ("POST", OPERATION + ":cancel", "CancelOperation", "operations.cancel"),
        ("DELETE", OPERATION, "DeleteOperation", "operations.delete"),
        ("GET", OPERATION.removesuffix(r"/(?P<id>[^/:]+)"), "ListOperations", "operations.list"),
    )
)


class VertexService:
    """Vertex AI for one project in one location."""

    cloud = "gcp"

    def __init__(
        self,
        identity: Identity,
        project: tuple[str, str],
        location: str,
        models: Models,
        endpoints: Endpoints,
        deployments: Deployments,
        operations: Operations,
        scoring: Scoring,
        limits: Limits,
        guard: Guard,
    ) -> None:
        self._identity = identity
        self._project = project
        self._location = location
        self._models = models
        self._endpoints = endpoints
        self._deployments = deployments
        self._operations = operations
        self._scoring = scoring
        self._guard = guard
        self._discovery = document("aiplatform.v1")
        self._crud = Quota("Resource management (CRUD) requests", limits.crud, location)
        self._submissions = Quota("Long-running operation submissions", limits.submissions, location)
        self._predictions = Quota("Online prediction requests", limits.predictions, location)

    def identify(self, request: Request) -> Target:
        """The RPC's name; the resource is the model's or endpoint's id."""
        _, rpc, _, names = self._match(request)
        return Target(rpc, names.get("id", ""), quiet=rpc in QUIET)

    @staticmethod
    def _match(request: Request) -> tuple[str, str, str, dict[str, str]]:
        for method, path, rpc, described in ROUTES:
            if method == request.method and (found := path.fullmatch(request.path)):
                return method, rpc, described, {k: v for k, v in found.groupdict().items() if v is not None}
        return request.method, "unknown", "", {}

    def failure(self, request: Request, target: Target, fault: Fault) -> Response:
        """INTERNAL, what belongs to the fault's status, or RESOURCE_EXHAUSTED for a throttle."""
        if fault.kind == "throttle":
            return error_response("RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com requests.")
        return error_response(status_for_http(fault.status), "Internal error encountered.", fault.status)

    def respond(self, request: Request, target: Target) -> Response:
        """Answer one request."""
        try:
            if request.path.startswith("/logs/"):
                return self._logs(request.path.removeprefix("/logs/"))
            self._identity.check(request)
            self._guard.admit(target.operation, f"//aiplatform.googleapis.com{request.path.partition(':')[0][3:]}")
            if target.operation in QUIET:
                return self._score(request, target)
            return self._control(request)
        except GoogleError as error:
            request.get_data()
            return error_response(error.status, error.message)

    def _logs(self, slot_id: str) -> Response:
        text = self._deployments.logs(slot_id)
        if text is None:
            raise GoogleError("NOT_FOUND", f"No logs of a deployed model {slot_id}.")
        return Response(text, 200, content_type="text/plain; charset=UTF-8")

    def _score(self, request: Request, target: Target) -> Response:
        _, rpc, _, names = self._match(request)
        self._check_place(names)
        self._predictions.spend()
        if rpc == "Predict":
            return self._scoring.predict(names["id"], request)
        return self._scoring.raw_predict(names["id"], request)

    def _check_place(self, names: dict[str, str]) -> None:
        if names["project"] not in self._project:
            raise GoogleError(
                "PERMISSION_DENIED",
                f"Permission denied on resource project {names['project']} (or it may not exist).",
            )
        if names["location"] != self._location:
            raise invalid(f"Location ID {names['location']} was not found or invalid: use {self._location} here.")

    def _control(self, request: Request) -> Response:
        _, rpc, described, names = self._match(request)
        if rpc == "unknown":
            known = self._discovery.method_at(request.method, request.path)
            if known or request.path.startswith(("/v1beta1/", "/batch")):
                raise not_emulated(known or request.path)
            raise GoogleError("NOT_FOUND", f"Method not found: {request.method} {request.path}")
        self._check_place(names)
        if not rpc.endswith("Operation"):
            self._crud.spend()
        query = self._discovery.check_query(described, request.args)
        body = self._discovery.read_request(described, _json_body(request))
        account = (body.get("deployedModel") or {}).get("serviceAccount")
        if account:
            self._guard.require(ACT_AS, f"projects/-/serviceAccounts/{account}")
        if rpc in SUBMISSIONS:
            self._submissions.spend()
        action: Callable[[dict[str, str], dict[str, str], JsonObject], Any] = getattr(self, f"_{_snake(rpc)}")
        answer = action(names, query, body)
        if isinstance(answer, Operation):
            answer = answer.as_json()
        as_int = "enum-encoding=int" in query.get("$alt", "")
        content = self._discovery.write(self._discovery.response_schema(described), answer, enums_as_int=as_int)
        return Response(json.dumps(content), 200, content_type="application/json; charset=UTF-8")

    # --- one method per RPC: (names in the path, query, body)

    def _upload_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._models.upload(body)

    def _list_models(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._models.list(query)

    def _get_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._models.get(names["id"])

    def _update_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._models.update(names["id"], body, query.get("updateMask"))

    def _delete_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._models.delete(names["id"])

    def _list_model_versions(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._models.list_versions(names["id"], query)

    def _delete_model_version(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._models.delete_version(names["id"])

    def _merge_version_aliases(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._models.merge_aliases(names["id"], body)

    def _create_endpoint(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._endpoints.create(body, query.get("endpointId"))

    def _list_endpoints(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._endpoints.list(query)

    def _get_endpoint(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._endpoints.get(names["id"])

    def _update_endpoint(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        return self._endpoints.update(names["id"], body, query.get("updateMask"))

    def _delete_endpoint(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._endpoints.delete(names["id"])

    def _deploy_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._deployments.deploy(names["id"], body)

    def _undeploy_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._deployments.undeploy(names["id"], body)

    def _mutate_deployed_model(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._deployments.mutate(names["id"], body)

    def _operation_name(self, names: dict[str, str]) -> str:
        return f"{self._parent(names)}/operations/{names['id']}"

    def _parent(self, names: dict[str, str]) -> str:
        return f"projects/{self._project[1]}/locations/{self._location}{names.get('of', '')}"

    def _get_operation(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        return self._operations.get(self._operation_name(names))

    def _wait_operation(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> Operation:
        operation = self._operations.get(self._operation_name(names))
        seconds = re.fullmatch(r"(\d+(?:\.\d+)?)s", query.get("timeout", "30s"))
        if seconds is None:
            raise invalid(f"Invalid timeout: {query['timeout']}")
        self._operations.wait(operation, min(float(seconds[1]), 50.0))
        return operation

    def _cancel_operation(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        self._operations.get(self._operation_name(names))
        raise not_emulated("CancelOperation: none of the operations emulated here can be cancelled")

    def _delete_operation(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        self._operations.delete(self._operation_name(names))
        return {}

    def _list_operations(self, names: dict[str, str], query: dict[str, str], body: JsonObject) -> JsonObject:
        if query.get("filter"):
            raise not_emulated("ListOperations with a filter")
        found = self._operations.listing(self._parent(names))
        return {"operations": [operation.as_json() for operation in found]}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _json_body(request: Request) -> Any:
    content = request.get_data()
    if not content:
        return {}
    try:
        return json.loads(content)
    except ValueError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from None
