"""Ledgers for tests: in a file or in PostgreSQL, signed with a key of the test's, and open to an attacker's hands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from lockstep.rules.checkpoint import Checkpoint, sign_checkpoint
from lockstep.rules.merkle import completed_nodes, leaf_hash, root
from lockstep.rules.note import Signer
from lockstep.stores.ledger import Audit, Entry, Ledger

ORIGIN = "test.example/ledger"
SIGNER = Signer(ORIGIN, random.Random(7).randbytes(32))
CHILD = """
import sys
from pathlib import Path
from lockstep.rules.note import parse_private
from lockstep.stores.ledger import Ledger
database, spool, key = sys.argv[1:4]
signer = parse_private(key)
ledger = Ledger(database, origin=signer.name, signer=signer, spool=Path(spool))
"""


@dataclass(frozen=True)
class Place:
    """Where a ledger lies."""

    database: str
    spool: Path

    @property
    def sqlite(self) -> bool:
        return "://" not in self.database

    def open(self, signer: Signer | None = SIGNER) -> Ledger:
        """The ledger; the key is known to verify with also when there is none to sign with."""
        return Ledger(self.database, origin=ORIGIN, signer=signer, verifiers=[SIGNER.verifier], spool=self.spool)

    @property
    def arguments(self) -> list[str]:
        """Of a process that runs CHILD."""
        return [self.database, str(self.spool), SIGNER.private_text]

    def attack(self, *statements: str, **values: object) -> None:
        """What somebody does who owns the database: the triggers first."""
        drops = []
        for table in ("entry", "node", "checkpoint"):
            if self.sqlite:
                drops += [f"DROP TRIGGER IF EXISTS {table}_no_{name}" for name in ("update", "delete", "replace")]
            else:
                drops += [f"DROP TRIGGER IF EXISTS {table}_no_{name} ON {table}" for name in ("change", "truncate")]
        self.execute(*drops, *statements, **values)

    def execute(self, *statements: str, **values: object) -> None:
        """Statements past the ledger."""
        engine = create_engine(f"sqlite:///{self.database}" if self.sqlite else self.database)
        with engine.begin() as connection:
            for statement in statements:
                named = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), named)
        engine.dispose()

    def rewrite(self, leaves: Sequence[bytes], signer: Signer | None) -> None:
        """Another history of the same entries' columns: leaves and all nodes, and checkpoints if there is a key."""
        nodes: dict[tuple[int, int], bytes] = {}
        self.attack("DELETE FROM node", *(["DELETE FROM checkpoint"] if signer else []))
        engine = create_engine(f"sqlite:///{self.database}" if self.sqlite else self.database)
        with engine.begin() as connection:
            for number, leaf in enumerate(leaves):
                connection.execute(
                    text("UPDATE entry SET leaf = :leaf WHERE number = :number"), {"leaf": leaf, "number": number}
                )
                for level, index, value in completed_nodes(
                    number, leaf_hash(leaf), lambda level, index: nodes[level, index]
                ):
                    nodes[level, index] = value
                    connection.execute(
                        text("INSERT INTO node (level, idx, hash) VALUES (:level, :idx, :hash)"),
                        {"level": level, "idx": index, "hash": value},
                    )
                if signer:
                    tree = root(number + 1, lambda level, index: nodes[level, index])
                    connection.execute(
                        text("INSERT INTO checkpoint (size, note) VALUES (:size, :note)"),
                        {"size": number + 1, "note": sign_checkpoint(Checkpoint(ORIGIN, number + 1, tree), signer)},
                    )
        engine.dispose()


def fill(ledger: Ledger, count: int, start: int = 0) -> tuple[Entry, ...]:
    """Entries e0, e1, … one after another."""
    return tuple(
        ledger.append(f"e{number}", "test.intent", "tumour", "ann", {"number": number})
        for number in range(start, start + count)
    )


def first_flaw(audit: Audit) -> tuple[int, str]:
    """Index and event id of the first entry that does not fit."""
    assert audit.first is not None
    return audit.first.index, audit.first.event_id
