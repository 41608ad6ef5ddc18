"""What Lockstep must be allowed to do on Azure, as it follows from the settings, and Azure's own answer.

docs/clouds.md grants these very actions; a test compares both with the calls that the adapter makes. Azure lists what
the caller's roles put together allow on a resource; its rules for reading that list stand in `allowed`.
https://learn.microsoft.com/rest/api/authorization/permissions, https://learn.microsoft.com/azure/role-based-access-control
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lockstep.clouds.azureml.arm import Document, Workspace
from lockstep.rules.permissions import Finding, Need, Permissions

if TYPE_CHECKING:
    from lockstep.clouds.azureml.settings import AzureMLSettings

#: What it takes to ask, for `lockstep check` and `lockstep init` alone.
ASKING: Final = ("Microsoft.Authorization/permissions/read",)
ML: Final = "Microsoft.MachineLearningServices/workspaces"
ONLINE: Final = f"{ML}/onlineEndpoints"
CONTAINER: Final = "Microsoft.Storage/storageAccounts/blobServices/containers"
#: Where Azure ML's data collector writes to, as the workspace calls it.
COLLECTED: Final = "workspaceblobstore"

REGISTERS: Final = "registers versions"
PREPARES: Final = "makes slots"
LOOKS: Final = "tells what serves"
COPIES: Final = "copies versions and reads them back"
KEEPS: Final = "keeps copies of the ledger"
CAPTURED: Final = "finds captured requests"

#: Actions on the workspace, with what cannot be done without each.
WORKSPACE: Final[Mapping[str, str]] = {
    f"{ML}/read": "finds the workspace",
    f"{ML}/models/read": REGISTERS,
    f"{ML}/models/write": REGISTERS,
    f"{ML}/models/versions/read": "finds registered versions",
    f"{ML}/models/versions/write": REGISTERS,
    f"{ML}/environments/versions/read": PREPARES,
    f"{ML}/environments/versions/write": PREPARES,
    f"{ML}/datastores/read": "finds the bytes",
    f"{ONLINE}/read": LOOKS,
    f"{ONLINE}/write": "moves traffic and makes endpoints",
    f"{ONLINE}/listKeys/action": "proves who answers",
    f"{ONLINE}/deployments/read": LOOKS,
    f"{ONLINE}/deployments/write": "makes and resizes slots",
    f"{ONLINE}/deployments/delete": "removes slots",
    f"{ONLINE}/deployments/getLogs/action": "tells why a container did not start",
    "Microsoft.Insights/metrics/read": "judges what serves",
}
INDEX: Final = "Microsoft.Resources/subscriptions/resourceGroups/resources/read"
#: Done without, at a price: one more call a model without the index, no reason why a container did not start, no
#: `lockstep replicate --repair`.
OPTIONAL: Final = frozenset(
    {INDEX, f"{ONLINE}/deployments/getLogs/action", f"{CONTAINER}/blobs/delete"}
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What is needed on one resource, by its identifier, of the management's actions and of the data's."""

    resource: str
    actions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def needs(self) -> tuple[Need, ...]:
        """One need an action."""
        both = {**self.actions, **self.data}
        return tuple(Need(name, self.resource, purpose, name in OPTIONAL) for name, purpose in both.items())


def parts(settings: AzureMLSettings, collected: str = "") -> tuple[Part, ...]:
    """Everything that is needed; `collected` is the container with captured requests, where it is known.

    Whoever has the storage account's key needs no roles for the bytes.
    """
    group = settings.workspace_path.partition("/providers/")[0]
    found = [Part(settings.workspace_path, WORKSPACE), Part(group, {INDEX: "looks at many models by one call"})]
    if settings.storage_key is None:
        blobs = {"read": COPIES, "add/action": COPIES, "write": COPIES, "delete": "repairs copies"}
        data = {f"{CONTAINER}/blobs/{verb}": purpose for verb, purpose in blobs.items()}
        found.append(Part(settings.container_path(settings.container), data=data))
        if settings.archive_container:
            data = {f"{CONTAINER}/blobs/{verb}": KEEPS for verb in ("read", "add/action", "write")}
            path = settings.container_path(settings.archive_container)
            found.append(Part(path, {f"{CONTAINER}/read": KEEPS}, data))
    if collected:
        found.append(Part(collected, data={f"{CONTAINER}/blobs/read": CAPTURED}))
    return tuple(found)


def ask(workspace: Workspace, settings: AzureMLSettings) -> Permissions:
    """What is needed, and what of it Azure says that the caller has."""
    collected = _collected(workspace) if settings.capture_percent else ""
    findings: list[Finding] = []
    for part in parts(settings, collected):
        granted, why = _granted(workspace, settings, part.resource)
        for need in part.needs():
            if granted is None:
                findings.append(Finding(need, None, why))
                continue
            kinds = ("actions", "notActions") if need.permission in part.actions else ("dataActions", "notDataActions")
            answer = allowed(need.permission, granted, *kinds)
            findings.append(Finding(need, answer, "" if answer is not None else "a role's condition decides"))
    return Permissions(tuple(findings))


def allowed(action: str, granted: Iterable[Document], which: str, but: str) -> bool | None:
    """Whether one of the roles allows the action and does not take it out again; None where a condition decides.

    `*` stands for any characters, and case does not matter. A role's exceptions hold for that role alone.
    """
    answer: bool | None = False
    for role in granted:
        if not _matches(action, role.get(which) or ()) or _matches(action, role.get(but) or ()):
            continue
        if not role.get("condition"):
            return True
        answer = None
    return answer


def _matches(action: str, patterns: Sequence[str]) -> bool:
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), action, re.IGNORECASE) for pattern in patterns
    )


def _granted(
    workspace: Workspace, settings: AzureMLSettings, resource: str
) -> tuple[Sequence[Document], str] | tuple[None, str]:
    """The caller's roles on a resource; None and the reason where they cannot be told."""
    from azure.core.exceptions import HttpResponseError

    try:
        return workspace.permissions(resource), ""
    except HttpResponseError as error:
        if error.status_code == 403:
            return None, f"the caller may not ask: allow {ASKING[0]} on {resource}"
        if error.status_code == 404 and resource != settings.workspace_path:
            return None, f"Azure finds no {resource}: correct storage_account or storage_resource_group"
        raise


def _collected(workspace: Workspace) -> str:
    """Identifier of the container behind the datastore that captured requests go to; "" where it cannot be read."""
    from azure.core.exceptions import HttpResponseError

    try:
        home, datastore = workspace.get(""), workspace.get(f"datastores/{COLLECTED}")
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        return ""  # that it may not be read is a finding of its own
    account = str((home or {}).get("properties", {}).get("storageAccount") or "")
    container = str((datastore or {}).get("properties", {}).get("containerName") or "")
    return f"{account}/blobServices/default/containers/{container}" if account and container else ""
