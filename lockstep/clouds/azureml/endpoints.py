"""Online endpoints and their traffic.

Azure has no conditional write for an endpoint: the last writer wins, and reads lag behind writes. So a split is
written only while the endpoint rests, and believed only when a later read shows it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lockstep.clouds.azureml.arm import RUNNING, Document, Workspace, state_of, ticks
from lockstep.errors import BusyError, CloudRejectedError, NotFoundError, RefusedError, RetryLaterError
from lockstep.rules.state import CloudState, SlotState
from lockstep.rules.traffic import TrafficSplit

if TYPE_CHECKING:
    from lockstep.clouds.azureml.settings import AzureMLSettings

LABEL_TAG: Final = "lockstep-version"
DIGEST_TAG: Final = "lockstep-digest"
MODEL_TAG: Final = "lockstep-model"
NAME: Final = re.compile(r"[A-Za-z](?:-?[A-Za-z0-9])*")
READY: Final = ("Succeeded", "Scaling")
#: Seconds for which a read may still show what was there before our own last write.
READ_LAG: Final = 120.0
#: What a PUT may carry back of what a GET showed.
KEPT: Final = ("authMode", "description", "properties", "publicNetworkAccess", "compute", "mirrorTraffic")


@dataclass(frozen=True)
class Written:
    """The last split that this process wrote to an endpoint, and when (monotonic seconds)."""

    weights: dict[str, int]
    at: float


class Endpoints:
    """Looks at endpoints and moves their traffic."""

    def __init__(self, name: str, settings: AzureMLSettings, workspace: Workspace) -> None:
        self._name = name
        self._settings = settings
        self._workspace = workspace
        self._written: dict[str, Written] = {}

    def find(self, endpoint: str) -> Document | None:
        """The endpoint's document, if there is one."""
        return self._workspace.get(f"onlineEndpoints/{endpoint}")

    def existing(self, endpoint: str, model: str) -> Document:
        """The endpoint's document; raises NotFoundError."""
        found = self.find(endpoint)
        if found is None:
            raise NotFoundError(
                f"model {model} has no endpoint {endpoint!r} in workspace {self._settings.workspace}",
                cloud=self._name,
                hint=f"deploy a version first: lockstep deploy {model} VERSION",
            )
        return found

    def state(self, endpoint: str) -> CloudState:
        """Endpoint, deployments and weights in two reads."""
        found = self.find(endpoint)
        if found is None:
            return CloudState(self._name, endpoint, exists=False)
        weights = weights_of(found)
        slots = tuple(
            _slot_state(document, weights.get(str(document["name"]).lower(), 0))
            for document in self._workspace.list(f"onlineEndpoints/{endpoint}/deployments")
        )
        state = state_of(found)
        ordered = tuple(sorted(slots, key=lambda slot: slot.name))
        return CloudState(self._name, endpoint, exists=True, busy=state in RUNNING, status=state, slots=ordered)

    def shows(self, endpoint: str, split: TrafficSplit) -> bool | None:
        """Whether the endpoint's record is this split; None while it is being changed."""
        found = self.find(endpoint)
        if found is None:
            return False
        return None if state_of(found) in RUNNING else weights_of(found) == _wanted(split)

    def create(self, endpoint: str, model: str) -> None:
        """Have an endpoint that rests: create it, join its creation, or wait until another change has ended."""
        if not NAME.fullmatch(endpoint) or not 3 <= len(endpoint) <= 32:
            raise RefusedError(
                f"Azure takes no endpoint named {endpoint!r}: 3 to 32 letters, digits, single dashes, a letter first",
                cloud=self._name,
                hint=f"set endpoint_name of cloud {self._name} so that model {model} gets such a name",
            )
        found = self.find(endpoint)
        if found is None or state_of(found) in ("Failed", "Canceled"):
            # A failed change may have left an endpoint that serves: it is sent back as it is, traffic included.
            body = with_weights(found, weights_of(found)) if found is not None else self._new(model)
            self._put_or_join(endpoint, model, body)
        elif state_of(found) == "Succeeded":
            return
        ours = found is None or state_of(found) != "Updating"
        self._rest(endpoint, model, self._settings.deploy_timeout if ours else self._settings.traffic_timeout)

    def _put_or_join(self, endpoint: str, model: str, body: Document) -> None:
        from azure.core.exceptions import HttpResponseError

        try:
            operation = self._workspace.put(f"onlineEndpoints/{endpoint}", body)
        except HttpResponseError as error:
            if error.status_code == 409:  # somebody else began to create it just now
                return
            raise
        outcome = self._workspace.outcome(operation, self._settings.deploy_timeout)
        if outcome.ended and not outcome.succeeded:
            raise CloudRejectedError(
                f"endpoint {endpoint} of {model} was not created: {outcome.reason}",
                cloud=self._name,
                hint="read Azure's reason above; endpoint names must be free in the whole region",
            )

    def _new(self, model: str) -> Document:
        return {
            "location": self._settings.region,
            "kind": "Managed",
            "identity": {"type": "SystemAssigned"},
            "tags": {MODEL_TAG: model},
            "properties": {"authMode": "Key", "description": f"{model}, deployed by Lockstep"},
        }

    def _rest(self, endpoint: str, model: str, seconds: float) -> None:
        look, state = self._workspace.steady(lambda: self.find(endpoint)), "unknown"
        for _ in ticks(seconds):
            found = look()
            state = state_of(found) if found is not None else state
            if state == "Succeeded":
                return
        raise BusyError(
            f"endpoint {endpoint} of {model} is still {state} after {seconds:.0f} s",
            cloud=self._name,
            hint=f"see who changes it: {self._settings.workspace} > Endpoints > {endpoint}; then try again",
        )

    def move(self, endpoint: str, model: str, split: TrafficSplit) -> None:
        """Write the split and wait until a read shows it."""
        found = self.existing(endpoint, model)
        if state_of(found) in RUNNING:
            raise BusyError(
                f"endpoint {endpoint} of {model} is {state_of(found)}: its traffic cannot be set now",
                cloud=self._name,
                hint="try again when that change has ended",
            )
        wanted, written = _wanted(split), self._written.get(endpoint)
        lagging = written is not None and written.weights != wanted and time.monotonic() - written.at < READ_LAG
        if weights_of(found) == wanted and not lagging:
            return
        self._check_ready(endpoint, model, set(wanted) - set(weights_of(found)))
        began = time.monotonic()
        self._written[endpoint] = Written(wanted, began)
        operation = self._workspace.put(f"onlineEndpoints/{endpoint}", with_weights(found, wanted))
        outcome = self._workspace.outcome(operation, self._settings.traffic_timeout)
        if outcome.ended and not outcome.succeeded:
            raise CloudRejectedError(
                f"endpoint {endpoint} of {model} did not take the traffic {split}: {outcome.reason}",
                cloud=self._name,
                hint="read Azure's reason above; the traffic is as it was before",
            )
        left = self._settings.traffic_timeout - (time.monotonic() - began)
        look, shown = self._workspace.steady(lambda: self.find(endpoint)), "nothing"
        for _ in ticks(max(left, 0.0)):
            document = look()
            if document is None:
                continue
            if state_of(document) == "Succeeded" and weights_of(document) == wanted:
                return
            shown = f"{weights_of(document) or 'no traffic'} ({state_of(document)})"
        raise RetryLaterError(
            f"endpoint {endpoint} of {model} shows {shown} instead of {split} "
            f"{self._settings.traffic_timeout:.0f} s after the request (its operation: {outcome.status})",
            cloud=self._name,
            hint=f"look again: lockstep status {model}; if Azure took the change back, set the traffic once more",
        )

    def _check_ready(self, endpoint: str, model: str, slots: set[str]) -> None:
        """Refuse traffic to a slot that could not answer: Azure would move it there all the same."""
        for slot in sorted(slots):
            document = self._workspace.get(f"onlineEndpoints/{endpoint}/deployments/{slot}")
            state = "not there" if document is None else state_of(document)
            if state not in READY:
                raise RefusedError(
                    f"slot {slot} on endpoint {endpoint} of {model} is {state} and cannot take traffic",
                    cloud=self._name,
                    hint=f"deploy its version first, or choose one of those that `lockstep status {model}` shows",
                )


def weights_of(document: Document) -> dict[str, int]:
    """Per cents by slot, names in lower case as Azure treats them, zeros left out."""
    traffic = document["properties"].get("traffic") or {}
    return {str(slot).lower(): int(weight) for slot, weight in traffic.items() if weight}


def with_weights(document: Document, weights: dict[str, int]) -> Document:
    """The PUT body that changes the traffic alone."""
    properties = {name: document["properties"][name] for name in KEPT if document["properties"].get(name) is not None}
    mirror = {slot: share for slot, share in (properties.get("mirrorTraffic") or {}).items() if slot not in weights}
    body = {
        "location": document["location"],
        "tags": document.get("tags") or {},
        "properties": {**properties, "mirrorTraffic": mirror, "traffic": weights},
    }
    if document.get("kind"):
        body["kind"] = document["kind"]
    identity = document.get("identity") or {}
    if identity.get("type"):
        users = identity.get("userAssignedIdentities") or {}
        body["identity"] = {"type": identity["type"]}
        if users:
            body["identity"]["userAssignedIdentities"] = {user: {} for user in users}
    return body


def deployed_digest(document: Document) -> str:
    """The digest that a deployment's container was told to serve."""
    variables = document["properties"].get("environmentVariables") or {}
    return str(variables.get("LOCKSTEP_DIGEST") or (document.get("tags") or {}).get(DIGEST_TAG, ""))


def capacity_of(document: Document) -> int:
    """Instances of a deployment."""
    return int((document.get("sku") or {}).get("capacity") or 1)


def _slot_state(document: Document, weight: int) -> SlotState:
    state = state_of(document)
    return SlotState(
        name=str(document["name"]),
        weight=weight,
        ready=state in READY,
        status=state,
        capacity=capacity_of(document),
        label=str((document.get("tags") or {}).get(LABEL_TAG, "")),
        digest=deployed_digest(document),
    )


def _wanted(split: TrafficSplit) -> dict[str, int]:
    return {slot.lower(): weight for slot, weight in split.weights}
