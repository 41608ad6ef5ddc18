"""Integrity checks of a report that look beyond the model's entries: the whole ledger, and its copies in the clouds."""

from __future__ import annotations

from lockstep.errors import LockstepError
from lockstep.operations.audit.collect import Check
from lockstep.operations.comparison import compare_copies
from lockstep.operations.fleet import Fleet
from lockstep.operations.history import ALL
from lockstep.operations.key_events import KINDS, unrecorded


def ledger_checks(fleet: Fleet) -> tuple[Check, ...]:
    """The ledger recomputed from its first entry, then each cloud's copy; one that cannot be read is open, not bad."""
    return (_recomputed(fleet), _keys(fleet), *_copies(fleet))


def _keys(fleet: Fleet) -> Check:
    what = "every key that is trusted has its entry in the ledger"
    try:
        unknown = unrecorded(fleet.keys, fleet.ledger.entries("", KINDS, ALL))
    except LockstepError as error:
        return Check(what, None, error.reason)
    if unknown:
        said = f"no entry tells of {', '.join(unknown)}: made by an earlier release, or put there by hand"
        return Check(what, None, said)
    return Check(what, True, f"{len(fleet.keys.verifiers) + len(fleet.keys.signing_public)} keys")


def _recomputed(fleet: Fleet) -> Check:
    what = "the whole ledger, computed anew, has the roots that were signed"
    try:
        found = fleet.ledger.verify()
    except LockstepError as error:
        return Check(what, None, error.reason)
    if found.first is not None:
        return Check(what, False, f"first: {found.first} ({len(found.flaws)} in all)")
    said = "; ".join((f"{found.size} entries, {found.checkpoints} signed checkpoints", *found.notes))
    return Check(what, True if found.checkpoint is not None else None, said)


def _copies(fleet: Fleet) -> tuple[Check, ...]:
    try:
        compared = compare_copies(fleet.clouds, fleet.ledger)
    except LockstepError as error:
        return (Check("the clouds' copies of the ledger agree with it", None, error.reason),)
    checks = []
    for copy in compared:
        what = f"the copy of the ledger on {copy.cloud} agrees with it"
        if not copy.place:
            checks.append(Check(what, None, "there is no copy: set `archive` of this cloud in lockstep.yaml"))
        elif copy.error is not None:
            checks.append(Check(what, None, f"it cannot be read: {copy.error.reason}"))
        elif copy.problems:
            bad = f"first bad entry {copy.first_bad}: " if copy.first_bad is not None else ""
            checks.append(Check(what, False, bad + "; ".join(copy.problems)))
        else:
            kept = f", {copy.protection.text}" if copy.protection else ""
            said = f"{copy.place}: {copy.checkpoints} checkpoints, the newest of {copy.size or 0} entries{kept}"
            said += f"; it lacks the newest {copy.behind}" if copy.behind else ""
            checks.append(Check(what, True if copy.checkpoints else None, said))
    return tuple(checks)
