"""Which versions are known to be good, and which of them is the way back.

- A version earns it by being champion for the fleet's soak time on end, with nothing that judged it bad meanwhile.
- The soak begins anew with whatever judges it bad (a failed verdict, a breach), with a switch that not every cloud
  followed, and with one that was begun and of which nothing says what came of it.
- The ledger is the evidence: a champion that no entry tells of has earned nothing.
- Condemned overrides known-good for as long as it lasts; lifting it gives back what was earned before.
- The newest is the one that earned it last, whatever its number: it did so under the conditions of today.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lockstep.rules.deeds import Line, in_order, text
from lockstep.rules.moments import show_span
from lockstep.rules.state import ModelRecord, Version, VersionRecord
from lockstep.rules.switch import Ending

#: What a soak can run from.
PROMOTED: Final = "promoted"
BACK: Final = "rolled back to"
SPLIT: Final = "rolled back to, though not by every cloud"
LEAVING: Final = "to be left, by a rollback of which no outcome is known"
SETTLED: Final = "put in step"
BAD: Final = "judged bad"
#: How a rollback ends that came past its commit.
ENDED: Final = (Ending.DONE, Ending.SPLIT, Ending.NOWHERE)
#: Those after which some cloud may serve something else.
UNSETTLED: Final = (SPLIT, LEAVING)


@dataclass(frozen=True)
class Soak:
    """A champion's undisturbed time: `digest` is champion and nothing was against it since `since` (Unix seconds).

    `entry` is the index of the ledger's entry that the time runs from, `why` what that entry says.
    """

    digest: str
    since: float
    entry: int
    why: str


@dataclass(frozen=True)
class Standing:
    """Whether a version has earned known-good by now; `told` is the evidence for it, or what is missing."""

    earned: bool
    told: str
    soak: Soak | None = None
    seconds: float = 0.0


def read_soak(lines: Sequence[Line]) -> Soak | None:
    """The undisturbed time of whichever version is champion by the ledger; None when no entry tells of one."""
    ordered = in_order(lines)
    ended = {text(line.body, "intent") for line in ordered if line.kind.endswith(".outcome")}
    soak: Soak | None = None
    for line in ordered:
        soak = _next(soak, line, ended)
    return soak


def judge_standing(lines: Sequence[Line], version: Version, soak_seconds: float, now: float) -> Standing:
    """Whether `version` has earned known-good at `now` (Unix seconds), by the model's entries in the ledger."""
    soak = read_soak(lines)
    if soak is None or soak.digest != version.digest:
        return Standing(False, f"the ledger does not say that {version} is champion")
    seconds = max(0.0, now - soak.since)
    told = f"champion for {show_span(seconds)} since it was {soak.why} (entry {soak.entry})"
    if seconds < soak_seconds or now < soak.since:  # a clock that was set back has seen nothing soak
        return Standing(False, f"{told}, of {show_span(soak_seconds)}", soak, seconds)
    return Standing(True, f"{told}, with nothing against it", soak, seconds)


def known_good(record: ModelRecord) -> tuple[VersionRecord, ...]:
    """Versions that are known to be good and not condemned, the one that earned it last first."""
    found = [one for one in record.versions if earned_at(one) is not None and not one.condemned]
    return tuple(sorted(found, key=lambda one: (earned_at(one) or 0.0, int(one.version.label)), reverse=True))


def earned_at(record: VersionRecord) -> float | None:
    """Unix seconds at which it earned known-good; None for one that has not, or whose tag holds no time."""
    try:
        found = datetime.fromisoformat(record.known_good)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None


def known_good_tag(at: float) -> str:
    """The tag's value for an instant in Unix seconds: RFC 3339, in whole seconds of UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def good_beside(record: ModelRecord, champion: Version | None) -> Version | None:
    """The newest version that is known to be good, and is not the champion."""
    serving = champion.digest if champion is not None else ""
    return next((one.version for one in known_good(record) if one.version.digest != serving), None)


def fallback_after_promotion(
    record: ModelRecord, stable: Version, promoted: Version, *, earned: bool
) -> Version | None:
    """The way back once `promoted` serves instead of `stable`, which has `earned` known-good by now or has not.

    A stable version that had no time to soak does not push out a fallback that is known to be good.
    """
    old = record.desired.fallback
    if earned and _may_be(record, stable, (promoted,)):
        return stable
    if old is not None and earned_at(record.of(old)) is not None and _may_be(record, old, (promoted,)):
        return old
    return stable if _may_be(record, stable, (promoted,)) else None


def fallback_after_rollback(record: ModelRecord, target: Version, left: Collection[Version]) -> Version | None:
    """The way back from `target`: the next that is known to be good, else the fallback there is, if it is another."""
    apart = (target, *left)
    good = next((one.version for one in known_good(record) if _may_be(record, one.version, apart)), None)
    old = record.desired.fallback
    return good or (old if old is not None and _may_be(record, old, apart) else None)


def _may_be(record: ModelRecord, version: Version, apart: Collection[Version]) -> bool:
    return not record.of(version).condemned and version.digest not in {one.digest for one in apart}


def _next(soak: Soak | None, line: Line, ended: Collection[str]) -> Soak | None:
    """The soak after one more entry."""
    digest = text(line.body, "digest")
    ours = soak is not None and digest == soak.digest
    begun = _begun(line, ended)
    if begun in (PROMOTED, BACK):
        # Deployed or rolled back to again while it serves everywhere: nothing was disturbed.
        return soak if ours and soak is not None and soak.why not in UNSETTLED else _soak(digest, line, begun)
    if begun == SPLIT:
        return _soak(digest, line, begun)
    if soak is None or (begun == LEAVING and ours) or (begun == BAD and not ours):
        return soak
    if begun == SETTLED and soak.why not in UNSETTLED:
        return soak
    return _soak(soak.digest, line, begun) if begun else soak


def _soak(digest: str, line: Line, why: str) -> Soak:
    return Soak(digest, line.at, line.number, why)


def _begun(line: Line, ended: Collection[str]) -> str:
    """What an entry says about the champion, "" for nothing."""
    failed = bool(text(line.body, "error"))
    ending = text(line.body, "ending")
    if line.kind == "promote.outcome":
        return "" if failed else PROMOTED
    if line.kind == "rollback.outcome":
        if ending not in ENDED:  # refused before its commit, or given up for another target, half-way maybe
            return LEAVING if ending else ""
        return BACK if ending == Ending.DONE else SPLIT
    if line.kind == "rollback.intent":
        return "" if line.event_id.removesuffix("/intent") in ended else LEAVING
    if line.kind == "reconcile.outcome":
        return "" if failed else SETTLED
    judged = line.kind in ("monitor.intent", "monitor.breach")
    return BAD if judged or (line.kind == "verdict.outcome" and text(line.body, "decision") == "fail") else ""
