"""Make a trained model a sealed version: look at what MLflow has, refuse what no cloud could serve, seal the rest."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rfc8785

from lockstep.errors import ConfigError, DigestMismatchError, NotFoundError, RefusedError
from lockstep.operations.lock import DEFAULT_PLATFORM, check_platform, find_lock
from lockstep.operations.model_folder import check_signature, read_mlmodel, read_needs
from lockstep.operations.origin import Origin, Progress, files_of, find_origin, ignore_progress, upload
from lockstep.operations.provenance import read_code, read_data
from lockstep.rules.manifest import (
    SHA256,
    Environment,
    FileEntry,
    Manifest,
    Tracking,
    case_clashes,
    number_text,
)
from lockstep.rules.state import Version
from lockstep.stores.captures import SIGNATURE, Capture
from lockstep.stores.folders import measure_files
from lockstep.stores.keys import Keys
from lockstep.stores.mlflow_server import ONLY_IN_DOWNLOADS
from lockstep.stores.model_signature import sign_manifest, verify_signature
from lockstep.stores.registry import Registry

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from mlflow.entities import Run

# The narrowest of the clouds' rules: an Azure ML endpoint is named after the model.
MODEL_NAME: Final = re.compile(r"(?=.{3,32}$)[A-Za-z](?:-?[A-Za-z0-9])*")
EXPERIMENT: Final = "lockstep"


def register(
    registry: Registry,
    model: str,
    source: str,
    *,
    keys: Keys,
    code: Path | None = None,
    data: Sequence[str] = (),
    parents: Sequence[str] = (),
    lock: Path | None = None,
    images: Mapping[str, str] | None = None,
    platform: str = DEFAULT_PLATFORM,
    experiment: str = EXPERIMENT,
    progress: Progress = ignore_progress,
) -> Version:
    """Register a trained model as a sealed version of `model`, and return it.

    `source` is `runs:/<run_id>/<path>`, a logged model `models:/m-<id>`, or a local folder in MLflow's format, for
    which a run in `experiment` is made that holds the files. `code` is a folder in the git repository that trained it;
    `data` paths, or `uri[@snapshot]=path` for copies of what lies elsewhere; `parents` versions that it was made
    from, as digests or as whatever `Registry.find` takes of this model; `lock` its hash-pinned requirements where the
    model does not bring its own; `images` the serving image by cloud. The same facts give the same version each time,
    also after a call that was killed; `progress` is told so, as it is of everything that takes a while: text, bytes
    done, bytes in all (0: unknown).

    Raises RefusedError, naming what to change, for a model that cannot be served or built again elsewhere: a name
    that a cloud does not take, no signature, requirements that do not name exact versions, no lock. Raises
    ConfigError without a key to sign with. Nothing is changed then.
    """
    check_model_name(model)
    check_platform(platform)
    signing = signing_key(keys)
    ancestors = _parents(registry, model, parents)
    origin = find_origin(registry, source)
    with files_of(registry, origin, progress) as folder:
        description = read_mlmodel(folder, source)
        check_signature(description, source)
        needs = read_needs(folder, description, source, local=origin.folder is not None)
        locked = find_lock(folder, lock, source, model, needs.python, platform)
        files = _measure(folder, model, progress)
        before = _run(registry, origin.run_id)
        datasets = read_data(data, before, progress)
        trained = read_code(code, before.data.tags if before is not None else {}, progress)
        draft = Manifest(  # whatever cannot be sealed is refused before anything is uploaded
            name=model,
            files=files,
            code=trained.code,
            data=datasets,
            signature_sha256=hashlib.sha256(rfc8785.dumps(description["signature"])).hexdigest(),
            parents=ancestors,
            env=Environment(needs.python, platform, hashlib.sha256(locked).hexdigest(), dict(images or {})),
        )
        if origin.folder is not None or not origin.run_id:
            content = hashlib.sha256(repr((model, origin.uri, files)).encode()).hexdigest()
            origin = upload(registry, model, origin, files, content, experiment, progress)
        manifest = _with_run(registry, draft, origin, str(description.get("mlflow_version") or ""))
        known = _known(registry, model)
        signature = _signature(registry, manifest, origin.run_id, keys, signing)
        capture = Capture(manifest, folder, locked, trained.patch, signature)
        version = registry.seal(capture, origin.uri, origin.run_id, progress)
    registry.manifest(version)  # read back: what was written is what was meant
    for paths in case_clashes(files):
        progress(f"{version}: {' and '.join(paths)} are one file where upper and lower case are", 0, 0)
    verb = "was already registered" if version in known else "registered"
    progress(f"{version} {verb}", manifest.size, manifest.size)
    return version


def check_model_name(model: str) -> None:
    """Refuse a name that one of the clouds would not take."""
    if not MODEL_NAME.fullmatch(model):
        raise RefusedError(
            f"model name {model!r} would not be taken by every cloud",
            hint="use 3 to 32 letters, digits and single dashes, a letter first and no dash at the end"
            f"{_suggested(model)}",
        )


def signing_key(keys: Keys) -> EllipticCurvePrivateKey:
    """The key that signs versions; raises ConfigError with the command that makes one."""
    if keys.signing is None:
        why = f": {'; '.join(keys.problems)}" if keys.problems else ""
        raise ConfigError(
            f"there is no key to sign a version with{why}",
            hint="make it once with `lockstep keys create`, or set keys.signing_key in lockstep.yaml",
        )
    return keys.signing


def _measure(folder: Path, model: str, progress: Progress) -> tuple[FileEntry, ...]:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(f"hashing the files of {model}", done, total)

    return tuple(entry for entry in measure_files(folder, read) if entry.path != ONLY_IN_DOWNLOADS)


def _run(registry: Registry, run_id: str) -> Run | None:
    """The run that a model was logged in; a folder's does not exist yet, and tells nothing about training."""
    if not run_id:
        return None
    with registry.translated(f"read the run {run_id}"):
        return registry.client.get_run(run_id)


def _with_run(registry: Registry, draft: Manifest, origin: Origin, mlflow_version: str) -> Manifest:
    """The manifest with where MLflow has the model, and the parameters and last metrics of its run, as text."""
    run = _run(registry, origin.run_id)
    assert run is not None  # every origin has one by now
    return replace(
        draft,
        mlflow=Tracking(
            run_id=origin.run_id,
            model_id=origin.uri.removeprefix("models:/") if origin.uri.startswith("models:/m-") else "",
            source=origin.uri,
            mlflow_version=mlflow_version,
        ),
        params=dict(run.data.params),
        metrics={name: number_text(value) for name, value in run.data.metrics.items()},
    )


def _signature(
    registry: Registry, manifest: Manifest, run_id: str, keys: Keys, signing: EllipticCurvePrivateKey
) -> bytes:
    """The signature that is kept already, if it holds: replicas have the same one."""
    kept = registry.kept(run_id, manifest.digest, SIGNATURE)
    if kept is not None:
        with contextlib.suppress(DigestMismatchError):
            verify_signature(kept, manifest, keys.signing_public, manifest.name)
            return kept
    return sign_manifest(manifest, signing)


def _parents(registry: Registry, model: str, given: Sequence[str]) -> tuple[str, ...]:
    found = (text if SHA256.fullmatch(text) else registry.find(model, text).digest for text in given)
    return tuple(dict.fromkeys(found))


def _known(registry: Registry, model: str) -> tuple[Version, ...]:
    try:
        return registry.versions(model)
    except NotFoundError:
        return ()


def _suggested(model: str) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", model) if word]
    candidate = "-".join(words)[:32].rstrip("-")
    return f", such as {candidate!r}" if MODEL_NAME.fullmatch(candidate) else ""
