"""How long it takes from a trigger until every cloud is verified on the known-good version, by each way in.

python bench/trigger.py                                    all ways, at instant delays, 20 rounds each
python bench/trigger.py --ways agent --delays real --rounds 3 --json measured.json

W: seconds from the trigger to the last cloud verified on the target. T: the slowest cloud's own switch of traffic, by
the simulated clouds' own clock. Medians and the worst of the rounds. The ways in:

agent        a signed alert is posted to a running `lockstep agent`
no-prefect   the same to an agent whose Prefect API does not answer
automation   an event is posted to Prefect, whose automation runs the rollback's deployment, which the agent takes warm
ui           a run of the deployment is made, as the UI's Run button does; the agent takes it warm

The clouds are simulated on this machine, and so are the delays: `instant` is no delay, `real` 15 s on SageMaker, 20 s
on Azure and 5 s on Vertex AI. What is measured is what the way in and Lockstep add to them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import requests

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.agent_process import NO_REST, RunningAgent, running_agent  # noqa: E402
from bench.scene import FLIPS, Scene, await_true, scene  # noqa: E402
from demo.names import MODEL  # noqa: E402
from demo.processes import free_port  # noqa: E402

WAYS: Final = ("agent", "no-prefect", "automation", "ui")
OF_PREFECT: Final = ("automation", "ui")
TIMEOUT: Final = 180.0
IN_FLIGHT: Final = 0.5  # seconds in which requests end that were sent before


@dataclass(frozen=True)
class Round:
    """One rollback, in seconds; `answered` is how long the trigger itself took to be answered."""

    way: str
    delays: str
    wall: float
    slowest: float
    answered: float
    requests: int
    failed: int

    @property
    def over(self) -> float:
        """What was added to the slowest cloud's own time."""
        return self.wall - self.slowest


class Ways:
    """Each way returns how long the trigger took to be answered, once the rollback has begun to be on its way."""

    def __init__(self, on: Scene, agents: dict[str, RunningAgent]) -> None:
        self._agents = agents
        self._api = f"{on.servers.prefect_url}/api"

    def agent(self) -> float:
        """An alert, signed as Grafana does."""
        return self._post(self._agents["agent"])

    def no_prefect(self) -> float:
        """The same to the other agent."""
        return self._post(self._agents["no-prefect"])

    def automation(self) -> float:
        """An event that prefect.yaml's automation waits for."""
        event = {
            **{"id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "lockstep.alert"},
            **{"resource": {"prefect.resource.id": f"lockstep.model.{MODEL}"}},
            **{"payload": {"model": MODEL, "reason": "benchmark: automation", "fleet": "default"}},
        }
        return _asked(lambda: requests.post(f"{self._api}/events", json=[event], timeout=30))

    def ui(self) -> float:
        """What the Run button sends."""
        found = requests.get(f"{self._api}/deployments/name/lockstep-rollback/rollback", timeout=30).json()
        parameters = {"model": MODEL, "fleet": "default", "reason": "benchmark: Run button"}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return _asked(
            lambda: requests.post(f"{self._api}/deployments/{found['id']}/create_flow_run", json=body, timeout=30)
        )

    @staticmethod
    def _post(agent: RunningAgent) -> float:
        body = agent.alerts.body(MODEL)
        began = time.monotonic()
        agent.post(body)
        return time.monotonic() - began


def _asked(ask: Callable[[], requests.Response]) -> float:
    began = time.monotonic()
    while not (answer := ask()).ok:  # a server on SQLite says now and then that its database is locked
        if time.monotonic() - began > TIMEOUT:
            answer.raise_for_status()
        time.sleep(0.05)
    return time.monotonic() - began


def measure(on: Scene, ways: Ways, way: str, delays: str) -> Round:
    """Put the newer version back, pull the trigger under live traffic, wait for the rollback's outcome."""
    fleet = on.fleet()
    on.put_back(fleet)
    on.flips(delays)
    known = max(entry.number for entry in fleet.ledger.entries(MODEL, last=1))
    began = time.time()
    answered: float = getattr(ways, way.replace("-", "_"))()

    def ended() -> bool:
        return any(entry.number > known for entry in fleet.ledger.entries(MODEL, "rollback.outcome", last=1))

    await_true(ended, TIMEOUT, f"the rollback by {way}")
    verified = on.verified(fleet, began)
    time.sleep(IN_FLIGHT)  # requests that were under way at the end belong to the round
    asked = on.requests_since(began)
    failed = sum(not request.ok for request in asked)
    return Round(way, delays, verified - began, on.switches(began).slowest, answered, len(asked), failed)


def rows(rounds: list[Round]) -> list[dict[str, Any]]:
    """Medians and the worst, by way and delays."""
    found = []
    for way, delays in dict.fromkeys((one.way, one.delays) for one in rounds):
        own = [one for one in rounds if (one.way, one.delays) == (way, delays)]
        over = sorted(one.over for one in own)
        found.append(
            {
                **{"way": way, "delays": delays, "rounds": len(own)},
                **{
                    name: round(statistics.median(getattr(one, name) for one in own), 3) for name in ("wall", "slowest")
                },
                **{"over": round(statistics.median(over), 3), "worst_over": round(over[-1], 3)},
                "answered": round(statistics.median(one.answered for one in own), 3),
                **{"requests": sum(one.requests for one in own), "failed": sum(one.failed for one in own)},
            }
        )
    return found


def goals(found: list[dict[str, Any]]) -> dict[str, bool]:
    """What must hold, as far as it was measured."""
    held = {"no request failed": all(row["failed"] == 0 for row in found)}
    limits = {"agent": 1.0, "no-prefect": 1.0, "automation": 4.0}
    for row in found:
        if row["way"] in limits:
            limit = limits[row["way"]]
            held[f"{row['way']} at {row['delays']} delays: W - T <= {limit:.1f} s"] = row["over"] <= limit
    return held


def show(found: list[dict[str, Any]], held: dict[str, bool]) -> None:
    """The table, for people."""
    names = ("way", "delays", "rounds", "wall", "slowest", "over", "worst_over", "answered", "requests", "failed")
    print("".join(f"{name:>12}" for name in ("way", "delays", "rounds", "W", "T", "W - T", "worst", *names[7:])))
    for row in found:
        cells = [f"{row[name]:.2f} s" if isinstance(row[name], float) else str(row[name]) for name in names]
        print("".join(f"{cell:>12}" for cell in cells))
    for goal, holds in held.items():
        print(f"{'holds ' if holds else 'BROKEN'} {goal}")
    print("Simulated: the clouds, and their delays at `real` "
          f"({', '.join(f'{name} {seconds:g} s' for name, seconds in FLIPS['real'].items())}).")  # fmt: skip


def main() -> int:
    """See the module's docstring; 1 when a goal does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--delays", default="instant", help=f"some of {', '.join(FLIPS)}")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each way")
    parser.add_argument("--json", type=Path, help="file for what was measured")
    options = parser.parse_args()
    wanted = options.ways.split(",")
    if unknown := {*wanted, *options.delays.split(",")} - {*WAYS, *FLIPS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rounds: list[Round] = []
    with scene() as on, ExitStack() as stack:
        on.deploy_both()
        agents = {}
        if {"agent", *OF_PREFECT} & set(wanted):
            on.servers.await_prefect()
            command = [sys.executable, "-m", "lockstep.cli", "init", "--yes"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=180)
            with_prefect = {**on.servers.environment, "PYTHONPATH": str(ROOT)}
            agents["agent"] = stack.enter_context(
                running_agent(on.servers, on.folder, "agent", with_prefect, **NO_REST)
            )
        if "no-prefect" in wanted:
            nobody = {**on.servers.environment, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
            agents["no-prefect"] = stack.enter_context(
                running_agent(on.servers, on.folder, "no-prefect", nobody, **NO_REST)
            )
        ways = Ways(on, agents)
        with on.flowing():
            for delays in options.delays.split(","):
                for way in wanted:
                    for number in range(options.rounds):
                        print(f"{delays} {way} {number + 1}", file=sys.stderr)
                        rounds.append(measure(on, ways, way, delays))
    found = rows(rounds)
    held = goals(found)
    show(found, held)
    if options.json:
        document = {"rounds": [asdict(one) for one in rounds], "rows": found, "goals": held}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
