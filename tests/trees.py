"""A small Merkle tree in memory, and changes to it that must not go unnoticed."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep.rules.merkle import completed_nodes, leaf_hash


class Tree:
    """A tree grown entry by entry, as a ledger grows it."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.leaves: list[bytes] = []
        self.nodes: dict[tuple[int, int], bytes] = {}
        for entry in entries:
            self.append(leaf_hash(entry))

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash, and every node that it completes."""
        for level, index, value in completed_nodes(len(self.leaves), leaf, self.read):
            assert (level, index) not in self.nodes
            self.nodes[level, index] = value
        self.leaves.append(leaf)

    def read(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree."""
        return self.nodes[level, index]


def flipped(value: bytes, bit: int) -> bytes:
    """`value` with one bit changed, counted from its first byte's lowest."""
    return bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(value))
