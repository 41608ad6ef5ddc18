"""Google Cloud's addresses of one sandbox: Vertex AI, Cloud Monitoring, Cloud Storage and the token endpoint."""

from __future__ import annotations

import hashlib
from typing import Final

from sandbox.gcp.bigquery import BigQueryService, RequestLogs
from sandbox.gcp.gcs import StorageService
from sandbox.gcp.gcs_json import OPERATIONS as STORAGE_OPERATIONS
from sandbox.gcp.gcs_objects import Store
from sandbox.gcp.identity import Identity, TokenService
from sandbox.gcp.monitoring import MonitoringService
from sandbox.gcp.permissions import Guard, PolicyService, known
from sandbox.gcp.quota import Limits
from sandbox.gcp.samples import Samples
from sandbox.gcp.vertex import ROUTES as VERTEX_ROUTES
from sandbox.gcp.vertex import VertexService
from sandbox.gcp.vertex_deployments import CONTAINER_RESTART, SPOT_RESTART, Deployments
from sandbox.gcp.vertex_endpoints import Endpoints
from sandbox.gcp.vertex_models import Models
from sandbox.gcp.vertex_operations import Operations
from sandbox.gcp.vertex_scoring import Scoring
from sandbox.gcp.vertex_slots import Place
from sandbox.web import FaultyApp, Service, WebServer
from sandbox.world import World

PROJECT: Final = "lockstep-sandbox"
PROJECT_NUMBER: Final = "714200300417"
LOCATION: Final = "us-central1"
BUCKET: Final = "lockstep-models"
ARCHIVE: Final = "lockstep-ledger"
DATASET: Final = "lockstep_captures"
RETENTION: Final = {"retention_seconds": 400 * 86_400, "retention_locked": True}
#: at speed "instant" the quotas grow with the pace of everything else; they are enforced all the same
INSTANT_LIMITS: Final = Limits(crud=60_000, submissions=6_000, predictions=3_000_000)


class GcpServers:
    """Google Cloud in the sandbox. `limits` are the quotas; by default Google's own, a hundredfold when instant."""

    cloud = "gcp"

    def __init__(self, world: World, limits: Limits | None = None) -> None:
        self._world = world
        self._limits = limits or (INSTANT_LIMITS if world.delays.speed == "instant" else Limits())
        self._parent = f"projects/{PROJECT_NUMBER}/locations/{LOCATION}"
        self._identity = Identity(PROJECT, world.folder)
        self._store = Store(world.folder / "gcs")
        self._samples = Samples()
        self._operations = Operations(world.stop)
        self._models = Models(world, self._store, self._operations, self._parent)
        self._logs = RequestLogs(world, (DATASET,))
        self._endpoints = Endpoints(
            world, self._operations, self._parent, lambda config: self._logs.check(config, PROJECT)
        )
        self._deployments = Deployments(world, self._store, self._models, self._endpoints, self._place)
        self._servers: dict[str, WebServer] = {}

    def _place(self, endpoint_id: str) -> Place:
        logs = f"{self._servers['vertex'].url}/logs"
        return Place(PROJECT_NUMBER, LOCATION, endpoint_id, self._servers["storage"].url, logs)

    def launch(self) -> None:
        """Nothing here runs in a process of its own."""

    def start(self) -> None:
        """Bind every address, write the service account's key file and create the project's bucket."""
        guard = Guard(self._world.permissions)
        scoring = Scoring(self._world, self._endpoints, self._deployments, self._samples, self._logs)
        vertex = VertexService(
            self._identity,
            (PROJECT, PROJECT_NUMBER),
            LOCATION,
            self._models,
            self._endpoints,
            self._deployments,
            self._operations,
            scoring,
            self._limits,
            guard,
        )
        self._serve("token", TokenService(self._identity), threads=4)
        self._serve("storage", StorageService(self._store, self._identity, guard))
        monitoring = MonitoringService(self._world, self._identity, self._samples, PROJECT, LOCATION, guard)
        self._serve("monitoring", monitoring, 8)
        self._serve("bigquery", BigQueryService(self._identity, self._logs, PROJECT, guard), 4)
        self._serve("policy", PolicyService(self._identity, guard, (PROJECT, PROJECT_NUMBER)), 4)
        self._serve("vertex", vertex)
        self._identity.write_key_file(f"{self._servers['token'].url}/token")
        self._store.create_bucket(BUCKET)
        self._store.create_bucket(ARCHIVE)
        self._store.change_bucket(ARCHIVE, RETENTION)

    def _serve(self, name: str, service: Service, threads: int = 24) -> None:
        app = FaultyApp(service, self._world.faults, self._world.calls, self._world.stop)
        self._servers[name] = WebServer(app, threads=threads)

    def settings(self) -> dict[str, object]:
        """What a client needs: addresses, project, credentials (a key file and a token), bucket and image."""
        digest = hashlib.sha256(b"lockstep serving image").hexdigest()
        return {
            "project": PROJECT,
            "project_number": PROJECT_NUMBER,
            "location": LOCATION,
            "api_endpoint": self._servers["vertex"].url,
            "monitoring_endpoint": self._servers["monitoring"].url,
            "bigquery_endpoint": self._servers["bigquery"].url,
            "capture_dataset": DATASET,
            "storage_endpoint": self._servers["storage"].url,
            "resource_manager_endpoint": self._servers["policy"].url,
            "iam_endpoint": self._servers["policy"].url,
            "credentials_file": str(self._identity.key_file),
            "token": self._identity.token,
            "bucket": BUCKET,
            "archive_bucket": ARCHIVE,
            "image": f"{LOCATION}-docker.pkg.dev/{PROJECT}/lockstep/serving@sha256:{digest}",
        }

    def freeze(self) -> None:
        """Remember models and endpoints as they are; Cloud Storage is strongly consistent and never stale."""
        self._models.freeze()
        self._endpoints.freeze()

    def operations(self) -> frozenset[str]:
        """RPCs of Vertex AI and Monitoring, the JSON API's names for Cloud Storage, and what the sandbox adds."""
        vertex = {rpc for _, _, rpc, _ in VERTEX_ROUTES}
        return frozenset(
            vertex
            | STORAGE_OPERATIONS
            | {"ListTimeSeries", "jobs.query", "Token", SPOT_RESTART, CONTAINER_RESTART}
            | {"projects.testIamPermissions", "projects.serviceAccounts.testIamPermissions"}
        )

    def permissions(self) -> frozenset[str]:
        """Google's permissions."""
        return known()

    def corrupt(self, key: str, offset: int) -> str:
        """Flip one byte of a stored object's bytes; its metadata and checksums stay as they were."""
        found = [o for o in self._store.everything() if f"{o.bucket}/{o.name}".endswith(key)]
        found.sort(key=lambda o: (o.bucket.startswith("caip-tenant-"), o.name))
        if not found:
            raise KeyError(f"object whose name ends with {key!r}")
        stored = found[0]
        content = bytearray(stored.path.read_bytes())
        if not -len(content) <= offset < len(content):
            raise ValueError(f"gs://{stored.bucket}/{stored.name} has {len(content)} bytes, so no byte {offset}")
        content[offset] ^= 0xFF
        stored.path.write_bytes(content)
        return f"gs://{stored.bucket}/{stored.name}"

    def evict(self, endpoint: str, slot: str) -> str:
        """Take a spot slot's machine away."""
        return self._deployments.evict(endpoint, slot)

    def stop(self) -> None:
        """Close every address. Containers are stopped by their runtime, threads by `world.stop`."""
        for server in self._servers.values():
            server.stop()
