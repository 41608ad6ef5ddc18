"""Deployments: one per version, named after it, made beside the others without touching them.

Written with Resource Manager's REST API and not with azure-ai-ml, whose poller looks every five seconds and prints
dots to standard output meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lockstep.clouds.azureml.arm import Document, Outcome, Workspace, state_of, ticks
from lockstep.clouds.azureml.capture import collecting
from lockstep.clouds.azureml.endpoints import (
    DIGEST_TAG,
    LABEL_TAG,
    MODEL_TAG,
    Endpoints,
    capacity_of,
    deployed_digest,
    weights_of,
)
from lockstep.errors import (
    BusyError,
    CloudRejectedError,
    DeploymentFailedError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
)
from lockstep.rules.traffic import TrafficSplit

if TYPE_CHECKING:
    from lockstep.clouds.azureml.assets import Assets
    from lockstep.clouds.azureml.settings import AzureMLSettings
    from lockstep.rules.state import Version

LOG_LINES: Final = 40
BROKEN: Final = ("Failed", "Canceled")


class Slots:
    """Makes deployments ready and takes them away."""

    def __init__(
        self, name: str, settings: AzureMLSettings, workspace: Workspace, endpoints: Endpoints, assets: Assets
    ) -> None:
        self._name = name
        self._settings = settings
        self._workspace = workspace
        self._endpoints = endpoints
        self._assets = assets

    # -- making ------------------------------------------------------------------------------------------------

    def prepare(self, endpoint: str, version: Version, image: str) -> None:
        """Return when the version's deployment serves; whatever an earlier attempt left behind is taken up."""
        path = _path(endpoint, version.slot)
        found = self._settled(path, endpoint, version)
        if found is not None:
            self._check_same(found, version)
            if state_of(found) in BROKEN:
                # Whoever made it was killed before taking it away again.
                self._remove_broken(path, endpoint, version)
                found = None
        if found is None:
            self._endpoints.create(endpoint, version.model)
            self._deploy(path, endpoint, version, image)
        self._open(endpoint, version)

    def _open(self, endpoint: str, version: Version) -> None:
        """Give all traffic to the only slot of an endpoint that has none yet."""
        found = self._endpoints.find(endpoint)
        if found is None or weights_of(found):
            return
        if len(self._workspace.list(f"onlineEndpoints/{endpoint}/deployments")) == 1:
            self._endpoints.move(endpoint, version.model, TrafficSplit.all_to(version.slot))

    def _settled(self, path: str, endpoint: str, version: Version) -> Document | None:
        """The deployment once it is not in the middle of something; None when there is none."""
        look, found = self._workspace.steady(lambda: (self._workspace.get(path),)), None
        for _ in ticks(self._settings.deploy_timeout):
            seen = look()
            if seen is None:
                continue
            found = seen[0]
            if found is None or state_of(found) in ("Succeeded", *BROKEN):
                return found
        state = "unknown" if found is None else state_of(found)
        raise self._late(endpoint, version, state)

    def _deploy(self, path: str, endpoint: str, version: Version, image: str) -> None:
        body = self._body(version, image)
        operation = self._start(path, body, endpoint)
        outcome = self._workspace.outcome(operation, self._settings.deploy_timeout)
        if not outcome.ended:
            raise self._late(endpoint, version, outcome.status)
        if outcome.succeeded:
            look = self._workspace.steady(lambda: self._workspace.get(path))
            for _ in ticks(self._settings.traffic_timeout):
                found = look()
                if found is not None and state_of(found) == "Succeeded":
                    self._check_same(found, version)
                    return
                if found is not None and state_of(found) in BROKEN:
                    break
            else:
                raise self._late(endpoint, version, "not shown, although Azure reports success")
        self._fail(path, endpoint, version, outcome)

    def resize(self, endpoint: str, model: str, slot: str, instances: int) -> None:
        """Give a deployment that many instances and wait until it shows them."""
        path = _path(endpoint, slot)
        found = self._workspace.get(path)
        if found is None:
            raise NotFoundError(
                f"there is no slot {slot} on endpoint {endpoint} of {model}",
                cloud=self._name,
                hint="deploy its version first",
            )
        if capacity_of(found) == instances and state_of(found) == "Succeeded":
            return
        body = {"sku": {"name": "Default", "capacity": instances}}
        operation = self._begin(lambda: self._workspace.patch(path, body), endpoint)
        outcome = self._workspace.outcome(operation, self._settings.deploy_timeout)
        if outcome.ended and not outcome.succeeded:
            raise CloudRejectedError(
                f"slot {slot} of {model} was not given {instances} instances: {outcome.reason}",
                cloud=self._name,
                hint="read Azure's reason above: quota is the usual one",
            )
        look = self._workspace.steady(lambda: self._workspace.get(path))
        for _ in ticks(self._settings.traffic_timeout):
            shown = look()
            if shown is not None and state_of(shown) == "Succeeded" and capacity_of(shown) == instances:
                return
        raise RetryLaterError(
            f"slot {slot} of {model} does not show {instances} instances (its operation: {outcome.status})",
            cloud=self._name,
            hint=f"it may go on by itself: look with `lockstep status {model}`",
        )

    def _start(self, path: str, body: Document, endpoint: str) -> str | None:
        """Send the request for a deployment."""
        return self._begin(lambda: self._workspace.put(path, body), endpoint)

    def _begin(self, send: Callable[[], str | None], endpoint: str) -> str | None:
        """Send a request; while somebody else changes the endpoint, wait and send it again."""
        from azure.core.exceptions import HttpResponseError

        refusal: HttpResponseError | None = None
        for _ in ticks(self._settings.traffic_timeout):
            try:
                return send()
            except HttpResponseError as error:
                if error.status_code != 409:
                    raise
                refusal = error
        raise BusyError(
            f"endpoint {endpoint} takes no change of a deployment: {refusal.message if refusal else 'busy'}",
            cloud=self._name,
            hint="another change is under way: try again when it has ended",
        ) from refusal

    def _body(self, version: Version, image: str) -> Document:
        settings = self._settings
        return {
            "location": settings.region,
            "kind": "Managed",
            "tags": {LABEL_TAG: version.label, DIGEST_TAG: version.digest, MODEL_TAG: version.model},
            "sku": {"name": "Default", "capacity": settings.instance_count},
            "properties": {
                "endpointComputeType": "Managed",
                "description": f"{version.model} version {version.label}",
                "instanceType": settings.instance_type,
                "model": str(self._assets.register_model(version)["id"]),
                "environmentId": self._assets.environment(image),
                "environmentVariables": {"LOCKSTEP_DIGEST": version.digest, "LOCKSTEP_VERSION": version.label},
                "requestSettings": {
                    "maxConcurrentRequestsPerInstance": settings.concurrency,
                    "requestTimeout": f"PT{settings.request_timeout:g}S",
                },
                "scaleSettings": {"scaleType": "Default"},
                "appInsightsEnabled": False,
                **collecting(settings),
            },
        }

    def _fail(self, path: str, endpoint: str, version: Version, outcome: Outcome) -> None:
        log = self._log(path)
        kept = ""
        try:
            self._remove_broken(path, endpoint, version)
        except Exception as error:
            kept = f"; the broken slot could not be removed: {error}"
        raise DeploymentFailedError(
            f"{version} did not become ready as {version.slot} on {endpoint}: "
            f"{outcome.reason or 'Azure gives no reason'}{kept}" + (f"\ncontainer log:\n{log}" if log else ""),
            cloud=self._name,
            hint="read the container's log above; the traffic is as it was before",
        )

    def _log(self, path: str) -> str:
        with contextlib.suppress(Exception):  # a missing log must not hide the failure itself
            return str(self._workspace.post(f"{path}/getLogs", {"tail": LOG_LINES}).get("content", "")).strip()
        return ""

    def _remove_broken(self, path: str, endpoint: str, version: Version) -> None:
        outcome = self._workspace.outcome(self._workspace.delete(path), self._settings.traffic_timeout)
        if not outcome.succeeded or not self._gone(path):
            raise RetryLaterError(
                f"the broken slot {version.slot} of {version} is still on {endpoint}: "
                f"{outcome.reason or outcome.status}",
                cloud=self._name,
                hint="try again in a minute, or delete the deployment in Azure ML studio",
            )

    def _check_same(self, found: Document, version: Version) -> None:
        digest = deployed_digest(found)
        if digest != version.digest:
            raise RefusedError(
                f"slot {version.slot} was deployed with digest {digest or 'unknown'}, not as {version}",
                cloud=self._name,
                hint="somebody deployed it by hand: delete that deployment in Azure ML studio, then try again",
            )

    def _late(self, endpoint: str, version: Version, state: str) -> RetryLaterError:
        return RetryLaterError(
            f"{version} is not ready on {endpoint} after {self._settings.deploy_timeout:.0f} s: "
            f"slot {version.slot} is {state}",
            cloud=self._name,
            hint=f"it goes on by itself: look with `lockstep status {version.model}`, then run the same command again",
        )

    # -- taking away -------------------------------------------------------------------------------------------

    def retire(self, endpoint: str, model: str, slot: str) -> None:
        """Delete a deployment without traffic; nothing happens when it is gone already."""
        found = self._endpoints.find(endpoint)
        path = _path(endpoint, slot)
        if found is None or self._workspace.get(path) is None:
            return
        weight = weights_of(found).get(slot.lower(), 0)
        if weight:
            raise RefusedError(
                f"slot {slot} of {model} takes {weight} % of the traffic",
                cloud=self._name,
                hint="move its traffic to another slot first",
            )
        outcome = self._workspace.outcome(self._workspace.delete(path), self._settings.traffic_timeout)
        if not outcome.succeeded or not self._gone(path):
            raise RetryLaterError(
                f"slot {slot} of {model} is still there: {outcome.reason or outcome.status}",
                cloud=self._name,
                hint=f"it may go on by itself: look with `lockstep status {model}`",
            )

    def find(self, endpoint: str, slot: str) -> Document | None:
        """A slot's deployment as it is; None when there is none."""
        return self._workspace.get(_path(endpoint, slot))

    def _gone(self, path: str) -> bool:
        look = self._workspace.steady(lambda: self._workspace.get(path) is None)
        return any(look() for _ in ticks(self._settings.traffic_timeout))


def _path(endpoint: str, slot: str) -> str:
    return f"onlineEndpoints/{endpoint}/deployments/{slot}"
