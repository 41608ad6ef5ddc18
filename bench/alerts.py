"""What the agent answers while alerts pour in and a rollback runs.

python bench/alerts.py                              200 deliveries a second for 30 seconds
python bench/alerts.py --rate 100 --seconds 10 --json measured.json

Of the deliveries 90 % are alerts of one incident that were delivered before, or are delivered for the first time (so
many as `--alerts` says); 5 % are forged, 5 % are garbage. The first alert starts the rollback, over three simulated
clouds at realistic delays (15 s, 20 s, 5 s), and every other one arrives while it runs or afterwards.

Latencies are from the moment a delivery was due, so that one that had to wait counts with its waiting. The sender runs
on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.agent_process import SOURCE, RunningAgent, running_agent  # noqa: E402
from bench.scene import Scene, await_true, scene  # noqa: E402
from demo.names import MODEL  # noqa: E402

KINDS: Final = ("genuine", "forged", "garbage")
SHARES: Final = (0.90, 0.05, 0.05)
EXPECTED: Final = {"genuine": {202}, "forged": {401}, "garbage": {401, 422}}
GARBAGE: Final = (
    b"",
    b"\x00\xff\xfe",
    b"[" * 5000,
    b'{"alerts": "none"}',
    b'{"alerts": [{}]}',
    b"null",
    b"x" * 100_000,
)
P99: Final = 0.250


@dataclass
class Sent:
    """Answers by kind and status, and seconds from the moment that each delivery was due."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    seconds: list[float] = field(default_factory=list)
    broken: int = 0


@dataclass(frozen=True)
class Load:
    """The whole run; memory in MiB, seconds."""

    sent: int
    statuses: dict[str, dict[int, int]]
    broken: int
    median: float
    p99: float
    worst: float
    rate: float
    rollbacks: int
    alerts: int
    in_ledger: int
    memory_before: float
    memory_most: float


async def send(agent: RunningAgent, rate: float, seconds: float, alerts: int, seed: int) -> Sent:
    """Post at a steady rate, whatever the answers take."""
    draw = random.Random(seed)  # noqa: S311 - a load, not a secret
    genuine = [agent.alerts.body(MODEL) for _ in range(alerts)]
    found = Sent()
    url = f"{agent.address}/hooks/{SOURCE}"
    began = time.monotonic()
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=30), connector=aiohttp.TCPConnector(limit=100)
    ) as session:

        async def one(due: float, kind: str, body: bytes, headers: dict[str, str]) -> None:
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    found.statuses[kind][answer.status] += 1
            except (aiohttp.ClientError, TimeoutError):
                found.broken += 1
            found.seconds.append(time.monotonic() - due)

        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                kind = "genuine" if number == 0 else draw.choices(KINDS, SHARES)[0]
                body = (
                    draw.choice(GARBAGE) if kind == "garbage" else genuine[0 if number == 0 else draw.randrange(alerts)]
                )
                secret = (
                    "" if kind == "genuine" or (draw.random() < 0.5 and kind == "garbage") else "somebody else's secret"
                )
                group.create_task(one(due, kind, body, agent.alerts.signed(body, secret=secret)))
    return found


def measure(on: Scene, agent: RunningAgent, rate: float, seconds: float, alerts: int, seed: int) -> Load:
    """Send, then wait until the rollback has ended and the ledger holds every alert."""
    fleet = on.fleet()
    known = max(entry.number for entry in fleet.ledger.entries(last=1))
    before = memory(agent, "VmRSS")
    Path(f"/proc/{agent.server.process.pid}/clear_refs").write_text("5", encoding="ascii")  # most of it from now on
    on.flips("real")
    clock = time.monotonic()
    sent = asyncio.run(send(agent, rate, seconds, alerts, seed))
    took = time.monotonic() - clock

    def lines(kind: str) -> list[str]:
        found = fleet.ledger.entries(None, kind, last=100_000)  # alerts stand under no model
        return [entry.event_id for entry in found if entry.number > known]

    await_true(lambda: bool(lines("rollback.outcome")), 120, "the rollback's end")
    await_true(lambda: len(lines("alert.received")) >= alerts, 120, f"{alerts} alerts in the ledger")
    return Load(
        sent=len(sent.seconds),
        statuses={kind: dict(sorted(counts.items())) for kind, counts in sent.statuses.items()},
        broken=sent.broken,
        median=round(statistics.median(sent.seconds), 4),
        p99=round(statistics.quantiles(sent.seconds, n=100)[98], 4),
        worst=round(max(sent.seconds), 4),
        rate=round(len(sent.seconds) / took, 1),
        rollbacks=len(lines("rollback.intent")),
        alerts=alerts,
        in_ledger=len(lines("alert.received")),
        memory_before=before,
        memory_most=memory(agent, "VmHWM"),
    )


def memory(agent: RunningAgent, which: str) -> float:
    """MiB that the process holds (`VmRSS`), or held at most (`VmHWM`), as Linux tells."""
    lines = Path(f"/proc/{agent.server.process.pid}/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) / 1024, 1)


def goals(found: Load) -> dict[str, bool]:
    """What must hold."""
    return {
        "every delivery was answered, none by 5xx": found.broken == 0
        and not any(status >= 500 for counts in found.statuses.values() for status in counts),
        "every kind got its answer": all(set(found.statuses[kind]) <= EXPECTED[kind] for kind in KINDS),
        f"99 % of the answers within {P99 * 1000:.0f} ms": found.p99 <= P99,
        "exactly one rollback": found.rollbacks == 1,
        "every genuine alert is in the ledger, once": found.in_ledger == found.alerts,
        "memory grew by less than 100 MiB": found.memory_most - found.memory_before < 100,
    }


def main() -> int:
    """See the module's docstring; 1 when a goal does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="deliveries a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long")
    parser.add_argument("--alerts", type=int, default=300, help="alerts that differ; the others were delivered before")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for what was measured")
    options = parser.parse_args()
    with scene() as on:
        on.deploy_both()
        with running_agent(on.servers, on.folder, "agent", on.servers.environment) as agent:
            found = measure(on, agent, options.rate, options.seconds, options.alerts, options.seed)
    held = goals(found)
    for name, value in asdict(found).items():
        print(f"{name:>14}  {value}")
    for goal, holds in held.items():
        print(f"{'holds ' if holds else 'BROKEN'} {goal}")
    print("Simulated: the clouds, and their delays.")
    if options.json:
        options.json.write_text(json.dumps({**asdict(found), "goals": held}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
