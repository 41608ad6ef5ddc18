"""MLflow as the canonical store of versions: what there is, what it is made of, and which of it should serve.

A version is sealed when its MLflow version carries its manifest's digest as a tag and the manifest itself lies in its
run, with all that registration captured (`captures.py`). MLflow guards neither: tags and artifacts can be changed by
anybody who may edit the run. So nothing read here is believed before it hashes to the digest that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from lockstep.errors import DigestMismatchError, NotFoundError, RefusedError
from lockstep.rules.manifest import SCHEMAS, SHA256, Manifest
from lockstep.rules.naming import described, find_version, listed, seal_hint, unsealed_alias
from lockstep.rules.state import (
    CHALLENGER,
    CHAMPION,
    CONDEMNED_TAG,
    FALLBACK,
    KNOWN_GOOD_TAG,
    VERDICT_TAG,
    DesiredState,
    ModelRecord,
    Version,
    VersionRecord,
)
from lockstep.stores.captures import Capture, Progress
from lockstep.stores.mlflow_errors import already_exists
from lockstep.stores.mlflow_rest import AnyModel, AnyVersion
from lockstep.stores.mlflow_server import pages
from lockstep.stores.sealed_files import SealedFiles, ignore

DIGEST_TAG: Final = "lockstep.digest"
FORMAT_TAG: Final = "lockstep.format"
RESERVED: Final = (DIGEST_TAG, FORMAT_TAG)


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
            raise NotFoundError(f"{model} has no sealed version {label}; it has {listed(known)}", hint=seal_hint(model))
        return known[label]

    def find(self, model: str, text: str) -> Version:
        """The version meant by a label (`3`, `v3`), an alias (`champion`, `@champion`) or 8 or more digits of a digest.

        Raises NotFoundError when nothing fits and RefusedError when several versions do; both list them.
        """
        versions, aliases = self._raw(model), self._aliases(model)
        return find_version(_record(model, versions, DesiredState(model, None), aliases), text)

    def alias(self, model: str, alias: str) -> Version | None:
        """The version that the alias points at, None without such an alias; RefusedError if that one is not sealed."""
        label = self._registered(model).aliases.get(alias)
        return None if label is None else self._behind(model, alias, str(label), self._sealed(model))

    def desired(self, model: str) -> DesiredState:
        """What should serve: champion, challenger and fallback, each None where the alias is not set."""
        return self.record(model).desired

    def record(self, model: str) -> ModelRecord:
        """What should serve, and what is known of every sealed version, in the two calls that the former takes."""
        aliases, raw = self._aliases(model), self._raw(model)
        versions = tuple(_version(one) for one in raw if _is_sealed(one))
        champion, challenger, fallback = (
            self._behind(model, alias, aliases[alias], versions) if alias in aliases else None
            for alias in (CHAMPION, CHALLENGER, FALLBACK)
        )
        return _record(model, raw, DesiredState(model, champion, challenger, fallback), aliases)

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
            self.named(lambda names: names.set_registered_model_alias(version.model, alias, version.label))

    def delete_alias(self, model: str, alias: str) -> None:
        """Remove the alias; one that is not there is as good as removed."""
        if alias in self._registered(model).aliases:
            with self.translated(f"delete the alias {alias!r} of {model}"):
                self.named(lambda names: names.delete_registered_model_alias(model, alias))

    def tag(self, version: Version, key: str, value: str) -> None:
        """Set one tag of the version; Lockstep's own two are refused, since they are its identity."""
        if key in RESERVED:
            raise RefusedError(f"the tag {key} of {version} is its identity and cannot be set by hand")
        self._current(version)
        with self.translated(f"tag {version}"):
            self.named(lambda names: names.set_model_version_tag(version.model, version.label, key, value))

    def untag(self, version: Version, key: str) -> None:
        """Take a tag away; one that is not there is as good as taken away."""
        if key in RESERVED:
            raise RefusedError(f"the tag {key} of {version} is its identity and cannot be taken away")
        if key in self._current(version).tags:
            with self.translated(f"take the tag {key} from {version}"):
                self.named(lambda names: names.delete_model_version_tag(version.model, version.label, key))

    # -- within ------------------------------------------------------------------------------------------------

    def _registered(self, model: str) -> AnyModel:
        try:
            with self.translated(f"read the model {model}"):
                return self.named(lambda names: names.get_registered_model(model))
        except NotFoundError as error:
            raise NotFoundError(
                f"MLflow at {self.address} has no model {model!r}; it has {listed(self.models())}",
                hint=seal_hint(model),
            ) from error

    def _aliases(self, model: str) -> dict[str, str]:
        return {alias: str(label) for alias, label in self._registered(model).aliases.items()}

    def _raw(self, model: str) -> list[AnyVersion]:
        if not model or set("'\"`\\") & set(model):
            raise NotFoundError(f"{model!r} cannot be a model's name; MLflow has {listed(self.models())}")

        def search(**asked: Any) -> Any:
            return self.named(lambda names: names.search_model_versions(**asked))

        with self.translated(f"list the versions of {model}"):
            found = pages(search, filter_string=f"name='{model}'")
            return sorted(found, key=lambda version: int(version.version))

    def _sealed(self, model: str) -> tuple[Version, ...]:
        return tuple(_version(raw) for raw in self._raw(model) if _is_sealed(raw))

    def _behind(self, model: str, alias: str, label: str, versions: Iterable[Version]) -> Version:
        for version in versions:
            if version.label == label:
                return version
        raise unsealed_alias(model, alias, label)

    def _current(self, version: Version) -> AnyVersion:
        """MLflow's record under this number, if it is still this very version."""
        try:
            with self.translated(f"read {version}"):
                raw = self.named(lambda names: names.get_model_version(version.model, version.label))
        except NotFoundError as error:
            known = self.versions(version.model)
            raise NotFoundError(
                f"{version} is no longer in MLflow, which has {described(known)}",
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


def _is_sealed(raw: AnyVersion) -> bool:
    return raw.tags.get(FORMAT_TAG) in SCHEMAS and bool(SHA256.fullmatch(raw.tags.get(DIGEST_TAG, "")))


def _version(raw: AnyVersion) -> Version:
    return Version(raw.name, str(raw.version), raw.tags[DIGEST_TAG], raw.run_id or "")


def _record(model: str, raw: Iterable[AnyVersion], desired: DesiredState, aliases: Mapping[str, str]) -> ModelRecord:
    versions = tuple(
        VersionRecord(
            _version(one),
            one.tags.get(CONDEMNED_TAG, ""),
            one.tags.get(KNOWN_GOOD_TAG, ""),
            one.tags.get(VERDICT_TAG, ""),
        )
        for one in raw
        if _is_sealed(one)
    )
    return ModelRecord(desired, versions, aliases)
