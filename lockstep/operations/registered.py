"""What the ledger says of a version's registration, where MLflow's word alone would not do.

MLflow's tags say which digest a number stands for, and whoever may edit tags can let two numbers change places: each of
the two versions is sealed and signed, and yet `--to 2` would lead to another one than it did. And a manifest of the
first format carries no signature, so that anybody can make one. The ledger knows better in both cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep.operations.fleet import Fleet
from lockstep.rules.manifest import SCHEMA_V1
from lockstep.rules.state import Version
from lockstep.stores.ledger import Entry

REGISTERED: Final = "register.outcome"
REPLICATED: Final = "replicate.outcome"
LAST: Final = 100_000


def contradictions(fleet: Fleet, version: Version, schema: str = "") -> tuple[str, ...]:
    """One sentence for each thing that the ledger says against MLflow's record of the version; none without entries.

    `schema` is its manifest's format, as far as that is known. Raises LockstepError for a ledger that cannot be read.
    """
    entries = fleet.ledger.entries(fleet.model, REGISTERED, LAST)
    told = _other_digest(version, entries)
    if schema == SCHEMA_V1:
        told += _unknown(version, (*entries, *fleet.ledger.entries(fleet.model, REPLICATED, LAST)))
    return told


def _other_digest(version: Version, entries: Sequence[Entry]) -> tuple[str, ...]:
    """The newest registration under a number counts: a model that is created again begins to count anew."""
    named = [one for one in entries if _done(one) and one.body.get("version") == version.label]
    if not named or named[-1].body.get("digest") == version.digest:
        return ()
    digest = str(named[-1].body.get("digest"))[:12]
    return (
        f"number {version.label} was registered as digest {digest} (ledger entry {named[-1].number}), not as "
        f"{version.digest[:12]}: tags were changed, or the model was created again",
    )


def _unknown(version: Version, entries: Sequence[Entry]) -> tuple[str, ...]:
    if any(_done(one) and one.body.get("digest") == version.digest for one in entries):
        return ()
    return (
        "its manifest is of the first format, which nobody signed, and the ledger tells neither of its registration "
        "nor of a replication: register its files again",
    )


def _done(entry: Entry) -> bool:
    return not entry.body.get("error")
