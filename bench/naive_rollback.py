"""The peer of bench/rollback.py: a rollback as it is usually scripted.

A Prefect flow that asks each cloud's rich SDK, one cloud after the other, with the SDKs' own pollers at their defaults
and no look at what answers afterwards. It is given what it needs (the slot and where the clouds are) by a file.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task


@task
def flip_sagemaker(settings: dict[str, Any], endpoint: str, slot: str) -> None:
    """boto3's weights and its waiter (every 30 s by default)."""
    import boto3

    client = boto3.client(
        "sagemaker",
        region_name=settings["region"],
        endpoint_url=settings["endpoint_url"],
        aws_access_key_id=settings["access_key_id"],
        aws_secret_access_key=settings["secret_access_key"],
    )
    variants = client.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
    client.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[
            {"VariantName": one["VariantName"], "DesiredWeight": 100.0 if one["VariantName"] == slot else 0.0}
            for one in variants
        ],
    )
    client.get_waiter("endpoint_in_service").wait(EndpointName=endpoint)


@task
def flip_azure(settings: dict[str, Any], endpoint: str, slot: str) -> None:
    """azure-ai-ml's entity and its poller (every 5 s by default)."""
    os.environ.pop("AZUREML_CURRENT_CLOUD", None)  # the worker inherited the benchmark's, and the import would fail
    from azure.ai.ml import MLClient
    from azure.identity import ClientSecretCredential

    base, authority = settings["resource_manager"], settings["ca_file"]
    credential = ClientSecretCredential(
        settings["tenant_id"],
        settings["client_id"],
        settings["client_secret"],
        authority=settings["authority"],
        disable_instance_discovery=True,
        connection_verify=authority,
    )
    client = MLClient(
        credential,
        settings["subscription_id"],
        settings["resource_group"],
        settings["workspace"],
        cloud="lockstep-sandbox",
        cloud_metadata={
            "azure_portal": base,
            "resource_manager": base,
            "active_directory": settings["authority"],
            "aml_resource_id": "https://ml.azure.com",
            "storage_endpoint": "core.windows.net",
            "registry_discovery_endpoint": base,
        },
        connection_verify=authority,
        enable_telemetry=False,
        show_progress=False,
    )
    found = client.online_endpoints.get(endpoint)
    found.traffic = {slot: 100}
    client.online_endpoints.begin_create_or_update(found).result()


@task
def flip_vertex(settings: dict[str, Any], endpoint: str, slot: str) -> None:
    """google-cloud-aiplatform's Endpoint; the deployed model is found by its name."""
    from google.cloud import aiplatform
    from google.oauth2 import service_account

    credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        settings["credentials_file"], scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )
    aiplatform.init(
        project=settings["project"],
        location=settings["location"],
        api_endpoint=settings["api_endpoint"],
        api_transport="rest",
        credentials=credentials,
    )
    found = aiplatform.Endpoint(endpoint)
    deployed = {one.display_name: one.id for one in found.list_models()}
    found.update(traffic_split={deployed[slot]: 100})


@flow(name="naive-rollback")
def naive_rollback(given: str) -> None:
    """One cloud after the other. `given` is a JSON file: clouds by name with their endpoint and settings, the slot."""
    known = json.loads(Path(given).read_text(encoding="utf-8"))
    for cloud, flip in (("aws", flip_sagemaker), ("azure", flip_azure), ("gcp", flip_vertex)):
        flip(known["clouds"][cloud], known["endpoints"][cloud], known["slot"])
        get_run_logger().info("%s was changed at %s", cloud, time.time())
