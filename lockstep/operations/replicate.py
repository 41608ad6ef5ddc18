"""Bring a registered version to every cloud of the fleet: bytes verified after the copy, then the native record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError, SplitError
from lockstep.operations.fleet import Fleet
from lockstep.operations.intact import accept_or_refuse, seal_problems
from lockstep.operations.journal import record, refusals
from lockstep.rules.manifest import Manifest
from lockstep.rules.measurement import NativeVersion
from lockstep.rules.state import Version


def replicate(
    fleet: Fleet, version: Version, *, repair: bool = False, accept_broken_seal: str = ""
) -> tuple[NativeVersion, ...]:
    """Replicate `version`; returns its native records, one a cloud, in the fleet's order.

    Idempotent: what is there and right is not sent again. A changed replica is refused unless `repair`, which puts the
    right bytes back. A cloud that fails does not hold the others: SplitError then names both.

    A version whose seal does not hold in MLflow is refused (DigestMismatchError); `accept_broken_seal` is the reason to
    go on all the same, which is taken only when no other version that was known to be good is intact.
    """
    with refusals(fleet, "replicate", version):
        problems = seal_problems(fleet, version, clouds=())
        accepted = accept_or_refuse(fleet, "replicate", version, problems, accept_broken_seal)
    with record(fleet, "replicate", version, **accepted) as outcome:
        manifest = fleet.registry.manifest(version)
        with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
            folder = Path(name)
            fleet.say(f"fetching {version} from MLflow ({manifest.size:,} bytes)")
            fleet.registry.fetch(version, folder, fleet.say)
            outcomes = fleet.on_each(f"replicate {version}", _copy(fleet, version, manifest, folder, repair))
        records = {found.cloud: found.value for found in outcomes if found.value is not None}
        failed = {found.cloud: found.error for found in outcomes if found.error is not None}
        outcome.update(
            clouds={cloud: native.resource for cloud, native in records.items()},
            failed={cloud: str(error) for cloud, error in failed.items()},
        )
        if failed:
            raise _split(version, tuple(records), failed)
        return tuple(records.values())


def missing_replicas(fleet: Fleet, version: Version) -> dict[str, str]:
    """Clouds on which the version is not whole and registered, with what is missing; looks only."""

    def look(cloud: Cloud) -> str:
        if not fleet.replicas(cloud).is_committed(version):
            return "its bytes are not there"
        return "" if cloud.registered(version) else "it is not registered natively"

    outcomes = fleet.look_at_each(f"look for {version}", look, retries=2)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return {outcome.cloud: outcome.value for outcome in outcomes if outcome.value}


def _copy(
    fleet: Fleet, version: Version, manifest: Manifest, folder: Path, repair: bool
) -> Callable[[Cloud], NativeVersion]:
    def copy(cloud: Cloud) -> NativeVersion:
        def progress(text: str, done: int, total: int) -> None:
            fleet.say(text, cloud.name, done, total)

        fleet.replicas(cloud).copy_in(version, manifest, folder, progress, repair=repair)
        native = cloud.register(version, manifest.env.images.get(cloud.name, ""))
        fleet.say(f"registered as {native.resource}", cloud.name)
        return native

    return copy


def _split(version: Version, done: tuple[str, ...], failed: dict[str, LockstepError]) -> LockstepError:
    if len(failed) == 1 and not done:
        return next(iter(failed.values()))
    reasons = "; ".join(f"{cloud}: {error.problem}" for cloud, error in failed.items())
    hints = "; ".join(dict.fromkeys(error.hint for error in failed.values() if error.hint))
    again = f"lockstep replicate {version.model} {version.label}"
    return SplitError(
        f"{version} is on {', '.join(done) or 'no cloud'}, but not on all: {reasons}",
        hint=hints if again in hints else f"{hints + '; then ' if hints else ''}run `{again}` again",
    )
