"""Many endpoints in two lists: their documents with the traffic, and the resource group's index of deployments.

The index lags, has no properties, and a role may lack the right to read it. What it does not know well enough, by what
the traffic names, is read endpoint by endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lockstep.clouds.azureml.arm import RUNNING, Document, Workspace, state_of
from lockstep.clouds.azureml.endpoints import DIGEST_TAG, LABEL_TAG, READY, capacity_of, weights_of
from lockstep.rules.state import CloudState, SlotState


def read_many(
    cloud: str, workspace: Workspace, wanted: Collection[str], closely: Callable[[str], CloudState]
) -> dict[str, CloudState]:
    """States by endpoint; `closely` reads one that the lists leave in doubt."""
    documents = {str(document["name"]).lower(): document for document in workspace.list("onlineEndpoints")}
    index = _index(workspace)
    found = {}
    for endpoint in wanted:
        document, slots = documents.get(endpoint.lower()), index.get(endpoint.lower(), {})
        if document is None:
            found[endpoint] = CloudState(cloud, endpoint, exists=False)
        elif not slots or not set(weights_of(document)) <= set(slots):
            found[endpoint] = closely(endpoint)
        else:
            found[endpoint] = _state(cloud, endpoint, document, slots)
    return found


def _index(workspace: Workspace) -> dict[str, dict[str, Document]]:
    """Deployments by endpoint and name, in lower case; empty where it may not be read."""
    from azure.core.exceptions import HttpResponseError

    try:
        listed = workspace.deployments()
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        return {}
    found: dict[str, dict[str, Document]] = {}
    for document in listed:
        _, endpoint, name = str(document["name"]).lower().split("/")
        found.setdefault(endpoint, {})[name] = document
    return found


def _state(cloud: str, endpoint: str, document: Document, slots: Mapping[str, Document]) -> CloudState:
    state, weights = state_of(document), weights_of(document)
    told = [f"{name} {one.get('changedTime', '')}" for name, one in sorted(slots.items())]
    mark = "; ".join([str((document.get("systemData") or {}).get("lastModifiedAt", "")), *told])
    ordered = tuple(_slot(slots[name], weights.get(name, 0)) for name in sorted(slots))
    return CloudState(cloud, endpoint, True, state in RUNNING, state, ordered, mark)


def _slot(document: Document, weight: int) -> SlotState:
    """The tags tell the digest here; a closer look reads what the container was given."""
    state, tags = str(document.get("provisioningState", "")), document.get("tags") or {}
    return SlotState(
        name=str(document["name"]).rpartition("/")[2],
        weight=weight,
        ready=state in READY,
        status=state,
        capacity=capacity_of(document),
        label=str(tags.get(LABEL_TAG, "")),
        digest=str(tags.get(DIGEST_TAG, "")),
    )
