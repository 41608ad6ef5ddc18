"""Which actions Azure's operations take, the caller's roles as Resource Manager lists them, and its refusals.

The caller has two roles on everything in the resource group: one that reads, one that does the rest. Their lists come
on two pages. A storage account's key needs no role. Who was denied what stands in `sandbox/permissions.py`.
https://learn.microsoft.com/rest/api/authorization/permissions,
https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import PERMISSIONS_VERSION, ArmError, Ask, Operation, ResourceManager, answer
from sandbox.permissions import Permissions

ML: Final = "Microsoft.MachineLearningServices/workspaces"
ONLINE: Final = f"{ML}/onlineEndpoints"
STORAGE: Final = "Microsoft.Storage/storageAccounts/blobServices/containers"
BLOBS: Final = f"{STORAGE}/blobs"
ASK: Final = "Microsoft.Authorization/permissions/read"
#: By operation, as Azure's specification names it; what is not here takes nothing that can be taken away: signing in,
#: asking whether an operation that was allowed has ended, scoring with a key.
ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Workspaces_Get": (f"{ML}/read",),
    "Workspaces_ListByResourceGroup": (f"{ML}/read",),
    "Datastores_Get": (f"{ML}/datastores/read",),
    "Datastores_List": (f"{ML}/datastores/read",),
    "ModelContainers_Get": (f"{ML}/models/read",),
    "ModelVersions_Get": (f"{ML}/models/versions/read",),
    "ModelVersions_List": (f"{ML}/models/versions/read",),
    "ModelVersions_CreateOrUpdate": (f"{ML}/models/versions/write", f"{ML}/models/write"),
    "EnvironmentVersions_Get": (f"{ML}/environments/versions/read",),
    "EnvironmentVersions_CreateOrUpdate": (f"{ML}/environments/versions/write",),
    "Resources_ListByResourceGroup": ("Microsoft.Resources/subscriptions/resourceGroups/resources/read",),
    "OnlineEndpoints_List": (f"{ONLINE}/read",),
    "OnlineEndpoints_Get": (f"{ONLINE}/read",),
    "OnlineEndpoints_CreateOrUpdate": (f"{ONLINE}/write",),
    "OnlineEndpoints_Update": (f"{ONLINE}/write",),
    "OnlineEndpoints_Delete": (f"{ONLINE}/delete",),
    "OnlineEndpoints_ListKeys": (f"{ONLINE}/listKeys/action",),
    "OnlineDeployments_Get": (f"{ONLINE}/deployments/read",),
    "OnlineDeployments_List": (f"{ONLINE}/deployments/read",),
    "OnlineDeployments_CreateOrUpdate": (f"{ONLINE}/deployments/write",),
    "OnlineDeployments_Update": (f"{ONLINE}/deployments/write",),
    "OnlineDeployments_Delete": (f"{ONLINE}/deployments/delete",),
    "OnlineDeployments_GetLogs": (f"{ONLINE}/deployments/getLogs/action",),
    "Metrics_Batch": ("Microsoft.Insights/metrics/read",),
    "Permissions_ListForResource": (ASK,),
    "Permissions_ListForResourceGroup": (ASK,),
    "GetContainerProperties": (f"{STORAGE}/read",),
}
#: The same for the data of Blob Storage.
DATA_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "ListBlobs": (f"{BLOBS}/read",),
    "GetBlob": (f"{BLOBS}/read",),
    "GetBlobProperties": (f"{BLOBS}/read",),
    "PutBlob": (f"{BLOBS}/write", f"{BLOBS}/add/action"),
    "PutBlock": (f"{BLOBS}/write",),
    "PutBlockList": (f"{BLOBS}/write",),
    "DeleteBlob": (f"{BLOBS}/delete",),
    "BatchBlobs": (f"{BLOBS}/delete",),  # several deletions in one request
}
#: A model's container comes with its first version; whether it is there is asked with it.
UNASKED: Final = (f"{ML}/models/read",)


def known() -> frozenset[str]:
    """Every action that can be taken away."""
    tables = (*ACTIONS.values(), *DATA_ACTIONS.values())
    return frozenset({*(action for actions in tables for action in actions), *UNASKED})


def needed(operation: str) -> tuple[str, ...]:
    """The actions that an operation takes."""
    return ACTIONS.get(operation, ()) or DATA_ACTIONS.get(operation, ())


def admit(board: Permissions, operation: str, client: str, scope: str) -> None:
    """Refuse an operation on `scope` for which `client` lacks an action, in Resource Manager's words."""
    action = board.lacking("azure", needed(operation))
    if action:
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{client}' with object id '{client}' does not have authorization to perform action "
            f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh "
            "your credentials.",
        )


class Roles:
    """Lists what the caller's roles allow on the resources that `exists` knows, by their identifiers."""

    def __init__(self, board: Permissions, exists: Callable[[str], bool]) -> None:
        self._board = board
        self._exists = exists

    def serve(self, manager: ResourceManager) -> None:
        """Add the operations."""
        for of in ("Resource", "ResourceGroup"):
            name = f"Permissions_ListFor{of}"
            operation = Operation(name, self._list, frozenset({"$skipToken"}), frozenset({PERMISSIONS_VERSION}))
            manager.add("GET", f"permissionsof{of}", operation)

    def _list(self, ask: Ask) -> Response:
        resource = ask.parent.rpartition("/providers/")[0]
        if not self._exists(resource.lower()):
            raise ArmError(404, "ResourceNotFound", f"The Resource '{resource}' was not found.")
        denied = self._board.table()["azure"]
        reader = _role(["*/read"], denied)
        if "$skipToken" in ask.query:
            patterns = [f"{ML}/*", f"{STORAGE.partition('/')[0]}/*".upper()]
            return answer({"value": [_role(patterns, denied, [f"{BLOBS}/*"])]})
        more = f"{ask.host}{ask.parent}?api-version={PERMISSIONS_VERSION}&$skipToken=2"
        return answer({"value": [reader], "nextLink": more})


def _role(actions: list[str], denied: list[str], data: list[str] | None = None) -> dict[str, Any]:
    return {
        "actions": actions,
        "notActions": denied,
        "dataActions": data or [],
        "notDataActions": denied if data else [],
        "condition": None,
        "conditionVersion": None,
    }
