"""What the ledger costs, beside plain SQLite in the same run: append, proof, audit, bytes.

python bench/ledger.py                        up to 100,000 entries, in a temporary folder
python bench/ledger.py --entries 10000 --json measured.json

Appends are durable on both sides: WAL with synchronous=FULL, one transaction each, one connection that stays open.
Seconds are this machine's; the ratios, and how times grow from one size to the next, are what to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lockstep.rules.note import Signer  # noqa: E402
from lockstep.rules.tlog_proof import verify_proof  # noqa: E402
from lockstep.stores.ledger import Event, Ledger  # noqa: E402

ORIGIN: Final = "bench.example/ledger"
SIGNER: Final = Signer(ORIGIN, random.Random(1).randbytes(32))  # noqa: S311 - the same key in every run, guards nothing
SEED: Final = 20260301
APPENDS: Final = 500  # single appends that are timed at each size, in turns with plain inserts
TURN: Final = 50
PROOFS: Final = 200
PLAIN: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE entry (
    number INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, at REAL NOT NULL, kind TEXT NOT NULL,
    model TEXT NOT NULL, actor TEXT NOT NULL, body BLOB NOT NULL
);
"""


@dataclass(frozen=True)
class Measured:
    """One size. Times are medians in milliseconds, `audit_seconds` is one run; bytes are of the database's file."""

    entries: int
    checkpoints: int
    append_ms: float
    append_cpu_ms: float
    plain_ms: float
    plain_cpu_ms: float
    proof_ms: float
    verify_ms: float
    proof_bytes: int
    audit_seconds: float
    bytes_per_entry: float
    plain_bytes_per_entry: float


def body(number: int) -> dict[str, object]:
    """What an outcome looks like."""
    return {
        "version": str(number % 40),
        "digest": f"{number:064x}",
        "after": {cloud: {f"v{number % 40}-{number % 2**32:08x}": 100} for cloud in ("aws", "azure", "gcp")},
        "error": "",
    }


class Bench:
    """A ledger and a plain table that get the same entries."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.db", origin=ORIGIN, signer=SIGNER)
        self.path, self.plain_path = folder / "ledger.db", folder / "plain.db"
        self.plain = sqlite3.connect(self.plain_path, isolation_level=None)
        self.plain.executescript(PLAIN)
        self.dice = random.Random(SEED)  # noqa: S311 - chooses what to prove
        self.count = 0

    def fill(self, size: int, batch: int) -> None:
        """Entries up to `size`, `batch` of them under each checkpoint."""
        while self.count < size:
            numbers = range(self.count, min(self.count + batch, size))
            self.ledger.append_batch([Event(f"e{n}", "rollback.outcome", "tumour", "ann", body(n)) for n in numbers])
            with self._transaction():
                for number in numbers:
                    self._insert(number)
            self.count = numbers.stop

    def measure(self) -> Measured:
        """Single appends beside plain inserts, then proofs, the audit and the sizes."""
        times: dict[str, list[tuple[float, float]]] = {"ledger": [], "plain": []}
        for _ in range(APPENDS // TURN):
            for number in range(self.count, self.count + TURN):
                times["ledger"].append(timed(lambda n=number: self._append(n)))  # type: ignore[misc]
            for number in range(self.count, self.count + TURN):
                times["plain"].append(timed(lambda n=number: self._commit(n)))  # type: ignore[misc]
            self.count += TURN
        chosen = [self.dice.randrange(self.count) for _ in range(PROOFS)]
        proofs = {index: self.ledger.proof(index) for index in chosen}
        leaves = {index: self.ledger.leaf(index) for index in chosen}
        proving = [timed(lambda i=index: self.ledger.proof(i))[0] for index in chosen]  # type: ignore[misc]
        keys = [SIGNER.verifier]
        checking = [
            timed(lambda i=index: verify_proof(proofs[i], leaves[i], ORIGIN, keys))[0]  # type: ignore[misc]
            for index in chosen
        ]
        began = time.perf_counter()
        audit = self.ledger.verify()
        seconds = time.perf_counter() - began
        audit.raise_if_bad()
        return Measured(
            entries=self.count,
            checkpoints=audit.checkpoints,
            append_ms=middle(wall for wall, _ in times["ledger"]),
            append_cpu_ms=mean(cpu for _, cpu in times["ledger"]),
            plain_ms=middle(wall for wall, _ in times["plain"]),
            plain_cpu_ms=mean(cpu for _, cpu in times["plain"]),
            proof_ms=middle(proving),
            verify_ms=middle(checking),
            proof_bytes=max(map(len, proofs.values())),
            audit_seconds=seconds,
            bytes_per_entry=file_size(self.path) / self.count,
            plain_bytes_per_entry=file_size(self.plain_path) / self.count,
        )

    def close(self) -> None:
        """Let both files go."""
        self.plain.close()
        self.ledger.close()

    def _append(self, number: int) -> None:
        self.ledger.append(f"e{number}", "rollback.outcome", "tumour", "ann", body(number))

    def _commit(self, number: int) -> None:
        with self._transaction():
            self._insert(number)

    def _insert(self, number: int) -> None:
        values = (number, f"e{number}", time.time(), "rollback.outcome", "tumour", "ann", json.dumps(body(number)))
        self.plain.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.plain.execute("BEGIN IMMEDIATE")
        yield
        self.plain.execute("COMMIT")


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def middle(seconds: Iterator[float] | list[float]) -> float:
    """Median in milliseconds."""
    return 1000 * statistics.median(seconds)


def mean(seconds: Iterator[float]) -> float:
    """Mean in milliseconds: the processor's clock is too coarse for a median."""
    return 1000 * statistics.fmean(seconds)


def file_size(path: Path) -> int:
    """Bytes of a database whose log has been written back."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def growth(found: list[Measured]) -> list[dict[str, float]]:
    """From each size to the next: factors of the proof's time against log n, of the audit's against n."""
    return [
        {
            "from": small.entries,
            "to": large.entries,
            "log_n": math.log2(large.entries) / math.log2(small.entries),
            "proof": large.proof_ms / small.proof_ms,
            "verify": large.verify_ms / small.verify_ms,
            "n": large.entries / small.entries,
            "audit": large.audit_seconds / small.audit_seconds,
        }
        for small, large in pairwise(found)
    ]


def show(found: list[Measured]) -> None:
    """The same as text."""
    headings = ("entries", "append", "plain", "ratio", "CPU ratio", "proof", "check", "audit", "bytes", "plain")
    print("".join(f"{heading:>11}" for heading in headings))
    for one in found:
        cells = (
            f"{one.entries:,}",
            f"{one.append_ms:.2f} ms",
            f"{one.plain_ms:.2f} ms",
            f"{one.append_ms / one.plain_ms:.1f}x",
            f"{one.append_cpu_ms / one.plain_cpu_ms:.1f}x",
            f"{one.proof_ms:.2f} ms",
            f"{one.verify_ms:.2f} ms",
            f"{one.audit_seconds:.2f} s",
            f"{one.bytes_per_entry:.0f}",
            f"{one.plain_bytes_per_entry:.0f}",
        )
        print("".join(f"{cell:>11}" for cell in cells))
    print()
    for step in growth(found):
        print(f"{step['from']:,.0f} -> {step['to']:,.0f} entries: a proof takes {step['proof']:.2f}x (log n: "
              f"{step['log_n']:.2f}x), checking it {step['verify']:.2f}x; the audit {step['audit']:.1f}x "
              f"(n: {step['n']:.1f}x)")  # fmt: skip
    largest = found[-1]
    print(f"A proof file is {largest.proof_bytes} bytes at most; the audit checked {largest.checkpoints:,} signatures.")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="largest number of entries (at least 1000)")
    parser.add_argument("--batch", type=int, default=10, help="entries under one checkpoint while filling")
    parser.add_argument("--folder", type=Path, help="folder on the disk to measure (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for what was measured")
    options = parser.parse_args()
    sizes = [size for size in (1_000, 10_000, 100_000) if size < options.entries] + [max(options.entries, 1_000)]
    found = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        bench = Bench(Path(name))
        for size in sizes:
            bench.fill(size - APPENDS, options.batch)
            found.append(bench.measure())
        bench.close()
    show(found)
    if options.json:
        document = {"batch": options.batch, "sizes": [asdict(one) for one in found], "growth": growth(found)}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
