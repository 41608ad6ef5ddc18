"""What MLflow holds of versions, compared with what was sealed: tags, captured files, source, run, signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence

from lockstep.errors import LockstepError, NotFoundError
from lockstep.operations.fleet import Fleet
from lockstep.operations.known_versions import Known
from lockstep.operations.questions import Look, NothingToLookAtError, answer
from lockstep.operations.registered import contradictions
from lockstep.operations.remembering import owed_if_known, silently_lifted
from lockstep.operations.seal import check_seal
from lockstep.rules.attestation import additions, differences
from lockstep.rules.findings import BYTES, MLFLOW, QUESTIONS, RECORD, RUN, SEAL, SOURCE, Check
from lockstep.rules.manifest import SCHEMA_V1, Manifest, number_text
from lockstep.rules.owed import amended
from lockstep.rules.state import CONDEMNED_TAG, Version
from lockstep.stores.captures import LOCK, PATCH, prefix
from lockstep.stores.inspection import compare_files

Share = Callable[[Manifest], Collection[str]]


def check_mlflow(
    fleet: Fleet,
    chosen: Sequence[Known],
    manifests: Mapping[Version, Manifest | None],
    share: Share,
    asked: Collection[str] = QUESTIONS,
) -> tuple[Check, ...]:
    """Every question that is `asked`, about every version; an altered one does not hide the others."""
    checks: list[Check] = []
    lifted = _lifted(fleet) if RECORD in asked else {}
    for known in chosen:
        version, manifest = known.version, manifests[known.version]
        fleet.say(f"looking at {version}", MLFLOW)
        questions: dict[str, Look] = {
            SEAL: lambda k=known: _seal(fleet, k),  # type: ignore[misc]
            RECORD: lambda k=known, m=manifest: _record(k, m, lifted),  # type: ignore[misc]
        }
        if manifest is not None:
            questions |= {
                BYTES: lambda v=version, m=manifest: _captured(fleet, v, m, share(m)),  # type: ignore[misc]
                SOURCE: lambda m=manifest: _source(fleet, m, share(m)),  # type: ignore[misc]
                RUN: lambda m=manifest: _run(fleet, m),  # type: ignore[misc]
            }
        checks += [answer(version, MLFLOW, what, look) for what, look in questions.items() if what in asked]
    return tuple(checks)


def _lifted(fleet: Fleet) -> Mapping[str, str]:
    """Empty where the ledger or MLflow cannot be read: that is told elsewhere."""
    try:
        return silently_lifted(fleet, amended(fleet.registry.record(fleet.model), owed_if_known(fleet)))
    except LockstepError:
        return {}


def _seal(fleet: Fleet, known: Known) -> tuple[str, ...]:
    if known.lost:
        raise NothingToLookAtError("MLflow does not have this version")
    seal = check_seal(fleet.registry, known.version, fleet.keys)
    for doubt in seal.doubts:
        fleet.say(f"{known.version}: {doubt}", MLFLOW)
    try:
        return (*seal.problems, *contradictions(fleet, known.version, seal.schema))
    except LockstepError:  # that the ledger cannot be read stands in a line of its own
        return seal.problems


def _record(known: Known, manifest: Manifest | None, lifted: Mapping[str, str]) -> tuple[str, ...]:
    if known.lost:
        return (known.lost,)
    told: tuple[str, ...] = ()
    if reason := lifted.get(known.version.digest):
        told = (
            f"its tag {CONDEMNED_TAG} is gone, though the ledger condemned it ({reason}) and tells of no "
            f"`lockstep lift {known.version.model} {known.version.label}`",
        )
    if manifest is None or known.record is None:
        return told
    shown = {"run": known.record.run_id, "source": known.record.source, "format": known.record.schema}
    wrote = {"run": manifest.mlflow.run_id, "source": manifest.mlflow.source, "format": manifest.schema}
    return (*told, *differences(f"MLflow's version {known.version.label}", shown, wrote))


def _captured(fleet: Fleet, version: Version, manifest: Manifest, read: Collection[str]) -> tuple[str, ...]:
    if manifest.schema == SCHEMA_V1:
        raise NothingToLookAtError("it was sealed by an earlier release, which captured no files")
    run, home = manifest.mlflow.run_id, prefix(version.digest)
    found = compare_files(
        fleet.registry, f"runs:/{run}/{home}/files", manifest.files, read, f"give the captured files of {version}"
    )
    told = _named("captured file", found)
    for name, wanted in ((LOCK, manifest.env.lock_sha256), (PATCH, manifest.code.patch_sha256)):
        kept = fleet.registry.kept(run, version.digest, name) if wanted else None
        if wanted and kept is None:
            told += (f"captured {name} is missing",)
        elif kept is not None and (digest := hashlib.sha256(kept).hexdigest()) != wanted:
            told += (f"captured {name} has sha256 {digest}, expected {wanted}",)
    return told


def _source(fleet: Fleet, manifest: Manifest, read: Collection[str]) -> tuple[str, ...]:
    """What MLflow serves as `models:/<name>/<number>`; Lockstep replicates what it captured."""
    source = manifest.mlflow.source
    action = f"give the files of {source}"
    return _named("source file", compare_files(fleet.registry, source, manifest.files, read, action))


def _run(fleet: Fleet, manifest: Manifest) -> tuple[str, ...]:
    run_id = manifest.mlflow.run_id
    try:
        with fleet.registry.translated(f"read the run {run_id}"):
            run = fleet.registry.client.get_run(run_id)
    except NotFoundError:
        return (f"run {run_id} is gone",)
    where = f"run {run_id}"
    told: tuple[str, ...] = ()
    told += () if run.info.lifecycle_stage == "active" else (f"{where} was deleted; its files can vanish at any time",)
    metrics = {name: number_text(value) for name, value in run.data.metrics.items()}
    for what, found, sealed in (("parameter", run.data.params, manifest.params), ("metric", metrics, manifest.metrics)):
        named = {f"{what} {name}": value for name, value in found.items()}
        told += differences(where, named, {f"{what} {name}": value for name, value in sealed.items()})
        told += additions(where, what, dict(found), sealed)
    return told


def _named(what: str, problems: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{what} {path} {problem}" if path else problem for path, problem in sorted(problems.items()))
