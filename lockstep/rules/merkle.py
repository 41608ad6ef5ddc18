"""The ledger's tree: hashes, and proofs that an entry is in it and that a larger tree extends a smaller one.

RFC 6962 section 2.1 (the same as RFC 9162 section 2.1), with SHA-256: a leaf is SHA256(0x00 || entry), a node
SHA256(0x01 || left || right). A node is addressed as (level, index): it is the root of the complete subtree over the
leaves index * 2**level up to (index + 1) * 2**level. Only complete subtrees exist as nodes, so a node never changes
once it is there, however the tree grows; everything else follows from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from lockstep.errors import ProofError

HASH_SIZE: Final = 32  # bytes
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

#: Gives the hash of the complete subtree (level, index); raises for one that does not exist.
NodeReader = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry, 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two subtrees, each given by its hash of 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def completed_nodes(size: int, leaf: bytes, read: NodeReader) -> tuple[tuple[int, int, bytes], ...]:
    """What appending leaf number `size` (its hash is `leaf`) adds: (0, size, leaf) and each subtree that it completes.

    Every item is (level, index, hash), lowest level first. `read` is asked for nodes of the tree of `size` leaves only.
    """
    check_hash(leaf, f"leaf {size}")
    nodes = [(0, size, leaf)]
    level, index, value = nodes[0]
    while index & 1:
        value = node_hash(_read(read, level, index - 1), value)
        level, index = level + 1, index >> 1
        nodes.append((level, index, value))
    return tuple(nodes)


def root(size: int, read: NodeReader) -> bytes:
    """Root of the tree of the first `size` leaves; EMPTY_ROOT when there are none."""
    _check_size(size)
    return _subtree(0, size, read) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: NodeReader) -> tuple[bytes, ...]:
    """The hashes that lead from leaf `index` to the root of `size` leaves, the leaf's sibling first."""
    _check_index(index, size)
    begin, end = 0, size
    path = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_subtree(middle, end, read))
            end = middle
        else:
            path.append(_subtree(begin, middle, read))
            begin = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, read: NodeReader) -> tuple[bytes, ...]:
    """The hashes that show that the tree of `new` leaves begins with that of `old`; none for 0 or for equal sizes."""
    _check_sizes(old, new)
    if old in (0, new):
        return ()
    begin, end = 0, new
    path = []
    while end != old:
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_subtree(middle, end, read))
            end = middle
        else:
            path.append(_subtree(begin, middle, read))
            begin = middle
    if begin:  # else what is left is the old tree as a whole, whose root the verifier knows
        path.append(_subtree(begin, end, read))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash `leaf` is number `index` of the `size` leaves under `root`; raises ProofError.

    RFC 9162, section 2.1.3.2.
    """
    _check_index(index, size)
    check_hash(leaf, "the leaf")
    check_hash(root, "the root")
    _check_proof(proof)
    node, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError(f"the inclusion proof of entry {index} in {size} is too long")
        if node & 1 or node == last:
            value = node_hash(sibling, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError(f"the inclusion proof of entry {index} in {size} is too short")
    if value != root:
        raise ProofError(f"entry {index} is not what the tree of {size} entries holds: root {value.hex()} follows")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `new` leaves under `new_root` begins with the `old` leaves under `old_root`.

    Raises ProofError. RFC 9162, section 2.1.4.2; every tree begins with the empty one.
    """
    _check_sizes(old, new)
    if old in (0, new) and proof:
        raise ProofError(f"the consistency proof from {old} to {new} entries must be empty")
    if old == new:
        if old_root != new_root:
            raise ProofError(f"two trees of {old} entries have different roots: {old_root.hex()} and {new_root.hex()}")
        return
    check_hash(old_root, "the old root")
    check_hash(new_root, "the new root")
    _check_proof(proof)
    if old == 0:
        if old_root != EMPTY_ROOT:
            raise ProofError(f"{old_root.hex()} is not the root of a tree without entries")
        return
    # An old tree that is one complete subtree is not in the proof: the verifier has its root already.
    hashes = list(proof) if old & (old - 1) else [old_root, *proof]
    if not hashes:
        raise ProofError(f"the consistency proof from {old} to {new} entries is empty")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_value = new_value = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError(f"the consistency proof from {old} to {new} entries is too long")
        if node & 1 or node == last:
            old_value, new_value = node_hash(sibling, old_value), node_hash(sibling, new_value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_value = node_hash(new_value, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError(f"the consistency proof from {old} to {new} entries is too short")
    if old_value != old_root or new_value != new_root:
        wrong = f"first {old}" if old_value != old_root else f"{new}"
        raise ProofError(
            f"the tree of {new} entries does not extend the one of {old}: another root of the {wrong} follows"
        )


def check_hash(value: bytes, what: str) -> None:
    """Raise ProofError unless `value` has a SHA-256 hash's length; a shorter one would change what is hashed."""
    if len(value) != HASH_SIZE:
        raise ProofError(f"{what} is {len(value)} bytes long, not {HASH_SIZE}")


def _subtree(begin: int, end: int, read: NodeReader) -> bytes:
    """Hash over the leaves begin..end, where `begin` is a multiple of a power of two that is at least end - begin."""
    hashes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        hashes.append(_read(read, level, begin >> level))
        begin += 1 << level
    value = hashes.pop()
    while hashes:
        value = node_hash(hashes.pop(), value)
    return value


def _split(count: int) -> int:
    """The largest power of two below `count` (2 or more)."""
    return 1 << ((count - 1).bit_length() - 1)


def _read(read: NodeReader, level: int, index: int) -> bytes:
    value = read(level, index)
    check_hash(value, f"node {index} of level {level}")
    return value


def _check_proof(proof: Sequence[bytes]) -> None:
    for number, value in enumerate(proof):
        check_hash(value, f"hash {number} of the proof")


def _check_size(size: int) -> None:
    if size < 0:
        raise ProofError(f"a tree cannot have {size} entries")


def _check_sizes(old: int, new: int) -> None:
    _check_size(old)
    if old > new:
        raise ProofError(f"a tree of {new} entries cannot extend one of {old}")


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofError(f"a tree of {size} entries has no entry {index}")
