"""What the Azure sandbox tests do again and again, by Azure's own clients alone."""

import itertools
import uuid
from typing import Any

import requests
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.pipeline.transport import RequestsTransport
from azure.core.polling import LROPoller
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import ClientSecretCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from azure.mgmt.core.polling.arm_polling import ARMPolling
from azure.storage.blob import ContainerClient

from tests.model_files import ModelVersion
from tests.sandbox_control import Control

VERSION = "2024-10-01"
PORTS = {"port": 8080}
ROUTES = {
    "livenessRoute": {"path": "/health", **PORTS},
    "readinessRoute": {"path": "/health", **PORTS},
    "scoringRoute": {"path": "/score", **PORTS},
}


class Account:
    """Clients for one sandbox, without retries, and endpoints that are removed by `clean()`."""

    def __init__(self, settings: dict[str, Any], control: Control) -> None:
        self.settings = settings
        self.control = control
        self.ca = settings["ca_file"]
        self.workspace = (
            f"/subscriptions/{settings['subscription_id']}/resourceGroups/{settings['resource_group']}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{settings['workspace']}"
        )
        self.credential = self.credentials(settings["client_secret"])
        self.arm = self.client()
        self.blobs = ContainerClient(
            settings["blob_endpoint"],
            settings["container"],
            credential=settings["storage_key"],
            connection_verify=self.ca,
            retry_total=0,
        )
        self.http = requests.Session()
        self.http.verify, self.http.trust_env = self.ca, False
        self._run = uuid.uuid4().hex[:6]
        self._numbers = itertools.count(1)
        self._endpoints: list[str] = []
        self._models: dict[str, str] = {}

    def credentials(self, secret: str, **changes: Any) -> ClientSecretCredential:
        """A service principal's credential; Entra is asked without retries."""
        s = self.settings
        return ClientSecretCredential(
            changes.get("tenant", s["tenant_id"]),
            changes.get("client", s["client_id"]),
            secret,
            authority=s["authority"],
            disable_instance_discovery=True,
            connection_verify=self.ca,
            retry_total=0,
        )

    def client(self, scope: str = "https://management.azure.com/.default") -> Any:
        """A Resource Manager client that asks Entra for `scope`."""
        policies = [
            HeadersPolicy(),
            RequestIdPolicy(),
            UserAgentPolicy(),
            ARMChallengeAuthenticationPolicy(self.credential, scope),
        ]
        transport = RequestsTransport(connection_verify=self.ca, connection_timeout=5, read_timeout=60)
        return ARMPipelineClient(self.settings["resource_manager"], policies=policies, transport=transport)

    def name(self, what: str) -> str:
        """A name that no other test has."""
        return f"{what}-{self._run}-{next(self._numbers)}"

    def ask(self, method: str, path: str, body: Any = None, version: str | None = VERSION, **query: str) -> Any:
        """One request below the workspace (or an absolute path); returns the HttpResponse."""
        return self._run_request(method, path, body, version, query).http_response

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """One long-running request, polled to its end; returns the resource, raises HttpResponseError."""
        first = self._run_request(method, path, body, VERSION, {})
        if first.http_response.status_code >= 400:
            raise AssertionError(first.http_response.text())
        poller: LROPoller[Any] = LROPoller(
            self.arm, first, lambda answer: _content(answer.http_response), ARMPolling(0.05)
        )
        return poller.result(timeout=90)

    def upload(self, version: ModelVersion) -> str:
        """Put a sealed model folder into Blob; returns its path in the container."""
        prefix = f"models/{self.name('m')}/{version.digest[:12]}"
        for name, content in version.objects().items():
            self.blobs.upload_blob(f"{prefix}/{name}", content)
        return prefix

    def model(self, prefix: str) -> str:
        """Register the blobs below `prefix` as a new model; returns the version's identifier."""
        path = f"/models/{self.name('model')}/versions/1"
        uri = f"azureml://datastores/{self.settings['datastore']}/paths/{prefix}"
        answer = self.ask("PUT", path, {"properties": {"modelUri": uri, "modelType": "custom_model"}})
        assert answer.status_code == 201, answer.text()
        return str(answer.json()["id"])

    def environment(self, **routes: Any) -> str:
        """Register the serving image with its routes; returns the version's identifier."""
        path = f"/environments/{self.name('env')}/versions/1"
        properties = {"image": self.settings["image"], "inferenceConfig": {**ROUTES, **routes}}
        answer = self.ask("PUT", path, {"properties": properties})
        assert answer.status_code == 201, answer.text()
        return str(answer.json()["id"])

    def endpoint(self, **properties: Any) -> str:
        """A new endpoint; returns its name."""
        name = self.name("ep")
        self._endpoints.append(name)
        body = {"location": "westeurope", "properties": {"authMode": "Key", **properties}}
        self.done("PUT", f"/onlineEndpoints/{name}", body)
        return name

    def deployment_body(self, model: str, environment: str, digest: str, label: str = "1", **changes: Any) -> Any:
        """What `PUT …/deployments/d` takes."""
        capacity = changes.pop("capacity", 1)
        properties = {
            "endpointComputeType": "Managed",
            "model": model,
            "environmentId": environment,
            "instanceType": "Standard_DS3_v2",
            "environmentVariables": {"LOCKSTEP_DIGEST": digest, "LOCKSTEP_VERSION": label},
            "requestSettings": {"maxConcurrentRequestsPerInstance": 16, "requestTimeout": "PT30S"},
            **changes,
        }
        return {"location": "westeurope", "sku": {"name": "Default", "capacity": capacity}, "properties": properties}

    def split(self, endpoint: str, **traffic: int) -> Any:
        """Change the traffic and wait; returns the endpoint."""
        return self.done("PUT", f"/onlineEndpoints/{endpoint}", self.split_body(traffic))

    @staticmethod
    def split_body(traffic: dict[str, int], **more: Any) -> Any:
        """What `PUT onlineEndpoints/e` takes to change the traffic."""
        return {"location": "westeurope", "properties": {"authMode": "Key", "traffic": traffic, **more}}

    def traffic(self, endpoint: str) -> Any:
        """The traffic as the endpoint shows it."""
        return self.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["traffic"]

    def key(self, endpoint: str) -> str:
        """The endpoint's primary key."""
        return str(self.ask("POST", f"/onlineEndpoints/{endpoint}/listKeys").json()["primaryKey"])

    def score(self, endpoint: str, rows: Any, key: str | None = None, **headers: str) -> requests.Response:
        """One scoring request."""
        uri = self.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["scoringUri"]
        given = {"Authorization": f"Bearer {key or self.key(endpoint)}", **headers}
        return self.http.post(uri, json={"dataframe_split": rows}, headers=given, timeout=60)

    def fault(self, kind: str, operation: str = "*", **more: Any) -> int:
        """Put a fault on the board; returns its number."""
        return self.control.fault("azure", kind, operation=operation, **more)

    def events(self, name: str, resource: str) -> list[Any]:
        """The changes of `resource` that the sandbox recorded."""
        calls = self.control.calls("azure")
        return [c for c in calls if c["operation"] == f"event:{name}" and c["resource"] == resource]

    def clean(self) -> None:
        """Remove the endpoints and the faults that are left."""
        self.control.clear()
        for name in self._endpoints:
            self.done("DELETE", f"/onlineEndpoints/{name}")
        self._endpoints.clear()

    def _run_request(self, method: str, path: str, body: Any, version: str | None, query: dict[str, str]) -> Any:
        url = path if path.startswith("/subscriptions") else self.workspace + path
        parameters = {**({"api-version": version} if version else {}), **query}
        request = HttpRequest(method, self.settings["resource_manager"] + url, params=parameters, json=body)
        return self.arm.send_request(request, _return_pipeline_response=True)


def _content(response: HttpResponse) -> Any:
    return response.json() if response.text() else None
