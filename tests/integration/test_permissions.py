"""docs/clouds.md grants what the adapters use, and nothing else: compared with the operations in the sandbox's log."""

from __future__ import annotations

import json
import secrets
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
import requests

from lockstep.clouds.base import Cloud
from lockstep.errors import DeploymentFailedError
from lockstep.rules.manifest import FileEntry, Manifest, Tracking
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.artifacts import Replicas
from tests.contract.clouds import breast_cancer_rows, eventually, open_store, sandbox_settings
from tests.docs_snippets import named_json
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(400)

PAGE = Path("docs/clouds.md")
KINDS = {"aws": "sagemaker", "azure": "azureml", "gcp": "vertex"}
ML = "Microsoft.MachineLearningServices/workspaces/"
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"

#: What each operation takes to be allowed. SageMaker's actions are called like its operations.
GRANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "aws": {
        "GetMetricData": ("cloudwatch:GetMetricData",),
        "DescribeLogStreams": ("logs:DescribeLogStreams",),
        "GetLogEvents": ("logs:GetLogEvents",),
        "ListObjectsV2": ("s3:ListBucket",),
        "ListObjectVersions": ("s3:ListBucketVersions",),
        "GetObjectLockConfiguration": ("s3:GetBucketObjectLockConfiguration",),
        "GetObject": ("s3:GetObject",),
        "HeadObject": ("s3:GetObject",),
        "PutObject": ("s3:PutObject",),
        "CreateMultipartUpload": ("s3:PutObject",),
        "UploadPart": ("s3:PutObject",),
        "CompleteMultipartUpload": ("s3:PutObject",),
        "DeleteObjects": ("s3:DeleteObject",),
        "DeleteObject": ("s3:DeleteObject",),
    },
    "azure": {
        "Workspaces_Get": (f"{ML}read",),
        "Datastores_Get": (f"{ML}datastores/read",),
        "ModelVersions_Get": (f"{ML}models/versions/read",),
        "ModelVersions_List": (f"{ML}models/versions/read",),
        "ModelVersions_CreateOrUpdate": (f"{ML}models/versions/write",),
        "EnvironmentVersions_Get": (f"{ML}environments/versions/read",),
        "EnvironmentVersions_CreateOrUpdate": (f"{ML}environments/versions/write",),
        "Resources_ListByResourceGroup": ("Microsoft.Resources/subscriptions/resourceGroups/resources/read",),
        "OnlineEndpoints_List": (f"{ML}onlineEndpoints/read",),
        "OnlineEndpoints_Get": (f"{ML}onlineEndpoints/read",),
        "OnlineEndpoints_CreateOrUpdate": (f"{ML}onlineEndpoints/write",),
        "OnlineEndpoints_ListKeys": (f"{ML}onlineEndpoints/listKeys/action",),
        "OnlineDeployments_Get": (f"{ML}onlineEndpoints/deployments/read",),
        "OnlineDeployments_List": (f"{ML}onlineEndpoints/deployments/read",),
        "OnlineDeployments_CreateOrUpdate": (f"{ML}onlineEndpoints/deployments/write",),
        "OnlineDeployments_Update": (f"{ML}onlineEndpoints/deployments/write",),
        "OnlineDeployments_Delete": (f"{ML}onlineEndpoints/deployments/delete",),
        "OnlineDeployments_GetLogs": (f"{ML}onlineEndpoints/deployments/getLogs/action",),
        "Metrics_Batch": ("Microsoft.Insights/metrics/read",),
        "GetContainerProperties": ("Microsoft.Storage/storageAccounts/blobServices/containers/read",),
        "ListBlobs": (f"{BLOBS}read",),
        "GetBlob": (f"{BLOBS}read",),
        "GetBlobProperties": (f"{BLOBS}read",),
        "PutBlob": (f"{BLOBS}write", f"{BLOBS}add/action"),
        "PutBlock": (f"{BLOBS}write",),
        "PutBlockList": (f"{BLOBS}write",),
        "DeleteBlob": (f"{BLOBS}delete",),
        "BatchBlobs": (f"{BLOBS}delete",),  # several deletions in one request
        # Signing in, asking whether an operation that was allowed has ended, and scoring with a key need no role.
        "Token": (),
        "OpenIdConfiguration": (),
        "mfeOperationsStatus": (),
        "Score": (),
    },
    "gcp": {
        "ListEndpoints": ("aiplatform.endpoints.list",),
        "GetEndpoint": ("aiplatform.endpoints.get",),
        "CreateEndpoint": ("aiplatform.endpoints.create",),
        "UpdateEndpoint": ("aiplatform.endpoints.update",),
        "DeployModel": ("aiplatform.endpoints.deploy",),
        "MutateDeployedModel": ("aiplatform.endpoints.deploy",),
        "UndeployModel": ("aiplatform.endpoints.undeploy",),
        "Predict": ("aiplatform.endpoints.predict",),
        "GetModel": ("aiplatform.models.get",),
        "ListModelVersions": ("aiplatform.models.list",),
        "UploadModel": ("aiplatform.models.upload",),
        "ListOperations": ("aiplatform.operations.list",),
        "GetOperation": ("aiplatform.operations.list",),
        "jobs.query": ("bigquery.jobs.create", "bigquery.tables.getData"),
        "ListTimeSeries": ("monitoring.timeSeries.list",),
        "storage.buckets.get": ("storage.buckets.get",),
        "storage.objects.list": ("storage.objects.list",),
        "storage.objects.get": ("storage.objects.get",),
        "storage.objects.insert": ("storage.objects.create",),
        "storage.objects.delete": ("storage.objects.delete",),
        "Token": (),
    },
}
#: Asked for by the cloud with another call's permission, or only when a large upload is given up.
UNSEEN = {
    "aws": {
        "sagemaker:AddTags",
        "iam:PassRole",
        "s3:AbortMultipartUpload",
        "s3:PutObjectRetention",  # PutObject with a lock
        "s3:GetObjectVersion",  # GetObject with a version
    },
    "azure": {f"{ML}models/read", f"{ML}models/write"},  # the container of a model's versions
    "gcp": {"iam.serviceAccounts.actAs"},
}
#: The log leaves out object traffic and scoring, so these are watched by a fault that does nothing.
QUIET = {
    "aws": ("GetObject", "HeadObject", "PutObject", "InvokeEndpoint"),
    "azure": (
        "ListBlobs",
        "GetBlob",
        "GetBlobProperties",
        "PutBlob",
        "PutBlock",
        "PutBlockList",
        "DeleteBlob",
        "BatchBlobs",
        "GetContainerProperties",
    ),
    "gcp": (
        "Predict",
        "storage.objects.list",
        "storage.objects.get",
        "storage.objects.insert",
        "storage.objects.delete",
    ),
}


@pytest.fixture(scope="module")
def sealed(model_versions: tuple[ModelVersion, ModelVersion], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `files/` of a real model."""
    return model_versions[0].folder


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_documented_permissions_are_those_that_are_used(name: str, sandbox: RunningSandbox, sealed: Path) -> None:
    home, settings = sandbox_settings(KINDS[name], sandbox)
    if settings is None:
        pytest.skip(f"the sandbox runs without {name}")
    assert home == name
    # An image that no other test of this session has registered: making its environment is one of the calls.
    image = f"{settings.image.rpartition(':')[0]}:{secrets.token_hex(32)}"
    settings = settings.model_copy(update={"image": image, "capture_percent": 100})
    began = datetime.now(UTC).timestamp()
    watched = {
        sandbox.control.fault(name, "slow", operation=operation, count=1): operation for operation in QUIET[name]
    }
    try:
        drive(name, settings, sandbox, sealed)
        left = {int(fault["number"]) for fault in requests.get(f"{sandbox.control.url}/faults", timeout=30).json()}
    finally:
        for number in watched:
            sandbox.control.clear(number)
    logged = {str(call["operation"]) for call in sandbox.control.calls(name, began)}
    seen = {operation for operation in logged if not operation.startswith("event:")}
    seen |= {operation for number, operation in watched.items() if number not in left}

    used = set(UNSEEN[name])
    for operation in seen:
        known = GRANTS[name].get(operation)
        assert known is not None or name == "aws", f"{operation}: say in this test which permission it takes"
        used |= set((f"sagemaker:{operation}",) if known is None else known)
    documented = permissions(name)
    assert used - documented == set(), f"{PAGE} does not grant what the adapter uses"
    assert documented - used == set(), f"{PAGE} grants what the adapter never uses"


def permissions(name: str) -> set[str]:
    """What the page grants to the caller."""
    blocks = named_json(PAGE)
    if name == "aws":
        actions: set[str] = set()
        for statement in blocks["aws-caller"]["Statement"]:
            found = statement["Action"]
            actions |= {found} if isinstance(found, str) else set(found)
        return actions
    if name == "azure":
        blobs = blocks["azure-blob-role"]
        return {*blocks["azure-role"]["Actions"], *blobs["Actions"], *blobs["DataActions"]}
    return set(blocks["gcp-role"]["includedPermissions"])


def drive(name: str, settings: Any, sandbox: RunningSandbox, sealed: Path) -> None:
    """Every verb, with the ends that only trouble brings: a failed first slot, a failed later one, a repair."""
    cloud: Cloud = settings.connect(name)
    model = f"permits-{uuid.uuid4().hex[:6]}"
    first, second, broken = (replicated(cloud, model, str(number), sealed) for number in (1, 2, 3))
    cloud.check()
    for version in (first, second, broken):
        cloud.registered(version)
        cloud.register(version)
    cloud.prepare(first)
    cloud.prepare(second)
    assert cloud.attest(first, cloud.image) == ()
    half = TrafficSplit.canary(first.slot, second.slot, 50)
    cloud.set_traffic(model, half)
    assert eventually(lambda: cloud.verify_traffic(model, half))
    rows = breast_cancer_rows()
    assert cloud.invoke(model, rows, slot=second.slot).slot == second.slot
    until = datetime.now(UTC) + timedelta(minutes=1)
    assert eventually(lambda: cloud.measure(model, until - timedelta(minutes=10), until))
    archive = cloud.archive()
    assert archive is not None
    archive.protection()
    assert archive.create(f"{model}/1", b"copied", until + timedelta(days=1))
    assert archive.read(f"{model}/1") == b"copied"
    cloud.captured(model, secrets.token_hex(8), until - timedelta(minutes=10), until)
    settings.connect(name).observe(model)  # a process that has not seen the slots before
    assert cloud.observe_many([model])[model].exists
    cloud.resize(model, second.slot, 2)
    cloud.set_traffic(model, TrafficSplit.all_to(first.slot))
    cloud.retire(model, second.slot)

    sandbox.control.corrupt(name, f"{broken.prefix}/files/MLmodel")
    with pytest.raises(DeploymentFailedError):
        cloud.prepare(broken)
    alone = replicated(cloud, f"{model}-b", "1", sealed)
    cloud.register(alone)
    sandbox.control.corrupt(name, f"{alone.prefix}/files/MLmodel")
    with pytest.raises(DeploymentFailedError):
        cloud.prepare(alone)


def replicated(cloud: Cloud, model: str, label: str, sealed: Path) -> Version:
    """A version of its own, copied by Lockstep's own replication; a stray object is removed by a repair."""
    import hashlib

    files = tuple(
        FileEntry(path.relative_to(sealed / "files").as_posix(), path.stat().st_size, digest)
        for path in sorted((sealed / "files").rglob("*"))
        if path.is_file()
        for digest in [hashlib.sha256(path.read_bytes()).hexdigest()]
    )
    manifest = Manifest(model, files, mlflow=Tracking(source=f"label {label}"))
    version = Version(model, label, manifest.digest, "e" * 32)
    address = cloud.store()
    replicas = Replicas(cloud.name, address.url, address.options, address.client_options, address.credentials)
    replicas.copy_in(version, manifest, sealed, lambda *_: None, repair=False)
    obstore.put(open_store(address), f"{version.prefix}/files/stray.txt", b"not part of it")
    replicas.copy_in(version, manifest, sealed, lambda *_: None, repair=True)
    assert replicas.is_committed(version)
    return version


def test_the_policies_hold_no_wildcard_action() -> None:
    for name in KINDS:
        assert not [action for action in permissions(name) if "*" in action], json.dumps(sorted(permissions(name)))
