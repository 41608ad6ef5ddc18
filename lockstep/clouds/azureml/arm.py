"""Azure Resource Manager's REST API below one workspace, by the lightest official client.

Paths are relative to the workspace (`onlineEndpoints/e`). Documents are Resource Manager's JSON as it comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from lockstep.clouds.azureml.failures import is_passing

if TYPE_CHECKING:
    from azure.core.rest import HttpResponse
    from azure.mgmt.core import ARMPipelineClient

    from lockstep.clouds.azureml.access import Access

API_VERSION: Final = "2024-10-01"
INDEX_VERSION: Final = "2021-04-01"
PERMISSIONS_VERSION: Final = "2022-04-01"
DEPLOYMENT_TYPE: Final = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments"
RUNNING: Final = ("Creating", "Updating", "Deleting", "Scaling")
QUICK_SECONDS: Final = 1.0

Document = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """A long-running operation's state: Azure's word, and its reason when it failed."""

    status: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ("Succeeded", "Failed", "Canceled")

    @property
    def succeeded(self) -> bool:
        """Whether Azure says that it was done."""
        return self.status == "Succeeded"


class Workspace:
    """One workspace behind Resource Manager; safe to use from several threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._client: ARMPipelineClient[Any, Any] | None = None

    # -- requests ----------------------------------------------------------------------------------------------

    def get(self, path: str) -> Document | None:
        """A document; None when there is none of that name in the workspace."""
        response = self._send("GET", self._url(path))
        if self._lacks(response):
            return None
        return self._body(response)

    def list(self, path: str) -> list[Document]:
        """Every document of a collection, over all pages; empty when the parent is not there."""
        found: list[Document] = []
        url: str | None = self._url(path)
        while url:
            response = self._send("GET", url)
            if self._lacks(response):
                break
            page = self._body(response)
            found += page.get("value") or []
            url = page.get("nextLink")
        return found

    def permissions(self, resource: str) -> tuple[Document, ...]:
        """What each of the caller's roles allows on a resource, by its identifier, inherited ones included.

        https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource
        """
        address = f"{self._access.settings.resource_manager.rstrip('/')}{resource}"
        return self._pages(f"{address}/providers/Microsoft.Authorization/permissions?api-version={PERMISSIONS_VERSION}")

    def deployments(self) -> tuple[Document, ...]:
        """Every deployment of the workspace, as Resource Manager's index of the resource group has them.

        They have `name` (`workspace/endpoint/deployment`), `sku`, `tags`, `provisioningState` and `changedTime`, and no
        properties (https://learn.microsoft.com/rest/api/resources/resources/list-by-resource-group).
        """
        settings = self._access.settings
        group = settings.workspace_path.partition("/providers/")[0]
        query = urlencode(
            {
                "api-version": INDEX_VERSION,
                "$filter": f"resourceType eq '{DEPLOYMENT_TYPE}'",
                "$expand": "changedTime,provisioningState",
            }
        )
        found = self._pages(f"{settings.resource_manager.rstrip('/')}{group}/resources?{query}")
        own = f"{settings.workspace}/".lower()
        return tuple(one for one in found if str(one["name"]).lower().startswith(own))

    def put(self, path: str, document: Document) -> str | None:
        """Create or replace; returns the address of the operation to wait for, None when it is done already."""
        response = self._send("PUT", self._url(path), document)
        self._body(response)
        return response.headers.get("Azure-AsyncOperation")

    def patch(self, path: str, document: Document) -> str | None:
        """Change what `document` names; returns the address of the operation to wait for, None when it is done."""
        response = self._send("PATCH", self._url(path), document)
        self._body(response)
        return response.headers.get("Azure-AsyncOperation")

    def post(self, path: str, document: Document) -> Document:
        """An action that only reads, such as `listKeys`: it is repeated like a GET."""
        return self._body(self._send("POST", self._url(path), document))

    def delete(self, path: str) -> str | None:
        """Delete; returns the address of the operation to wait for, None when it is gone already."""
        response = self._send("DELETE", self._url(path))
        if self._lacks(response):
            return None
        self._body(response)
        return response.headers.get("Azure-AsyncOperation")

    # -- waiting -----------------------------------------------------------------------------------------------

    def outcome(self, operation: str | None, seconds: float) -> Outcome:
        """Wait for an operation; what it has come to after at most `seconds`, still running or not."""
        if operation is None:
            return Outcome("Succeeded")
        look = self.steady(lambda: self._outcome(operation))
        outcome = Outcome("InProgress")
        for _ in ticks(seconds):
            outcome = look() or outcome
            if outcome.ended:
                break
        return outcome

    def steady(self, look: Callable[[], Result]) -> Callable[[], Result | None]:
        """`look` for a polling loop: a passing failure gives None unless it lasts one and a half call time-outs."""
        patience = 1.5 * self._access.settings.call_timeout
        failing_since: list[float] = []

        def patient() -> Result | None:
            began = time.monotonic()
            try:
                result = look()
            except Exception as error:
                failing_since.append(began)
                if not is_passing(error) or time.monotonic() - failing_since[0] > patience:
                    raise
                return None
            failing_since.clear()
            return result

        return patient

    def _outcome(self, operation: str) -> Outcome:
        body = self._body(self._send("GET", operation))
        error = body.get("error") or {}
        reason = ": ".join(part for part in (error.get("code"), error.get("message")) if part)
        return Outcome(str(body.get("status", "")), reason)

    # -- the client --------------------------------------------------------------------------------------------

    def _url(self, path: str) -> str:
        settings = self._access.settings
        below = f"{settings.workspace_path}/{path}".rstrip("/")
        return f"{settings.resource_manager.rstrip('/')}{below}?api-version={API_VERSION}"

    def _pages(self, address: str) -> tuple[Document, ...]:
        found: tuple[Document, ...] = ()
        url: str | None = address
        while url:
            page = self._body(self._send("GET", url))
            found += tuple(page.get("value") or ())
            url = page.get("nextLink")
        return found

    def _send(self, method: str, url: str, document: Document | None = None) -> HttpResponse:
        from azure.core.rest import HttpRequest

        request = HttpRequest(method, url, json=document) if document is not None else HttpRequest(method, url)
        response: HttpResponse = self._connected().send_request(
            request, retry_on_methods=("GET", "PUT", "PATCH", "POST", "DELETE")
        )
        return response

    def _body(self, response: HttpResponse) -> Document:
        from azure.core.exceptions import HttpResponseError
        from azure.mgmt.core.exceptions import ARMErrorFormat

        if response.status_code >= 400:
            raise HttpResponseError(response=response, error_format=ARMErrorFormat)
        return dict(response.json()) if response.content else {}

    def _lacks(self, response: HttpResponse) -> bool:
        """Whether a 404 is about the resource itself: a missing workspace or group is a wrong setting."""
        if response.status_code != 404:
            return False
        text = response.text()
        wrong = ("SubscriptionNotFound", "ResourceGroupNotFound", f"workspaces/{self._access.settings.workspace}'")
        return not any(sign.lower() in text.lower() for sign in wrong)

    def _connected(self) -> ARMPipelineClient[Any, Any]:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._access)
            return self._client


def ticks(seconds: float) -> Iterator[float]:
    """Seconds gone by: at once, ten times in the first second, then every second; the last at the deadline."""
    began = time.monotonic()
    gone = 0.0
    while True:
        yield gone
        gone = time.monotonic() - began
        if gone >= seconds:
            return
        # Azure tells nobody when an operation ends: asking again is all there is.
        time.sleep(min(0.1 if gone < QUICK_SECONDS else 1.0, seconds - gone))
        gone = time.monotonic() - began


def state_of(document: Document) -> str:
    """A resource's provisioning state."""
    return str(document["properties"].get("provisioningState", ""))


def _connect(access: Access) -> ARMPipelineClient[Any, Any]:
    from azure.core.configuration import Configuration
    from azure.core.pipeline import PipelineResponse
    from azure.core.pipeline.policies import HeadersPolicy, ProxyPolicy, RetryPolicy, UserAgentPolicy
    from azure.mgmt.core import ARMPipelineClient
    from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

    patience = access.settings.call_timeout

    class BoundedRetry(RetryPolicy[Any, Any]):
        """Leaves it to the caller when Azure asks for a longer pause than a call may take."""

        def is_retry(self, settings: dict[str, Any], response: PipelineResponse[Any, Any]) -> bool:
            return (self.get_retry_after(response) or 0) <= patience and super().is_retry(settings, response)

    options = access.transport_options()
    config: Configuration[Any, Any] = Configuration()
    config.headers_policy = HeadersPolicy()
    config.user_agent_policy = UserAgentPolicy("lockstep")
    config.proxy_policy = ProxyPolicy()
    config.retry_policy = BoundedRetry(**options)
    scope = f"{access.settings.resource_manager.rstrip('/')}/.default"
    config.authentication_policy = ARMChallengeAuthenticationPolicy(access.credential(), scope)
    client: ARMPipelineClient[Any, Any] = ARMPipelineClient(access.settings.resource_manager, config=config, **options)
    client.__enter__()  # opens the session once, before threads share it
    return client
