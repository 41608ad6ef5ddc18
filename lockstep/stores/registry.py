"""MLflow as the canonical store of versions: what there is, what it is made of, and which of it should serve.

A version is sealed when its MLflow version carries its manifest's digest as a tag and the manifest itself lies in its
run, with all that registration captured (`captures.py`). MLflow guards neither: tags and artifacts can be changed by
anybody who may edit the run. So nothing read here is believed before it hashes to the digest that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from lockstep.errors import DigestMismatchError, NotFoundError, RefusedError
from lockstep.rules.manifest import SCHEMAS, SHA256, Manifest
from lockstep.rules.state import CHALLENGER, CHAMPION, FALLBACK, DesiredState, Version
from lockstep.stores.captures import Capture, Progress
from lockstep.stores.mlflow_errors import already_exists
from lockstep.stores.mlflow_server import pages
from lockstep.stores.sealed_files import SealedFiles, ignore

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

DIGEST_TAG: Final = "lockstep.digest"
FORMAT_TAG: Final = "lockstep.format"
RESERVED: Final = (DIGEST_TAG, FORMAT_TAG)
DIGEST_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")
LABEL: Final = re.compile(r"v?([0-9]+)")


@dataclass(frozen=True)
class Record:
    """What MLflow says of a version now, sealed or not; `digest` and `schema` are tags, "" where they are gone."""

    label: str
    digest: str
    schema: str
    run_id: str
    source: str


class Registry(SealedFiles):
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

    def records(self, model: str) -> tuple[Record, ...]:
        """Every version of the model as MLflow has it, oldest first; empty for a model that it does not have."""
        return tuple(
            Record(
                str(raw.version),
                raw.tags.get(DIGEST_TAG, ""),
                raw.tags.get(FORMAT_TAG, ""),
                raw.run_id or "",
                raw.source or "",
            )
            for raw in self._raw(model)
        )

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

    # -- changing ----------------------------------------------------------------------------------------------

    def seal(self, capture: Capture, source: str, run_id: str, progress: Progress = ignore) -> Version:
        """Make what was captured a version of its model: kept in the run, then one MLflow version with its digest.

        `source` is where MLflow has the files: `models:/m-<id>`, `runs:/<run_id>/<path>` or an artifact URI. The same
        manifest gives the same version however often and from however many processes it is sealed, also after a call
        that was killed half-way.
        """
        manifest = capture.manifest
        self.keep(capture, run_id, progress)
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

    def _twins(self, manifest: Manifest, source: str, run_id: str) -> list[Version]:
        """Versions that are this manifest, oldest first: the tag alone could have been put on any version."""
        return [
            _version(raw)
            for raw in self._raw(manifest.name)
            if _is_sealed(raw) and (raw.tags[DIGEST_TAG], raw.run_id, raw.source) == (manifest.digest, run_id, source)
        ]


def _is_sealed(raw: ModelVersion) -> bool:
    return raw.tags.get(FORMAT_TAG) in SCHEMAS and bool(SHA256.fullmatch(raw.tags.get(DIGEST_TAG, "")))


def _version(raw: ModelVersion) -> Version:
    return Version(raw.name, str(raw.version), raw.tags[DIGEST_TAG], raw.run_id or "")


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
