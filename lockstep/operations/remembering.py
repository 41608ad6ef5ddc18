"""What was last known of a model: kept whenever MLflow answers, recalled with the ledger's help when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockstep.clouds.base import Row
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.owed import owed
from lockstep.rules.amending import tagged
from lockstep.rules.deeds import text
from lockstep.rules.owed import Debt, amended
from lockstep.rules.replay import empty, replay
from lockstep.rules.state import CONDEMNED_TAG, KNOWN_GOOD_TAG, ModelRecord, Version

RECALLED: Final = 20_000  # entries that are read at most to recall a model
#: Entries that say which versions are condemned.
CONDEMNING: Final = ("promote.outcome", "rollback.outcome", "condemn.outcome", "lift.outcome", "verdict.outcome")


def read_record(fleet: Fleet) -> ModelRecord:
    """MLflow's record with what it is still owed, remembered for the day on which it cannot be asked."""
    upto = newest_entry(fleet)
    record = amended(fleet.registry.record(fleet.model), owed_if_known(fleet))
    remember(fleet, record, upto)
    return record


def silently_lifted(fleet: Fleet, record: ModelRecord) -> Mapping[str, str]:
    """Reasons by digest of versions that the ledger knows as condemned and the record, which may be MLflow's, does not.

    Whoever may edit tags in MLflow could have a bad version deployed again. Raises LockstepError for a ledger that
    cannot be read.
    """
    entries = [one for kind in CONDEMNING for one in fleet.ledger.entries(fleet.model, kind, RECALLED)]
    told = replay(empty(fleet.model), entries)
    marked = {one.version.digest for one in record.versions if one.condemned}
    return {
        one.version.digest: one.condemned for one in told.versions if one.condemned and one.version.digest not in marked
    }


def still_condemned(fleet: Fleet, record: ModelRecord) -> ModelRecord:
    """The record with everything condemned that the ledger condemned, whatever was done to its tag in MLflow."""
    try:
        lifted = silently_lifted(fleet, record)
    except LockstepError as error:  # it holds up nothing that MLflow allows
        fleet.say(f"whether the ledger condemned another version is not known: {error.problem}")
        return record
    for one in record.versions:
        if reason := lifted.get(one.version.digest):
            told = f"{reason} (so the ledger says; its tag {CONDEMNED_TAG} in MLflow was taken away)"
            record = tagged(record, one.version, CONDEMNED_TAG, told)
    return record


def earned_only(fleet: Fleet, record: ModelRecord) -> tuple[ModelRecord, tuple[str, ...]]:
    """The record with known-good as the ledger granted it, and a sentence for each tag in MLflow that it does not know.

    Whoever may edit tags in MLflow could have all clouds led to a version of theirs. A ledger that cannot be read, or
    that tells of no promotion of the model and so is not the one that it was earned under, contradicts nothing.
    """
    claimed = [one for one in record.versions if one.known_good]
    if not claimed:
        return record, ()
    try:
        entries = fleet.ledger.entries(fleet.model, "known_good.outcome", RECALLED)
        knows = bool(entries) or bool(fleet.ledger.entries(fleet.model, "promote.outcome", last=1))
    except LockstepError as error:
        fleet.say(f"whether known-good was earned is not known: {error.problem}")
        return record, ()
    granted: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.body.get("error"):
            granted.setdefault(text(entry.body, "digest"), []).append(text(entry.body, "at"))
    doubts = []
    for one in claimed if knows else ():
        earned = granted.get(one.version.digest, [])
        if one.known_good in earned:
            continue
        instead = (
            f"earned it at {earned[-1]}" if earned else "never earned it: no rollback goes there unless it is named"
        )
        doubts.append(
            f"the tag {KNOWN_GOOD_TAG} of {one.version} in MLflow says {one.known_good}; by the ledger it {instead}"
        )
        record = tagged(record, one.version, KNOWN_GOOD_TAG, earned[-1] if earned else "")
    for doubt in doubts:
        fleet.say(doubt)
    return record, tuple(doubts)


def recall(fleet: Fleet) -> ModelRecord:
    """The record without MLflow: the last known one, brought up to date by the ledger, which alone will do as well."""
    remembered = fleet.last_known.read(fleet.model)
    try:
        entries = fleet.ledger.entries(fleet.model, last=RECALLED)
    except LockstepError as error:
        fleet.say(f"what was last known is not checked against the ledger: {error.problem}")
        entries = ()
    newer = [one for one in entries if one.number > remembered.upto or one.number < 0]  # which waits to be appended
    return replay(remembered.record or empty(fleet.model), newer)


def newest_entry(fleet: Fleet) -> int:
    """Index of the model's newest entry; -1 for none, and for a ledger that cannot be read.

    To be asked before MLflow is: what comes in between is in both then, which does no harm.
    """
    try:
        newest = fleet.ledger.entries(fleet.model, last=1, waiting=False)
        return max((entry.number for entry in newest), default=-1)
    except LockstepError:
        return -1


def owed_if_known(fleet: Fleet) -> tuple[Debt, ...]:
    """What MLflow is owed; nothing while the ledger cannot be read."""
    try:
        return owed(fleet)
    except LockstepError as error:
        fleet.say(f"what MLflow is still owed is not known: {error.problem}")
        return ()


def remember(fleet: Fleet, record: ModelRecord, upto: int) -> None:
    """Keep the record; a disk that is full must not stop anything."""
    try:
        fleet.last_known.keep(fleet.model, record, upto)
    except LockstepError as error:
        fleet.say(f"what MLflow says was not kept for a day on which it is down: {error.problem}")


def rows_of(fleet: Fleet, version: Version) -> tuple[Row, ...]:
    """Rows to probe the version with, read from MLflow once."""
    rows = fleet.last_known.details(version).rows
    if rows is None:
        rows = fleet.registry.example_rows(version)
        _keep(fleet, version, rows=rows)
    return rows


def images_of(fleet: Fleet, version: Version) -> Mapping[str, str]:
    """The serving image by cloud that the version was sealed with, read from MLflow once."""
    images = fleet.last_known.details(version).images
    if images is None:
        images = fleet.registry.manifest(version).env.images
        _keep(fleet, version, images=images)
    return images


def remember_details(fleet: Fleet, *versions: Version | None) -> None:
    """Read, where that was not done here before, what a rollback to these would need of MLflow."""
    for version in versions:
        if version is None:
            continue
        try:
            images_of(fleet, version)
            rows_of(fleet, version)
        except LockstepError as error:
            fleet.say(f"what a rollback to {version} needs was not kept: {error.problem}")


def _keep(
    fleet: Fleet, version: Version, images: Mapping[str, str] | None = None, rows: tuple[Row, ...] | None = None
) -> None:
    try:
        fleet.last_known.keep_details(version, images=images, rows=rows)
    except LockstepError as error:
        fleet.say(f"what a rollback to {version} needs was not kept: {error.problem}")
