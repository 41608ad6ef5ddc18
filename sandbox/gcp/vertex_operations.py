"""Long-running operations: each is carried by a thread of its own, and read back by polling or waiting."""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from sandbox.gcp.discovery import PACKAGE
from sandbox.gcp.errors import GoogleError
from sandbox.gcp.vertex_names import JsonObject, now_text


class Operation:
    """One long-running operation. `stage` is shown in the metadata of a deployment."""

    def __init__(self, name: str, kind: str) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.created: Final = now_text()
        self.stage: str | None = None
        self.updated = self.created
        self.response: JsonObject | None = None
        self.error: JsonObject | None = None
        self.done: Final = threading.Event()

    def at_stage(self, stage: str) -> None:
        """Say how far a deployment has come."""
        self.stage = stage
        self.updated = now_text()

    def finish(self, kind: str, response: JsonObject) -> None:
        """End well, with a response of the given message type."""
        self.response = {"@type": kind if "/" in kind else PACKAGE + kind, **response}
        self.updated = now_text()
        self.done.set()

    def fail(self, error: GoogleError) -> None:
        """End with an error."""
        self.error = error.rpc
        self.updated = now_text()
        self.done.set()

    def as_json(self) -> JsonObject:
        """google.longrunning.Operation."""
        done = self.done.is_set()
        metadata: JsonObject = {
            "@type": f"{PACKAGE}{self.kind}OperationMetadata",
            "genericMetadata": {"createTime": self.created, "updateTime": self.updated},
        }
        if self.stage is not None:
            metadata["deploymentStage"] = self.stage
        answer: JsonObject = {"name": self.name, "metadata": metadata}
        if done:
            answer["done"] = True
            answer.update({"error": self.error} if self.error is not None else {"response": self.response})
        return answer


EMPTY: Final = "type.googleapis.com/google.protobuf.Empty"


class Operations:
    """All operations, by their name without the project."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._operations: dict[str, Operation] = {}

    def begin(self, parent: str, kind: str, work: Callable[[Operation], None]) -> Operation:
        """Start `work` in a thread; it ends the operation, or raises GoogleError to end it with an error."""
        operation = Operation(f"{parent}/operations/{secrets.randbelow(9 * 10**18) + 10**18}", kind)
        self._operations[operation.name] = operation

        def carry() -> None:
            try:
                work(operation)
            except GoogleError as error:
                operation.fail(error)
            except Exception:
                traceback.print_exc()
                operation.fail(GoogleError("INTERNAL", "Internal error encountered."))

        threading.Thread(target=carry, name=kind, daemon=True).start()
        return operation

    def get(self, name: str) -> Operation:
        """The operation; NOT_FOUND when there is none."""
        try:
            return self._operations[name]
        except KeyError:
            raise GoogleError("NOT_FOUND", f"The operation {name} does not exist.") from None

    def wait(self, operation: Operation, seconds: float) -> None:
        """Return when the operation is done, when `seconds` have passed, or when the sandbox stops."""
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and time.monotonic() < deadline:
            if operation.done.wait(min(0.25, max(0.0, deadline - time.monotonic()))):
                return

    def delete(self, name: str) -> None:
        """Forget a finished operation."""
        if not self.get(name).done.is_set():
            raise GoogleError("FAILED_PRECONDITION", f"The operation {name} is still running.")
        del self._operations[name]

    def listing(self, parent: str) -> list[Operation]:
        """Operations under a resource."""
        return [o for name, o in list(self._operations.items()) if name.startswith(parent + "/operations/")]
