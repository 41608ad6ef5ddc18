"""Read what the load generator wrote: while it runs (the newest lines) and at the end (everything)."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from demo.names import REQUEST_COLUMNS, REQUESTS_FILE

RECENT: Final = 3.0  # seconds that "now" covers


@dataclass(frozen=True)
class Request:
    """One line of the record; `at` is Unix seconds."""

    at: float
    cloud: str
    version: str
    digest: str
    ok: bool
    problem: str


@dataclass
class TrafficRecord:
    """All requests so far; call `refresh()` for those that came since."""

    folder: Path
    requests: list[Request] = field(default_factory=list)
    _offset: int = 0

    def refresh(self) -> None:
        """Read whole lines that were added since the last call."""
        path = self.folder / REQUESTS_FILE
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(self._offset)
            added = stream.read()
        whole, newline, _ = added.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for row in csv.DictReader(whole.decode().splitlines(), fieldnames=REQUEST_COLUMNS):
            if row["time"] != "time":
                at = datetime.fromisoformat(row["time"]).timestamp()
                self.requests.append(
                    Request(at, row["cloud"], row["version"], row["digest"], row["ok"] == "1", row["problem"])
                )

    def failed(self) -> int:
        """Requests that got no answer, or an error."""
        return sum(not request.ok for request in self.requests)

    def recent(self, now: float) -> dict[str, Counter[str]]:
        """Answers of the last seconds: cloud -> version -> count."""
        counts: dict[str, Counter[str]] = {}
        for request in reversed(self.requests):
            if request.at < now - RECENT:
                break
            if request.ok:
                counts.setdefault(request.cloud, Counter())[request.version] += 1
        return counts

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """By cloud and version: how many were sent and failed; a failed request has no version."""
        totals: dict[str, dict[str, dict[str, int]]] = {}
        for request in self.requests:
            key = request.version or "none"
            row = totals.setdefault(request.cloud, {}).setdefault(key, {"sent": 0, "failed": 0})
            row["sent"] += 1
            row["failed"] += not request.ok
        return totals
