"""Models and environments: containers with immutable versions.

A version's path (a model's `modelUri`, an environment's image) is set once; tags, properties, description and the
archive flag stay mutable. Nothing here looks at the blobs: Azure does not either when a version is registered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import ArmError, Ask, Operation, ResourceManager, answer, bad_request, not_found, not_implemented
from sandbox.azure.schema import CONTAINER, ENVIRONMENT, MODEL, Fields, check, present
from sandbox.azure.store import Document, Key, Store, changed, document, key
from sandbox.faults import Faults

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
LISTING: Final = frozenset(("$top", "$orderBy", "$skip", "listViewType"))
MUTABLE: Final = ("tags", "properties", "description", "isArchived", "stage")


@dataclass(frozen=True)
class Kind:
    """What differs between models and environments."""

    collection: str
    title: str
    fields: Fields
    immutable: tuple[str, ...]
    refusal: str


MODELS: Final = Kind("models", "Model", MODEL, ("modelUri", "modelType"), "Asset paths cannot be updated.")
ENVIRONMENTS: Final = Kind(
    "environments",
    "Environment",
    ENVIRONMENT,
    ("image", "inferenceConfig", "condaFile", "build", "osType"),
    "Environment version already exists and cannot be changed: register a new version.",
)


class Assets:
    """Serves one kind of versioned asset."""

    def __init__(self, kind: Kind, store: Store, faults: Faults, check_workspace: Callable[[str], None]) -> None:
        self._kind = kind
        self._store = store
        self._faults = faults
        self._check_workspace = check_workspace

    def serve(self, manager: ResourceManager) -> None:
        """Add the operations on containers and versions."""
        containers = f"workspaces/*/{self._kind.collection}"
        name = self._kind.title
        add = manager.add
        add("GET", containers, Operation(f"{name}Containers_List", self._list, LISTING))
        add("GET", f"{containers}/*", Operation(f"{name}Containers_Get", self._get))
        add("PUT", f"{containers}/*", Operation(f"{name}Containers_CreateOrUpdate", self._put_container))
        add("GET", f"{containers}/*/versions", Operation(f"{name}Versions_List", self._list, LISTING))
        add("GET", f"{containers}/*/versions/*", Operation(f"{name}Versions_Get", self._get))
        add("PUT", f"{containers}/*/versions/*", Operation(f"{name}Versions_CreateOrUpdate", self._put_version))
        add("DELETE", f"{containers}/*/versions/*", Operation(f"{name}Versions_Delete", self._delete_version))

    def _place(self, ask: Ask) -> Key:
        self._check_workspace(ask.names[0])
        name, *version = ask.names[1:]
        return key(self._kind.collection, name, *(("versions", version[0]) if version else ()))

    def _get(self, ask: Ask) -> Response:
        found = self._store.get(self._place(ask), ask.stale)
        if found is None:
            kind = f"workspaces/{self._kind.collection}" + ("/versions" if len(ask.names) > 2 else "")
            raise not_found(kind, "/".join(ask.names[1:]))
        return answer(found)

    def _list(self, ask: Ask) -> Response:
        self._check_workspace(ask.names[0])
        if len(ask.names) == 1:
            found = self._store.children(key(self._kind.collection), ask.stale)
        else:
            if self._store.get(key(self._kind.collection, ask.names[1]), ask.stale) is None:
                raise not_found(f"workspaces/{self._kind.collection}", ask.names[1])
            found = self._store.children(key(self._kind.collection, ask.names[1], "versions"), ask.stale)
        view = ask.query.get("listViewType", "ActiveOnly")
        if view != "All":
            found = [d for d in found if bool(d["properties"].get("isArchived")) == (view == "ArchivedOnly")]
        order = ask.query.get("$orderBy", "createdtime desc").lower()
        if order not in ("createdtime desc", "createdtime asc", "createdat desc", "createdat asc"):
            raise not_implemented(f"$orderBy={order}")
        if order.endswith("desc"):
            found = found[::-1]
        start, top = _number(ask, "$skip", 0), _number(ask, "$top", len(found) or 1)
        return answer({"value": found[start : start + top]})

    def _put_container(self, ask: Ask) -> Response:
        check(ask.body, CONTAINER)
        place = self._place(ask)
        self._check_name(ask.names[1])
        with self._store.lock:
            old = self._store.get(place)
            sent = present(ask.body.get("properties") or {})
            new = changed(old, sent) if old is not None else self._container(ask.names[1], sent)
            if not self._ignored(ask):
                self._store.put(place, new)
        return answer(new, 200 if old is not None else 201)

    def _put_version(self, ask: Ask) -> Response:
        check(ask.body, self._kind.fields)
        name, version = ask.names[1:3]
        self._check_name(name)
        if not NAME.fullmatch(version):
            raise bad_request(f"Version '{version}' is invalid.")
        sent = present(ask.body.get("properties") or {})
        place = self._place(ask)
        with self._store.lock:
            old = self._store.get(place)
            if old is not None:
                self._refuse_change(old["properties"], sent)
                new = changed(old, {field: sent[field] for field in MUTABLE if field in sent})
            else:
                new = self._version(name, version, sent)
            if not self._ignored(ask):
                self._store.put(place, new)
                self._count(name, version)
        return answer(new, 200 if old is not None else 201)

    def _delete_version(self, ask: Ask) -> Response:
        place = self._place(ask)
        with self._store.lock:
            if self._store.get(place) is None:
                return answer(None, 204)
            if not self._ignored(ask):
                self._store.remove(place)
        return answer(None, 200)

    def _refuse_change(self, old: Document, sent: Document) -> None:
        for field in self._kind.immutable:
            if field in sent and sent[field] != old.get(field):
                raise ArmError(400, "BadRequest", self._kind.refusal)

    def _version(self, name: str, version: str, sent: Document) -> dict[str, Any]:
        if self._kind is MODELS and not sent.get("modelUri"):
            raise bad_request("The field 'modelUri' of a model version is required.")
        if self._kind is ENVIRONMENTS and not sent.get("image"):
            raise not_implemented("an environment without an image (build context or conda file alone)")
        defaults: Document = {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": False,
            "isAnonymous": False,
        }
        if self._kind is MODELS:
            defaults = {**defaults, "flavors": {}, "modelType": "custom_model"}
        else:
            defaults = {**defaults, "environmentType": "UserCreated", "osType": "Linux"}
        identifier = self._store.id(self._kind.collection, name, "versions", version)
        properties = {**defaults, **sent, "provisioningState": "Succeeded"}
        return document(identifier, f"workspaces/{self._kind.collection}/versions", properties)

    def _container(self, name: str, sent: Document) -> dict[str, Any]:
        defaults: Document = {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": False,
            "nextVersion": "1",
        }
        properties = {**defaults, **sent, "latestVersion": None, "provisioningState": "Succeeded"}
        identifier = self._store.id(self._kind.collection, name)
        return document(identifier, f"workspaces/{self._kind.collection}", properties)

    def _count(self, name: str, version: str) -> None:
        place = key(self._kind.collection, name)
        container = self._store.get(place) or self._container(name, {})
        numbers = [int(d["name"]) for d in self._store.children((*place, "versions")) if d["name"].isdecimal()]
        counted = {"latestVersion": version, "nextVersion": str(max(numbers, default=0) + 1)}
        self._store.put(place, changed(container, counted))

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise bad_request(f"{self._kind.title} name '{name}' is invalid.")

    def _ignored(self, ask: Ask) -> bool:
        return self._faults.take("azure", ask.operation, ("ignore",), "/".join(ask.names[1:])) is not None


def _number(ask: Ask, name: str, default: int) -> int:
    text = ask.query.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise bad_request(f"The query parameter '{name}' must be a number, not '{text}'.")
    return int(text)
