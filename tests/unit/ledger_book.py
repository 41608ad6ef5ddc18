"""A small log in memory with a signed checkpoint, for tests of what reads one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import rfc8785

from lockstep.operations.audit.lines import LeafLine, read_leaf
from lockstep.rules.checkpoint import Checkpoint, sign_checkpoint
from lockstep.rules.merkle import completed_nodes, leaf_hash, root
from lockstep.rules.note import Signer

ORIGIN = "example.com/ledger"


@dataclass
class MemoryLog:
    """Entries as the ledger keeps them, and the tree over them."""

    signer: Signer = field(default_factory=lambda: Signer("example.com/ledger", bytes(range(32))))
    leaves: list[bytes] = field(default_factory=list)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    now: float = 0.0

    @property
    def problems(self) -> tuple[str, ...]:
        return ()

    def append(
        self, event_id: str, kind: str, model: str, actor: str, body: Mapping[str, object], *, spool: bool = True
    ) -> LeafLine:
        at = datetime.fromtimestamp(self.now, UTC).isoformat(timespec="microseconds")
        content = {"format": "lockstep/entry/v1", "event_id": event_id, "at": at, "kind": kind, "model": model}
        leaf = rfc8785.dumps({**content, "actor": actor, "body": json.loads(json.dumps(body))})
        number = len(self.leaves)
        for level, index, value in completed_nodes(number, leaf_hash(leaf), self.read_node):
            self.nodes[level, index] = value
        self.leaves.append(leaf)
        return read_leaf(number, leaf)

    def entries(
        self, model: str, kind: str = "", last: int = 1000, *, waiting: bool = True, unvouched: bool = False
    ) -> tuple[LeafLine, ...]:
        found = [read_leaf(number, leaf) for number, leaf in enumerate(self.leaves)]
        return tuple(line for line in found if line.model == model and line.kind.startswith(kind))[-last:]

    def leaf(self, index: int) -> bytes:
        return self.leaves[index]

    def read_node(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def checkpoint(self) -> bytes | None:
        size = len(self.leaves)
        return sign_checkpoint(Checkpoint(ORIGIN, size, root(size, self.read_node)), self.signer) if size else None
