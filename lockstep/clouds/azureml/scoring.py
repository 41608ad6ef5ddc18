"""Predictions from an endpoint's own address, with its key."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lockstep.clouds.azureml.failures import SERVER_ERRORS
from lockstep.clouds.base import Row
from lockstep.errors import (
    CloudRejectedError,
    CredentialsError,
    LockstepError,
    NotFoundError,
    RetryLaterError,
    ThrottledError,
)
from lockstep.rules.measurement import Answer

if TYPE_CHECKING:
    import requests

    from lockstep.clouds.azureml.access import Access
    from lockstep.clouds.azureml.arm import Workspace
    from lockstep.clouds.azureml.endpoints import Endpoints

SLOT_HEADER: Final = "azureml-model-deployment"
MODEL_STATUS: Final = "ms-azureml-model-error-statuscode"
POOL: Final = 64


@dataclass(frozen=True)
class Entrance:
    """Where an endpoint answers, and the key that opens it."""

    url: str
    key: str


class Scoring:
    """Asks endpoints; addresses and keys are fetched once and again when they no longer hold."""

    def __init__(self, access: Access, workspace: Workspace, endpoints: Endpoints) -> None:
        self._access = access
        self._name = access.name
        self._workspace = workspace
        self._endpoints = endpoints
        self._entrances: dict[str, Entrance] = {}
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def invoke(self, endpoint: str, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer:
        """One prediction, by the endpoint's split or by `slot`."""
        body = json.dumps({"instances": [dict(row) for row in rows]}).encode()
        headers = {"Content-Type": "application/json"}
        if slot is not None:
            headers[SLOT_HEADER] = slot
        if request_id:
            headers |= {"x-ms-client-request-id": request_id, "X-Request-ID": request_id}
        entrance = self._entrance(endpoint, model, None)
        began = time.perf_counter()
        response = self._post(entrance, endpoint, body, headers)
        if response.status_code == 401:
            entrance = self._entrance(endpoint, model, entrance)
            began = time.perf_counter()
            response = self._post(entrance, endpoint, body, headers)
        latency = time.perf_counter() - began
        if response.status_code != 200:
            raise self._refusal(response, endpoint, model, slot)
        return Answer(
            cloud=self._name,
            slot=response.headers.get(SLOT_HEADER, ""),
            label=response.headers.get("x-lockstep-version", ""),
            digest=response.headers.get("x-lockstep-digest", ""),
            body=response.content,
            request_id=request_id or response.headers.get("X-Request-ID", ""),
            latency=latency,
        )

    def _post(self, entrance: Entrance, endpoint: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        import requests

        timeout = self._access.settings.call_timeout
        session, verify = self._connected(), self._access.verify
        headers = {**headers, "Authorization": f"Bearer {entrance.key}"}
        for attempt in (1, 2):
            try:
                # `verify` goes with the request: the environment's CA variables would override the session's.
                return session.post(
                    entrance.url, data=body, headers=headers, timeout=(min(timeout, 5.0), timeout), verify=verify
                )
            except requests.ConnectionError:
                # An idle connection may have been closed under us; a prediction can be asked for twice.
                if attempt == 2:
                    with self._lock:
                        self._entrances.pop(endpoint, None)
                    raise
        raise AssertionError("unreachable")

    def _entrance(self, endpoint: str, model: str, refused: Entrance | None) -> Entrance:
        """The known way in, or a fresh one when there is none or the known one was `refused`."""
        with self._lock:
            known = self._entrances.get(endpoint)
        if known is not None and known != refused:
            return known
        document = self._endpoints.existing(endpoint, model)
        keys = self._workspace.post(f"onlineEndpoints/{endpoint}/listKeys", {})
        url = document["properties"].get("scoringUri")
        if not url or not keys.get("primaryKey"):
            raise RetryLaterError(
                f"endpoint {endpoint} of {model} has no address yet", cloud=self._name, hint="try again in a minute"
            )
        fresh = Entrance(str(url), str(keys["primaryKey"]))
        with self._lock:
            self._entrances[endpoint] = fresh
        return fresh

    def _refusal(self, response: requests.Response, endpoint: str, model: str, slot: str | None) -> LockstepError:
        status = response.status_code
        text = " ".join(response.text.split())[:500] or response.reason
        problem = f"endpoint {endpoint} of {model} answered {status} to a prediction: {text}"
        if status in (401, 403):
            return CredentialsError(problem, cloud=self._name, hint="the role needs onlineEndpoints/listKeys/action")
        if status == 404:
            where = f"slot {slot} is not there" if slot else "no slot of it has traffic"
            return NotFoundError(problem, cloud=self._name, hint=f"{where}: look with `lockstep status {model}`")
        if status == 429:
            return ThrottledError(
                problem, cloud=self._name, hint="more requests than its instances take: add instances"
            )
        if status in (408, *SERVER_ERRORS):
            return RetryLaterError(problem, cloud=self._name, hint="the slot answers too slowly or not at all")
        if status == 424:
            inner = response.headers.get(MODEL_STATUS, "an error")
            return CloudRejectedError(
                problem,
                cloud=self._name,
                hint=f"the model itself answered {inner}: check the rows against its signature",
            )
        return CloudRejectedError(problem, cloud=self._name, hint="read Azure's reason above")

    def _connected(self) -> requests.Session:
        import requests
        from requests.adapters import HTTPAdapter

        with self._lock:
            if self._session is None:
                session = requests.Session()
                session.mount("https://", HTTPAdapter(pool_connections=8, pool_maxsize=POOL))
                session.mount("http://", HTTPAdapter(pool_connections=8, pool_maxsize=POOL))
                self._session = session
            return self._session
