"""docs/clouds.md grants what the adapters use and `lockstep check` asks for, and nothing else.

Compared with the operations in the sandbox's log, by the sandbox's own tables of what those take.
"""

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

import lockstep.clouds.azureml.permissions as azure_needs
import lockstep.clouds.sagemaker.permissions as aws_needs
import lockstep.clouds.vertex.permissions as gcp_needs
import sandbox.aws.permissions as aws_tables
import sandbox.azure.permissions as azure_tables
import sandbox.gcp.permissions as gcp_tables
from lockstep.clouds.azureml.settings import AzureMLSettings
from lockstep.clouds.base import Cloud
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.clouds.vertex.settings import VertexSettings
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
#: What takes no permission: signing in, asking what is granted, whether what was allowed has ended, scoring with a key.
FREE = {
    "aws": {"GetCallerIdentity"},
    "azure": {"Token", "OpenIdConfiguration", "mfeOperationsStatus", "Score"},
    "gcp": {
        "Token",
        "projects.testIamPermissions",
        "projects.serviceAccounts.testIamPermissions",
        "storage.buckets.testIamPermissions",
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
        "iam:GetRole",  # for a session of a role
    },
    "azure": set(azure_tables.UNASKED),
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
        takes = taken(name, operation)
        assert takes or operation in FREE[name], f"{operation}: say in sandbox/{name} which permission it takes"
        used |= set(takes)
    documented = permissions(name)
    assert used - documented == set(), f"{PAGE} does not grant what the adapter uses"
    assert documented - used == set(), f"{PAGE} grants what the adapter never uses"


def taken(name: str, operation: str) -> tuple[str, ...]:
    """What the sandbox's own table says that an operation takes. SageMaker's actions are called like its operations."""
    if name == "azure":
        return azure_tables.needed(operation)
    if name == "gcp":
        return gcp_tables.TABLE.get(operation, ())
    tables = [table[operation] for table in aws_tables.TABLE.values() if operation in table]
    return tables[0] if tables else (f"sagemaker:{operation}",)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_documented_permissions_are_those_that_are_asked_for(name: str) -> None:
    """With everything configured that needs some: captures, the ledger's copies, a role or service account."""
    assert needed(name) == permissions(name)


def needed(name: str) -> set[str]:
    """What `lockstep check` asks for on a cloud, and what it takes to ask."""
    if name == "aws":
        settings = SageMakerSettings(
            image="i", region="r-1", bucket="bytes", archive_bucket="ledger", role_arn="arn:aws:iam::1:role/serving",
            capture_percent=1,
        )  # fmt: skip
        parts = aws_needs.parts(settings, aws_needs.Account("aws", "1"), ["churn"])
        return {action for part in parts for action in part.actions} | set(aws_needs.ASKING)
    if name == "azure":
        workspace = AzureMLSettings(
            image="i", subscription_id="s", resource_group="g", workspace="w", region="r", storage_account="a",
            container="bytes", archive_container="ledger",
        )  # fmt: skip
        found = {need.permission for part in azure_needs.parts(workspace, "captured") for need in part.needs()}
        return found | set(azure_needs.ASKING)
    project = VertexSettings(
        image="i", project="p", location="l", bucket="bytes", archive_bucket="ledger", service_account="x@y",
        capture_dataset="d", capture_percent=1,
    )  # fmt: skip
    return {name for part in gcp_needs.parts(project) for name in part.permissions}


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
    granted = cloud.permissions([model])
    assert (granted.missing, granted.unknown) == ((), ())
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
