"""Grant `known-good` to a champion that has soaked: the evidence into the ledger, then the tag in MLflow."""

from __future__ import annotations

import time
from typing import Final

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.rules.known_good import Standing, earned_at, judge_standing, known_good_tag
from lockstep.rules.moments import show_moment
from lockstep.rules.state import KNOWN_GOOD_TAG, ModelRecord, Version

#: Entries that tell who is champion and what was against it, and how many of each are read.
TELL: Final = ("promote.outcome", "rollback.", "reconcile.outcome", "verdict.outcome", "monitor.")
LAST: Final = 100


def standing_of(fleet: Fleet, version: Version, now: float) -> Standing:
    """Whether the version, which is champion, has earned known-good at `now` (Unix seconds), by the ledger."""
    try:
        lines = [entry for kind in TELL for entry in fleet.ledger.entries(fleet.model, kind, last=LAST)]
    except LockstepError as error:
        return Standing(False, f"whether {version} has soaked cannot be told: {error.problem}")
    return judge_standing(lines, version, fleet.settings.rollout.soak_seconds, now)


def grant_if_earned(fleet: Fleet, record: ModelRecord, champion: Version) -> Standing:
    """Give the champion of `record` the tag if it has earned it; written once for each time that it is champion.

    Raises LockstepError when MLflow cannot be written; granted again next time then.
    """
    now = time.time()
    standing, before = standing_of(fleet, champion, now), record.of(champion)
    if not standing.earned or standing.soak is None or before.condemned:
        return standing
    earned = earned_at(before)
    if earned is None or earned < standing.soak.since:
        evidence = {
            "version": champion.label,
            "digest": champion.digest,
            "since": show_moment(standing.soak.since),
            "soaked_seconds": round(standing.seconds, 3),
            "asked_seconds": fleet.settings.rollout.soak_seconds,
            "rests_on": standing.soak.entry,
            "told": standing.told,
            "at": known_good_tag(now),
        }
        note(fleet, "known_good.outcome", evidence)
        fleet.registry.tag(champion, KNOWN_GOOD_TAG, known_good_tag(now))
        fleet.say(f"{champion} is known to be good: {standing.told}")
    return standing
