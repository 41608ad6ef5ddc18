"""What was last known of each model, kept beside the ledger for when MLflow cannot be asked: one JSON file a model.

It holds MLflow's record with the index of the ledger's entry up to which it is known to be right, and what a rollback
would otherwise have to read from manifests, by digest: the serving image per cloud and rows to probe with. It is a
memory and no authority: the ledger's later entries override it, and a file that is lost costs nothing but time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lockstep.errors import LockstepError
from lockstep.rules.state import DesiredState, ModelRecord, Version, VersionRecord
from lockstep.stores.private_files import FOLDER_MODE, replace_file

FORMAT: Final = "lockstep.last-known/1"
MOST: Final = 20  # versions whose details are kept, the newest
Row = Mapping[str, object]


@dataclass(frozen=True)
class Details:
    """Of one version, which its digest stands for; None for what was never read."""

    images: Mapping[str, str] | None = None
    rows: tuple[Row, ...] | None = None


@dataclass(frozen=True)
class Remembered:
    """`record` is MLflow's, None if there is none; `upto` the ledger's last entry that it takes in, -1 for none."""

    record: ModelRecord | None = None
    upto: int = -1
    details: Mapping[str, Details] = field(default_factory=dict)


class LastKnown:
    """The files in one folder; without a folder nothing is remembered. Safe to share between threads and processes."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, model: str) -> Path | None:
        """The model's file."""
        if self.folder is None:
            return None
        name = f"{quote(model, safe='')[:100]}-{hashlib.sha256(model.encode()).hexdigest()[:12]}.json"
        return self.folder / name

    def read(self, model: str) -> Remembered:
        """What is remembered; nothing for a file that is missing, damaged, or of another release."""
        path = self.path(model)
        if path is None:
            return Remembered()
        try:
            return _read(model, json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Remembered()

    def keep(self, model: str, record: ModelRecord, upto: int) -> None:
        """Remember a record; raises LockstepError when the file cannot be written."""
        self._write(model, replace(self.read(model), record=record, upto=upto))

    def details(self, version: Version) -> Details:
        """What is remembered of a version."""
        return self.read(version.model).details.get(version.digest, Details())

    def keep_details(
        self, version: Version, *, images: Mapping[str, str] | None = None, rows: tuple[Row, ...] | None = None
    ) -> None:
        """Remember these of a version, beside what is there; raises LockstepError when the file cannot be written."""
        before = self.read(version.model)
        known = before.details.get(version.digest, Details())
        now = Details(known.images if images is None else images, known.rows if rows is None else rows)
        others = {digest: one for digest, one in before.details.items() if digest != version.digest}
        kept = dict([*others.items(), (version.digest, now)][-MOST:])
        self._write(version.model, replace(before, details=kept))

    def _write(self, model: str, remembered: Remembered) -> None:
        path = self.path(model)
        if path is None:
            return
        content = json.dumps(_as_json(model, remembered), sort_keys=True).encode()
        try:
            if path.read_bytes() == content:
                return  # the usual case, which costs no write to the disk
        except OSError:
            pass
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{path.parent} cannot be made: {error.strerror}"
            raise LockstepError(problem, hint="name another folder: state: in lockstep.yaml") from error
        replace_file(path, content)


def _as_json(model: str, remembered: Remembered) -> dict[str, object]:
    record = remembered.record
    body: dict[str, object] = {"format": FORMAT, "model": model, "upto": remembered.upto, "record": None}
    if record is not None:
        desired = record.desired
        aliased = {"champion": desired.champion, "challenger": desired.challenger, "fallback": desired.fallback}
        body["record"] = {
            "desired": {role: version.digest for role, version in aliased.items() if version is not None},
            "aliases": dict(record.aliases),
            "versions": [_version_as_json(one) for one in record.versions],
        }
    body["details"] = [
        {"digest": digest, "images": None if one.images is None else dict(one.images), "rows": one.rows}
        for digest, one in remembered.details.items()
    ]
    return body


def _version_as_json(one: VersionRecord) -> dict[str, str]:
    said = {"condemned": one.condemned, "known_good": one.known_good, "verdict": one.verdict}
    return {"label": one.version.label, "digest": one.version.digest, "run_id": one.version.run_id, **said}


def _read(model: str, body: Mapping[str, object]) -> Remembered:
    """Raises ValueError, KeyError, TypeError or AttributeError for anything that `_as_json` did not write."""
    if body["format"] != FORMAT or body["model"] != model:
        raise ValueError("another file")
    upto, raw, listed = body["upto"], body["record"], body["details"]
    if not isinstance(upto, int) or not isinstance(listed, list):
        raise TypeError("another file")
    details = {}
    for one in listed:
        images, rows = one["images"], one["rows"]
        details[str(one["digest"])] = Details(
            None if images is None else {str(cloud): str(image) for cloud, image in images.items()},
            None if rows is None else tuple({str(name): value for name, value in row.items()} for row in rows),
        )
    return Remembered(None if raw is None else _read_record(model, raw), upto, details)


def _read_record(model: str, raw: object) -> ModelRecord:
    if not isinstance(raw, Mapping):
        raise TypeError("another file")
    versions = tuple(
        VersionRecord(
            Version(model, str(int(one["label"])), str(one["digest"]), str(one["run_id"])),
            str(one["condemned"]),
            str(one["known_good"]),
            str(one["verdict"]),
        )
        for one in raw["versions"]
    )
    by_digest = {one.version.digest: one.version for one in versions}
    champion, challenger, fallback = (
        by_digest[raw["desired"][role]] if role in raw["desired"] else None
        for role in ("champion", "challenger", "fallback")
    )
    aliases = {str(alias): str(label) for alias, label in raw["aliases"].items()}
    return ModelRecord(DesiredState(model, champion, challenger, fallback), versions, aliases)
