"""Which versions there should be: those that MLflow has now, and those that the ledger saw.

MLflow lets versions be deleted, models be deleted and created again (numbers then begin at 1 once more), and tags be
changed, and keeps no record of any of it. The ledger does: it names number and digest in every entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.rules.manifest import SCHEMAS, SHA256
from lockstep.rules.naming import LABEL
from lockstep.rules.state import Version
from lockstep.stores.ledger import Entry
from lockstep.stores.registry import DIGEST_TAG, FORMAT_TAG, Record

#: Operations whose entries name a version, and how far back they are read.
SEEN_BY: Final = ("register.outcome", "replicate.", "canary_deploy.")
LAST: Final = 100_000


@dataclass(frozen=True)
class Known:
    """A version that there should be. `lost` says why MLflow does not have it any more, "" while it has.

    `record` is MLflow's under its number, be it still this version or not; `clouds` are those to which the ledger saw
    it replicated.
    """

    version: Version
    record: Record | None = None
    clouds: frozenset[str] = frozenset()
    lost: str = ""


def known_versions(fleet: Fleet, records: Sequence[Record]) -> tuple[Known, ...]:
    """All versions that `records` (MLflow's) or the ledger know, in the order of their numbers."""
    found: dict[tuple[str, str], Known] = {}
    for record in records:
        if record.schema in SCHEMAS and SHA256.fullmatch(record.digest):
            version = Version(fleet.model, record.label, record.digest, record.run_id)
            found[record.label, record.digest] = Known(version, record)
    for kind in SEEN_BY:
        for entry in fleet.ledger.entries(fleet.model, kind, last=LAST):
            seen = _seen(entry)
            if seen is None:
                continue
            key = seen.version.label, seen.version.digest
            before = found.setdefault(key, seen)
            run_id = before.version.run_id or seen.version.run_id
            version = replace(before.version, run_id=run_id)
            found[key] = replace(before, version=version, clouds=before.clouds | seen.clouds)
    told = [known if known.record else _without(known, records) for known in found.values()]
    return tuple(sorted(told, key=lambda known: (int(known.version.label), known.version.digest)))


def choose(fleet: Fleet, known: Sequence[Known], text: str) -> Known:
    """The version meant by a number, an alias or a part of a digest, also of one that MLflow does not have any more."""
    try:
        version = fleet.registry.find(fleet.model, text)
    except NotFoundError as missing:
        label = LABEL.fullmatch(text)
        meant = [
            one
            for one in known
            if (label and one.version.label == label[1]) or (len(text) >= 8 and one.version.digest.startswith(text))
        ]
        if not meant:
            raise
        if len(meant) > 1:
            raise RefusedError(
                f"{text!r} fits several versions of {fleet.model}: {', '.join(str(one.version) for one in meant)}",
                hint="name one of them by more digits of its digest",
            ) from missing
        return meant[0]
    same = [one for one in known if (one.version.label, one.version.digest) == (version.label, version.digest)]
    return same[0] if same else Known(version)


def _seen(entry: Entry) -> Known | None:
    body = entry.body
    label, digest = body.get("version"), body.get("digest")
    if not isinstance(label, str) or not label.isdecimal() or not isinstance(digest, str):
        return None
    if not SHA256.fullmatch(digest) or (entry.kind == "register.outcome" and body.get("error")):
        return None
    clouds = body.get("clouds") if entry.kind == "replicate.outcome" else None
    return Known(
        Version(entry.model, label, digest, str(body.get("run_id") or "")),
        clouds=frozenset(map(str, clouds)) if isinstance(clouds, dict) else frozenset(),
    )


def _without(known: Known, records: Sequence[Record]) -> Known:
    """Why MLflow does not have it, as far as its other records tell."""
    version = known.version
    now = next((record for record in records if record.label == version.label), None)
    again = next((record for record in records if record.digest == version.digest), None)
    elsewhere = f"; the same version is number {again.label} now" if again else ""
    if now is None:
        anew = "the model was deleted and created again" if again else "it was deleted, or the model was"
        lost = f"MLflow has no version {version.label} any more: {anew}{elsewhere}"
    elif now.digest == version.digest:
        lost = f"its tag {FORMAT_TAG} is {now.schema or 'gone'}, not one of {', '.join(SCHEMAS)}"
    elif not now.digest:
        lost = f"its tag {DIGEST_TAG} is gone, or number {version.label} stands for an unsealed version now{elsewhere}"
    elif version.run_id and now.run_id == version.run_id and not again:
        lost = f"its tag {DIGEST_TAG} was changed to {now.digest[:12]}"
    else:
        lost = (
            f"number {version.label} stands for digest {now.digest[:12]} now: the model was deleted and created "
            f"again, or the tag {DIGEST_TAG} was changed{elsewhere}"
        )
    return replace(known, record=now, lost=lost)
