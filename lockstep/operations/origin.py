"""Where a model that is to be registered lies in MLflow, and the run that its version belongs to."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from lockstep.errors import NotFoundError, RefusedError
from lockstep.rules.manifest import FileEntry
from lockstep.stores.mlflow_errors import already_exists
from lockstep.stores.registry import Registry

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

#: Text, bytes done, bytes in all (0: unknown).
Progress = Callable[[str, int, int], None]

CONTENT_TAG: Final = "lockstep.content"
FOLDER_IN_RUN: Final = "model"
SOURCES: Final = "runs:/<run_id>/<path>, models:/m-<id>, or a local folder in MLflow's format"


def ignore_progress(_text: str, _done: int, _total: int) -> None:
    """For callers that show nothing."""


@dataclass(frozen=True)
class Origin:
    """`uri` is what MLflow keeps as the version's source; `run_id` is empty while there is no run.

    `folder` is set for files that lie on this machine and are still to be uploaded.
    """

    uri: str
    run_id: str
    folder: Path | None = None


def is_source(text: str) -> bool:
    """Whether a person means where a model lies, and no version: an address, or a folder with a slash in its name."""
    return text.startswith(("runs:/", "models:/", "file://")) or ("/" in text and Path(text).expanduser().is_dir())


def find_origin(registry: Registry, source: str) -> Origin:
    """Resolve what a person wrote; raises NotFoundError naming what there is instead, RefusedError for other forms."""
    if source.startswith("runs:/"):
        return _of_run(registry, source)
    if source.startswith("models:/m-"):
        logged = _logged_model(registry, source.removeprefix("models:/").strip("/"))
        return Origin(f"models:/{logged.model_id}", logged.source_run_id or "")
    if source.startswith("models:/"):
        raise RefusedError(
            f"{source} is a registered version, not what was trained", hint=f"name its origin: {SOURCES}"
        )
    folder = Path(source.removeprefix("file://")).expanduser()
    if folder.is_dir():
        return Origin("", "", folder.resolve())
    if folder.exists():
        raise RefusedError(f"{source} is a file, not a model's folder", hint=f"name one of: {SOURCES}")
    raise NotFoundError(f"there is no folder {source}", hint=f"name one of: {SOURCES}")


@contextlib.contextmanager
def files_of(registry: Registry, origin: Origin, progress: Progress = ignore_progress) -> Iterator[Path]:
    """The model's folder on this machine while the block lasts: its own, or a download."""
    if origin.folder is not None:
        yield origin.folder
        return
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        progress(f"downloading {origin.uri}", 0, 0)
        yield registry.download(origin.uri, Path(scratch), f"give the files of {origin.uri}")


def upload(
    registry: Registry,
    model: str,
    origin: Origin,
    files: tuple[FileEntry, ...],
    content: str,
    experiment: str,
    progress: Progress,
) -> Origin:
    """Give the origin a run, the same one for the same `content`, and log a local folder's files in it.

    Files are written each time: an upload that was cut short is completed, and a changed file is mended.
    """
    client = registry.client
    with registry.translated(f"make a run for {model}"):
        run = _run_of(registry, model, content, experiment)
    run_id, uri = run.info.run_id, origin.uri
    if origin.folder is not None:
        done, total = 0, sum(file.size for file in files)
        for file in files:
            progress(f"uploading {file.path}", done, total)
            parent = PurePosixPath(FOLDER_IN_RUN, file.path).parent.as_posix()
            with registry.translated(f"take {file.path} of {model}"):
                client.log_artifact(run_id, str(origin.folder / file.path), parent)
            done += file.size
        progress(f"uploaded {len(files)} files", done, total)
        uri = f"{(run.info.artifact_uri or '').rstrip('/')}/{FOLDER_IN_RUN}"
    if run.info.status != "FINISHED":
        with registry.translated(f"finish the run {run_id}"):
            client.set_terminated(run_id)
    return replace(origin, uri=uri, run_id=run_id)


def _of_run(registry: Registry, source: str) -> Origin:
    run_id, _, path = source.removeprefix("runs:/").strip("/").partition("/")
    if not run_id or not path or ".." in PurePosixPath(path).parts:
        raise RefusedError(f"{source} names no model in a run", hint="write runs:/<run_id>/<path>, as MLflow's UI does")
    with registry.translated(f"find the run {run_id}"):
        run = registry.client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise RefusedError(
            f"run {run_id} is deleted; its files can vanish at any time", hint=f"mlflow runs restore --run-id {run_id}"
        )
    root = (run.info.artifact_uri or "").rstrip("/")
    if registry.folder_names(f"{root}/{path}", f"list the files of run {run_id}"):
        return Origin(f"{root}/{path}", run_id)
    logged = _logged_models(registry, run)
    for candidate in logged:
        if candidate.name == path:
            return Origin(f"models:/{candidate.model_id}", run_id)
    inside = registry.folder_names(root, f"list the files of run {run_id}")
    known = sorted({*(model.name for model in logged), *(name for name, is_dir in inside if is_dir)} - {"lockstep"})
    raise NotFoundError(
        f"run {run_id} has no model {path!r}; it has {', '.join(known) or 'none'}",
        hint="log the model in it: mlflow.<flavor>.log_model(model, name=...)",
    )


def _logged_models(registry: Registry, run: Run) -> list[LoggedModel]:
    """The run's logged models, the one of the last training step first: names may repeat within a run."""
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    with registry.translated(f"read the logged models of run {run.info.run_id}"):
        latest = sorted(outputs, key=lambda output: output.step, reverse=True)
        return [registry.client.get_logged_model(output.model_id) for output in latest]


def _logged_model(registry: Registry, model_id: str) -> LoggedModel:
    with registry.translated(f"find the logged model {model_id}"):
        return registry.client.get_logged_model(model_id)


def _run_of(registry: Registry, model: str, content: str, experiment: str) -> Run:
    """The one active run with this content. Two processes may both make one: then the older is everybody's."""
    client = registry.client
    home = _experiment(registry, experiment)

    def search() -> list[Run]:
        wanted = f"tags.`{CONTENT_TAG}` = '{content}'"
        found = client.search_runs([home], wanted, order_by=["attributes.start_time ASC"])
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    existing = search()
    if existing:
        return existing[0]
    made = client.create_run(home, run_name=f"register {model}", tags={CONTENT_TAG: content})
    first = search()[0]
    if first.info.run_id != made.info.run_id:
        client.delete_run(made.info.run_id)
    return first


def _experiment(registry: Registry, name: str) -> str:
    client = registry.client
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except Exception as error:
            if not already_exists(error):
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise RefusedError(
            f"MLflow's experiment {name!r} is deleted, so nothing can be logged in it",
            hint="restore it (mlflow experiments restore), or name another experiment",
        )
    return str(found.experiment_id)
