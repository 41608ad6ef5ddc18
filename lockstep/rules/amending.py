"""A model's record with one thing changed: what MLflow will say once that is written."""

from __future__ import annotations

from dataclasses import replace

from lockstep.rules.state import (
    CHALLENGER,
    CHAMPION,
    CONDEMNED_TAG,
    FALLBACK,
    KNOWN_GOOD_TAG,
    VERDICT_TAG,
    ModelRecord,
    Version,
    VersionRecord,
)


def with_version(record: ModelRecord, version: Version) -> ModelRecord:
    """The record with that version in it, which it may be already; versions stay in the order of their numbers."""
    if any(one.version.digest == version.digest for one in record.versions):
        return record
    versions = (*record.versions, VersionRecord(version))
    return replace(record, versions=tuple(sorted(versions, key=lambda one: int(one.version.label))))


def pointed(record: ModelRecord, alias: str, version: Version | None) -> ModelRecord:
    """The record with the alias at the version; None for an alias that is gone."""
    if version is not None:
        record = with_version(record, version)
        version = record.of(version).version  # which knows its run
    aliases = {name: label for name, label in record.aliases.items() if name != alias}
    if version is not None:
        aliases[alias] = version.label
    desired = record.desired
    if alias == CHAMPION:
        desired = replace(desired, champion=version)
    elif alias == CHALLENGER:
        desired = replace(desired, challenger=version)
    elif alias == FALLBACK:
        desired = replace(desired, fallback=version)
    return replace(record, desired=desired, aliases=aliases)


def tagged(record: ModelRecord, version: Version, key: str, value: str) -> ModelRecord:
    """The record with the version's tag at `value`, "" for one that is gone; other tags are not in it."""
    if key not in (CONDEMNED_TAG, KNOWN_GOOD_TAG, VERDICT_TAG):
        return record
    record = with_version(record, version)
    changed = tuple(
        _retagged(one, key, value) if one.version.digest == version.digest else one for one in record.versions
    )
    return replace(record, versions=changed)


def _retagged(one: VersionRecord, key: str, value: str) -> VersionRecord:
    if key == CONDEMNED_TAG:
        return replace(one, condemned=value)
    return replace(one, known_good=value) if key == KNOWN_GOOD_TAG else replace(one, verdict=value)
