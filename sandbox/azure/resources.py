"""The generic list of a resource group's resources, as far as it holds the deployments of online endpoints.

Resource Manager answers it from its own index of tracked resources: envelopes without properties
(https://learn.microsoft.com/rest/api/resources/resources/list-by-resource-group).
"""

from __future__ import annotations

import re
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import Ask, Operation, ResourceManager, answer, not_implemented
from sandbox.azure.endpoints import endpoint_key
from sandbox.azure.store import Document, Store, key

DEPLOYMENTS: Final = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
FILTER: Final = re.compile(r"resourceType eq '([^']+)'")
QUERY: Final = frozenset(("$filter", "$expand", "$top"))
EXPANDED: Final = ("createdTime", "changedTime", "provisioningState")


class Resources:
    """Serves the list."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def serve(self, manager: ResourceManager) -> None:
        """Add the operation."""
        manager.add("GET", "resources", Operation("Resources_ListByResourceGroup", self._list, QUERY))

    def _list(self, ask: Ask) -> Response:
        wanted = FILTER.fullmatch(ask.query.get("$filter", ""))
        if wanted is None or wanted[1].lower() != DEPLOYMENTS.lower():
            raise not_implemented(f"a list of resources other than {DEPLOYMENTS}")
        expand = [name for name in ask.query.get("$expand", "").split(",") if name]
        if not set(expand) <= set(EXPANDED):
            raise not_implemented(f"$expand={','.join(expand)} of Resources_ListByResourceGroup")
        found = [
            _generic(document, expand)
            for endpoint in self._store.children(key("onlineEndpoints"), ask.stale)
            for document in self._store.children((*endpoint_key(endpoint["name"]), "deployments"), ask.stale)
        ]
        return answer({"value": found})


def _generic(document: Document, expand: list[str]) -> dict[str, Any]:
    names = document["id"].split("/providers/")[1].split("/")[2::2]
    system = document["systemData"]
    more = {
        "createdTime": system["createdAt"],
        "changedTime": system["lastModifiedAt"],
        "provisioningState": document["properties"]["provisioningState"],
    }
    envelope = {name: document[name] for name in ("location", "kind", "sku", "tags") if name in document}
    return {
        "id": document["id"],
        "name": "/".join(names),
        "type": DEPLOYMENTS,
        **envelope,
        **{name: more[name] for name in expand},
    }
