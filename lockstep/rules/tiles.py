"""Tiles: the tree and its entries as files that never change, so that any copy of a ledger is a folder of them.

The format is C2SP's tlog-tiles (c2sp.org/tlog-tiles): `tile/<level>/<index>` holds up to 256 hashes, each the root of a
complete subtree of 256**level leaves, and `tile/entries/<index>` the same range of entries, each with its length before
it. What is not full yet has its width in its name (`.p/<width>`), so a growing tree never overwrites a file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.errors import ProofError
from lockstep.rules.merkle import HASH_SIZE, NodeReader, node_hash

WIDTH: Final = 256  # hashes or entries of a full tile
HEIGHT: Final = 8  # levels of the tree that a tile spans
LARGEST_ENTRY: Final = 0xFFFF  # bytes
LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True)
class TileName:
    """A tile of hashes of a level (0: leaves), or a bundle of entries when the level is None; `width` 256 is full."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The name that every tool knows it by."""
        if self.level is None:
            return entries_path(self.index, self.width)
        return tile_path(self.level, self.index, self.width)


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """`tile/0/x001/x234/067`, `tile/1/000.p/17`; levels 0 to 63, widths 1 to 256."""
    if not 0 <= level < 64:
        raise ProofError(f"there is no tile of level {level}")
    return f"tile/{level}/{_number(index, width)}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """`tile/entries/x001/x234/067`, `tile/entries/000.p/17`."""
    return f"tile/entries/{_number(index, width)}"


def tiles_between(old_size: int, new_size: int) -> tuple[TileName, ...]:
    """What a copy that has everything for `old_size` entries lacks for `new_size`: bundles first, then hashes by level.

    Partial ones of the new size are among them; those of sizes in between are not, as no checkpoint asks for them.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(f"a copy of {old_size} entries cannot become one of {new_size}")
    names = list(_new_names(None, old_size, new_size))
    level, old, new = 0, old_size, new_size
    while new:
        names.extend(_new_names(level, old, new))
        level, old, new = level + 1, old // WIDTH, new // WIDTH
    return tuple(names)


def tile_hashes(name: TileName, read: NodeReader) -> bytes:
    """Content of a tile of hashes, taken from the tree."""
    if name.level is None:
        raise ProofError(f"{name.path} holds entries, not hashes")
    first = name.index * WIDTH
    return b"".join(read(HEIGHT * name.level, first + number) for number in range(name.width))


def tile_reader(size: int, fetch: Callable[[str], bytes]) -> NodeReader:
    """Reads nodes of a tree of `size` entries from its tiles; `fetch` gives a tile's content by its path.

    A tile is fetched once. Raises ProofError for a tile of another length than its name says and for nodes that the
    tree of that size does not have.
    """
    tiles: dict[tuple[int, int], bytes] = {}

    def tile(level: int, index: int) -> bytes:
        if (level, index) not in tiles:
            width = min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH)
            name = TileName(level, index, width)
            content = fetch(name.path)
            if len(content) != width * HASH_SIZE:
                raise ProofError(f"{name.path} is {len(content)} bytes long, not {width * HASH_SIZE}")
            tiles[level, index] = content
        return tiles[level, index]

    def read(level: int, index: int) -> bytes:
        if level < 0 or index < 0 or (index + 1) << level > size:
            raise ProofError(f"a tree of {size} entries has no node {index} of level {level}")
        above, within = divmod(level, HEIGHT)
        first = index << within
        content = tile(above, first // WIDTH)
        place = first % WIDTH * HASH_SIZE
        hashes = [content[at : at + HASH_SIZE] for at in range(place, place + (HASH_SIZE << within), HASH_SIZE)]
        while len(hashes) > 1:
            hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
        return hashes[0]

    return read


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Content of a bundle: each entry after its length in two bytes; raises ProofError for one over 65,535 bytes."""
    if not 1 <= len(entries) <= WIDTH:
        raise ProofError(f"a bundle holds 1 to {WIDTH} entries, not {len(entries)}")
    for number, entry in enumerate(entries):
        if len(entry) > LARGEST_ENTRY:
            raise ProofError(f"entry {number} of a bundle has {len(entry)} bytes, more than {LARGEST_ENTRY}")
    return b"".join(LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_entries(content: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle; raises ProofError when they do not fill it exactly."""
    entries: list[bytes] = []
    place = 0
    while place < len(content):
        start = place + LENGTH.size
        if start > len(content):
            raise ProofError("the bundle of entries ends within a length")
        place = start + LENGTH.unpack_from(content, place)[0]
        if place > len(content):
            raise ProofError(f"the bundle of entries ends within entry {len(entries)}")
        entries.append(content[start:place])
    if not 1 <= len(entries) <= WIDTH:
        raise ProofError(f"a bundle holds 1 to {WIDTH} entries, not {len(entries)}")
    return tuple(entries)


def _new_names(level: int | None, old: int, new: int) -> list[TileName]:
    """Tiles of one level whose content differs between `old` and `new` hashes (or entries) of that level."""
    if old == new:
        return []
    return [TileName(level, index, min(WIDTH, new - index * WIDTH)) for index in range(old // WIDTH, -(-new // WIDTH))]


def _number(index: int, width: int) -> str:
    """The index in groups of three digits, all but the last with an x before them; the width when it is not full."""
    if index < 0 or not 1 <= width <= WIDTH:
        raise ProofError(f"there is no tile {index} of width {width}")
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == WIDTH else f"{path}.p/{width}"
