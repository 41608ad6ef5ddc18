from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import ProofError
from lockstep.rules.merkle import (
    EMPTY_ROOT,
    completed_nodes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from tests.trees import Tree, flipped

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
BYTES = {name: base64.b64decode(text) for name, text in VECTORS["bytes"].items()}


def root_by_definition(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = largest_power_below(len(leaves))
    return node_hash(root_by_definition(leaves[:split]), root_by_definition(leaves[split:]))


def largest_power_below(count: int) -> int:
    return max(power for power in (1 << exponent for exponent in range(20)) if power < count)


def sides(index: int, size: int) -> str:
    """On which side each hash of an inclusion proof stands: all that a proof says of index and size."""
    if size == 1:
        return ""
    split = largest_power_below(size)
    return sides(index, split) + "R" if index < split else sides(index - split, size - split) + "L"


def steps(old: int, new: int, whole: bool = True) -> str:
    """The same for a consistency proof; S where the old tree itself is the first hash."""
    if old == new:
        return "" if whole else "S"
    split = largest_power_below(new)
    if old <= split:
        return steps(old, split, whole) + "R"
    return steps(old - split, new - split, False) + "L"


def refused(check: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(ProofError):
        check(*arguments)


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda vector: str(vector[0]))
def test_public_vectors_of_inclusion(vector: list[Any]) -> None:
    _, index, size, root_name, leaf, proof, wrong = vector
    arguments = (BYTES[leaf], index, size, [BYTES[name] for name in proof], BYTES[root_name])
    refused(verify_inclusion, *arguments) if wrong else verify_inclusion(*arguments)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda vector: str(vector[0]))
def test_public_vectors_of_consistency(vector: list[Any]) -> None:
    _, old, new, old_root, new_root, proof, wrong = vector
    arguments = (old, new, BYTES[old_root], BYTES[new_root], [BYTES[name] for name in proof])
    refused(verify_consistency, *arguments) if wrong else verify_consistency(*arguments)


def test_the_public_vectors_are_all_there_and_their_good_proofs_are_ours() -> None:
    assert (len(VECTORS["inclusion"]), len(VECTORS["consistency"])) == (98, 98)
    entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = Tree([bytes.fromhex(entry) for entry in entries])
    good = [vector for vector in VECTORS["inclusion"] if vector[0].endswith("/happy path")]
    assert len(good) == 5
    for _, index, size, root_name, leaf, proof, _ in good:
        assert root(size, tree.read) == BYTES[root_name]
        assert tree.leaves[index] == BYTES[leaf]
        assert list(inclusion_proof(index, size, tree.read)) == [BYTES[name] for name in proof]
    good = [vector for vector in VECTORS["consistency"] if vector[0].endswith("/happy path")]
    assert len(good) == 5
    for _, old, new, old_root, new_root, proof, _ in good:
        assert (root(old, tree.read), root(new, tree.read)) == (BYTES[old_root], BYTES[new_root])
        assert list(consistency_proof(old, new, tree.read)) == [BYTES[name] for name in proof]


# -- random trees --------------------------------------------------------------------------------------------------


class Included(NamedTuple):
    """A tree's proof of the leaf at `place`."""

    tree: Tree
    place: int
    size: int
    proof: list[bytes]

    def verify(self, **other: Any) -> None:
        given = {"index": self.place, "size": self.size, "proof": self.proof, "root": root(self.size, self.tree.read)}
        verify_inclusion(**{"leaf": self.tree.leaves[self.place], **given, **other})


class Grown(NamedTuple):
    """A tree's proof that it extends a smaller one; neither empty nor as large."""

    tree: Tree
    old: int
    new: int
    proof: list[bytes]

    def verify(self, **other: Any) -> None:
        roots = {"old_root": root(self.old, self.tree.read), "new_root": root(self.new, self.tree.read)}
        verify_consistency(**{"old": self.old, "new": self.new, "proof": self.proof, **roots, **other})


def trees(least: int) -> st.SearchStrategy[Tree]:
    # Different entries: an entry that stands twice is rightly proven to stand at both places.
    return st.lists(st.binary(max_size=8), min_size=least, max_size=70, unique=True).map(Tree)


@st.composite
def included(draw: st.DrawFn) -> Included:
    tree = draw(trees(1))
    size = draw(st.integers(1, len(tree.leaves)))
    index = draw(st.integers(0, size - 1))
    return Included(tree, index, size, list(inclusion_proof(index, size, tree.read)))


@st.composite
def grown(draw: st.DrawFn) -> Grown:
    tree = draw(trees(2))
    new = draw(st.integers(2, len(tree.leaves)))
    old = draw(st.integers(1, new - 1))
    return Grown(tree, old, new, list(consistency_proof(old, new, tree.read)))


@st.composite
def mutations(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """A list of hashes that differs from `proof`."""
    kinds = ["add"] + (["flip", "drop", "cut", "replace"] if proof else []) + (["swap"] if len(proof) > 1 else [])
    kind = draw(st.sampled_from(kinds))
    place = draw(st.integers(0, len(proof) - (kind not in ("add", "swap")) - 2 * (kind == "swap")))
    other = list(proof)
    if kind == "add":
        other.insert(place, draw(st.sampled_from([*proof, EMPTY_ROOT, b""])))
    elif kind == "drop":
        del other[place]
    elif kind == "swap":
        other[place : place + 2] = reversed(other[place : place + 2])
    elif kind == "cut":
        other[place] = other[place][: draw(st.integers(0, 31))]
    elif kind == "replace":
        other[place] = draw(st.binary(min_size=32, max_size=32))
    else:
        other[place] = flipped(other[place], draw(st.integers(0, 255)))
    return other


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_roots_are_those_of_the_definition(entries: list[bytes]) -> None:
    tree = Tree(entries)
    for size in range(len(entries) + 1):
        assert root(size, tree.read) == root_by_definition(tree.leaves[:size])


@given(trees(1))
def test_every_leaf_of_every_size_is_proven(tree: Tree) -> None:
    size = len(tree.leaves)
    for index in range(size):
        one = Included(tree, index, size, list(inclusion_proof(index, size, tree.read)))
        one.verify()
        assert len(one.proof) <= (size - 1).bit_length()


@given(trees(0))
def test_every_size_is_proven_to_extend_every_smaller_one(tree: Tree) -> None:
    new = len(tree.leaves)
    for old in range(new + 1):
        Grown(tree, old, new, list(consistency_proof(old, new, tree.read))).verify()


@given(included(), st.data())
def test_a_mutated_proof_of_inclusion_is_refused(one: Included, data: st.DataObject) -> None:
    one.verify()
    with pytest.raises(ProofError):
        one.verify(proof=data.draw(mutations(one.proof)))
    bit = data.draw(st.integers(0, 255))
    with pytest.raises(ProofError):
        one.verify(leaf=flipped(one.tree.leaves[one.place], bit))
    with pytest.raises(ProofError):
        one.verify(root=flipped(root(one.size, one.tree.read), bit))


@given(included(), st.data())
def test_a_proof_of_inclusion_holds_for_its_own_place_alone(one: Included, data: st.DataObject) -> None:
    index = data.draw(st.integers(-2, one.size + 2).filter(lambda index: index != one.place))
    with pytest.raises(ProofError):
        one.verify(index=index)
    # A proof speaks of sides, not of sizes: sizes with the same sides are told apart by the checkpoint's signature.
    size = data.draw(st.integers(0, 140))
    if size > one.place and sides(one.place, size) == sides(one.place, one.size):
        one.verify(size=size)
    else:
        with pytest.raises(ProofError):
            one.verify(size=size)


@given(included(), trees(1))
def test_a_proof_of_inclusion_for_another_tree_is_refused(one: Included, other: Tree) -> None:
    size = min(one.size, len(other.leaves))
    another = root(size, other.read)
    if another != root(size, one.tree.read):
        with pytest.raises(ProofError):
            one.verify(root=another)


@given(grown(), st.data())
def test_a_mutated_proof_of_consistency_is_refused(one: Grown, data: st.DataObject) -> None:
    one.verify()
    with pytest.raises(ProofError):
        one.verify(proof=data.draw(mutations(one.proof)))
    bit = data.draw(st.integers(0, 255))
    with pytest.raises(ProofError):
        one.verify(old_root=flipped(root(one.old, one.tree.read), bit))
    with pytest.raises(ProofError):
        one.verify(new_root=flipped(root(one.new, one.tree.read), bit))


@given(grown(), st.data())
def test_a_proof_of_consistency_holds_for_its_own_sizes_alone(one: Grown, data: st.DataObject) -> None:
    old, new = data.draw(st.integers(-1, 80)), data.draw(st.integers(-1, 140))
    if 0 < old < new and steps(old, new) == steps(one.old, one.new):
        one.verify(old=old, new=new)  # told apart by the checkpoints' signatures, see above
    else:
        with pytest.raises(ProofError):
            one.verify(old=old, new=new)


@given(grown(), st.integers(0, 69), st.binary(min_size=9, max_size=9))
def test_a_tree_with_an_old_entry_changed_is_not_consistent(one: Grown, place: int, entry: bytes) -> None:
    place %= one.old
    forged = Tree([])
    for number, leaf in enumerate(one.tree.leaves[: one.new]):
        forged.append(leaf_hash(entry) if number == place else leaf)
    with pytest.raises(ProofError):
        verify_consistency(
            one.old,
            one.new,
            root(one.old, one.tree.read),
            root(one.new, forged.read),
            consistency_proof(one.old, one.new, forged.read),
        )


def test_what_is_no_hash_or_no_place_is_refused() -> None:
    tree = Tree([b"a", b"b", b"c"])
    refused(lambda: inclusion_proof(3, 3, tree.read))
    refused(lambda: inclusion_proof(-1, 3, tree.read))
    refused(lambda: consistency_proof(3, 2, tree.read))
    refused(lambda: consistency_proof(-1, 2, tree.read))
    refused(lambda: root(-1, tree.read))
    refused(lambda: root(3, lambda level, index: b"short"))
    refused(lambda: completed_nodes(3, b"an entry, not its hash", tree.read))
    refused(verify_consistency, 0, 3, root(1, tree.read), root(3, tree.read), ())
