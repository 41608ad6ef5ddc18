"""The workspace and its default datastore, both there from the start."""

from __future__ import annotations

import uuid
from typing import Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import Ask, Operation, ResourceManager, answer, not_found
from sandbox.azure.store import Store, document, key

DEFAULT_DATASTORE: Final = "workspaceblobstore"
LISTING: Final = frozenset(("isDefault", "count", "orderByAsc"))


class Workspace:
    """One workspace in one resource group."""

    def __init__(
        self, store: Store, name: str, region: str, account: str, tenant: str, containers: dict[str, str], secret: str
    ) -> None:
        self._store = store
        self._name = name
        self._secret = secret
        group = store.workspace_id.partition("/providers/")[0]
        self._document = document(
            store.workspace_id,
            "workspaces",
            {
                "friendlyName": name,
                "description": "",
                "workspaceId": str(uuid.uuid4()),
                "tenantId": tenant,
                "storageAccount": f"{group}/providers/Microsoft.Storage/storageAccounts/{account}",
                "discoveryUrl": f"https://{region}.api.azureml.ms/discovery",
                "provisioningState": "Succeeded",
                "publicNetworkAccess": "Enabled",
                "hbiWorkspace": False,
                "v1LegacyMode": False,
                "storageHnsEnabled": False,
            },
            location=region,
            tags={},
            kind="Default",
            sku={"name": "Basic", "tier": "Basic"},
            identity={"type": "SystemAssigned", "principalId": str(uuid.uuid4()), "tenantId": tenant},
        )
        for datastore, container in containers.items():
            store.put(
                key("datastores", datastore),
                document(
                    store.id("datastores", datastore),
                    "workspaces/datastores",
                    {
                        "datastoreType": "AzureBlob",
                        "accountName": account,
                        "containerName": container,
                        "endpoint": "core.windows.net",
                        "protocol": "https",
                        "isDefault": datastore == DEFAULT_DATASTORE,
                        "description": None,
                        "tags": {},
                        "properties": {},
                        "credentials": {"credentialsType": "AccountKey"},
                        "serviceDataAccessAuthIdentity": "None",
                    },
                ),
            )

    def serve(self, manager: ResourceManager) -> None:
        """Add what is served here."""
        manager.add("GET", "workspaces", Operation("Workspaces_ListByResourceGroup", self._list))
        manager.add("GET", "workspaces/*", Operation("Workspaces_Get", self._get))
        manager.add("GET", "workspaces/*/datastores", Operation("Datastores_List", self._datastores, LISTING))
        manager.add("GET", "workspaces/*/datastores/*", Operation("Datastores_Get", self._datastore))
        manager.add("POST", "workspaces/*/datastores/*/listSecrets", Operation("Datastores_ListSecrets", self._secrets))

    def check(self, name: str) -> None:
        """Raise 404 unless this is the workspace's name."""
        if name.lower() != self._name.lower():
            raise not_found("workspaces", name)

    def _get(self, ask: Ask) -> Response:
        self.check(ask.names[0])
        return answer(self._document)

    def _list(self, ask: Ask) -> Response:
        return answer({"value": [self._document]})

    def _datastores(self, ask: Ask) -> Response:
        self.check(ask.names[0])
        found = self._store.children(key("datastores"), ask.stale)
        if ask.query.get("isDefault", "").lower() == "true":
            found = [d for d in found if d["properties"]["isDefault"]]
        found = sorted(found, key=lambda d: str(d["name"]), reverse=ask.query.get("orderByAsc", "").lower() != "true")
        return answer({"value": found})

    def _datastore(self, ask: Ask) -> Response:
        self.check(ask.names[0])
        found = self._store.get(key("datastores", ask.names[1]), ask.stale)
        if found is None:
            raise not_found("workspaces/datastores", ask.names[1])
        return answer(found)

    def _secrets(self, ask: Ask) -> Response:
        self._datastore(ask)
        return answer({"secretsType": "AccountKey", "key": self._secret})
