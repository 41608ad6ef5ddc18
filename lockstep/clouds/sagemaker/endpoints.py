"""An endpoint as SageMaker describes it, as frozen values, and what Lockstep reads out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lockstep.clouds.sagemaker.errors import is_missing
from lockstep.clouds.sagemaker.names import slot_label
from lockstep.rules.state import CloudState, SlotState
from lockstep.rules.traffic import TrafficSplit

IN_SERVICE: Final = "InService"
FAILED: Final = "Failed"
#: While an endpoint is in one of these it refuses every change.
IN_PROGRESS: Final = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
#: Of these, those in which the variants that it has go on serving.
CHANGING: Final = frozenset({"Updating", "SystemUpdating", "RollingBack"})
#: A variant in one of these does not answer yet, or not any longer.
NOT_SERVING: Final = frozenset({"Creating", "Deleting"})


@dataclass(frozen=True)
class Variant:
    """One production variant; weights are SageMaker's own, relative to their sum."""

    name: str
    weight: float
    desired_weight: float
    instances: int
    desired_instances: int
    statuses: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether it can answer requests now."""
        return self.instances > 0 and not NOT_SERVING.intersection(self.statuses)


@dataclass(frozen=True)
class Endpoint:
    """DescribeEndpoint's answer. `pending` and `pending_slots` tell of an update that is still running."""

    name: str
    arn: str
    status: str
    config: str
    modified: datetime
    failure: str
    variants: tuple[Variant, ...]
    pending: str
    pending_slots: frozenset[str]
    capture: str = ""  # where it captures requests to, "" when it does not

    @property
    def busy(self) -> bool:
        """Whether SageMaker refuses changes at the moment."""
        return self.status in IN_PROGRESS

    @property
    def slots(self) -> frozenset[str]:
        """Names of its variants now."""
        return frozenset(variant.name for variant in self.variants)

    @property
    def coming_slots(self) -> frozenset[str]:
        """Names of its variants after the change that is running, or now if none is."""
        return self.pending_slots or self.slots

    def variant(self, slot: str) -> Variant | None:
        """The variant of that name, if there is one."""
        return next((variant for variant in self.variants if variant.name == slot), None)

    def serves(self, slot: str) -> bool:
        """Whether the slot answers now and stays, whatever else is changing."""
        variant = self.variant(slot)
        staying = slot in self.coming_slots and self.status in CHANGING
        return staying and variant is not None and variant.ready

    def shows(self, split: TrafficSplit) -> bool:
        """Whether exactly this split is in force: every variant's current weight and the desired one."""
        return self.wants(split) and self._equals({v.name: v.weight for v in self.variants}, split)

    def wants(self, split: TrafficSplit) -> bool:
        """Whether exactly this split was asked for, be it in force yet or not."""
        return self._equals({v.name: v.desired_weight for v in self.variants}, split)

    def per_cents(self) -> dict[str, int]:
        """Current shares as whole per cents that sum to 100 (all 0 while no variant has weight)."""
        total = sum(variant.weight for variant in self.variants)
        if total <= 0:
            return dict.fromkeys(sorted(self.slots), 0)
        exact = {variant.name: variant.weight * 100.0 / total for variant in self.variants}
        whole = {name: int(share + 1e-6) for name, share in exact.items()}
        # Largest remainders first, the usual way to round shares without losing their sum.
        by_remainder = sorted(exact, key=lambda name: (whole[name] - exact[name], name))
        for name in by_remainder[: 100 - sum(whole.values())]:
            whole[name] += 1
        return whole

    @staticmethod
    def _equals(weights: Mapping[str, float], split: TrafficSplit) -> bool:
        total = sum(weights.values())
        if total <= 0 or any(slot not in weights for slot, _ in split.weights):
            return False
        return all(abs(weight * 100.0 / total - split.weight(name)) < 0.01 for name, weight in weights.items())


def read_endpoint(sagemaker: Any, name: str) -> Endpoint | None:
    """One DescribeEndpoint; None when there is no such endpoint."""
    from botocore.exceptions import ClientError

    try:
        answer = sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    pending = answer.get("PendingDeploymentSummary") or {}
    capture = answer.get("DataCaptureConfig") or {}
    return Endpoint(
        name=answer["EndpointName"],
        arn=answer["EndpointArn"],
        status=answer["EndpointStatus"],
        config=answer.get("EndpointConfigName", ""),
        modified=answer["LastModifiedTime"],
        failure=answer.get("FailureReason", ""),
        variants=tuple(_variant(given) for given in answer.get("ProductionVariants") or ()),
        pending=pending.get("EndpointConfigName", ""),
        pending_slots=frozenset(given["VariantName"] for given in pending.get("ProductionVariants") or ()),
        capture=capture["DestinationS3Uri"] if capture.get("CaptureStatus") == "Started" else "",
    )


def describe_state(endpoint: Endpoint, cloud: str, digests: Mapping[str, str]) -> CloudState:
    """The endpoint in the words that all clouds share; `digests` are the known ones by slot."""
    serving = endpoint.status in CHANGING | {IN_SERVICE, "UpdateRollbackFailed"}
    shares = endpoint.per_cents()
    slots = tuple(
        SlotState(
            name=variant.name,
            weight=shares[variant.name],
            ready=serving and variant.ready,
            status=", ".join(variant.statuses) or endpoint.status,
            capacity=variant.instances,
            label=slot_label(variant.name),
            digest=digests.get(variant.name, ""),
        )
        for variant in sorted(endpoint.variants, key=lambda v: v.name)
    )
    mark = _mark(endpoint.status, endpoint.modified)
    return CloudState(cloud, endpoint.name, True, endpoint.busy, endpoint.status, slots, mark)


def list_marks(sagemaker: Any, pattern: str) -> dict[str, str]:
    """What tells whether an endpoint was changed, by its name, for those whose names may fit `pattern`.

    `pattern` is the configured name with {model} in it. ListEndpoints tells status and time of the last change alone.
    """
    part = max(pattern.split("{model}"), key=len)
    pages = sagemaker.get_paginator("list_endpoints").paginate(
        PaginationConfig={"PageSize": 100}, **({"NameContains": part} if part else {})
    )
    return {
        given["EndpointName"]: _mark(given["EndpointStatus"], given["LastModifiedTime"])
        for page in pages
        for given in page["Endpoints"]
    }


def _mark(status: str, modified: datetime) -> str:
    return f"{status} {modified.timestamp():.3f}"


def _variant(given: Mapping[str, Any]) -> Variant:
    weight = float(given.get("CurrentWeight", 0.0))
    count = int(given.get("CurrentInstanceCount", 0))
    return Variant(
        name=given["VariantName"],
        weight=weight,
        desired_weight=float(given.get("DesiredWeight", weight)),
        instances=count,
        desired_instances=int(given.get("DesiredInstanceCount", count)),
        statuses=tuple(status["Status"] for status in given.get("VariantStatus") or ()),
    )
