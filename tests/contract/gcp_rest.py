"""Vertex AI by its REST API, as google-auth's AuthorizedSession speaks it; used by the sandbox's contract tests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from google.auth.transport.requests import AuthorizedSession

from tests.model_files import ModelVersion

Json = dict[str, Any]


class RefusedError(Exception):
    """An error answer; `status` is Google's canonical one."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(f"{code} {status}: {message}")
        self.code = code
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Vertex:
    """One project's Vertex AI."""

    session: AuthorizedSession
    settings: Mapping[str, str]

    @property
    def parent(self) -> str:
        return f"projects/{self.settings['project']}/locations/{self.settings['location']}"

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Json:
        url = f"{self.settings['api_endpoint']}/v1/{path}"
        answer = self.session.request(  # type: ignore[no-untyped-call]
            method, url, json=body, params=query, timeout=60
        )
        return checked(answer)

    def models(self, method: str, path: str = "", body: Any = None, **query: str) -> Json:
        return self.call(method, f"{self.parent}/models{path}", body, **query)

    def endpoints(self, method: str, path: str = "", body: Any = None, **query: str) -> Json:
        return self.call(method, f"{self.parent}/endpoints{path}", body, **query)

    def finished(self, operation: Json) -> Json:
        """Wait for the operation's end; the whole operation, whether it failed or not."""
        deadline = time.monotonic() + 90
        while not operation.get("done") and time.monotonic() < deadline:
            operation = self.call("POST", operation["name"] + ":wait", timeout="20s")
        assert operation.get("done"), operation
        return operation

    def done(self, operation: Json) -> Json:
        """Wait for a good end; the operation's response."""
        finished = self.finished(operation)
        assert "error" not in finished, finished
        return dict(finished["response"])

    def model_body(self, artifact: str, digest: str, label: str, **changes: Any) -> Json:
        spec = {
            "imageUri": self.settings["image"],
            "predictRoute": "/predict",
            "healthRoute": "/health",
            "env": [{"name": "LOCKSTEP_DIGEST", "value": digest}, {"name": "LOCKSTEP_VERSION", "value": label}],
        }
        return {"displayName": "tumour", "artifactUri": artifact, "containerSpec": spec, **changes}

    def upload(self, model: Json, **rest: str) -> Json:
        return self.done(self.models("POST", ":upload", {"model": model, **rest}))

    def deploy(self, endpoint: str, model: str, percent: int | None = None, **changes: Any) -> str:
        """Deploy `model@version`, wait, and return the deployed model's id."""
        operation = self.endpoints("POST", f"/{endpoint}:deployModel", self.deployment(model, percent, **changes))
        return str(self.done(operation)["deployedModel"]["id"])

    def deployment(self, model: str, percent: int | None = None, spot: bool = False, **changes: Any) -> Json:
        resources = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1, "spot": spot}
        deployed = {"model": f"{self.parent}/models/{model}", "dedicatedResources": resources, **changes}
        return {"deployedModel": deployed, **({"trafficSplit": {"0": percent}} if percent else {})}

    def split(self, endpoint: str, split: Mapping[str, int]) -> Json:
        return self.endpoints("PATCH", f"/{endpoint}", {"trafficSplit": split}, updateMask="trafficSplit")

    def predict(self, endpoint: str, instances: list[Json]) -> Json:
        return self.endpoints("POST", f"/{endpoint}:predict", {"instances": instances})

    def answering(self, endpoint: str, instances: list[Json], count: int) -> Counter[str]:
        """Which deployed models answered `count` predictions."""
        return Counter(self.predict(endpoint, instances)["deployedModelId"] for _ in range(count))

    @contextmanager
    def endpoint(self, name: str) -> Iterator[str]:
        """A new endpoint that is emptied and deleted at the end."""
        self.done(self.endpoints("POST", "", {"displayName": name}, endpointId=name))
        try:
            yield name
        finally:
            for deployed in self.endpoints("GET", f"/{name}").get("deployedModels", ()):
                only = {deployed["id"]: 100}
                self.split(name, only)
                others = [d["id"] for d in self.endpoints("GET", f"/{name}")["deployedModels"] if d["id"] not in only]
                for other in others:
                    self.done(self.endpoints("POST", f"/{name}:undeployModel", {"deployedModelId": other}))
                body = {"deployedModelId": deployed["id"]}
                self.done(self.endpoints("POST", f"/{name}:undeployModel", body))
                break
            self.done(self.endpoints("DELETE", f"/{name}"))


def checked(answer: requests.Response) -> Json:
    """The JSON of a good answer; raises RefusedError for another."""
    if answer.status_code >= 400:
        error = answer.json()["error"]
        raise RefusedError(answer.status_code, error["status"], error["message"])
    return dict(answer.json())


@dataclass(frozen=True)
class Uploaded:
    """A model version's bytes in the sandbox's bucket."""

    version: ModelVersion
    uri: str
