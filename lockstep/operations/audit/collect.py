"""Everything that an audit report says, as one JSON document: from the ledger's entries, then the sealed manifests."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep.errors import LockstepError, NotFoundError, RefusedError
from lockstep.operations.audit.lines import LeafLine, read_leaf
from lockstep.operations.fleet import Fleet
from lockstep.operations.history import ALL, entries_of
from lockstep.operations.key_events import KINDS
from lockstep.operations.proof import Log
from lockstep.operations.seal import Seal, check_seal
from lockstep.rules.decision import candidates
from lockstep.rules.deeds import Deed, Ending
from lockstep.rules.history import History, Interval, Sealed, Split, read_history
from lockstep.rules.incidents import Incident, read_incidents
from lockstep.rules.merkle import leaf_hash
from lockstep.rules.moments import show_moment
from lockstep.rules.state import Version
from lockstep.rules.telling import as_json, headline, moved, numbers, step_line, steps, verdict
from lockstep.rules.waiting import is_answer

FORMAT: Final = "lockstep/audit/v1"
CHECKING: Final = ("verify", "scrub")  # operations that look for tampering


@dataclass(frozen=True)
class Check:
    """One integrity check: whether it holds (None: cannot be told), and what was found."""

    what: str
    holds: bool | None
    found: str


@dataclass(frozen=True)
class Audit:
    """What a report is made from. `document` is plain JSON; `leaves` are the entries' bytes by index."""

    document: Mapping[str, Any]
    history: History
    incidents: tuple[Incident, ...]
    leaves: Mapping[int, bytes]
    manifests: Mapping[str, bytes]
    signatures: Mapping[str, bytes]
    since: float
    until: float


@dataclass(frozen=True)
class _Seals:
    """What MLflow gives of the versions, by digest: manifests, signatures, and what looking at each seal found."""

    manifests: Mapping[str, bytes]
    signatures: Mapping[str, bytes]
    seals: Mapping[str, Seal]
    missing: Mapping[str, str]


def collect(
    fleet: Fleet,
    log: Log,
    *,
    since: float | None = None,
    until: float | None = None,
    checks: Sequence[Check] = (),
    live: Mapping[str, object] | None = None,
) -> Audit:
    """Gather the report of the fleet's model between two times (Unix seconds; from its first entry, until now).

    Looks only. `checks` are those that were made elsewhere, `live` is what registries and endpoints say (`live.py`).
    Raises RefusedError for a time in the wrong order.
    """
    now = time.time()
    end = min(now if until is None else until, now)
    entries = (*entries_of(fleet), *fleet.ledger.entries("", KINDS, ALL, unvouched=True))
    leaves = {entry.number: log.leaf(entry.number) for entry in entries if entry.number >= 0}
    told = [line for line in (read_leaf(number, leaf) for number, leaf in leaves.items()) if line.at <= end]
    lines = [line for line in told if line.model == fleet.model]
    if not lines:
        raise NotFoundError(
            f"the ledger holds no entry of {fleet.model} until {show_moment(end)}", hint="name a later --to"
        )
    history = read_history(lines)
    begin = history.began if since is None else max(since, history.began)
    if begin >= end:
        raise RefusedError(
            f"the report would end at {show_moment(end)}, before it begins at {show_moment(begin)}",
            hint="name a --from that is before --to",
        )
    seals = _read_seals(fleet, history)
    incidents = tuple(one for one in read_incidents(history.deeds) if _within(one.began, one.restored, begin, end))
    made = [*_own_checks(history, lines, seals), *checks]
    deeds = [deed for deed in history.deeds if _within(deed.began, deed.ended, begin, end)]
    document = {
        "format": FORMAT,
        "model": fleet.model,
        "from": show_moment(begin),
        "to": show_moment(end),
        "made": show_moment(now),
        "summary": _summary(history, deeds, incidents, made),
        "serving": _serving(history, end),
        "timeline": timeline(history),
        "versions": [_version(one, seals) for one in history.versions.values()],
        "incidents": [_incident(one) for one in incidents],
        "operations": [_operation(deed) for deed in reversed(deeds)],
        "asked": _asked(deeds),
        "approvals": [_operation(deed) for deed in _all(deeds) if is_answer(deed)],
        "surprises": [
            {
                "cloud": one.cloud,
                "at": show_moment(one.at),
                "expected": _split(one.expected),
                "reported": _split(one.reported),
                "entry": one.entry,
            }
            for one in history.surprises
        ],
        "keys": [_key(line) for line in told if line.kind.startswith(KINDS)],
        "live": live,
        "checks": [{"what": one.what, "holds": one.holds, "found": one.found} for one in made],
        "entries": [
            {
                "index": line.number,
                "leaf_hash": leaf_hash(leaves[line.number]).hex(),
                "at": show_moment(line.at),
                "kind": line.kind,
                "actor": line.actor,
                "late": line.late,
            }
            for line in sorted(told, key=lambda line: line.number)
        ],
    }
    kept = {line.number: leaves[line.number] for line in told}
    return Audit(document, history, incidents, kept, seals.manifests, seals.signatures, begin, end)


def timeline(history: History) -> dict[str, list[dict[str, object]]]:
    """The intervals of every cloud as plain values; `audit verify` makes them again from the entries."""
    return {cloud: [_interval(one) for one in intervals] for cloud, intervals in history.intervals.items()}


def _key(line: LeafLine) -> dict[str, object]:
    return {
        "at": show_moment(line.at),
        "what": line.kind.removeprefix(KINDS),
        **{name: line.body.get(name) for name in ("key", "old", "new")},
        "actor": line.actor,
        "entry": line.number,
    }


def _interval(one: Interval) -> dict[str, object]:
    return {
        "since": show_moment(one.since),
        "until": None if one.until is None else show_moment(one.until),
        "certainty": one.certainty.value,
        "splits": [_split(split) for split in one.splits],
        "entries": list(one.entries),
        "note": one.note,
    }


def _split(split: Split) -> dict[str, int] | None:
    return None if split is None else dict(split.weights)


def _within(began: float, ended: float | None, since: float, until: float) -> bool:
    return began <= until and (ended is None or ended >= since)


def _all(deeds: Sequence[Deed]) -> list[Deed]:
    return [found for deed in deeds for found in (deed, *_all(deed.steps))]


def _summary(
    history: History, deeds: Sequence[Deed], incidents: Sequence[Incident], checks: Sequence[Check]
) -> dict[str, object]:
    every = _all(deeds)
    restored = [one.seconds for one in incidents if one.seconds is not None]
    return {
        "versions": len(history.versions),
        "deployments": sum(deed.operation == "canary_deploy" and deed.ending is not Ending.REFUSED for deed in deeds),
        "promotions": sum(deed.operation == "promote" and deed.ending is Ending.DONE for deed in every),
        "shifts": sum(deed.operation == "shift" for deed in every),
        "refusals": sum(deed.ending is Ending.REFUSED for deed in every),
        "incidents": len(incidents),
        "median_seconds_to_restore": round(statistics.median(restored), 1) if restored else None,
        "checks_failed": sum(one.holds is False for one in checks),
    }


def _serving(history: History, at: float) -> dict[str, object]:
    found: dict[str, object] = {}
    for cloud in history.intervals:
        interval = history.at(cloud, at)
        found[cloud] = {
            "certainty": interval.certainty.value,
            "since": show_moment(interval.since),
            "entries": list(interval.entries),
            "note": interval.note,
            "versions": [
                {
                    "slot": one.slot,
                    "version": one.version.label if one.version else None,
                    "digest": one.version.digest if one.version else None,
                    "weights": list(one.weights),
                }
                for one in candidates(history, interval)
            ],
        }
    return found


def _version(sealed: Sealed, seals: _Seals) -> dict[str, object]:
    manifest, seal = seals.manifests.get(sealed.digest), seals.seals.get(sealed.digest)
    return {
        "slot": sealed.slot,
        "version": sealed.label,
        "digest": sealed.digest,
        "content": sealed.content,
        "run_id": sealed.run_id,
        "sealed_by_entry": sealed.entry,
        "manifest": None if manifest is None else json.loads(manifest),
        "problem": seals.missing.get(sealed.digest) or ("; ".join(seal.problems) if seal else "") or None,
        "signed_by": seal.signer if seal and seal.signer else None,
        "doubts": list(seal.doubts) if seal else [],
    }


def _incident(one: Incident) -> dict[str, object]:
    return {
        "what": one.what,
        "began": show_moment(one.began),
        "restored": None if one.restored is None else show_moment(one.restored),
        "seconds": None if one.seconds is None else round(one.seconds, 3),
        "clouds": dict(one.clouds),
        "reason": one.reason,
        "actor": one.actor,
        "target": one.target,
        "left": one.left,
        "entries": list(one.entries),
    }


def _operation(deed: Deed) -> dict[str, object]:
    return {
        **as_json(deed),
        "headline": headline(deed),
        "moved": [
            {"cloud": one.cloud, "before": one.before, "after": one.after, "note": one.note} for one in moved(deed)
        ],
        "told": [
            {"at": show_moment(step.began), "line": step_line(step, outer), "entries": list(step.entries)}
            for step, outer in steps(deed)
        ],
        "verdicts": [
            {"verdict": verdict(step), "numbers": dict(numbers(step)), "entries": list(step.entries)}
            for step in _all([deed])
            if step.operation == "verdict"
        ],
    }


def _asked(deeds: Sequence[Deed]) -> list[dict[str, object]]:
    """Who or what asked for how much; steps were asked for by whoever asked for the operation."""
    found: dict[str, dict[str, int]] = {}
    for deed in deeds:
        counted = found.setdefault(deed.actor, {})
        counted[deed.operation] = counted.get(deed.operation, 0) + 1
    return [{"actor": actor, "operations": dict(sorted(counted.items()))} for actor, counted in sorted(found.items())]


def _read_seals(fleet: Fleet, history: History) -> _Seals:
    """Manifests and signatures as MLflow has them now; a version that it cannot give is named with the reason."""
    manifests: dict[str, bytes] = {}
    signatures: dict[str, bytes] = {}
    seals: dict[str, Seal] = {}
    missing: dict[str, str] = {}
    for sealed in history.versions.values():
        version = Version(fleet.model, sealed.label, sealed.digest, sealed.run_id)
        try:
            seals[sealed.digest] = check_seal(fleet.registry, version, fleet.keys)
            manifests[sealed.digest] = fleet.registry.manifest(version).to_bytes()
            signature = fleet.registry.signature(version)
        except LockstepError as error:
            missing[sealed.digest] = str(error)
            continue
        if signature is not None:
            signatures[sealed.digest] = signature
    return _Seals(manifests, signatures, seals, missing)


def _own_checks(history: History, lines: Sequence[LeafLine], seals: _Seals) -> list[Check]:
    """What can be told from the entries and the seals alone."""
    wrong = {digest: "; ".join(seal.problems) for digest, seal in seals.seals.items() if not seal.holds}
    wrong |= {digest: said for digest, said in seals.missing.items() if digest not in wrong}
    told = "; ".join(f"{digest[:12]}: {said}" for digest, said in sorted(wrong.items()))
    doubts = {f"{digest[:12]}: {doubt}" for digest, seal in seals.seals.items() for doubt in seal.doubts}
    signed = f"{len(seals.seals)} manifests, {sum(bool(seal.signer) for seal in seals.seals.values())} signatures"
    unsealed = sorted(one.slot for one in history.versions.values() if one.entry is None)
    open_deeds = [deed for deed in history.deeds if deed.ending is Ending.OPEN]
    late = [line.number for line in lines if line.late]
    alien = [line.number for line in lines if line.unvouched]
    checks = [
        Check(
            "every version's manifest and signature are those that were sealed",
            False if wrong else None if doubts else True,
            "; ".join([*([told] if told else []), *sorted(doubts)]) or signed,
        ),
        Check(
            "every version that served was registered in the ledger",
            not unsealed,
            f"not registered: {', '.join(unsealed)}" if unsealed else f"{len(history.versions)} versions",
        ),
        Check(
            "no cloud reported traffic that Lockstep had not moved",
            not history.surprises,
            "; ".join(f"{one.cloud} at {show_moment(one.at)}, entry {one.entry}" for one in history.surprises)
            or "none did",
        ),
        Check(
            "every operation has an outcome",
            None if open_deeds else True,
            "running or killed: " + ", ".join(f"{deed.operation} (entry {deed.entries[0]})" for deed in open_deeds)
            if open_deeds
            else f"{len(history.deeds)} operations",
        ),
        Check(
            "entries were written when they happened",
            None if late else True,
            f"appended late: {', '.join(map(str, late))}" if late else "none was appended late",
        ),
        Check(
            "entries that waited for the ledger were signed while they waited",
            None if alien else True,
            f"anybody who may write to the spool could have put in: {', '.join(map(str, alien))}"
            if alien
            else "nothing was appended that nobody vouched for",
        ),
    ]
    for operation in CHECKING:
        done = [deed for deed in history.deeds if deed.operation == operation and deed.ended is not None]
        if done:
            newest = done[-1]
            said = newest.error or f"nothing was found at {show_moment(newest.began)}"
            checks.append(Check(f"the newest `{operation}` found nothing", newest.ending is Ending.DONE, said))
    return checks
