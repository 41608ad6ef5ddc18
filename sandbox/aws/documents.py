"""How an endpoint describes itself, and which deployment policies are understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandbox.aws.deployment import Placed, Wanted, resolved_image
from sandbox.aws.errors import not_implemented
from sandbox.aws.shapes import refuse_unsupported
from sandbox.aws.state import Document, arn, now


def endpoint_document(
    name: str, config: str, status: str, placed: Sequence[Placed], desired: Sequence[Placed]
) -> dict[str, Any]:
    """DescribeEndpoint's answer, less CreationTime; `desired` is where a weight update goes."""
    document: dict[str, Any] = {
        "EndpointName": name,
        "EndpointArn": arn("endpoint", name),
        "EndpointConfigName": config,
        "EndpointStatus": status,
        "LastModifiedTime": now(),
    }
    if placed:
        wishes = {wish.name: wish for wish in desired}
        document["ProductionVariants"] = [_summary(each, wishes.get(each.name)) for each in placed]
    return document


def pending_summary(config: str, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """PendingDeploymentSummary."""
    return {
        "EndpointConfigName": config,
        "StartTime": now(),
        "ProductionVariants": [
            {
                "VariantName": variant.name,
                "DeployedImages": _images(variant),
                "DesiredWeight": variant.weight,
                "DesiredInstanceCount": variant.count,
                "InstanceType": variant.definition["InstanceType"],
                "VariantStatus": [{"Status": "Creating", "StartTime": now()}],
            }
            for variant in wanted
        ],
    }


def refuse_deployment_config(given: Document) -> None:
    """Accept a blue/green deployment that moves all traffic at once; answer 501 for every other policy."""
    config = given.get("DeploymentConfig", {})
    refuse_unsupported(config, ("RollingUpdatePolicy", "AutoRollbackConfiguration"), "DeploymentConfig")
    routing = config.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    if routing.get("Type", "ALL_AT_ONCE") != "ALL_AT_ONCE":
        raise not_implemented(f"DeploymentConfig with {routing['Type']}")


def _summary(placed: Placed, wish: Placed | None) -> dict[str, Any]:
    summary = {
        "VariantName": placed.name,
        "DeployedImages": _images(placed.wanted),
        "CurrentWeight": placed.weight,
        "DesiredWeight": wish.weight if wish else placed.weight,
        "CurrentInstanceCount": placed.count,
        "DesiredInstanceCount": wish.count if wish else placed.count,
    }
    if wish:
        summary["VariantStatus"] = [{"Status": "Updating", "StartTime": now()}]
    if "RoutingConfig" in placed.wanted.definition:
        summary["RoutingConfig"] = placed.wanted.definition["RoutingConfig"]
    return summary


def _images(variant: Wanted) -> list[dict[str, Any]]:
    image = variant.image
    return [{"SpecifiedImage": image, "ResolvedImage": resolved_image(image), "ResolutionTime": now()}]
