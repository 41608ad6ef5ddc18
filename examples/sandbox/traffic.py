"""Requests to every cloud that serves a model, so that a canary has something to be judged by.

python examples/sandbox/traffic.py churn --rate 5
"""

# ruff: noqa: T201 - a script for people

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, from wherever this is called

from lockstep.clouds.base import Cloud, Row
from lockstep.config import load
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet, open_fleet
from lockstep.operations.probe import with_probe

TOLD_EVERY = 5.0  # seconds


def main() -> int:
    """Ask until the time is over or Ctrl-C; status 1 for a configuration, a model or rows that cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="name that the model has in MLflow")
    parser.add_argument("--rate", type=float, default=5.0, metavar="N", help="requests a second to each cloud")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to end (default: Ctrl-C)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="JSON list of records to ask with")
    options = parser.parse_args()
    if options.rate <= 0:
        parser.error("--rate must be above 0")
    try:
        fleet = open_fleet(load(), options.model)
        rows = read_rows(options.rows) if options.rows else champion_rows(fleet)
    except (LockstepError, OSError, ValueError) as error:
        sys.stderr.write(f"traffic: {error}\n")
        return 1
    return send(fleet, rows, options.rate, time.monotonic() + options.seconds)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The records of a file; raises ValueError for anything else."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise ValueError(f"{path} holds no list of records")
    return tuple(found)


def champion_rows(fleet: Fleet) -> tuple[Row, ...]:
    """What Lockstep probes the champion with: `probe:` of lockstep.yaml, else made up from its signature."""
    champion = fleet.registry.desired(fleet.model).champion
    if champion is None:
        raise ValueError(f"{fleet.model} has no champion yet: deploy a first version, or give --rows")
    return tuple(with_probe(fleet, champion).probe)


def send(fleet: Fleet, rows: Sequence[Row], rate: float, deadline: float) -> int:
    """One row a request, each cloud at its own pace; every few seconds a line says which slots answered how often."""
    stop, seen, lock = threading.Event(), Counter[tuple[str, str]](), threading.Lock()

    def ask(cloud: Cloud) -> None:
        due, number = time.monotonic(), 0
        while not stop.wait(max(0.0, due - time.monotonic())):
            due, number = max(due + 1.0 / rate, time.monotonic() - 1.0), number + 1
            try:
                slot = cloud.invoke(fleet.model, [rows[number % len(rows)]], request_id=str(uuid.uuid4())).slot
            except LockstepError as error:
                slot = f"failed ({error.problem.splitlines()[0]})"
            with lock:
                seen[cloud.name, slot] += 1

    workers = [threading.Thread(target=ask, args=(cloud,), name=cloud.name, daemon=True) for cloud in fleet.clouds]
    for worker in workers:
        worker.start()
    try:
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(TOLD_EVERY, left))
            with lock:
                print(
                    "; ".join(f"{cloud} {slot}: {count}" for (cloud, slot), count in sorted(seen.items())), flush=True
                )
    except KeyboardInterrupt:
        print()
    stop.set()
    for worker in workers:
        worker.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
