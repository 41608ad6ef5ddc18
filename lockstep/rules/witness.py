"""The rule of a witness: who holds a checkpoint takes another only if that extends it.

Whoever has the ledger's key can sign any history. What he cannot do is make an older checkpoint that lies elsewhere
agree with it; so every copy of the ledger is such a witness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lockstep.errors import ForkError, ProofError
from lockstep.rules.checkpoint import Checkpoint
from lockstep.rules.merkle import NodeReader, completed_nodes, verify_consistency

HINT = (
    "`lockstep ledger verify` names the first entry that differs; keep ledger and copies as they are until it is clear"
)


def check_extension(held: Checkpoint, offered: Checkpoint, proof: Sequence[bytes], cloud: str = "") -> None:
    """Raise ForkError, naming both sizes and roots, unless `proof` shows that `offered` extends `held`.

    `proof` is the consistency proof from the one size to the other, empty where there can be none.
    """
    if held.origin != offered.origin:
        raise ForkError(
            f"the copy is of the ledger {held.origin!r}, not of {offered.origin!r}",
            cloud=cloud,
            hint="give every ledger an archive_folder of its own",
        )
    if offered.size < held.size:
        raise ForkError(
            f"the copy holds {show(held)}, but the ledger here ends at {show(offered)}: "
            "it was rolled back, cut short or replaced",
            cloud=cloud,
            hint=HINT,
        )
    try:
        verify_consistency(held.size, offered.size, held.root, offered.root, proof)
    except ProofError as error:
        raise ForkError(
            f"the copy holds {show(held)}, and the ledger here with {show(offered)} does not extend it: "
            f"history was rewritten ({error})",
            cloud=cloud,
            hint=HINT,
        ) from error


def show(checkpoint: Checkpoint) -> str:
    """Size and root, for people."""
    return f"{checkpoint.size} entries with root {checkpoint.root.hex()}"


def recompute(leaves: Iterable[bytes]) -> tuple[int, NodeReader]:
    """How many leaf hashes there are, and a reader of all nodes over them: of the entries, not of a stored tree."""
    nodes: dict[tuple[int, int], bytes] = {}

    def read(level: int, index: int) -> bytes:
        try:
            return nodes[level, index]
        except KeyError:
            raise ProofError(f"there is no node {index} of level {level}") from None

    size = 0
    for leaf in leaves:
        nodes.update({(level, index): value for level, index, value in completed_nodes(size, leaf, read)})
        size += 1
    return size, read


def first_difference(ours: Sequence[bytes], theirs: Sequence[bytes]) -> int | None:
    """Number of the first item that is not the same in both; None when one begins with the other."""
    pairs = zip(ours, theirs, strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), None)
