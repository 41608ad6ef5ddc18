"""The model registry: models, their immutable versions, and the aliases that point at versions."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.gcp.errors import GoogleError, invalid, not_emulated, precondition
from sandbox.gcp.gcs_objects import StorageError, Store
from sandbox.gcp.vertex_names import (
    ALIAS,
    MODEL_ID,
    JsonObject,
    check_display_name,
    check_labels,
    etag_of,
    filter_of,
    mask_fields,
    now_text,
    ordered,
    page_of,
)
from sandbox.gcp.vertex_operations import EMPTY, Operation, Operations
from sandbox.world import World

IMAGE: Final = re.compile(
    r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)/[^\s@:]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?"
)
UPDATABLE: Final = ("displayName", "description", "labels", "versionDescription")
#: what a client may give a version; the rest of the published schema is not emulated
UPLOADED: Final = {
    "name",
    "displayName",
    "description",
    "versionDescription",
    "versionAliases",
    "labels",
    "artifactUri",
    "containerSpec",
    "predictSchemata",
    "metadataSchemaUri",
    "metadata",
    "etag",
}
CONTAINER: Final = {
    "imageUri",
    "command",
    "args",
    "env",
    "ports",
    "predictRoute",
    "healthRoute",
    "deploymentTimeout",
} | {
    "sharedMemorySizeMb",
    "startupProbe",
    "healthProbe",
    "livenessProbe",
}


@dataclass
class Model:
    """A model: its versions by number, and which of them each alias means."""

    id: str
    created: str
    versions: dict[str, JsonObject] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    last: int = 0


class Models:
    """Uploads, reads and changes models. `deployed` tells where a version is deployed: (endpoint name, deployed id)."""

    def __init__(self, world: World, store: Store, operations: Operations, parent: str) -> None:
        self._world = world
        self._store = store
        self._operations = operations
        self._parent = parent
        self._lock = threading.RLock()
        self._models: dict[str, Model] = {}
        self._frozen: dict[str, dict[str, JsonObject]] = {}
        self.deployed: Callable[[str, str | None], list[tuple[str, str]]] = lambda model, version: []

    # --- reads

    def freeze(self) -> None:
        """Remember what reads show while they are stale."""
        with self._lock:
            self._frozen = {name: self._versions_json(model) for name, model in self._models.items()}

    def _shown(self) -> dict[str, dict[str, JsonObject]]:
        if self._world.faults.since("gcp", "stale", "GetModel") is not None:
            return self._frozen
        with self._lock:
            return {name: self._versions_json(model) for name, model in self._models.items()}

    def _versions_json(self, model: Model) -> dict[str, JsonObject]:
        return {number: self._json(model, number) for number in model.versions}

    def _json(self, model: Model, number: str) -> JsonObject:
        content: JsonObject = {
            "name": f"{self._parent}/models/{model.id}",
            "createTime": model.created,
            "versionId": number,
            **model.versions[number],
        }
        aliases = sorted(alias for alias, at in model.aliases.items() if at == number)
        if aliases:
            content["versionAliases"] = aliases
        refs = [{"endpoint": e, "deployedModelId": d} for e, d in self.deployed(model.id, number)]
        if refs:
            content["deployedModels"] = refs
        return {**content, "etag": etag_of(content)}

    def get(self, name: str) -> JsonObject:
        """A model version by `model`, `model@3` or `model@alias`."""
        model_id, _, version = name.partition("@")
        versions = self._shown().get(model_id)
        if versions is None:
            raise self._missing(name)
        for number, content in versions.items():
            if (version or "default") in (number, *content.get("versionAliases", ())):
                return content
        raise self._missing(name)

    def _missing(self, name: str) -> GoogleError:
        return GoogleError("NOT_FOUND", f"The Model {self._parent}/models/{name} is not found.")

    def list(self, query: Mapping[str, str]) -> JsonObject:
        """ListModels: the default version of each."""
        fields = {"model": "name", "display_name": "displayName", "displayName": "displayName"}
        matches = filter_of(query.get("filter"), fields, "ListModels")
        shown = [self._default(versions) for versions in self._shown().values()]
        found = ordered([m for m in shown if matches(m)], query.get("orderBy"), "ListModels")
        return page_of(found, query, "models")

    @staticmethod
    def _default(versions: Mapping[str, JsonObject]) -> JsonObject:
        return next(content for content in versions.values() if "default" in content.get("versionAliases", ()))

    def list_versions(self, name: str, query: Mapping[str, str]) -> JsonObject:
        """ListModelVersions, newest first."""
        versions = self._shown().get(name.partition("@")[0])
        if versions is None:
            raise self._missing(name)
        matches = filter_of(query.get("filter"), {"display_name": "displayName"}, "ListModelVersions")
        found = [c for c in sorted(versions.values(), key=lambda c: -int(c["versionId"])) if matches(c)]
        if query.get("orderBy") not in (None, "", "create_time desc"):
            found = ordered(found, query["orderBy"], "ListModelVersions")
        return page_of(found, query, "models")

    def resolve(self, name: str) -> tuple[str, str, JsonObject]:
        """(model id, version number, content) as it is now, for a deployment; NOT_FOUND otherwise."""
        model_id, _, version = name.partition("@")
        with self._lock:
            model = self._models.get(model_id)
            if model is None:
                raise self._missing(name)
            number = model.aliases.get(version or "default", version)
            if number not in model.versions:
                raise self._missing(name)
            return model_id, number, self._json(model, number)

    # --- uploads

    def upload(self, body: JsonObject) -> Operation:
        """UploadModel: a new model, or with `parentModel` a new version of one."""
        content: JsonObject = dict(body.get("model") or {})
        self._check_upload(content)
        model_id, is_new = self._target(body)
        aliases = list(content.pop("versionAliases", []))
        for alias in aliases:
            _check_alias(alias)

        def work(operation: Operation) -> None:
            self._world.stop.wait(self._world.delays.seconds("gcp.model.upload"))
            self._check_artifact(content.get("artifactUri"))
            fault = self._world.faults.take("gcp", "UploadModel", ("ignore", "revert", "busy"), model_id)
            if fault is not None and fault.kind == "busy":
                self._world.stop.wait(fault.delay)
            if fault is not None and fault.kind == "revert":
                raise GoogleError("INTERNAL", "Internal error encountered.")
            lost = fault is not None and fault.kind == "ignore"
            number = self._add(model_id, content, aliases, is_new=is_new, lost=lost)
            name = f"{self._parent}/models/{model_id}"
            operation.finish("UploadModelResponse", {"model": name, "modelVersionId": number})

        return self._operations.begin(f"{self._parent}/models/{model_id}", "UploadModel", work)

    def _target(self, body: JsonObject) -> tuple[str, bool]:
        parent, wanted = body.get("parentModel"), body.get("modelId")
        if parent and wanted:
            raise invalid("`model_id` must not be set together with `parent_model`.")
        with self._lock:
            if parent:
                model_id = str(parent).rpartition("/models/")[2].partition("@")[0]
                if model_id not in self._models:
                    raise self._missing(model_id)
                return model_id, False
            if wanted and not MODEL_ID.fullmatch(str(wanted)):
                raise invalid(
                    f'Invalid model ID "{wanted}": up to 63 characters of [a-z0-9_-], the first not a number or hyphen.'
                )
            model_id = str(wanted or secrets.randbelow(9 * 10**18) + 10**18)
            if model_id in self._models:
                raise GoogleError("ALREADY_EXISTS", f"The Model {self._parent}/models/{model_id} already exists.")
            return model_id, True

    def _check_upload(self, content: JsonObject) -> None:
        unknown = sorted(set(content) - UPLOADED)
        spec = content.get("containerSpec")
        if unknown or (spec and set(spec) - CONTAINER):
            raise not_emulated(f"UploadModel with {unknown[0] if unknown else sorted(set(spec or ()) - CONTAINER)[0]}")
        check_display_name(content.get("displayName"), "Model")
        check_labels(content.get("labels", {}))
        if not spec:
            raise invalid("The container_spec is required for a custom-trained Model.")
        if not IMAGE.fullmatch(str(spec.get("imageUri", ""))):
            raise invalid(
                f'Invalid image URI "{spec.get("imageUri", "")}". '
                "The image must be in Artifact Registry or Container Registry."
            )
        uri = content.get("artifactUri")
        if uri is not None and not re.fullmatch(r"gs://[^/]+(/.*)?", uri):
            raise invalid(f'Invalid artifact_uri "{uri}": it must be a Cloud Storage directory, gs://bucket/path.')
        for route in ("predictRoute", "healthRoute"):
            if not str(spec.get(route, "/")).startswith("/"):
                raise invalid(f'Invalid {route} "{spec[route]}": it must start with "/".')

    def _check_artifact(self, uri: str | None) -> None:
        if uri is None:
            return
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        folder = prefix.rstrip("/") + "/" if prefix else ""
        try:
            found = any(stored.name.startswith(folder) for stored in self._store.listing(bucket))
        except StorageError as error:
            raise precondition(f'Could not read "{uri}": {error.message}') from None
        if not found:
            raise precondition(f'There are no files under "{uri}" to copy.')

    def _add(self, model_id: str, content: JsonObject, aliases: Iterable[str], *, is_new: bool, lost: bool) -> str:
        with self._lock:
            model = self._models.get(model_id)
            if is_new and model is not None:
                raise GoogleError("ALREADY_EXISTS", f"The Model {self._parent}/models/{model_id} already exists.")
            if model is None and not is_new:
                raise self._missing(model_id)
            now = now_text()
            model = model or Model(model_id, now)
            number = str(model.last + 1)
            if lost:
                return number
            model.last += 1
            model.versions[number] = {
                **{k: v for k, v in content.items() if k not in ("name", "etag")},
                "versionCreateTime": now,
                "versionUpdateTime": now,
                "updateTime": now,
                "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
                "supportedInputStorageFormats": [
                    "jsonl",
                    "bigquery",
                    "csv",
                    "tf-record",
                    "tf-record-gzip",
                    "file-list",
                ],
                "supportedOutputStorageFormats": ["jsonl", "bigquery"],
                "modelSourceInfo": {"sourceType": "CUSTOM"},
            }
            for alias in {*aliases, *(() if model.aliases else ("default",))}:
                model.aliases[alias] = number
            self._models[model_id] = model
            return number

    # --- changes

    def update(self, name: str, body: JsonObject, mask: str | None) -> JsonObject:
        """UpdateModel: names, descriptions and labels only; the artifact and the image are immutable."""
        fields = mask_fields(mask, UPDATABLE)
        model_id, number, current = self.resolve(name)
        if body.get("etag") and body["etag"] != current["etag"]:
            raise GoogleError("ABORTED", f"The etag of the Model {current['name']} does not match; read it again.")
        if "displayName" in fields:
            check_display_name(body.get("displayName"), "Model")
        if "labels" in fields:
            check_labels(body.get("labels", {}))
        with self._lock:
            changes: JsonObject = {f: body[f] for f in fields if f in body}
            if self._world.faults.take("gcp", "UpdateModel", ("ignore", "revert"), model_id):
                return {**current, **changes}
            version = self._models[model_id].versions[number]
            for cleared in fields:
                version.pop(cleared, None)
            version.update(changes, updateTime=now_text(), versionUpdateTime=now_text())
            return self._json(self._models[model_id], number)

    def merge_aliases(self, name: str, body: JsonObject) -> JsonObject:
        """MergeVersionAliases: `alias` moves or adds one, `-alias` removes one; `default` always stays somewhere."""
        model_id, _, number = name.partition("@")
        if not number.isdigit():
            raise invalid(f'The model name "{name}" must include a version ID, e.g. models/{model_id}@1.')
        wanted = [str(alias) for alias in body.get("versionAliases", [])]
        if not wanted:
            raise invalid("The version_aliases are required.")
        for alias in wanted:
            _check_alias(alias.removeprefix("-"))
        _, _, current = self.resolve(name)
        with self._lock:
            model = self._models[model_id]
            if "-default" in wanted:
                raise invalid('The "default" version alias cannot be removed; assign it to another version instead.')
            if self._world.faults.take("gcp", "MergeVersionAliases", ("ignore", "revert"), model_id):
                shown = {*current.get("versionAliases", ()), *wanted} - {
                    a.removeprefix("-") for a in wanted if a[0] == "-"
                }
                return {**current, "versionAliases": sorted(a for a in shown if a[0] != "-")}
            for alias in wanted:
                if not alias.startswith("-"):
                    model.aliases[alias] = number
                elif model.aliases.get(alias[1:]) == number:
                    del model.aliases[alias[1:]]
            model.versions[number]["versionUpdateTime"] = now_text()
            return self._json(model, number)

    def delete(self, name: str) -> Operation:
        """DeleteModel with all its versions; not while one of them is deployed."""
        with self._lock:
            if name not in self._models:
                raise self._missing(name)
            self._refuse_deployed(name, None)

        def work(operation: Operation) -> None:
            with self._lock:
                self._refuse_deployed(name, None)
                if not self._world.faults.take("gcp", "DeleteModel", ("ignore",), name):
                    self._models.pop(name, None)
            operation.finish(EMPTY, {})

        return self._operations.begin(f"{self._parent}/models/{name}", "Delete", work)

    def delete_version(self, name: str) -> Operation:
        """DeleteModelVersion: not the only version, not the default one, not a deployed one."""
        model_id, _, version = name.partition("@")
        if not version:
            raise invalid(f'The model name "{name}" must include a version ID or version alias.')
        _, number, content = self.resolve(name)

        def check() -> None:
            if len(self._models[model_id].versions) == 1:
                raise precondition(
                    f"The version {number} is the only version of the Model {content['name']}; "
                    "use DeleteModel to delete the Model instead."
                )
            if self._models[model_id].aliases.get("default") == number:
                raise precondition(f"The default version {number} of the Model {content['name']} cannot be deleted.")
            self._refuse_deployed(model_id, number)

        def work(operation: Operation) -> None:
            with self._lock:
                check()
                if not self._world.faults.take("gcp", "DeleteModelVersion", ("ignore",), model_id):
                    model = self._models[model_id]
                    model.versions.pop(number, None)
                    model.aliases = {alias: at for alias, at in model.aliases.items() if at != number}
            operation.finish(EMPTY, {})

        with self._lock:
            check()
        return self._operations.begin(f"{self._parent}/models/{model_id}", "Delete", work)

    def _refuse_deployed(self, model_id: str, version: str | None) -> None:
        at = self.deployed(model_id, version)
        if at:
            endpoints = ", ".join(sorted({endpoint for endpoint, _ in at}))
            raise precondition(
                f"The Model {self._parent}/models/{model_id}{'@' + version if version else ''} is deployed or being "
                f"deployed at the following Endpoint(s): {endpoints}."
            )


def _check_alias(alias: Any) -> None:
    if not ALIAS.fullmatch(str(alias)):
        raise invalid(
            f'Invalid version alias "{alias}": it must match [a-z][a-zA-Z0-9-]{{0,126}}[a-z0-9].',
        )
