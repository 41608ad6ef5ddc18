"""A version whose seal does not hold is refused, unless it is the only way to restore service and a person says so.

The check is cheap, since it stands in the way of a rollback: manifest and signature in MLflow, and those of each
replica, all at once. Whatever does not answer is passed over: an MLflow or a cloud that is down is no broken seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from lockstep.clouds.base import Cloud
from lockstep.errors import DigestMismatchError, LockstepError, NotFoundError, RetryLaterError, UnreachableError
from lockstep.operations.fleet import LOOKS, Fleet, open_replicas
from lockstep.operations.reasons import checked_reason
from lockstep.operations.registered import contradictions
from lockstep.operations.running import Job
from lockstep.operations.seal import check_seal
from lockstep.rules.findings import MLFLOW
from lockstep.rules.judge import Decision
from lockstep.rules.manifest import SCHEMA_V1
from lockstep.rules.state import CONDEMNED_TAG, VERDICT_TAG, Version
from lockstep.stores.artifacts import MANIFEST, Replicas
from lockstep.stores.captures import SIGNATURE
from lockstep.stores.keys import Keys
from lockstep.stores.model_signature import verify_signature
from lockstep.stores.sealed_files import read_own_manifest

PATIENCE = 5.0  # seconds for one small read of a replica, repetitions included
Problems = Mapping[str, Sequence[str]]  # by place


def replica_problems(replicas: Replicas, version: Version, keys: Keys) -> tuple[str, ...]:
    """What is wrong with the manifest and signature of a replica; three small reads, none of the model's bytes."""
    sealed = replicas.manifest(version)
    if sealed is None:
        return (f"{version.prefix}/{MANIFEST} is gone",)
    try:
        manifest = read_own_manifest(sealed, version)
    except DigestMismatchError:
        digest = hashlib.sha256(sealed).hexdigest()
        return (f"{version.prefix}/{MANIFEST} has sha256 {digest}, expected {version.digest}",)
    if manifest.schema == SCHEMA_V1:
        return ()
    signature = replicas.signature(version)
    if signature is None:
        return (f"{version.prefix}/{SIGNATURE} is gone",)
    if keys.signing_public:
        try:
            verify_signature(signature, manifest, keys.signing_public, f"the replica of {version}")
        except DigestMismatchError as error:
            return (f"{version.prefix}/{SIGNATURE}: {error.problem}",)
    return ()


def seal_problems(fleet: Fleet, version: Version, clouds: Collection[Cloud] | None = None) -> Problems:
    """What contradicts the version's seal in MLflow and in its replicas, by place; empty for one that holds.

    Places that do not answer are named to the observer and contradict nothing; a cloud without a replica does not
    either. `clouds` are those of the fleet unless given.
    """
    jobs = [Job(MLFLOW, f"seal of {version}", partial(_in_mlflow, fleet, version), retries=0)]
    for cloud in fleet.clouds if clouds is None else clouds:
        jobs.append(Job(cloud.name, f"seal of {version}", partial(_replicated, fleet, cloud, version), retries=0))
    problems: dict[str, Sequence[str]] = {}
    for outcome in LOOKS.run(jobs):
        if isinstance(outcome.error, NotFoundError | DigestMismatchError):
            problems[outcome.cloud] = (outcome.error.problem,)
        elif outcome.error is not None:
            fleet.say(f"the seal of {version} could not be looked at there: {outcome.error.problem}", outcome.cloud)
        elif outcome.value:
            problems[outcome.cloud] = outcome.value
    return problems


def record_problems(fleet: Fleet, version: Version) -> Problems:
    """What of the native records and slots is otherwise than as written, by cloud; asked before a deployment.

    Raises UnreachableError when a cloud does not answer.
    """
    try:
        images = fleet.registry.manifest(version).env.images
    except LockstepError:
        images = {}
    outcomes = fleet.look_at_each(
        f"attest {version}", lambda cloud: cloud.attest(version, images.get(cloud.name, "")), retries=2
    )
    silent = {outcome.cloud: outcome.error for outcome in outcomes if outcome.error is not None}
    for error in silent.values():
        if not isinstance(error, RetryLaterError):
            raise error
    if silent:
        raise UnreachableError(
            f"{version} was not deployed, since its records could not be looked at: "
            + "; ".join(f"{cloud}: {error.reason}" for cloud, error in silent.items()),
            hint="nothing was changed; mend what is named and deploy again",
        )
    return {outcome.cloud: outcome.value for outcome in outcomes if outcome.value}


def accept_or_refuse(
    fleet: Fleet, operation: str, version: Version, problems: Problems, accepted: str, leaving: Collection[Version] = ()
) -> Mapping[str, object]:
    """What goes into the ledger's intent about the seal: nothing for one that holds, else what was accepted and why.

    Raises DigestMismatchError for a seal with problems unless `accepted` gives a reason and no other version that was
    known to be good, and is not among `leaving`, is intact.
    """
    accepted = checked_reason(accepted, "the reason to accept a broken seal")
    if not problems:
        return {}
    told = "; ".join(f"{place}: {problem}" for place, found in problems.items() for problem in found)
    command = f"lockstep {operation} {fleet.model}"
    if not accepted:
        raise DigestMismatchError(
            f"the seal of {version} does not hold: {told}",
            hint=f"nothing was changed; `lockstep verify {fleet.model}@{version.label}` shows all of it. Where only a "
            f"replica was changed: lockstep replicate {fleet.model} {version.label} --repair. If it is the only way to "
            "restore service: --accept-broken-seal REASON",
        )
    others = _good_versions(fleet, version, leaving)
    for other in others:
        if not seal_problems(fleet, other):
            option = f"--to {other.label}" if operation == "rollback" else other.label
            raise DigestMismatchError(
                f"the seal of {version} does not hold ({told}), and it is not the only way to restore service: "
                f"{other} was known to be good and is intact",
                hint=f"nothing was changed; choose that one: {command} {option}",
            )
    fleet.say(f"going on with a broken seal of {version}, as was asked for: {accepted}")
    return {
        "broken_seal": {place: list(found) for place, found in problems.items()},
        "accepted_because": accepted,
        "no_other": [other.digest for other in others],
    }


def _in_mlflow(fleet: Fleet, version: Version) -> tuple[str, ...]:
    seal = check_seal(fleet.registry, version, fleet.keys)
    try:
        return (*seal.problems, *contradictions(fleet, version, seal.schema))
    except LockstepError as error:  # a ledger that cannot be read contradicts nothing
        fleet.say(f"what the ledger says of {version} is not known: {error.problem}")
        return seal.problems


def _replicated(fleet: Fleet, cloud: Cloud, version: Version) -> tuple[str, ...]:
    replicas = open_replicas(cloud, PATIENCE)
    return replica_problems(replicas, version, fleet.keys) if replicas.is_committed(version) else ()


def _good_versions(fleet: Fleet, version: Version, leaving: Collection[Version]) -> tuple[Version, ...]:
    """Versions that served well, newest first, as far as MLflow and the ledger tell."""
    apart = {version.digest, *(one.digest for one in leaving)}
    promoted = {
        str(entry.body.get("digest"))
        for entry in fleet.ledger.entries(fleet.model, "promote.outcome")
        if not entry.body.get("error")
    }
    try:
        found = fleet.registry.versions(fleet.model)
        tags = {one: fleet.registry.tags(one) for one in found if one.digest not in apart}
    except LockstepError as error:
        fleet.say(f"whether another version is intact cannot be told: {error.problem}")
        return ()
    good = [
        one
        for one, tag in tags.items()
        if CONDEMNED_TAG not in tag and (one.digest in promoted or tag.get(VERDICT_TAG) == Decision.PASS.value)
    ]
    return tuple(reversed(good))
