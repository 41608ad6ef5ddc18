"""Turn what the sandbox printed into the `clouds:` part of lockstep.yaml.

This is all that stands between the sandbox and the real clouds: addresses and credentials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Prices per hour of one small general-purpose instance, to have an order; look up your own.
PRICES = {"aws": 0.115, "azure": 0.229, "gcp": 0.095}


def cloud_settings(sandbox: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Settings of the clouds that the sandbox runs, by name, as lockstep.yaml has them."""
    known = {"aws": _aws, "azure": _azure, "gcp": _gcp}
    return {
        name: {**settings(sandbox[name]), "image": sandbox[name]["image"], "price_per_hour": PRICES[name]}
        for name, settings in known.items()
        if name in sandbox
    }


def _aws(printed: Mapping[str, object]) -> dict[str, object]:
    names = ("region", "bucket", "archive_bucket", "role_arn", "endpoint_url", "access_key_id", "secret_access_key")
    return {"kind": "sagemaker", **{name: printed[name] for name in names}}


def _azure(printed: Mapping[str, object]) -> dict[str, object]:
    names = (
        "subscription_id",
        "resource_group",
        "workspace",
        "region",
        "storage_account",
        "container",
        "archive_container",
        "datastore",
        "tenant_id",
        "client_id",
        "client_secret",
        "authority",
        "resource_manager",
        "storage_key",
        "metrics_endpoint",
        "ca_file",
    )
    return {
        "kind": "azureml",
        **{name: printed[name] for name in names},
        "blob_endpoint": printed["blob_endpoint"],
    }


def _gcp(printed: Mapping[str, object]) -> dict[str, object]:
    names = (
        "project",
        "location",
        "bucket",
        "archive_bucket",
        "credentials_file",
        "api_endpoint",
        "monitoring_endpoint",
        "bigquery_endpoint",
        "resource_manager_endpoint",
        "iam_endpoint",
        "capture_dataset",
        "storage_endpoint",
    )
    return {"kind": "vertex", **{name: printed[name] for name in names}}


def sns_source(sandbox: Mapping[str, Mapping[str, object]], topics: Sequence[str]) -> dict[str, object]:
    """A source of alerts (alerts.yaml) that believes these topics of the sandbox's SNS."""
    printed = sandbox["aws"]
    pinned = {"host": printed["sns_certificate_host"], "ca_file": printed["ca_file"]}
    return {"kind": "sns", "topics": list(topics), **pinned, "signing_ca_file": printed["ca_file"]}
