"""Live traffic: `python -m demo.load FOLDER RATE`, until SIGTERM.

Asks every endpoint RATE times a second through its own cloud's official client, notes which version answered, and
writes the outcome (was the answer right?) by request id, as a user's own system would. A request is sent once: what
fails is counted as failed.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import sys
import threading
import time
import uuid
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from demo.model import load_data
from demo.names import MODEL, OUTCOME_COLUMNS, OUTCOMES_FILE, REQUEST_COLUMNS, REQUESTS_FILE
from lockstep.clouds.base import Cloud
from lockstep.config import load

WORKERS = 2  # per cloud, so that one slow answer does not stop the flow


class Sink:
    """Two CSV files, written line by line by many threads."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._files: list[TextIO] = []
        self._requests = self._open(folder / REQUESTS_FILE, REQUEST_COLUMNS)
        self._outcomes = self._open(folder / OUTCOMES_FILE, OUTCOME_COLUMNS)

    def _open(self, path: Path, columns: tuple[str, ...]) -> Any:
        stream = path.open("w", newline="", buffering=1)
        self._files.append(stream)
        writer = csv.writer(stream)
        writer.writerow(columns)
        return writer

    def write(self, request: tuple[object, ...], outcome: tuple[object, ...] | None) -> None:
        """Append one request and, if it was answered, its outcome."""
        with self._lock:
            self._requests.writerow(request)
            if outcome is not None:
                self._outcomes.writerow(outcome)


def ask(
    cloud: Cloud,
    rows: list[dict[str, Any]],
    labels: list[int],
    rate: float,
    sink: Sink,
    stop: threading.Event,
    seed: int,
) -> None:
    """One worker: evenly paced requests with random rows until `stop`."""
    chance = random.Random(seed)
    due = time.monotonic() + chance.random() / rate
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = max(due + 1.0 / rate, time.monotonic() - 1.0)
        which = chance.randrange(len(rows))
        request_id = str(uuid.UUID(int=chance.getrandbits(128)))
        sent = datetime.now(UTC).isoformat()
        began = time.monotonic()
        try:
            answer = cloud.invoke(MODEL, [rows[which]], request_id=request_id)
            right = int(json.loads(answer.body)["predictions"][0]) == labels[which]
        except Exception as error:  # whatever went wrong, it is a failed request and not a worker that falls silent
            problem = (str(error).splitlines() or [""])[0] or type(error).__name__
            sink.write((sent, request_id, cloud.name, "", "", "", 0, time.monotonic() - began, problem), None)
            continue
        sink.write(
            (sent, request_id, cloud.name, answer.slot, answer.label, answer.digest, 1, answer.latency, ""),
            (sent, request_id, cloud.name, answer.slot, int(right)),
        )


def main(folder: Path, rate: float) -> None:
    """Run until SIGTERM or SIGINT; finishes the requests that are under way."""
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    data = load_data()
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in data.live.to_dict("records")
    ]
    labels = [int(label) for label in data.live_labels]
    sink = Sink(folder)
    config = load()
    workers = []
    for name, settings in config.clouds.items():
        cloud = settings.connect(name)
        for number in range(WORKERS):
            seed = zlib.crc32(f"{name}-{number}".encode())
            arguments = (cloud, rows, labels, rate / WORKERS, sink, stop, seed)
            workers.append(threading.Thread(target=ask, args=arguments, name=f"{name}-{number}"))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
