"""Is every version still what was sealed? Looks at MLflow, the stores, the native records and at what answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, NotFoundError
from lockstep.operations.fleet import Fleet
from lockstep.operations.known_versions import Known, choose, known_versions
from lockstep.operations.running import Job, attempt
from lockstep.operations.verify_cloud import check_cloud
from lockstep.operations.verify_mlflow import check_mlflow
from lockstep.rules.findings import LEDGER, MLFLOW, QUESTIONS, SEAL, Check, Finding, Verification
from lockstep.rules.manifest import Manifest
from lockstep.rules.sampling import days_of, share_of
from lockstep.rules.state import Version
from lockstep.stores.registry import Record
from lockstep.stores.sealed_files import read_own_manifest

DAY: Final = 86_400


def verify(
    fleet: Fleet,
    version: Version | str | None = None,
    sample: float = 1.0,
    *,
    only: Collection[str] | None = None,
    day: int | None = None,
    asked: Collection[str] = QUESTIONS,
) -> Verification:
    """Compare a version, or all that MLflow and the ledger know, with what was sealed; changes nothing.

    `version` may be a number, an alias or a part of a digest; `only` narrows all versions to these digests. `sample`
    is the share of each version's bytes that is read, chosen by `day` (days since 1970, today's by default): 1/sample
    days in a row read every byte once. Names, sizes, manifests, signatures and records are looked at in any case.
    `asked` narrows the questions of `rules/findings.py`.

    Differences are findings and not errors; a place that does not answer is a finding too. Raises NotFoundError for a
    version that neither MLflow nor the ledger knows.
    """
    days, today = days_of(sample), int(time.time() // DAY) if day is None else day
    troubles: list[Check] = []
    records = _records(fleet, troubles)
    known = _known(fleet, records or (), troubles)
    if isinstance(version, str):
        chosen: Sequence[Known] = [choose(fleet, known, version)]
    elif version is not None:
        chosen = [one for one in known if one.version.digest == version.digest] or [Known(version)]
    else:
        chosen = [one for one in known if only is None or one.version.digest in only]
    if not chosen:
        fleet.registry.versions(fleet.model)  # raises for a model that does not exist, naming those that do
    sealed = [(one, _manifest(fleet, one)) for one in chosen]
    chosen = [_with_run(one, manifest) for one, manifest in sealed]
    manifests = {one.version: manifest for one, (_, manifest) in zip(chosen, sealed, strict=True)}

    def share(manifest: Manifest) -> Collection[str]:
        return share_of(manifest.files, days, today, manifest.digest)

    jobs = [
        Job(MLFLOW, f"{MLFLOW}: verify {fleet.model}", partial(check_mlflow, fleet, chosen, manifests, share, asked))
    ]
    if records is None:
        jobs = []
    strangers = {one.version.slot for one in known} if version is None else None
    jobs += [
        Job(
            cloud.name,
            f"{cloud.name}: verify {fleet.model}",
            _bind(fleet, cloud, chosen, manifests, share, strangers, asked),
        )
        for cloud in fleet.clouds
    ]
    checks = list(troubles)
    for outcome in fleet.runner.run(jobs):
        checks += outcome.value or ()
        if outcome.error is not None:
            checks.append(Check(None, outcome.cloud, SEAL, Finding.UNKNOWN, (outcome.error.reason,)))
    order = {one.version: number for number, one in enumerate(chosen)}
    checks.sort(key=lambda check: order.get(check.version, -1) if check.version else -1)
    return Verification(fleet.model, sample, tuple(checks))


def _bind(
    fleet: Fleet,
    cloud: Cloud,
    chosen: Sequence[Known],
    manifests: dict[Version, Manifest | None],
    share: Callable[[Manifest], Collection[str]],
    slots: Collection[str] | None,
    asked: Collection[str],
) -> Callable[[], tuple[Check, ...]]:
    return lambda: check_cloud(fleet, cloud, chosen, manifests, share, slots, asked)


def _records(fleet: Fleet, troubles: list[Check]) -> tuple[Record, ...] | None:
    """MLflow's versions; None when it does not answer."""
    outcome = attempt(Job(MLFLOW, "list the versions", partial(fleet.registry.records, fleet.model)))
    if outcome.error is None:
        return outcome.value
    if isinstance(outcome.error, NotFoundError):
        raise outcome.error
    troubles.append(Check(None, MLFLOW, SEAL, Finding.UNKNOWN, (outcome.error.reason,)))
    return None


def _known(fleet: Fleet, records: Sequence[Record], troubles: list[Check]) -> tuple[Known, ...]:
    try:
        return known_versions(fleet, records)
    except LockstepError as error:
        troubles.append(Check(None, LEDGER, SEAL, Finding.UNKNOWN, (error.reason,)))
        return tuple(
            Known(Version(fleet.model, one.label, one.digest, one.run_id), one) for one in records if one.digest
        )


def _manifest(fleet: Fleet, known: Known) -> Manifest | None:
    """An intact manifest from wherever there is one: its digest proves it."""
    for name, look in _manifest_places(fleet, known):
        try:
            sealed = look()
            if sealed is not None:
                return read_own_manifest(sealed, known.version)
        except LockstepError as error:
            fleet.say(f"no manifest of {known.version} from {name}: {error.problem}")
    return None


def _with_run(known: Known, manifest: Manifest | None) -> Known:
    """The ledger does not name the run in every entry, and MLflow may be silent; the manifest always does."""
    run_id = known.version.run_id or (manifest.mlflow.run_id if manifest is not None else "")
    return replace(known, version=replace(known.version, run_id=run_id))


def _manifest_places(fleet: Fleet, known: Known) -> list[tuple[str, Callable[[], bytes | None]]]:
    version = known.version
    places: list[tuple[str, Callable[[], bytes | None]]] = [
        (MLFLOW, lambda: fleet.registry.kept(version.run_id, version.digest, "manifest.json"))
    ]
    return places + [(cloud.name, partial(_replicated, fleet, cloud, version)) for cloud in fleet.clouds]


def _replicated(fleet: Fleet, cloud: Cloud, version: Version) -> bytes | None:
    return fleet.replicas(cloud).manifest(version)
