from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import ProofError
from lockstep.rules.merkle import consistency_proof, inclusion_proof, root
from lockstep.rules.tiles import (
    TileName,
    decode_entries,
    encode_entries,
    entries_path,
    tile_hashes,
    tile_path,
    tile_reader,
    tiles_between,
)
from tests.trees import Tree

PATHS: list[list[Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "tlog.json").read_text())["paths"]["rows"]
LARGEST = 1300


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Of several full tiles, and more than one level of them."""
    return Tree([b"%d" % number for number in range(LARGEST)])


@pytest.mark.parametrize(("level", "index", "width", "path"), PATHS)
def test_paths_are_those_of_the_specification(level: int | None, index: int, width: int, path: str) -> None:
    assert TileName(level, index, width).path == path
    assert (entries_path(index, width) if level is None else tile_path(level, index, width)) == path


@pytest.mark.parametrize(("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_there_is_no_path_for_what_cannot_be(level: int, index: int, width: int) -> None:
    with pytest.raises(ProofError):
        tile_path(level, index, width)


def test_a_tree_of_70000_has_the_tiles_that_the_specification_counts() -> None:
    names = tiles_between(0, 70_000)
    assert len([name for name in names if name.level is None]) == 274
    assert [name.width for name in names if name.level == 0] == [256] * 273 + [112]
    assert [name.width for name in names if name.level == 1] == [256, 17]
    assert [name.width for name in names if name.level == 2] == [1]
    assert {name.path for name in tiles_between(0, 256)} == {"tile/entries/000", "tile/0/000", "tile/1/000.p/1"}
    assert tiles_between(70_000, 70_000) == ()


def test_one_entry_more_needs_a_bundle_a_tile_and_what_they_complete() -> None:
    assert [name.path for name in tiles_between(3, 4)] == ["tile/entries/000.p/4", "tile/0/000.p/4"]
    assert [name.path for name in tiles_between(255, 256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert [name.path for name in tiles_between(256, 257)] == ["tile/entries/001.p/1", "tile/0/001.p/1"]


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1)])
def test_a_copy_does_not_shrink(old: int, new: int) -> None:
    with pytest.raises(ProofError):
        tiles_between(old, new)


@given(st.lists(st.integers(0, LARGEST), min_size=1, max_size=5).map(sorted))
def test_a_copy_made_in_steps_is_complete_at_each_and_overwrites_nothing(sizes: list[int]) -> None:
    held: set[str] = set()
    old = 0
    for new in sizes:
        names = [name.path for name in tiles_between(old, new)]
        assert not held.intersection(names)
        held.update(names)
        old = new
        assert {name.path for name in tiles_between(0, new) if name.width < 256} <= held
        assert {name.path for name in tiles_between(0, new)} <= held


@given(size=st.integers(1, LARGEST), data=st.data())
def test_roots_and_proofs_come_out_of_tiles_as_out_of_the_tree(tree: Tree, size: int, data: st.DataObject) -> None:
    stored = {name.path: tile_hashes(name, tree.read) for name in tiles_between(0, size) if name.level is not None}
    from_tiles = tile_reader(size, stored.__getitem__)
    assert root(size, from_tiles) == root(size, tree.read)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    assert inclusion_proof(index, size, from_tiles) == inclusion_proof(index, size, tree.read)
    assert consistency_proof(old, size, from_tiles) == consistency_proof(old, size, tree.read)


def test_a_tile_is_fetched_once_and_its_length_checked(tree: Tree) -> None:
    fetched: list[str] = []

    def fetch(path: str) -> bytes:
        fetched.append(path)
        return bytes(32 * 3)

    read = tile_reader(3, fetch)
    assert root(3, read) == root(3, read)
    assert fetched == ["tile/0/000.p/3"]
    with pytest.raises(ProofError, match=r"tile/0/000\.p/4"):
        root(4, tile_reader(4, fetch))
    for level, index in ((0, 3), (1, 1), (2, 0), (-1, 0), (0, -1)):
        with pytest.raises(ProofError):
            read(level, index)
    with pytest.raises(ProofError):
        tile_hashes(TileName(None, 0), tree.read)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_entries_survive_their_bundle(entries: list[bytes]) -> None:
    assert decode_entries(encode_entries(entries)) == tuple(entries)


def test_the_form_of_a_bundle() -> None:
    assert encode_entries([b"one", b"", b"x" * 300]) == b"\x00\x03one\x00\x00\x01\x2c" + b"x" * 300
    assert decode_entries(encode_entries([b"x" * 65_535])) == (b"x" * 65_535,)


@pytest.mark.parametrize("entries", [[], [b""] * 257, [b"x" * 65_536]])
def test_what_fits_no_bundle_is_refused(entries: list[bytes]) -> None:
    with pytest.raises(ProofError):
        encode_entries(entries)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x00\x02x", b"\x00\x01x\x00", b"\x00\x00" * 257])
def test_damaged_bundles_are_refused(content: bytes) -> None:
    with pytest.raises(ProofError):
        decode_entries(content)
