"""The seed of everything that is drawn; `make chaos SEED=…` repeats a run."""

from __future__ import annotations

import os
import random
from typing import Final

SEED: Final = int(os.environ.get("LOCKSTEP_CHAOS_SEED", "4"))


def drawn(what: str) -> random.Random:
    """A generator for one purpose, the same one in every process of a run."""
    return random.Random(f"{SEED} {what}")
