"""A witness takes what extends its checkpoint, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import ForkError, ProofError
from lockstep.rules.checkpoint import Checkpoint
from lockstep.rules.merkle import consistency_proof, leaf_hash, root
from lockstep.rules.witness import check_extension, first_difference, recompute
from tests.ledgers import MemoryLedger, entries, ledger_of

SIZES = st.integers(min_value=0, max_value=40)


def at(ledger: MemoryLedger, size: int, origin: str = "") -> Checkpoint:
    return Checkpoint(origin or ledger.origin, size, root(size, ledger.read_node))


@given(SIZES, SIZES)
def test_every_longer_history_is_taken_and_every_shorter_one_refused(one: int, other: int) -> None:
    ledger = ledger_of(max(one, other, 1))
    old, new = min(one, other), max(one, other)
    check_extension(at(ledger, old), at(ledger, new), consistency_proof(old, new, ledger.read_node))
    if old < new:
        with pytest.raises(ForkError, match=f"holds {new} entries.*ends at {old} entries"):
            check_extension(at(ledger, new), at(ledger, old), ())


@given(st.integers(min_value=1, max_value=40), st.integers(min_value=0, max_value=40), st.data())
def test_a_rewritten_history_is_refused_with_both_roots(old: int, more: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(min_value=0, max_value=old - 1))
    real = ledger_of(old)
    lines = entries(old + more)
    lines[changed] = b'{"entry":"forged"}'
    forged = MemoryLedger().append(*lines)
    held, offered = at(real, old), at(forged, old + more)
    with pytest.raises(ForkError) as caught:
        check_extension(held, offered, consistency_proof(old, old + more, forged.read_node), "aws")
    assert str(caught.value).startswith("aws: ")
    assert held.root.hex() in caught.value.problem
    assert offered.root.hex() in caught.value.problem
    assert "lockstep ledger verify" in caught.value.hint


def test_another_ledgers_checkpoint_is_refused() -> None:
    ledger = ledger_of(3)
    with pytest.raises(ForkError, match="of the ledger 'lockstep/test', not of 'other'"):
        check_extension(at(ledger, 3), at(ledger, 3, "other"), ())


def test_a_proof_that_proves_nothing_is_refused() -> None:
    ledger = ledger_of(9)
    with pytest.raises(ForkError):
        check_extension(at(ledger, 3), at(ledger, 9), ())


@given(SIZES)
def test_the_tree_computed_anew_is_the_ledgers_own(size: int) -> None:
    ledger = ledger_of(size)
    count, read = recompute(leaf_hash(entry) for entry in ledger.entries)
    assert count == size
    for each in range(size + 1):
        assert root(each, read) == root(each, ledger.read_node)
    with pytest.raises(ProofError):
        read(0, size)


def test_the_first_difference() -> None:
    assert first_difference([b"a", b"b"], [b"a", b"c"]) == 1
    assert first_difference([b"a"], [b"a", b"c"]) is None
    assert first_difference([], [b"a"]) is None
