"""MLflow as the canonical store of versions: what there is, what it is made of, and which of it should serve.

A version is sealed when its MLflow version carries its manifest's digest as a tag and the manifest itself lies in its
run, as `lockstep/<digest>/manifest.json`. MLflow guards neither: tags and artifacts can be changed by anybody who may
edit the run. So nothing read here is believed before it hashes to the digest that was asked for.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from lockstep.errors import DigestMismatchError, NotFoundError, RefusedError
from lockstep.rules.manifest import SCHEMAS, SHA256, Manifest, read_manifest
from lockstep.rules.state import CHALLENGER, CHAMPION, FALLBACK, DesiredState, Version
from lockstep.stores.folders import FILES, MANIFEST, check_file, verify_files
from lockstep.stores.mlflow_errors import already_exists
from lockstep.stores.mlflow_server import MlflowServer, pages
from lockstep.stores.signature import example_rows

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

DIGEST_TAG: Final = "lockstep.digest"
FORMAT_TAG: Final = "lockstep.format"
RESERVED: Final = (DIGEST_TAG, FORMAT_TAG)
DIGEST_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
SCRATCH: Final = ".fetch-"
LABEL: Final = re.compile(r"v?([0-9]+)")


class Registry(MlflowServer):
    """The versions on one MLflow server; every method is one or a few short calls, and safe to repeat."""

    # -- looking -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Prove with one cheap read that the server answers and lets us in."""
        with self.translated("answer"):
            self.client.search_registered_models(max_results=1)

    def models(self) -> tuple[str, ...]:
        """Names of all registered models, sorted."""
        with self.translated("list its models"):
            return tuple(sorted(model.name for model in pages(self.client.search_registered_models)))

    def versions(self, model: str) -> tuple[Version, ...]:
        """The model's sealed versions, oldest first; raises NotFoundError for a model that MLflow does not have."""
        found = self._sealed(model)
        if not found:
            self._registered(model)
        return found

    def version(self, model: str, label: str) -> Version:
        """The sealed version with that MLflow number; raises NotFoundError naming the versions that there are."""
        known = {version.label: version for version in self.versions(model)}
        if label not in known:
            raise NotFoundError(
                f"{model} has no sealed version {label}; it has {_listed(known)}", hint=_seal_hint(model)
            )
        return known[label]

    def find(self, model: str, text: str) -> Version:
        """The version meant by a label (`3`, `v3`), an alias (`champion`, `@champion`) or 8 or more digits of a digest.

        Raises NotFoundError when nothing fits and RefusedError when several versions do; both list them.
        """
        versions, aliases = self.versions(model), self._registered(model).aliases
        label = LABEL.fullmatch(text)
        alias = aliases.get(text.removeprefix("@"))
        meant = [
            version
            for version in versions
            if str(alias) == version.label
            or (label is not None and label[1] == version.label)
            or (DIGEST_PREFIX.fullmatch(text) and version.digest.startswith(text))
        ]
        if len(meant) == 1:
            return meant[0]
        if len(meant) > 1:
            raise RefusedError(
                f"{text!r} fits several versions of {model}: {_described(meant)}",
                hint="name one of them by its number or by more digits of its digest",
            )
        if alias is not None:
            raise _unsealed_alias(model, text.removeprefix("@"), str(alias))
        raise NotFoundError(
            f"{model} has no version {text!r}; it has {_described(versions)}, aliases: {_listed(sorted(aliases))}",
            hint="name a number, an alias, or at least 8 digits of a digest",
        )

    def alias(self, model: str, alias: str) -> Version | None:
        """The version that the alias points at, None without such an alias; RefusedError if that one is not sealed."""
        label = self._registered(model).aliases.get(alias)
        return None if label is None else self._behind(model, alias, str(label), self._sealed(model))

    def desired(self, model: str) -> DesiredState:
        """What should serve: champion, challenger and fallback, each None where the alias is not set."""
        aliases, versions = self._registered(model).aliases, self._sealed(model)
        champion, challenger, fallback = (
            self._behind(model, alias, str(aliases[alias]), versions) if alias in aliases else None
            for alias in (CHAMPION, CHALLENGER, FALLBACK)
        )
        return DesiredState(model, champion, challenger, fallback)

    def tags(self, version: Version) -> Mapping[str, str]:
        """All tags of the version as MLflow has them now."""
        return dict(self._current(version).tags)

    def url(self, version: Version) -> str:
        """The version's page in MLflow's UI; for a server without one (a database address) its model URI."""
        if not self.address.startswith(("http://", "https://")):
            return f"models:/{version.model}/{version.label}"
        return f"{self.address}/#/models/{quote(version.model, safe='')}/versions/{version.label}"

    def example_rows(self, version: Version) -> tuple[Mapping[str, object], ...]:
        """One row that the version's signature accepts, for a probe; empty for a model that takes no named columns."""
        entry = next((file for file in self.manifest(version).files if file.path == "MLmodel"), None)
        if entry is None:
            return ()
        action = f"give the MLmodel file of {version}"
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            with self.translated(action):
                uri = self.client.get_model_version_download_uri(version.model, version.label)
            files = self.download(f"{uri.rstrip('/')}/{entry.path}", Path(scratch), action)
            check_file(files, entry, str(version))
            return example_rows(files.read_text(encoding="utf-8"))

    # -- bytes -------------------------------------------------------------------------------------------------

    def manifest(self, version: Version) -> Manifest:
        """The version's manifest; raises DigestMismatchError unless it hashes to the digest and names this version."""
        return read_own_manifest(self._sealed_bytes(version), version)

    def fetch(self, version: Version, folder: Path) -> Path:
        """Download the version to `folder/files` and `folder/manifest.json`, checked byte for byte; returns `folder`.

        A folder that already holds exactly this version is left as it is, an older version in it is replaced. Raises
        DigestMismatchError naming the first file that differs, is missing or is too many; nothing is left then.
        """
        sealed = self._sealed_bytes(version)
        manifest = read_own_manifest(sealed, version)
        if _holds(folder, sealed, manifest, version):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            action = f"give the files of {version}"
            with self.translated(action):
                uri = self.client.get_model_version_download_uri(version.model, version.label)
            try:
                files = self.download(uri, Path(scratch), action)
            except NotFoundError:  # some stores say so, others give an empty folder
                (files := Path(scratch) / FILES).mkdir(exist_ok=True)
            verify_files(files, manifest, str(version))
            # In this order a process that is killed leaves a folder that the next call knows for its own.
            (folder / MANIFEST).write_bytes(sealed)
            shutil.rmtree(folder / FILES, ignore_errors=True)
            files.rename(folder / FILES)
        return folder

    # -- changing ----------------------------------------------------------------------------------------------

    def seal(self, manifest: Manifest, source: str, run_id: str) -> Version:
        """Make the manifest a version of its model: kept in the run, then one MLflow version with its digest.

        `source` is where MLflow has the files: `models:/m-<id>`, `runs:/<run_id>/<path>` or an artifact URI. The same
        manifest gives the same version however often and from however many processes it is sealed, also after a call
        that was killed half-way.
        """
        self._keep(manifest, run_id)
        existing = self._twins(manifest, source, run_id)
        if existing:
            return existing[0]
        with self.translated(f"register {manifest.name}"):
            try:
                self.client.create_registered_model(manifest.name)
            except Exception as error:
                if not already_exists(error):
                    raise
            made = self.client.create_model_version(
                manifest.name,
                source,
                run_id=run_id,
                tags={DIGEST_TAG: manifest.digest, FORMAT_TAG: manifest.schema},
                model_id=source.removeprefix("models:/") if source.startswith("models:/m-") else None,
                await_creation_for=0,  # the files are there already; there is nothing to wait for
            )
        first = next(iter(self._twins(manifest, source, run_id)), _version(made))
        if first.label != str(made.version):  # another process, or a retry inside MLflow's client, was quicker
            with self.translated(f"take back the second version of {first}"):
                self.client.delete_model_version(manifest.name, str(made.version))
        return first

    def set_alias(self, version: Version, alias: str) -> None:
        """Point the alias at the version; refused when its number now stands for other bytes."""
        self._current(version)
        with self.translated(f"set the alias {alias!r} of {version}"):
            self.client.set_registered_model_alias(version.model, alias, version.label)

    def delete_alias(self, model: str, alias: str) -> None:
        """Remove the alias; one that is not there is as good as removed."""
        if alias in self._registered(model).aliases:
            with self.translated(f"delete the alias {alias!r} of {model}"):
                self.client.delete_registered_model_alias(model, alias)

    def tag(self, version: Version, key: str, value: str) -> None:
        """Set one tag of the version; Lockstep's own two are refused, since they are its identity."""
        if key in RESERVED:
            raise RefusedError(f"the tag {key} of {version} is its identity and cannot be set by hand")
        self._current(version)
        with self.translated(f"tag {version}"):
            self.client.set_model_version_tag(version.model, version.label, key, value)

    # -- within ------------------------------------------------------------------------------------------------

    def _registered(self, model: str) -> RegisteredModel:
        try:
            with self.translated(f"read the model {model}"):
                return self.client.get_registered_model(model)
        except NotFoundError as error:
            raise NotFoundError(
                f"MLflow at {self.address} has no model {model!r}; it has {_listed(self.models())}",
                hint=_seal_hint(model),
            ) from error

    def _raw(self, model: str) -> list[ModelVersion]:
        if not model or set("'\"`\\") & set(model):
            raise NotFoundError(f"{model!r} cannot be a model's name; MLflow has {_listed(self.models())}")
        with self.translated(f"list the versions of {model}"):
            found = pages(self.client.search_model_versions, filter_string=f"name='{model}'")
            return sorted(found, key=lambda version: int(version.version))

    def _sealed(self, model: str) -> tuple[Version, ...]:
        return tuple(_version(raw) for raw in self._raw(model) if _is_sealed(raw))

    def _behind(self, model: str, alias: str, label: str, versions: Iterable[Version]) -> Version:
        for version in versions:
            if version.label == label:
                return version
        raise _unsealed_alias(model, alias, label)

    def _current(self, version: Version) -> ModelVersion:
        """MLflow's record under this number, if it is still this very version."""
        try:
            with self.translated(f"read {version}"):
                raw = self.client.get_model_version(version.model, version.label)
        except NotFoundError as error:
            known = self.versions(version.model)
            raise NotFoundError(
                f"{version} is no longer in MLflow, which has {_described(known)}",
                hint="it was deleted there; deploy another version, or register its files again",
            ) from error
        found = raw.tags.get(DIGEST_TAG, "none")
        if found != version.digest:
            raise DigestMismatchError(
                f"{version.model} {version.label} has digest {found[:12]} in MLflow, expected {version.digest[:12]}",
                hint="its tag was changed, or the model was deleted and created anew; look with `lockstep versions`",
            )
        return raw

    def _sealed_bytes(self, version: Version) -> bytes:
        run_id = self._current(version).run_id or ""
        path = _manifest_path(version.digest)
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            try:
                return self.download(
                    f"runs:/{run_id}/{path}", Path(scratch), f"give the manifest of {version}"
                ).read_bytes()
            except (NotFoundError, OSError) as error:
                raise DigestMismatchError(
                    f"{version} has no manifest in MLflow (expected {path} in run {run_id or 'none'})",
                    hint="its run was deleted or its tags were changed; register its files again",
                ) from error

    def _keep(self, manifest: Manifest, run_id: str) -> None:
        """Store the manifest in the run. Written each time: the same bytes, and it mends one that was changed."""
        with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
            path = Path(scratch) / MANIFEST
            path.write_bytes(manifest.to_bytes())
            with self.translated(f"keep the manifest of {manifest.name} in run {run_id}"):
                self.client.log_artifact(run_id, str(path), _manifest_path(manifest.digest).rpartition("/")[0])

    def _twins(self, manifest: Manifest, source: str, run_id: str) -> list[Version]:
        """Versions that are this manifest, oldest first: the tag alone could have been put on any version."""
        return [
            _version(raw)
            for raw in self._raw(manifest.name)
            if _is_sealed(raw) and (raw.tags[DIGEST_TAG], raw.run_id, raw.source) == (manifest.digest, run_id, source)
        ]


def read_own_manifest(sealed: bytes, version: Version) -> Manifest:
    """Parse the manifest of `version`; raises DigestMismatchError when it is changed or another model's."""
    manifest = read_manifest(sealed, version.digest)
    if manifest.name != version.model:
        raise DigestMismatchError(
            f"{version} carries the manifest of the model {manifest.name!r}",
            hint=f"its tag {DIGEST_TAG} was changed by hand; register its files again",
        )
    return manifest


def _holds(folder: Path, sealed: bytes, manifest: Manifest, version: Version) -> bool:
    """Whether the folder is this version already; refuses a folder that holds something that is not ours."""
    if not folder.exists() or all(path.name.startswith(SCRATCH) for path in folder.iterdir()):
        return False
    if not (folder / MANIFEST).is_file():
        raise RefusedError(f"{folder} is not empty and holds no {MANIFEST}", hint="name an empty or a new folder")
    if (folder / MANIFEST).read_bytes() != sealed:
        return False
    try:
        verify_files(folder / FILES, manifest, str(version))
    except DigestMismatchError:
        return False
    return True


def _is_sealed(raw: ModelVersion) -> bool:
    return raw.tags.get(FORMAT_TAG) in SCHEMAS and bool(SHA256.fullmatch(raw.tags.get(DIGEST_TAG, "")))


def _version(raw: ModelVersion) -> Version:
    return Version(raw.name, str(raw.version), raw.tags[DIGEST_TAG], raw.run_id or "")


def _manifest_path(digest: str) -> str:
    return f"lockstep/{digest}/{MANIFEST}"


def _unsealed_alias(model: str, alias: str, label: str) -> RefusedError:
    return RefusedError(
        f"alias {alias!r} of {model} points at version {label}, which is not sealed", hint=_seal_hint(model)
    )


def _seal_hint(model: str) -> str:
    return f"register it: lockstep register {model} runs:/<run_id>/<path>"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _described(versions: Iterable[Version]) -> str:
    return _listed(f"{version.label} ({version.digest[:12]})" for version in versions)
