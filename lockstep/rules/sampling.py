"""Which files are read today, when reading all of them every day would cost too much."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from lockstep.errors import RefusedError
from lockstep.rules.manifest import FileEntry


def days_of(sample: float) -> int:
    """Days in which everything is read once when `sample`, a share of 0 to 1, is read on each."""
    if not 0 < sample <= 1:
        raise RefusedError(f"a sample is a share above 0 and up to 1, not {sample:g}", hint="--sample 0.2 is a fifth")
    return math.ceil(1 / sample - 1e-9)


def share_of(files: Iterable[FileEntry], days: int, day: int, seed: str) -> frozenset[str]:
    """Paths of the files whose turn it is on `day` (days since any fixed date) in a round of `days`.

    Any `days` days in a row read every file exactly once, in shares of about the same number of bytes: a file is read
    whole, so one that is larger than a share has a day of its own. `seed` (a version's digest) spreads versions.
    """
    shares: list[list[str]] = [[] for _ in range(days)]
    sizes = [(0, number) for number in range(days)]
    for file in sorted(files, key=lambda file: (-file.size, _mark(seed, file.path))):
        lightest = min(sizes)
        shares[lightest[1]].append(file.path)
        # An empty file counts as well, or all of them would fall on one day.
        sizes[sizes.index(lightest)] = (lightest[0] + max(file.size, 1), lightest[1])
    return frozenset(shares[(day + int(_mark(seed, "")[:8], 16)) % days])


def _mark(seed: str, text: str) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()
