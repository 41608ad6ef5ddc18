"""Where a rollback goes, and which versions it leaves behind.

- A version that somebody names is the target.
- While a canary takes traffic, the way back is the champion: the newest change is taken back first.
- Several alerts tell of one incident: right after a rollback the champion is where it led, and stays the target.
- Otherwise it is the newest version that is known to be good, and without one the fallback, which has not soaked.
- Never one that is condemned, and by itself never the champion.
- Who says which version is to be left never goes further: once it serves no more the champion stays the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lockstep.errors import RefusedError
from lockstep.rules.known_good import known_good
from lockstep.rules.state import FALLBACK, FleetState, ModelRecord, Version


class Why(StrEnum):
    """Why a version is the target."""

    NAMED = "it was named"
    CANARY = "it is the champion, and a canary takes traffic beside it"
    ARRIVED = "a rollback has just led there"
    STAYS = "it is the champion, and not what is to be left"
    KNOWN_GOOD = "it is the newest version that is known to be good"
    FALLBACK = "it is the fallback; it has not soaked, so nothing says that it is known to be good"


@dataclass(frozen=True)
class Way:
    """The version to go to and why, and those that served and are left behind, the most trusted first."""

    target: Version
    left: tuple[Version, ...]
    why: Why = Why.NAMED


def choose_way(
    record: ModelRecord,
    named: Version | None,
    observed: FleetState,
    arrived: str = "",
    leaving: Version | None = None,
) -> Way:
    """The way of a rollback; `arrived` is the digest that a rollback a moment ago led to, if there was one.

    `leaving` is the version that is to be left, None for what serves, the newest change first.

    Raises RefusedError when there is no version to go to, or when the one that was named is condemned.
    """
    desired = record.desired
    champion, challenger = desired.champion, desired.challenger
    trying = _trying(record, observed)
    target, why = _named(record, named) or _staying(record, leaving)
    if target is None:
        # What is said to be bad by name is left, even where a rollback has just led, and with a canary beside it.
        by_name = leaving is not None
        target, why = _chosen(record, "" if by_name else arrived, trying=trying and not by_name)
    served = (champion, challenger if trying else None)
    return Way(target, tuple(version for version in served if version and version.digest != target.digest), why)


def serving(record: ModelRecord, observed: FleetState) -> Version:
    """The newest change among what serves: the canary while it takes traffic, else the champion.

    Raises RefusedError when nothing should be serving.
    """
    champion, challenger = record.desired.champion, record.desired.challenger
    if challenger is not None and _trying(record, observed):
        return challenger
    if champion is None:
        raise RefusedError(
            f"{record.model} has no champion, so nothing should be serving",
            hint=f"deploy a version first: lockstep deploy {record.model} VERSION",
        )
    return champion


def nothing_to_leave(record: ModelRecord, leaving: Version, observed: FleetState) -> str:
    """Why a rollback from that version has nothing to do, as far as the clouds answer; "" when it has."""
    desired = record.desired
    serving = [desired.champion] + ([desired.challenger] if _trying(record, observed) else [])
    if desired.champion is None or any(one is not None and one.digest == leaving.digest for one in serving):
        return ""
    slots = [cloud.slot(leaving.slot) for cloud in observed.clouds]
    if any(slot is not None and slot.weight > 0 for slot in slots):
        return ""
    return f"{leaving} serves no more: {desired.champion} does"


def condemned_error(version: Version, reason: str) -> RefusedError:
    """Why a condemned version is not gone to, and what can be done."""
    return RefusedError(
        f"{version} is condemned: {reason}",
        hint=f"choose another version (see `lockstep versions {version.model}`), or if it was condemned wrongly: "
        f"lockstep lift {version.model} {version.label} --reason REASON",
    )


def _named(record: ModelRecord, named: Version | None) -> tuple[Version, Why] | None:
    if named is None:
        return None
    reason = record.of(named).condemned
    if reason:
        raise condemned_error(named, reason)
    return named, Why.NAMED


def _staying(record: ModelRecord, leaving: Version | None) -> tuple[Version | None, Why]:
    """The champion, when another version is to be left and nothing speaks against the champion."""
    champion = record.desired.champion
    if leaving is None or champion is None or champion.digest == leaving.digest or record.of(champion).condemned:
        return None, Why.NAMED
    return champion, Why.STAYS


def _trying(record: ModelRecord, observed: FleetState) -> bool:
    """Whether a canary takes traffic, or may."""
    champion, challenger = record.desired.champion, record.desired.challenger
    # A promotion that was killed before its last call leaves both aliases on one version: that is no canary.
    promoted = champion is not None and challenger is not None and champion.digest == challenger.digest
    return challenger is not None and not promoted and _may_have_traffic(challenger, observed)


def _chosen(record: ModelRecord, arrived: str, *, trying: bool) -> tuple[Version, Why]:
    """The target that nobody had to name."""
    champion, fallback = record.desired.champion, record.desired.fallback
    if champion is not None and not record.of(champion).condemned:
        if trying:
            return champion, Why.CANARY
        if champion.digest == arrived:
            return champion, Why.ARRIVED
    serving = champion.digest if champion is not None else ""
    good = next((one.version for one in known_good(record) if one.version.digest != serving), None)
    if good is not None:
        return good, Why.KNOWN_GOOD
    if fallback is not None and fallback.digest != serving and not record.of(fallback).condemned:
        return fallback, Why.FALLBACK
    raise RefusedError(
        f"{record.model} has no known-good version to go back to: {_nothing(record, serving)}",
        hint=f"name one: lockstep rollback {record.model} --to VERSION (`lockstep versions {record.model}` lists them; "
        f"lockstep lift {record.model} VERSION --reason REASON takes back that one was condemned)",
    )


def _nothing(record: ModelRecord, serving: str) -> str:
    """Why neither known-good nor the fallback will do."""
    fallback = record.desired.fallback
    others = [one for one in record.versions if one.version.digest != serving]
    if not others:
        return "it has no other version" if serving else "it has no version"
    told = "no other version has earned it"
    if fallback is None:
        told += f", and there is no alias {FALLBACK!r}"
    elif record.of(fallback).condemned:
        told += f", and the fallback {fallback} is condemned: {record.of(fallback).condemned}"
    else:
        told += f", and the alias {FALLBACK!r} points at what serves"
    condemned = [one.version.label for one in others if one.condemned]
    return told + (f" (condemned: {', '.join(condemned)})" if condemned else "")


def _may_have_traffic(version: Version, observed: FleetState) -> bool:
    """Whether a cloud shows it with traffic, or cannot be asked."""
    slots = (cloud.slot(version.slot) for cloud in observed.clouds)
    return bool(observed.unreachable) or any(slot is not None and slot.weight > 0 for slot in slots)
