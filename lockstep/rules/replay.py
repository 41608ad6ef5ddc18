"""What MLflow should say of a model, as the ledger tells it: for when MLflow itself cannot be asked.

Each entry changes the record as the operation that wrote it changed MLflow. Begun with nothing, all of a model's
entries give its record; begun with what MLflow said up to an entry, those after it bring that up to date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lockstep.rules.amending import pointed, tagged, with_version
from lockstep.rules.deeds import Line, in_order, mapping, text, texts
from lockstep.rules.known_good import ENDED
from lockstep.rules.manifest import SHA256
from lockstep.rules.owed import amended, read_debts
from lockstep.rules.state import (
    CHALLENGER,
    CHAMPION,
    CONDEMNED_TAG,
    FALLBACK,
    KNOWN_GOOD_TAG,
    VERDICT_TAG,
    DesiredState,
    ModelRecord,
    Version,
)
from lockstep.rules.switch import Ending


def empty(model: str) -> ModelRecord:
    """Nothing known."""
    return ModelRecord(DesiredState(model, None))


def replay(record: ModelRecord, lines: Sequence[Line]) -> ModelRecord:
    """The record after `lines`, entries of its model."""
    for line in in_order(lines):
        version = _version(record.model, line.body)
        if version is not None and not (line.kind == "register.outcome" and text(line.body, "error")):
            record = _known(record, version)
        for seen in mapping(line.body, "slots").values():
            also = _version(record.model, seen) if isinstance(seen, Mapping) else None
            record = record if also is None else _known(record, also)
        record = _after(record, line, version)
    return record


def _after(record: ModelRecord, line: Line, version: Version | None) -> ModelRecord:
    body, failed = line.body, bool(text(line.body, "error"))
    if line.kind == "mlflow.owed":
        return amended(record, read_debts(record.model, body, "owed"))
    if version is None:
        return record
    if line.kind == "promote.outcome" and not failed:
        record = _fallback(pointed(pointed(record, CHAMPION, version), CHALLENGER, None), body)
    elif line.kind == "rollback.outcome" and text(body, "ending") in ENDED:
        record = _rolled_back(record, body, version)
    elif line.kind == "canary_deploy.intent":
        champion = record.desired.champion
        if champion is not None and champion.digest != version.digest:
            record = pointed(record, CHALLENGER, version)
    elif line.kind == "canary_deploy.outcome" and not text(body, "challenger"):
        record = pointed(record, CHALLENGER, None)
    elif line.kind == "verdict.outcome":
        record = _judged(record, body, version)
    elif line.kind == "known_good.outcome" and not failed:
        record = tagged(record, version, KNOWN_GOOD_TAG, text(body, "at"))
    elif line.kind == "condemn.outcome" and not failed:
        record = _fallback(_condemned(record, body), body)
    elif line.kind == "lift.outcome" and not failed:
        record = tagged(record, version, CONDEMNED_TAG, "")
    return record


def _rolled_back(record: ModelRecord, body: Mapping[str, object], target: Version) -> ModelRecord:
    record = _condemned(pointed(pointed(record, CHAMPION, target), CHALLENGER, None), body)
    if "condemned" not in body:  # an earlier release named only their numbers
        left = [one.version for one in record.versions if one.version.label in texts(body, "left")]
        for version in left:
            record = tagged(record, version, CONDEMNED_TAG, f"rolled back from: {text(body, 'reason')}")
    return _fallback(record, body) if text(body, "ending") == Ending.DONE else record


def _condemned(record: ModelRecord, body: Mapping[str, object]) -> ModelRecord:
    for digest, reason in mapping(body, "condemned").items():
        for one in record.versions:
            if one.version.digest == digest:
                record = tagged(record, one.version, CONDEMNED_TAG, str(reason))
    return record


def _judged(record: ModelRecord, body: Mapping[str, object], version: Version) -> ModelRecord:
    decision = text(body, "decision")
    record = tagged(record, version, VERDICT_TAG, decision)
    champion = record.desired.champion
    if decision != "fail" or (champion is not None and champion.digest == version.digest):
        return record
    return tagged(record, version, CONDEMNED_TAG, f"judged bad: {'; '.join(texts(body, 'reasons'))}")


def _fallback(record: ModelRecord, body: Mapping[str, object]) -> ModelRecord:
    """The fallback that an outcome names by its digest; as it was where it names none, as earlier releases did."""
    if "fallback" not in body:
        return record
    digest = text(body, "fallback")
    found = next((one.version for one in record.versions if one.version.digest == digest), None)
    return pointed(record, FALLBACK, found)


def _version(model: str, body: Mapping[str, object]) -> Version | None:
    label, digest = text(body, "version"), text(body, "digest")
    if not label.isdecimal() or not SHA256.fullmatch(digest):
        return None
    return Version(model, label, digest, text(body, "run_id"))


def _known(record: ModelRecord, version: Version) -> ModelRecord:
    """With the version in it, and its run where an entry tells that one for the first time."""
    known = record.of(version).version
    record = with_version(record, version)
    if not version.run_id or known.run_id == version.run_id or known.run_id:
        return record
    told = replace(known, run_id=version.run_id)
    versions = tuple(replace(one, version=told) if one.version == known else one for one in record.versions)
    record = replace(record, versions=versions)
    for alias, now in (
        (CHAMPION, record.desired.champion),
        (CHALLENGER, record.desired.challenger),
        (FALLBACK, record.desired.fallback),
    ):
        if now is not None and now.digest == version.digest:
            record = pointed(record, alias, told)
    return record
