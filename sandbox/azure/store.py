"""The resources of the workspace: JSON documents by path, replaced whole and never changed in place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

Document = Mapping[str, Any]
Key = tuple[str, ...]


def now() -> str:
    """The time as Resource Manager writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def key(*parts: str) -> Key:
    """A resource's place: kinds and names below the workspace; Azure's names ignore case."""
    return tuple(part.lower() for part in parts)


class Store:
    """All documents. Hold `lock` around a read that decides about a write."""

    def __init__(self, workspace_id: str) -> None:
        self.workspace_id: Final = workspace_id
        self.lock: Final = threading.RLock()
        self._documents: dict[Key, Document] = {}
        self._frozen: dict[Key, Document] = {}

    def get(self, at: Key, stale: bool = False) -> Document | None:
        """The document at a place, or None; `stale` reads the state as it was when it was frozen."""
        with self.lock:
            return (self._frozen if stale else self._documents).get(at)

    def children(self, collection: Key, stale: bool = False) -> list[Document]:
        """The documents directly below a collection's place, in the order in which they were made."""
        with self.lock:
            documents = self._frozen if stale else self._documents
            depth = len(collection) + 1
            return [d for at, d in documents.items() if len(at) == depth and at[:-1] == collection]

    def put(self, at: Key, document: Document) -> None:
        """Set the document at a place."""
        with self.lock:
            self._documents[at] = document

    def remove(self, at: Key) -> None:
        """Remove a document and all that lies below it."""
        with self.lock:
            for place in [p for p in self._documents if p[: len(at)] == at]:
                del self._documents[place]

    def freeze(self) -> None:
        """Remember the documents of this moment for stale reads."""
        with self.lock:
            self._frozen = dict(self._documents)

    def id(self, *parts: str) -> str:
        """The full identifier of a resource below the workspace."""
        return "/".join((self.workspace_id, *parts))


def document(identifier: str, kind: str, properties: Document, /, **more: Any) -> dict[str, Any]:
    """A resource in Resource Manager's envelope; `kind` is the type below the provider."""
    stamp = now()
    return {
        "id": identifier,
        "name": identifier.rsplit("/", 1)[-1],
        "type": f"Microsoft.MachineLearningServices/{kind}",
        "properties": dict(properties),
        "systemData": {
            "createdAt": stamp,
            "createdBy": "sandbox",
            "createdByType": "Application",
            "lastModifiedAt": stamp,
        },
        **more,
    }


def changed(old: Document, properties: Document | None = None, **more: Any) -> dict[str, Any]:
    """A copy with some properties and envelope fields replaced."""
    stamp = {**old.get("systemData", {}), "lastModifiedAt": now()}
    return {**old, **more, "properties": {**old["properties"], **(properties or {})}, "systemData": stamp}
