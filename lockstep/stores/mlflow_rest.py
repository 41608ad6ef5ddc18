"""The few calls about versions, aliases, tags and single files, over MLflow's REST API: its client imports for seconds.

https://mlflow.org/docs/latest/api_reference/rest-api.html, under `/api/2.0/mlflow`. Methods are called as those of
MLflow's own client, which takes over where a server is reached in a way that only it knows (`applies`).
"""

from __future__ import annotations

import configparser
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    import requests

PREFIX: Final = "/api/2.0/mlflow"
ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
SERVED: Final = "mlflow-artifacts:/"  # a URI of what the server itself hands out
CHUNK: Final = 1 << 20
AGAIN: Final = (502, 503, 504)
PAUSE: Final = 0.2  # seconds before the second and last attempt
#: Variables that ask for something that only MLflow's own client does.
ONLY_MLFLOW: Final = ("MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_TRACKING_AUTH", "MLFLOW_WORKSPACE")


class RestError(Exception):
    """MLflow answered with an error; `status` is HTTP's, `error_code` MLflow's own word, the text its message."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class AnyVersion(Protocol):
    """A version as MLflow's own client and this one give it."""

    @property
    def name(self) -> str: ...  # noqa: D102 - MLflow's words
    @property
    def version(self) -> Any: ...  # noqa: D102 - a number, or one as text
    @property
    def tags(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def run_id(self) -> str | None: ...  # noqa: D102
    @property
    def source(self) -> str | None: ...  # noqa: D102


class AnyModel(Protocol):
    """A registered model as either gives it."""

    @property
    def aliases(self) -> Mapping[str, Any]: ...  # noqa: D102


class AnyRunInfo(Protocol):
    """Facts of a run as either gives them."""

    @property
    def artifact_uri(self) -> str | None: ...  # noqa: D102


class AnyRun(Protocol):
    """A run as either gives it."""

    @property
    def info(self) -> AnyRunInfo: ...  # noqa: D102


@dataclass(frozen=True)
class RestVersion:
    """One version of a model."""

    name: str
    version: str
    tags: Mapping[str, str]
    run_id: str
    source: str


@dataclass(frozen=True)
class RestModel:
    """One registered model: labels by alias."""

    name: str
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class RestRunInfo:
    """Facts of a run."""

    artifact_uri: str


@dataclass(frozen=True)
class RestRun:
    """One run."""

    info: RestRunInfo


class Page(list[RestVersion]):
    """Some of what a search finds; `token` leads to the next page."""

    token: str = ""


class Names(Protocol):
    """What both clients do with models, versions, aliases and tags."""

    def get_run(self, run_id: str) -> AnyRun: ...  # noqa: D102 - as below
    def get_registered_model(self, name: str) -> AnyModel: ...  # noqa: D102
    def search_model_versions(self, filter_string: str, max_results: int, page_token: str | None) -> Any: ...  # noqa: D102
    def get_model_version(self, name: str, version: str) -> AnyVersion: ...  # noqa: D102
    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None: ...  # noqa: D102
    def delete_registered_model_alias(self, name: str, alias: str) -> None: ...  # noqa: D102
    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None: ...  # noqa: D102
    def delete_model_version_tag(self, name: str, version: str, key: str) -> None: ...  # noqa: D102


def applies(tracking_uri: str) -> bool:
    """Whether plain HTTP with a name and a password, or a token, is all that the server asks for."""
    return tracking_uri.startswith(("http://", "https://")) and not any(os.environ.get(name) for name in ONLY_MLFLOW)


class MlflowRest:
    """One server; `timeout` is seconds a call. Makes no connection before the first one."""

    def __init__(self, tracking_uri: str, address: str, timeout: float) -> None:
        parts = urlsplit(tracking_uri)
        self._address = address
        self._timeout = timeout
        self._login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None

    def get_run(self, run_id: str) -> RestRun:
        """The run; raises RestError."""
        found = self._call("GET", "runs/get", run_id=run_id)["run"]
        return RestRun(RestRunInfo(str(found["info"].get("artifact_uri", ""))))

    def save(self, uri: str, path: Path) -> None:
        """Write the one file that an artifact URI of the server's own (`SERVED`) stands for; raises RestError."""
        where = f"{ARTIFACTS}/{quote(uri.removeprefix(SERVED).lstrip('/'))}"
        with self._answer("GET", where, stream=True) as response, path.open("wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)

    def get_registered_model(self, name: str) -> RestModel:
        """The model; raises RestError."""
        found = self._call("GET", "registered-models/get", name=name)["registered_model"]
        return RestModel(str(found["name"]), {one["alias"]: str(one["version"]) for one in found.get("aliases", ())})

    def search_model_versions(self, filter_string: str, max_results: int, page_token: str | None = None) -> Page:
        """Versions that fit, a page of them."""
        fields: dict[str, object] = {"filter": filter_string, "max_results": max_results}
        if page_token:
            fields["page_token"] = page_token
        found = self._call("GET", "model-versions/search", **fields)
        page = Page(_version(one) for one in found.get("model_versions", ()))
        page.token = str(found.get("next_page_token") or "")
        return page

    def get_model_version(self, name: str, version: str) -> RestVersion:
        """The version; raises RestError."""
        return _version(self._call("GET", "model-versions/get", name=name, version=version)["model_version"])

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Point the alias there."""
        self._call("POST", "registered-models/alias", name=name, alias=alias, version=version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove the alias."""
        self._call("DELETE", "registered-models/alias", name=name, alias=alias)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set the tag."""
        self._call("POST", "model-versions/set-tag", name=name, version=version, key=key, value=value)

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Remove the tag."""
        self._call("DELETE", "model-versions/delete-tag", name=name, version=version, key=key)

    # -- within ------------------------------------------------------------------------------------------------

    @cached_property
    def _session(self) -> requests.Session:
        import requests

        session = requests.Session()
        session.headers["User-Agent"] = "lockstep"
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        name, password = _account()
        if self._login is not None:
            session.auth = self._login
        elif name and password:
            session.auth = (name, password)
        elif token:
            session.headers["Authorization"] = f"Bearer {token}"
        if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            session.verify = False
        elif os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
            session.verify = os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
        session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None
        return session

    def _call(self, method: str, path: str, **fields: object) -> Any:
        """What one call is answered with."""
        asked = {key: str(value) for key, value in fields.items()} if method == "GET" else None
        told = None if method == "GET" else fields
        return self._answer(method, f"{PREFIX}/{path}", params=asked, json=told).json()

    def _answer(self, method: str, path: str, **request: Any) -> requests.Response:
        """One call, once again after a moment while the server is not there or starting."""
        import requests

        for last in (False, True):
            try:
                response = self._session.request(
                    method,
                    f"{self._address}{path}",
                    timeout=float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or self._timeout),
                    **request,
                )
            except requests.ConnectionError:
                if last:
                    raise
            else:
                if response.ok:
                    return response
                if last or response.status_code not in AGAIN:
                    raise _error(response)
                response.close()  # one that is streamed would keep its connection
            time.sleep(PAUSE)
        raise AssertionError("unreachable")


def _account() -> tuple[str, str]:
    """Name and password as MLflow's client finds them: the environment, else ~/.mlflow/credentials."""
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{what}", "") for what in ("USERNAME", "PASSWORD"))
    if name and password:
        return name, password
    kept = configparser.ConfigParser(interpolation=None)
    try:
        kept.read(Path("~/.mlflow/credentials").expanduser())
    except (OSError, RuntimeError, configparser.Error):
        return name, password
    return (
        name or kept.get("mlflow", "mlflow_tracking_username", fallback=""),
        password or kept.get("mlflow", "mlflow_tracking_password", fallback=""),
    )


def _error(response: requests.Response) -> RestError:
    try:
        told = response.json()
        code, message = str(told.get("error_code", "")), str(told.get("message", ""))
    except (ValueError, AttributeError):
        code, message = "", ""
    return RestError(response.status_code, code, message or f"HTTP status {response.status_code} {response.reason}")


def _version(found: Mapping[str, Any]) -> RestVersion:
    return RestVersion(
        str(found["name"]),
        str(found["version"]),
        {str(one["key"]): str(one.get("value", "")) for one in found.get("tags", ())},
        str(found.get("run_id", "")),
        str(found.get("source", "")),
    )
