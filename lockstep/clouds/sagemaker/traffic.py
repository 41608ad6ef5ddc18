"""Moving traffic between the variants of an endpoint: a flip of weights, read back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from lockstep.clouds.sagemaker.clients import Clients, polls
from lockstep.clouds.sagemaker.endpoints import IN_SERVICE, Endpoint, read_endpoint
from lockstep.clouds.sagemaker.errors import is_throttled
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.errors import BusyError, CloudRejectedError, NotFoundError, RefusedError, RetryLaterError
from lockstep.rules.traffic import TrafficSplit

#: Seconds after which an accepted change that shows no sign of having begun is taken as not done.
SETTLE: Final = 15.0


class Traffic:
    """Weights of the endpoints of one account and region."""

    def __init__(self, cloud: str, settings: SageMakerSettings, clients: Clients) -> None:
        self._cloud = cloud
        self._settings = settings
        self._clients = clients

    def shift(self, name: str, split: TrafficSplit) -> None:
        """Bring `split` in force; returns when every variant's current weight shows it.

        A flip to the same split that is still running is joined; any other change in progress is a BusyError.
        """
        deadline = time.monotonic() + self._settings.traffic_timeout
        before = self._look(name)
        if before is None:
            raise NotFoundError(f"there is no endpoint {name}", cloud=self._cloud, hint="deploy a version first")
        joined = before.status == "Updating" and not before.pending and before.wants(split)
        if before.status == IN_SERVICE and before.shows(split):
            return
        if not joined:
            self._raise_if_not_movable(before, split)
            self._clients.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=name,
                DesiredWeightsAndCapacities=[
                    {"VariantName": variant.name, "DesiredWeight": float(split.weight(variant.name))}
                    for variant in before.variants
                ],
            )
        self._await(name, str(split), lambda live: live.shows(split), before, moved=joined, deadline=deadline)

    def resize(self, name: str, slot: str, instances: int) -> None:
        """Give a slot that many instances; returns when it has them. Weights stay as they are."""
        deadline = time.monotonic() + self._settings.deploy_timeout
        before = self._look(name)
        variant = before.variant(slot) if before is not None else None
        if before is None or variant is None:
            raise NotFoundError(
                f"there is no slot {slot} on endpoint {name}", cloud=self._cloud, hint="deploy the version first"
            )

        def has(live: Endpoint) -> bool:
            now = live.variant(slot)
            return now is not None and now.instances == instances

        if before.status == IN_SERVICE and has(before):
            return
        joined = before.status == "Updating" and not before.pending and variant.desired_instances == instances
        if not joined:
            self._raise_if_not_movable(before, TrafficSplit.all_to(slot))
            self._clients.sagemaker.update_endpoint_weights_and_capacities(
                EndpointName=name,
                DesiredWeightsAndCapacities=[{"VariantName": slot, "DesiredInstanceCount": instances}],
            )
        self._await(name, f"{instances} instances of {slot}", has, before, moved=joined, deadline=deadline)

    def _await(
        self,
        name: str,
        asked: str,
        shows: Callable[[Endpoint], bool],
        before: Endpoint,
        *,
        moved: bool,
        deadline: float,
    ) -> None:
        from botocore.exceptions import ClientError

        settled = min(deadline, time.monotonic() + SETTLE)
        live: Endpoint | None = before
        for _ in polls(deadline):
            try:
                live = self._look(name)
            except ClientError as error:
                if is_throttled(error):
                    continue
                raise
            if live is None:
                raise NotFoundError(
                    f"endpoint {name} was deleted while its traffic moved", cloud=self._cloud, hint="deploy again"
                )
            if live.busy:
                moved = True
                continue
            if live.status == IN_SERVICE and shows(live):
                return
            if live.status != IN_SERVICE or moved or live.modified != before.modified:
                raise CloudRejectedError(
                    f"endpoint {name} accepted {asked} and went back: {live.status}, {_shares(live)}. {live.failure}",
                    cloud=self._cloud,
                    hint=f"look at `aws sagemaker describe-endpoint --endpoint-name {name}` and the endpoint's alarms",
                )
            if time.monotonic() >= settled:
                break
        raise RetryLaterError(
            f"endpoint {name} accepted {asked} and does not show it yet: "
            f"{live.status if live else ''}, {_shares(live) if live else ''}",
            cloud=self._cloud,
            hint=f"asking again is safe; look at `aws sagemaker describe-endpoint --endpoint-name {name}`",
        )

    def _raise_if_not_movable(self, live: Endpoint, split: TrafficSplit) -> None:
        command = f"`aws sagemaker describe-endpoint --endpoint-name {live.name}`"
        if live.busy:
            doing = f" to configuration {live.pending}" if live.pending else ""
            raise BusyError(
                f"endpoint {live.name} is {live.status}{doing} and takes no change of traffic",
                cloud=self._cloud,
                hint=f"it takes one again when it is InService: {command}",
            )
        if live.status != IN_SERVICE:
            raise CloudRejectedError(
                f"endpoint {live.name} is {live.status} and takes no change of traffic: {live.failure}",
                cloud=self._cloud,
                hint=f"delete the endpoint and deploy again; {command} tells what happened",
            )
        for slot, _ in split.weights:
            variant = live.variant(slot)
            if variant is None:
                raise RefusedError(
                    f"endpoint {live.name} has no slot {slot}; it has {', '.join(sorted(live.slots))}",
                    cloud=self._cloud,
                    hint="deploy the version first",
                )
            if not variant.ready:
                raise RefusedError(
                    f"slot {slot} of endpoint {live.name} is not ready: {variant.instances} instances, "
                    f"{', '.join(variant.statuses) or live.status}",
                    cloud=self._cloud,
                    hint=f"wait until it has instances: {command}",
                )

    def _look(self, name: str) -> Endpoint | None:
        client: Any = self._clients.sagemaker
        return read_endpoint(client, name)


def _shares(live: Endpoint) -> str:
    return ", ".join(f"{slot} {share} %" for slot, share in sorted(live.per_cents().items()))
