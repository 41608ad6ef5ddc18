"""Azure on this machine: Entra, Resource Manager, Blob Storage, scoring and metrics, each at an address of its own."""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading
import uuid
from typing import Final

from sandbox.azure.arm import ResourceManager
from sandbox.azure.assets import ENVIRONMENTS, MODELS, Assets
from sandbox.azure.azurite import Azurite
from sandbox.azure.blob import OPERATIONS as BLOB_OPERATIONS
from sandbox.azure.blob import BlobProxy
from sandbox.azure.collector import Collector
from sandbox.azure.deployments import Deployments
from sandbox.azure.endpoints import Endpoints
from sandbox.azure.entra import OPERATIONS as ENTRA_OPERATIONS
from sandbox.azure.entra import Entra
from sandbox.azure.metrics import Metrics
from sandbox.azure.monitor import Monitor
from sandbox.azure.operations import Operations
from sandbox.azure.permissions import Roles, admit, known, needed
from sandbox.azure.resources import Resources
from sandbox.azure.rollouts import Rollouts
from sandbox.azure.scoring import Scoring
from sandbox.azure.slots import Routes
from sandbox.azure.store import Store
from sandbox.azure.tokens import MANAGEMENT, Tokens
from sandbox.azure.workspace import DEFAULT_DATASTORE, Workspace
from sandbox.tls import issue
from sandbox.web import FaultyApp, Service, WebServer
from sandbox.world import World

REGION: Final = "westeurope"
GROUP: Final = "lockstep"
WORKSPACE: Final = "lockstep"
ACCOUNT: Final = "lockstepsandbox"
CONTAINER: Final = "lockstep-models"
ARCHIVE: Final = "lockstep-ledger"
LOCKED: Final = "lockstep-ledger-locked"
DATASTORE: Final = "lockstep_models"
IMAGE: Final = "lockstep.azurecr.io/lockstep-serving@sha256:" + hashlib.sha256(b"lockstep-serving").hexdigest()


class AzureServers:
    """One subscription with one workspace, its storage account and its online endpoints."""

    cloud = "azure"

    def __init__(self, world: World) -> None:
        self._world = world
        self._subscription, self._tenant, self._client = (str(uuid.uuid4()) for _ in range(3))
        self._secret = secrets.token_urlsafe(30)
        self._servers: list[WebServer] = []
        self._azurite = Azurite(ACCOUNT)
        group = f"/subscriptions/{self._subscription}/resourceGroups/{GROUP}"
        self._store = Store(f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}")
        self._settings: dict[str, object] = {}
        self._manager_operations: frozenset[str] = frozenset()

    def launch(self) -> None:
        """Start Azurite; raises install.MissingToolError (one line, what to do) without Azurite or Node.js."""
        self._azurite.launch()

    def start(self) -> None:
        """Bind and serve."""
        world, store = self._world, self._store
        certificates = issue(world.folder / "azure")
        default_container = f"azureml-blobstore-{uuid.uuid4()}"
        self._azurite.start((CONTAINER, ARCHIVE, LOCKED, default_container))
        tokens, routes, metrics = Tokens(self._tenant), Routes(world.seed), Metrics()
        entra = Entra(tokens, self._client, self._secret)
        manager = ResourceManager(
            tokens,
            self._subscription,
            GROUP,
            lambda operation: world.faults.since("azure", "stale", operation) is not None,
            functools.partial(admit, world.permissions),
        )
        operations = Operations(store, self._subscription, REGION)
        datastores = {DEFAULT_DATASTORE: default_container, DATASTORE: CONTAINER}
        workspace = Workspace(store, WORKSPACE, REGION, ACCOUNT, self._tenant, datastores, self._azurite.key)
        deployments = Deployments(
            world, store, operations, Rollouts(world, store, routes, self._azurite), workspace.check
        )
        endpoints = Endpoints(world, store, operations, routes, tokens, workspace.check, deployments.remove_all)
        operations.serve(manager)
        Resources(store).serve(manager)
        Roles(world.permissions, self._identifiers(default_container).__contains__).serve(manager)
        workspace.serve(manager)
        for kind in (MODELS, ENVIRONMENTS):
            Assets(kind, store, world.faults, workspace.check).serve(manager)
        endpoints.serve(manager)
        deployments.serve(manager)
        self._manager_operations = manager.operations
        collector = Collector(world, self._azurite, default_container, store.workspace_id)
        monitor = Monitor(
            store,
            metrics,
            tokens,
            world.faults,
            self._subscription,
            REGION,
            functools.partial(admit, world.permissions),
        )

        def serve(service: Service, threads: int) -> str:
            app = FaultyApp(service, world.faults, world.calls, world.stop)
            self._servers.append(WebServer(app, threads=threads, certificate=certificates.server))
            return self._servers[-1].url

        endpoints.scoring_url = serve(Scoring(routes, metrics, tokens, collector), 32)
        resource_manager = serve(manager, 16)
        manager.audiences = (*MANAGEMENT, resource_manager)
        entra.allow(resource_manager)
        blobs = BlobProxy(
            self._azurite.url,
            world.faults,
            self._azurite,
            LOCKED,
            lambda operation: world.permissions.lacking("azure", needed(operation)),
        )
        self._settings = {
            "resource_manager": resource_manager,
            "authority": serve(entra, 6),
            "tenant_id": self._tenant,
            "client_id": self._client,
            "client_secret": self._secret,
            "ca_file": str(certificates.authority),
            "subscription_id": self._subscription,
            "resource_group": GROUP,
            "workspace": WORKSPACE,
            "region": REGION,
            "storage_account": ACCOUNT,
            "storage_key": self._azurite.key,
            "blob_endpoint": f"{serve(blobs, 24)}/{ACCOUNT}",
            "container": CONTAINER,
            "archive_container": ARCHIVE,
            "locked_archive_container": LOCKED,
            "datastore": DATASTORE,
            "default_datastore": DEFAULT_DATASTORE,
            "default_container": default_container,
            "metrics_endpoint": serve(monitor, 8),
            "image": IMAGE,
        }

    def _identifiers(self, default_container: str) -> frozenset[str]:
        """What roles are assigned on, in lower case."""
        group = self._store.workspace_id.partition("/providers/")[0]
        account = f"{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}"
        names = (CONTAINER, ARCHIVE, LOCKED, default_container)
        containers = (f"{account}/blobServices/default/containers/{name}" for name in names)
        return frozenset(one.lower() for one in (group, self._store.workspace_id, account, *containers))

    def settings(self) -> dict[str, object]:
        """Addresses, identifiers and credentials; `blob_endpoint` ends with the account's name."""
        return dict(self._settings)

    def freeze(self) -> None:
        """Remember the resources for reads while a `stale` fault lasts."""
        self._store.freeze()

    def operations(self) -> frozenset[str]:
        """What Resource Manager, Storage, Entra, scoring and Monitor call their operations."""
        return frozenset({*self._manager_operations, *BLOB_OPERATIONS, *ENTRA_OPERATIONS, "Score", "Metrics_Batch"})

    def permissions(self) -> frozenset[str]:
        """Actions of Resource Manager and of Blob Storage's data."""
        return known()

    def corrupt(self, key: str, offset: int) -> str:
        """Flip one byte of the blob whose `container/name` ends with `key`."""
        return self._azurite.flip_byte(key, offset)

    def evict(self, endpoint: str, slot: str) -> str:
        """Online deployments have no spot capacity that could be taken away."""
        raise KeyError(f"spot capacity of {endpoint}/{slot}: Azure's online deployments have none")

    def stop(self) -> None:
        """Close the addresses and end Azurite."""
        closing = [threading.Thread(target=server.stop) for server in self._servers]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(timeout=10)
        self._servers.clear()
        self._azurite.stop()
