"""What the agent answers while alerts pour in and a rollback runs.

python bench/alerts.py                              200 deliveries a second for 30 seconds
python bench/alerts.py --rate 100 --seconds 10 --json measured.json

Of the deliveries 90 % are alerts of one incident that were delivered before, or are delivered for the first time (so
many as `--alerts` says), each signed anew; 5 % are forged, 5 % are garbage. The first alert starts the rollback, over
three simulated clouds at realistic delays (15 s, 20 s, 5 s), and every other one arrives while it runs or afterwards.

Beside it, in the same run and from the same sender, at the same rate and for a third of the time:
bare    a server of the same kind that reads a body and answers 202 (bench/bare.py), before the storm
storm   the agent, while it rolls back
calm    the agent again, when the rollback has ended and all alerts are known

Latencies are from the moment a delivery was due, so that one that had to wait counts with its waiting. `cpu` is
what the answering process took, user and system, per delivery: in the storm that holds the rollback's own work. The
sender, the clouds and everything else run on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.agent_process import SOURCE, RunningAgent, running_agent  # noqa: E402
from bench.load import request, send  # noqa: E402
from bench.scene import Scene, await_true, scene  # noqa: E402
from demo.names import MODEL  # noqa: E402
from demo.processes import free_port  # noqa: E402

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


@dataclass(frozen=True)
class Delivery:
    """A whole request, and what it is."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Answered:
    """How deliveries were answered; seconds, `broken` without an answer, `cpu` of the answering process for each."""

    sent: int
    statuses: dict[str, dict[int, int]]
    broken: int
    rate: float
    median: float
    p99: float
    worst: float
    cpu: float


@dataclass(frozen=True)
class Load:
    """The whole run; memory in MiB."""

    bare: Answered
    storm: Answered
    calm: Answered
    rollbacks: int
    alerts: int
    in_ledger: int
    memory_before: float
    memory_most: float

    def ratios(self) -> dict[str, float]:
        """To the bare server."""
        return {
            "storm's p99 / bare p99": round(self.storm.p99 / self.bare.p99, 1),
            "calm p99 / bare p99": round(self.calm.p99 / self.bare.p99, 1),
            "calm cpu / bare cpu": round(self.calm.cpu / self.bare.cpu, 1),
        }


def deliveries(agent: RunningAgent, bodies: Sequence[bytes], count: int, draw: random.Random) -> list[Delivery]:
    """So many whole requests, the first of them genuine; signed now, so send them within Grafana's five minutes."""
    url = f"{agent.address}/hooks/{SOURCE}"
    made = []
    for number in range(count):
        kind = "genuine" if number == 0 else draw.choices(KINDS, SHARES)[0]
        if kind == "garbage":
            body = draw.choice(GARBAGE)
        else:  # an alert that is told again is another delivery: the time since it began, say, is another one
            body = bodies[0 if number == 0 else draw.randrange(len(bodies))]
            body = body.replace(b'"message": ""', f'"message": "told by {number}"'.encode())
        genuine = kind == "genuine" or (kind == "garbage" and draw.random() < 0.5)
        headers = agent.alerts.signed(body, secret="" if genuine else "somebody else's secret")
        made.append(Delivery(kind, request("POST", url, headers, body)))
    return made


def sent(address: str, made: Sequence[Delivery], rate: float, pid: int) -> Answered:
    """Send them all to the process of that number."""
    before = cpu(pid)
    found = asyncio.run(send(address, [one.data for one in made], rate))
    took = cpu(pid) - before
    counts = {kind: Counter[int]() for kind in KINDS}
    for one, status in zip(made, found.statuses, strict=True):
        counts[one.kind][status] += 1
    return Answered(
        sent=len(made),
        statuses={kind: dict(sorted(count.items())) for kind, count in counts.items()},
        broken=found.statuses.count(0),
        rate=round(len(made) / found.took, 1),
        median=round(statistics.median(found.seconds), 4),
        p99=round(statistics.quantiles(found.seconds, n=100)[98], 4),
        worst=round(max(found.seconds), 4),
        cpu=round(took / len(made), 6),
    )


def sent_to_bare(on: Scene, made: Sequence[Delivery], rate: float) -> Answered:
    """Send them all to a server that does nothing with them."""
    port = free_port()
    server = on.servers.spawn("bare", [str(ROOT / "bench" / "bare.py"), str(port)], {})
    address = f"http://127.0.0.1:{port}"
    try:
        server.await_ready(lambda: asyncio.run(send(address, [made[0].data], rate)).statuses == [202])
        return sent(address, made, rate, server.process.pid)
    finally:
        server.stop()


def measure(on: Scene, agent: RunningAgent, rate: float, seconds: float, alerts: int, seed: int) -> Load:
    """Send, then wait until the rollback has ended and the ledger holds every alert."""
    draw = random.Random(seed)  # noqa: S311 - a load, not a secret
    bodies = [agent.alerts.body(MODEL) for _ in range(alerts)]
    few, pid = int(rate * seconds / 3), agent.server.process.pid
    bare = sent_to_bare(on, deliveries(agent, bodies, few, draw), rate)
    fleet = on.fleet()
    known = max(entry.number for entry in fleet.ledger.entries(last=1))
    before = memory(agent, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # most of it from now on
    on.flips("real")
    storm = sent(agent.address, deliveries(agent, bodies, int(rate * seconds), draw), rate, pid)

    def lines(kind: str) -> list[str]:
        found = fleet.ledger.entries(None, kind, last=100_000)  # alerts stand under no model
        return [entry.event_id for entry in found if entry.number > known]

    await_true(lambda: bool(lines("rollback.outcome")), 120, "the rollback's end")
    await_true(lambda: len(lines("alert.received")) >= alerts, 120, f"{alerts} alerts in the ledger")
    calm = sent(agent.address, deliveries(agent, bodies, few, draw), rate, pid)
    return Load(
        bare=bare,
        storm=storm,
        calm=calm,
        rollbacks=len(lines("rollback.intent")),
        alerts=alerts,
        in_ledger=len(lines("alert.received")),
        memory_before=before,
        memory_most=memory(agent, "VmHWM"),
    )


def cpu(pid: int) -> float:
    """Seconds, user and system, that the process has taken so far, as Linux tells."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(agent: RunningAgent, which: str) -> float:
    """MiB that the process holds (`VmRSS`), or held at most (`VmHWM`), as Linux tells."""
    lines = Path(f"/proc/{agent.server.process.pid}/status").read_text(encoding="utf-8").splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:")) / 1024, 1)


def goals(found: Load) -> dict[str, bool]:
    """What must hold."""
    storm = found.storm
    return {
        "every delivery was answered, none by 5xx": storm.broken == 0
        and not any(status >= 500 for counts in storm.statuses.values() for status in counts),
        "every kind got its answer": all(set(storm.statuses[kind]) <= EXPECTED[kind] for kind in KINDS),
        f"99 % of the answers within {P99 * 1000:.0f} ms": storm.p99 <= P99,
        "exactly one rollback": found.rollbacks == 1,
        "every genuine alert is in the ledger, once": found.in_ledger == found.alerts,
        "memory grew by less than 100 MiB": found.memory_most - found.memory_before < 100,
    }


def tell(found: Load) -> None:
    """A table of what was measured."""
    print(f"{'':>6}  {'sent':>6} {'a second':>9} {'median':>9} {'p99':>9} {'worst':>9} {'cpu each':>10}")
    for name in ("bare", "storm", "calm"):
        one: Answered = getattr(found, name)
        times = " ".join(f"{seconds * 1000:>6.1f} ms" for seconds in (one.median, one.p99, one.worst))
        print(f"{name:>6}  {one.sent:>6} {one.rate:>9} {times} {one.cpu * 1000:>7.2f} ms")
    for name, ratio in found.ratios().items():
        print(f"{ratio:>6}  {name}")
    for kind, counts in found.storm.statuses.items():
        print(f"{kind:>8}  {', '.join(f'{status}: {count}' for status, count in counts.items())}")
    print(
        f"{found.rollbacks} rollback; {found.in_ledger} of {found.alerts} alerts in the ledger; "
        f"memory {found.memory_before} MiB, at most {found.memory_most} MiB"
    )


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
    tell(found)
    held = goals(found)
    for goal, holds in held.items():
        print(f"{'holds ' if holds else 'BROKEN'} {goal}")
    print("Simulated: the clouds, and their delays.")
    if options.json:
        document = {**asdict(found), "ratios": found.ratios(), "goals": held}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
