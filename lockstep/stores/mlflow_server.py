"""One MLflow server: its client, limits on waiting, paging and downloads."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from lockstep.errors import NotFoundError
from lockstep.stores.folders import FILES
from lockstep.stores.mlflow_errors import translated
from lockstep.stores.mlflow_rest import SERVED, MlflowRest, Names, RestError, applies

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
ONLY_IN_DOWNLOADS: Final = "registered_model_meta"  # MLflow writes it while it downloads; no version contains it
PAGE: Final = 200
RETRIES: Final = 1

_limits: dict[str, str] = {}


class MlflowServer:
    """One MLflow server. `timeout` is seconds for one call; a server that is down costs about twice that.

    MLflow takes its limits from the process environment alone, so they are set there, unless the user has set them.
    Makes no connection before the first call; safe to share between threads.
    """

    def __init__(self, tracking_uri: str, timeout: float = 10.0) -> None:
        self.tracking_uri = tracking_uri.rstrip("/")
        self.address = _without_credentials(self.tracking_uri)
        self.timeout = timeout
        light = applies(self.tracking_uri)
        self._light = MlflowRest(self.tracking_uri, self.address, timeout) if light else None
        self._homes: dict[str, str] = {}  # where runs keep their artifacts: never changed once a run is made
        # By a filter, which MLflow's own configuration of its loggers leaves alone, whatever part of it is used first.
        logging.getLogger("mlflow.tracking.request_header.registry").addFilter(_is_error)
        _limit("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, math.ceil(timeout))))
        _limit("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(RETRIES))
        # A proxy that asks for a minute's patience would otherwise be obeyed inside the call.
        _limit("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")
        _limit("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        # Standard output is for results: with --json it holds one document alone.
        _limit("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client for this server, for what is not a matter of versions (runs, experiments)."""
        from mlflow import MlflowClient

        # MLflow tries this import for each request, and looks through the whole path again where it is not installed.
        if "dbruntime" not in sys.modules and importlib.util.find_spec("dbruntime") is None:
            sys.modules["dbruntime"] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def named(self, call: Callable[[Names], T]) -> T:
        """`call` with a client for models, versions, aliases and tags: one that imports quickly, if it will do."""
        light = self._light
        if light is not None:
            try:
                return call(light)
            except RestError as error:
                if error.status not in (401, 403):
                    raise
        found = call(cast("Names", self.client))
        self._light = None  # a plugin of MLflow's own client knew how to log in
        return found

    def load(self) -> None:
        """Import MLflow's client now if it is needed, which takes seconds that are not the server's."""
        if self._light is None:
            _ = self.client

    def translated(self, action: str) -> AbstractContextManager[None]:
        """A context in which MLflow's errors become Lockstep's; `action` completes "MLflow could not ..."."""
        return translated(self.address, action)

    def stored_at(self, uri: str) -> str:
        """The artifact URI behind `runs:/<run_id>/<path>`, `models:/m-<id>` and a path below the latter.

        MLflow would resolve these itself, but in places with the server that is the process's default instead of this
        one (making an `mlflow.db` where there is no default).
        """
        if uri.startswith("runs:/"):
            run_id, _, path = uri.removeprefix("runs:/").partition("/")
            if run_id not in self._homes:
                found = self.named(lambda names: names.get_run(run_id)).info.artifact_uri
                self._homes[run_id] = (found or "").rstrip("/")
            return f"{self._homes[run_id]}/{path}"
        if uri.startswith("models:/m-"):
            model_id, _, path = uri.removeprefix("models:/").partition("/")
            root = str(self.client.get_logged_model(model_id).artifact_location).rstrip("/")
            return f"{root}/{path}".rstrip("/")
        return uri

    def folder_names(self, uri: str, action: str) -> tuple[tuple[str, bool], ...]:
        """Name and is-a-folder of everything that lies directly in a folder; nothing for one that is not there."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            with self.translated(action):
                repository = get_artifact_repository(
                    self.stored_at(uri), tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri
                )
                return tuple((Path(entry.path).name, bool(entry.is_dir)) for entry in repository.list_artifacts())
        except NotFoundError:
            return ()

    def download_file(self, uri: str, scratch: Path, action: str) -> Path:
        """As `download`, of what is one file if it is there at all: one request, where MLflow's client makes two."""
        with self.translated(action):
            at = self.stored_at(uri)
            if self._light is not None and at.startswith(SERVED) and not at.startswith(f"{SERVED}/"):
                found = scratch / at.rpartition("/")[2]
                try:
                    self._light.save(at, found)
                except RestError:  # not there, or not for this client to read: MLflow's own tells
                    found.unlink(missing_ok=True)
                else:
                    return found
        return self.download(at, scratch, action)

    def download(self, uri: str, scratch: Path, action: str) -> Path:
        """Download a folder of MLflow files (or one file) as kept, below `scratch`; returns where it lies."""
        from mlflow.artifacts import download_artifacts

        with self.translated(action):
            found = Path(
                download_artifacts(
                    artifact_uri=self.stored_at(uri),
                    dst_path=str(scratch),
                    tracking_uri=self.tracking_uri,
                    registry_uri=self.tracking_uri,
                )
            )
        if found.is_file():
            return found
        if found == scratch:  # so that the caller can move the result away
            (inner := scratch / FILES).mkdir()
            for child in [child for child in scratch.iterdir() if child != inner]:
                child.rename(inner / child.name)
            found = inner
        found.mkdir(exist_ok=True)  # MLflow answers a folder that is gone with no folder and no error
        (found / ONLY_IN_DOWNLOADS).unlink(missing_ok=True)
        return found


def pages(search: Callable[..., Any], **arguments: Any) -> list[Any]:
    """Everything that one of the client's searches finds, page by page."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(max_results=PAGE, page_token=token, **arguments)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _is_error(record: logging.LogRecord) -> bool:
    """Amazon's MLflow plugin comes with the sagemaker package and fails, harmlessly, for any server but Amazon's.

    That is one warning for each request.
    """
    return record.levelno >= logging.ERROR


def _limit(name: str, value: str) -> None:
    if os.environ.get(name) in (None, _limits.get(name)):
        os.environ[name] = _limits[name] = value


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
