"""What an operation tells as it goes, in the flow run's log and, for long copies, as a bar in the Prefect UI."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from lockstep.operations.fleet import Event
from tasks.artifacts import artifact_key, kept

LONG: Final = 2.0  # seconds after which a copy gets a bar
EVERY: Final = 1.0  # seconds between two updates of a bar and of the log


@dataclass
class _Bar:
    began: float
    shown: float = 0.0
    artifact: UUID | None = None


class FlowObserver:
    """An observer for lockstep.operations; make it inside a flow, then call it from any thread."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._log: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
        self._bars: dict[str, _Bar] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Log the event; one of many steps on the way is logged once a second at most."""
        prefix = f"{event.cloud}: " if event.cloud and not event.text.startswith(f"{event.cloud}: ") else ""
        if event.total == 0:
            self._log.info("%s%s", prefix, event.text)
            return
        whole = event.done >= event.total
        if self._is_due(event, whole):
            self._log.info("%s%s (%s of %s)", prefix, event.text, f"{event.done:,}", f"{event.total:,}")
            self._draw(event, whole)

    def progress(self, text: str, done: int, total: int) -> None:
        """The same for operations that work on no cloud."""
        self(Event(text, "", done, total))

    def _is_due(self, event: Event, whole: bool) -> bool:
        now = time.monotonic()
        with self._lock:
            bar = self._bars.setdefault(event.cloud, _Bar(now))
            if not whole and now - bar.shown < EVERY:
                return False
            bar.shown = now
            return True

    def _draw(self, event: Event, whole: bool) -> None:
        with self._lock:
            bar = self._bars[event.cloud]
            if whole:
                self._bars.pop(event.cloud)
            if time.monotonic() - bar.began < LONG:
                return
        share = min(100.0, 100.0 * event.done / event.total)
        with kept("progress"):
            if bar.artifact is None:
                key = artifact_key(self._operation, event.cloud, "progress")
                bar.artifact = create_progress_artifact(share, key=key, description=event.text)  # type: ignore[assignment]
            else:
                update_progress_artifact(bar.artifact, share)
