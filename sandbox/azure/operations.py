"""Long-running operations: work in the background, a status address to poll, and the work's outcome."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from werkzeug.wrappers import Response

from sandbox.azure.arm import ArmError, Ask, Operation, ResourceManager, answer
from sandbox.azure.store import Key, Store, now

KEPT: Final = 5000


class OperationError(Exception):
    """The work came to a bad end; `code` and the text are what the status address reports."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class LongRunning:
    """One operation; `result` is the place of the resource that it makes, None for a deletion."""

    name: str
    result: Key | None
    started: str = field(default_factory=now)
    ended: str | None = None
    error: tuple[str, str] | None = None

    @property
    def status(self) -> str:
        """InProgress, Succeeded or Failed."""
        if self.ended is None:
            return "InProgress"
        return "Succeeded" if self.error is None else "Failed"


class Operations:
    """All operations of one subscription and region."""

    def __init__(self, store: Store, subscription: str, region: str) -> None:
        self._store = store
        self._base = f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{region}"
        self._workspace = str(uuid.uuid4())
        self._operations: dict[str, LongRunning] = {}
        self._lock = threading.Lock()

    def serve(self, manager: ResourceManager) -> None:
        """Add the two addresses that clients poll."""
        manager.add("GET", "locations/*/mfeOperationsStatus/*", Operation("mfeOperationsStatus", self._status))
        manager.add("GET", "locations/*/mfeOperationResults/*", Operation("mfeOperationResults", self._result))

    def begin(self, kind: str, work: Callable[[], None] | None, result: Key | None) -> LongRunning:
        """Run `work` in the background (None: it is done already). `kind` is `oe` for endpoints, `od` for deployments.

        `work` reports failure by raising OperationError.
        """
        operation = LongRunning(f"{kind}:{self._workspace}:{uuid.uuid4()}", result)
        with self._lock:
            self._operations[operation.name] = operation
            for name in list(self._operations)[:-KEPT]:
                del self._operations[name]
        if work is None:
            operation.ended = now()
        else:
            threading.Thread(target=_run, args=(operation, work), name=operation.name, daemon=True).start()
        return operation

    def accepted(self, ask: Ask, operation: LongRunning, status: int, body: Any = None) -> Response:
        """The answer that starts a client's polling."""
        version = ask.query["api-version"]
        base = f"{ask.host}{self._base}"
        headers = {
            "Azure-AsyncOperation": f"{base}/mfeOperationsStatus/{operation.name}?api-version={version}",
            "Location": f"{base}/mfeOperationResults/{operation.name}?api-version={version}",
            "x-ms-async-operation-timeout": "PT30M",
        }
        return answer(body, status, headers)

    def _find(self, ask: Ask) -> LongRunning:
        with self._lock:
            operation = self._operations.get(ask.names[-1])
        if operation is None:
            raise ArmError(404, "NotFound", f"Operation '{ask.names[-1]}' was not found.")
        return operation

    def _status(self, ask: Ask) -> Response:
        operation = self._find(ask)
        body: dict[str, Any] = {
            "id": f"{self._base}/mfeOperationsStatus/{operation.name}",
            "name": operation.name,
            "status": operation.status,
            "startTime": operation.started,
            "percentComplete": 0.0 if operation.ended is None else 100.0,
        }
        if operation.ended is not None:
            body["endTime"] = operation.ended
        if operation.error is not None:
            body["error"] = {"code": operation.error[0], "message": operation.error[1]}
        return answer(body)

    def _result(self, ask: Ask) -> Response:
        operation = self._find(ask)
        if operation.ended is None:
            return self.accepted(ask, operation, 202)
        if operation.error is not None:
            raise ArmError(400, *operation.error)
        document = self._store.get(operation.result) if operation.result is not None else None
        return answer(document) if document is not None else answer(None, 204)


def _run(operation: LongRunning, work: Callable[[], None]) -> None:
    try:
        work()
    except OperationError as failure:
        operation.error = (failure.code, str(failure))
    except Exception as error:
        operation.error = ("InternalServerError", f"An internal server error occurred: {error}")
        raise
    finally:
        operation.ended = now()
