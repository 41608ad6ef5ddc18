"""The tree's nodes in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, func, insert, select

from lockstep.errors import ProofError
from lockstep.rules.merkle import EMPTY_ROOT, NodeReader, completed_nodes, leaf_hash, root
from lockstep.stores.ledger.tables import ENTRY, NODE, blob

T = TypeVar("T")
Address = tuple[int, int]
AT_ONCE: Final = 100  # nodes in one query


def tree_size(connection: Connection) -> int:
    """Number of entries."""
    last = connection.execute(select(func.max(ENTRY.c.number))).scalar_one()
    return 0 if last is None else int(last) + 1


def with_nodes(connection: Connection, call: Callable[[NodeReader], T]) -> T:
    """`call` with a reader of nodes: it runs twice, first to learn which nodes it wants, so that one query gets them.

    That is right for whatever asks for the same nodes whatever their hashes are, as all of `rules/merkle.py` does.
    """
    wanted: dict[Address, None] = {}

    def note(level: int, index: int) -> bytes:
        wanted[level, index] = None
        return EMPTY_ROOT

    call(note)
    return call(reader(read_nodes(connection, wanted)))


def read_nodes(connection: Connection, wanted: Iterable[Address]) -> dict[Address, bytes]:
    """The hashes of those of the wanted nodes that are there."""
    addresses = list(wanted)
    found: dict[Address, bytes] = {}
    # Not `(level, idx) IN (…)`: SQLite reads the whole table for it, but takes the key for each term of an OR.
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    for start in range(0, len(addresses), AT_ONCE):
        some = addresses[start : start + AT_ONCE]
        terms = " OR ".join([f"level = {mark} AND idx = {mark}"] * len(some))
        rows = connection.exec_driver_sql(
            f"SELECT level, idx, hash FROM node WHERE {terms}",  # noqa: S608 - marks alone
            tuple(part for address in some for part in address),
        )
        found |= {(level, index): blob(value) for level, index, value in rows}
    return found


def read_range(connection: Connection, level: int, start: int, stop: int) -> dict[int, bytes]:
    """The hashes of a level from index `start` up to `stop`, by index."""
    found = select(NODE.c.idx, NODE.c.hash).where(NODE.c.level == level, NODE.c.idx >= start, NODE.c.idx < stop)
    return {index: blob(value) for index, value in connection.execute(found)}


def reader(nodes: Mapping[Address, bytes]) -> NodeReader:
    """Reads from what was fetched; raises ProofError for a node that is not there."""

    def read(level: int, index: int) -> bytes:
        try:
            return nodes[level, index]
        except KeyError:
            raise ProofError(
                f"the ledger is damaged: node {index} of level {level} is missing", hint="run `lockstep ledger verify`"
            ) from None

    return read


def extend(connection: Connection, size: int, leaves: Sequence[bytes]) -> bytes:
    """Add the nodes that `leaves` complete in the tree of `size` entries; gives the new root."""
    wanted: dict[Address, None] = {}

    def note(level: int, index: int) -> bytes:
        wanted[level, index] = None
        return EMPTY_ROOT

    root(size, note)  # the complete subtrees that `size` is the sum of: all that an append ever looks at
    nodes = read_nodes(connection, wanted)
    read = reader(nodes)
    added = []
    for number, leaf in enumerate(leaves, size):
        for level, index, value in completed_nodes(number, leaf_hash(leaf), read):
            nodes[level, index] = value
            added.append({"level": level, "idx": index, "hash": value})
    connection.execute(insert(NODE), added)
    return root(size + len(leaves), read)
