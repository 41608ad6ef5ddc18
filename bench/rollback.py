"""How long a rollback takes, by each way in, beside the clouds' own time and a naive script, in one run.

python bench/rollback.py                               all ways, at instant and at realistic delays
python bench/rollback.py --ways warm,cli --rounds 5 --json measured.json
python bench/rollback.py --fleet 1,10                  many models at once as well (50 takes a while to set up)

W: seconds from the trigger to the last cloud verified on the target. T: the slowest cloud's own switch of traffic, by
the simulated clouds' own clock. `window`: from the first cloud that had changed to the last. Medians of the rounds.

The clouds are simulated on this machine, and so are the delays: `instant` is no delay, `real` 15 s on SageMaker, 20 s
on Azure and 5 s on Vertex AI. What is measured is what Lockstep adds to them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import requests

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import many  # noqa: E402
from bench.scene import FLIPS, Scene, scene  # noqa: E402
from demo.addresses import cloud_settings  # noqa: E402
from demo.names import CLOUDS, MODEL  # noqa: E402

WAYS: Final = ("warm", "cli", "deployment", "naive")
SLOW: Final = ("deployment", "naive")  # minutes each: one round does
IN_FLIGHT: Final = 0.5  # seconds in which requests end that were sent before
RUN_TIMEOUT: Final = 300.0


@dataclass(frozen=True)
class Round:
    """One rollback. Seconds; `changed` runs to the last cloud that had changed, verified or not."""

    way: str
    delays: str
    wall: float
    changed: float
    slowest: float
    window: float
    requests: int
    failed: int


@dataclass(frozen=True)
class Row:
    """Medians of one way at one delay."""

    way: str
    delays: str
    rounds: int
    wall: float
    changed: float
    slowest: float
    window: float
    requests: int
    failed: int

    @property
    def over(self) -> float:
        """What was added to the slowest cloud's own time, in seconds."""
        return self.wall - self.slowest

    @property
    def ratio(self) -> float | None:
        """W / T; None at instant delays, where T is next to nothing."""
        return self.wall / self.slowest if self.slowest > 1 else None


class Ways:
    """The ways into one rollback of one scene. Each returns Unix seconds: when the last cloud was verified."""

    def __init__(self, on: Scene) -> None:
        self._scene = on
        self._fleet = on.fleet()
        self._fleet.observe()  # connections are made, as in a process that lives long

    def warm(self, since: float) -> float:
        """The function in a process that has everything imported and connected."""
        from lockstep.operations.rollback import rollback

        rollback(self._fleet, reason="benchmark: warm")
        return self._scene.verified(self._fleet, since)

    def cli(self, since: float) -> float:
        """The command in a fresh process."""
        command = [sys.executable, "-m", "lockstep.cli", "rollback", MODEL, "--reason", "benchmark: cli", "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=RUN_TIMEOUT)
        return self._scene.verified(self._fleet, since)

    def deployment(self, since: float) -> float:
        """The Run button of Prefect's UI: a run of the deployment, taken by a process worker with its default poll."""
        self._run("lockstep-rollback/rollback", {"model": MODEL, "fleet": "default", "reason": "benchmark: Prefect"})
        return self._scene.verified(self._fleet, since)

    def naive(self, since: float) -> float:
        """bench/naive_rollback.py on the same worker; verified is what its SDKs call done."""
        slot = self._scene.versions["v1"].slot
        settings = {name: self._scene.servers.sandbox[name] for name in CLOUDS}
        given = self._scene.folder / "naive.json"
        endpoints = {cloud.name: cloud.endpoint(MODEL) for cloud in self._fleet.clouds}
        given.write_text(json.dumps({"slot": slot, "endpoints": endpoints, "clouds": cloud_settings(settings)}))
        self._run("naive-rollback/naive", {"given": str(given)})
        return time.time()

    def _run(self, deployment: str, parameters: dict[str, str]) -> None:
        api = f"{self._scene.servers.prefect_url}/api"
        found = requests.get(f"{api}/deployments/name/{deployment}", timeout=30).json()
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        made = requests.post(f"{api}/deployments/{found['id']}/create_flow_run", json=body, timeout=30).json()
        deadline = time.monotonic() + RUN_TIMEOUT
        while True:
            answer = requests.get(f"{api}/flow_runs/{made['id']}", timeout=30)
            state: Any = answer.json() if answer.ok else {"state_type": ""}
            if state["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{deployment} did not end within {RUN_TIMEOUT:.0f} s")
            time.sleep(0.1)
        if state["state_type"] != "COMPLETED":
            raise RuntimeError(f"{deployment}: {state['state']['message']}")


def measure(on: Scene, ways: Ways, way: str, delays: str) -> Round:
    """Put the newer version back, then roll back by `way` under live traffic."""
    on.put_back(on.fleet())
    on.flips(delays)
    call: Callable[[float], float] = getattr(ways, way)
    began = time.time()
    ended = call(began)
    time.sleep(IN_FLIGHT)  # requests that were under way at the end belong to the round
    switched = on.switches(began)
    asked = on.requests_since(began)
    return Round(
        way,
        delays,
        wall=ended - began,
        changed=max(switched.ended.values()) - began,
        slowest=switched.slowest,
        window=switched.window,
        requests=len(asked),
        failed=sum(not request.ok for request in asked),
    )


def summarise(rounds: list[Round]) -> Row:
    """Medians; requests and failures are summed up."""

    def middle(name: str) -> float:
        return statistics.median(getattr(one, name) for one in rounds)

    return Row(
        rounds[0].way,
        rounds[0].delays,
        len(rounds),
        *(round(middle(name), 3) for name in ("wall", "changed", "slowest", "window")),
        requests=sum(one.requests for one in rounds),
        failed=sum(one.failed for one in rounds),
    )


@contextmanager
def prefect_ready(on: Scene) -> Iterator[None]:
    """Deployments of the product and of the naive peer, and a worker with its default poll."""
    on.servers.await_prefect()
    subprocess.run(
        [sys.executable, "-m", "lockstep.cli", "init", "--yes"], check=True, stdout=subprocess.DEVNULL, timeout=180
    )
    from bench.naive_rollback import naive_rollback

    naive: Any = naive_rollback.from_source(source=str(ROOT), entrypoint="bench/naive_rollback.py:naive_rollback")
    naive.deploy(name="naive", work_pool_name="lockstep", build=False, push=False, print_next_steps=False)
    command = ["-m", "prefect", "worker", "start", "--pool", "lockstep", "--type", "process", "--name", "bench"]
    worker = on.servers.spawn("worker", command, {**on.servers.environment, "PYTHONPATH": str(ROOT)})
    url = f"{on.servers.prefect_url}/api/work_pools/lockstep/workers/filter"
    worker.await_ready(
        lambda: any(one.get("status") == "ONLINE" for one in requests.post(url, json={}, timeout=10).json())
    )
    try:
        yield
    finally:
        worker.stop()


def goals(rows: list[Row]) -> dict[str, bool]:
    """What must hold, as far as it was measured."""
    found = {(row.way, row.delays): row for row in rows}
    held = {"no request failed": all(row.failed == 0 for row in rows if row.way != "naive")}
    warm, cli = (found.get((way, "real")) for way in ("warm", "cli"))
    held["every W is under 60 s"] = all(row.wall < 60 for row in rows if row.way != "naive")
    if warm is not None:
        held["warm: W - T <= 1.5 s at realistic delays"] = warm.over <= 1.5
        held["warm: W / T <= 1.1 at realistic delays"] = warm.ratio is not None and warm.ratio <= 1.1
    if cli is not None:
        held["cold command: W - T <= 5 s at realistic delays"] = cli.over <= 5.0
    for delays in FLIPS:
        quick, naive = found.get(("warm", delays)), found.get(("naive", delays))
        if quick is not None and naive is not None:
            held[f"warm: W is at most a quarter of the naive script's at {delays} delays"] = (
                naive.wall >= 4 * quick.wall
            )
    return held


def beside_naive(rows: list[Row]) -> list[str]:
    """How much sooner warm is than the naive script, and how much sooner anything could be.

    Two ratios of W, and a harsher one: the naive script's last change, of which nobody knows yet, over warm's W.
    """
    found = {(row.way, row.delays): row for row in rows}
    lines = []
    for delays in FLIPS:
        warm, naive = found.get(("warm", delays)), found.get(("naive", delays))
        if warm is None or naive is None:
            continue
        most = f" ({naive.wall / warm.slowest:.2f} if nothing were added to the slowest cloud)" if warm.ratio else ""
        lines.append(
            f"{delays}: the naive script's W is {naive.wall / warm.wall:.2f} times warm's{most}, "
            f"and its last cloud had changed after {naive.changed / warm.wall:.2f} times warm's W"
        )
    return lines


def show(rows: list[Row], held: dict[str, bool]) -> None:
    """The table, for people."""
    headings = ("way", "delays", "W", "T", "W - T", "W / T", "window", "requests", "failed")
    print("".join(f"{heading:>12}" for heading in headings))
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        seconds = (f"{value:.2f} s" for value in (row.wall, row.slowest, row.over))
        cells = (row.way, row.delays, *seconds, ratio, f"{row.window:.2f} s", str(row.requests), str(row.failed))
        print("".join(f"{cell:>12}" for cell in cells))
    for goal, holds in held.items():
        print(f"{'holds ' if holds else 'BROKEN'} {goal}")
    for line in beside_naive(rows):
        print(line)
    print("Simulated: the clouds, and their delays at `real` "
          f"({', '.join(f'{name} {seconds:g} s' for name, seconds in FLIPS['real'].items())}).")  # fmt: skip


def main() -> int:
    """See the module's docstring; 1 when a goal does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--delays", default=",".join(FLIPS), help=f"some of {', '.join(FLIPS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the quick ways; the slow ones have one")
    parser.add_argument("--fleet", default="", help="numbers of models to roll back at once, such as 1,10,50")
    parser.add_argument("--json", type=Path, help="file for what was measured")
    options = parser.parse_args()
    wanted = [way for way in options.ways.split(",") if way]
    if unknown := {*wanted, *options.delays.split(",")} - {*WAYS, *FLIPS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rounds: dict[tuple[str, str], list[Round]] = {}
    sizes = [int(size) for size in options.fleet.split(",") if size]
    if wanted:
        with scene() as on:
            on.deploy_both()
            ways = Ways(on)
            with on.flowing(), _maybe(prefect_ready(on), any(way in SLOW for way in wanted)):
                for delays in options.delays.split(","):
                    for way in wanted:
                        for number in range(1 if way in SLOW else options.rounds):
                            print(f"{delays} {way} {number + 1}", file=sys.stderr)
                            rounds.setdefault((way, delays), []).append(measure(on, ways, way, delays))
    rows = [summarise(found) for found in rounds.values()]
    held = goals(rows) if rows else {}
    fleets = many.measure(sizes) if sizes else []
    if rows:
        show(rows, held)
    if fleets:
        held |= many.goals(fleets)
        many.show(fleets)
    if options.json:
        document = {
            "rounds": [asdict(one) for found in rounds.values() for one in found],
            "rows": [{**asdict(row), "over": round(row.over, 3), "ratio": row.ratio} for row in rows],
            "beside_naive": beside_naive(rows),
            "fleets": [asdict(one) for one in fleets],
            "goals": held,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(held.values()) else 1


@contextmanager
def _maybe(context: Any, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with context:
        yield


if __name__ == "__main__":
    sys.exit(main())
