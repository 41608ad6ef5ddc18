"""A look at many models by few calls a cloud, and at one model closely; both give what reconciling is decided by."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lockstep.clouds.base import Cloud
from lockstep.errors import NotFoundError
from lockstep.operations.desired import Known, read_known, without_mlflow
from lockstep.operations.fleet import LOOKS, Fleet
from lockstep.operations.running import Job
from lockstep.operations.switch import sealed_images
from lockstep.operations.unfinished import Begun, find_open
from lockstep.rules.deeds import text
from lockstep.rules.known_good import good_beside
from lockstep.rules.reconciliation import Facts, Finishing
from lockstep.rules.state import CloudState, DesiredState, FleetState, ModelRecord, Version
from lockstep.rules.target import choose_way
from lockstep.rules.traces import ENTRIES, Trace, read_trace
from lockstep.stores.looks import Looks


@dataclass(frozen=True)
class Look:
    """One model: what should be, what is, and what else decides.

    `known` is what MLflow says, or what was last known of it.
    """

    desired: DesiredState
    state: FleetState
    trace: Trace
    facts: Facts
    known: Known


def observe_all(fleets: Sequence[Fleet], looks: Looks) -> Mapping[str, FleetState]:
    """Every model's state by name. A cloud that does not answer is unreachable for all of them."""
    clouds: dict[str, Cloud] = {}
    models: dict[str, set[str]] = {}
    for fleet in fleets:
        for cloud in fleet.clouds:
            clouds.setdefault(cloud.name, cloud)
            models.setdefault(cloud.name, set()).add(fleet.model)
    jobs = [
        Job(
            name,
            f"{name}: observe {len(models[name])} models",
            partial(cloud.observe_many, models[name], looks.of(name)),
            0,
        )
        for name, cloud in clouds.items()
    ]
    outcomes = {outcome.cloud: outcome for outcome in LOOKS.run(jobs)}
    found: dict[str, FleetState] = {}
    for fleet in fleets:
        states, unreachable = [], {}
        for cloud in fleet.clouds:
            outcome = outcomes[cloud.name]
            if outcome.value is not None:
                state = outcome.value[fleet.model]
                looks.states[cloud.name, fleet.model] = state
                states.append(state)
            elif outcome.error is not None:
                unreachable[cloud.name] = outcome.error.reason
        found[fleet.model] = FleetState(fleet.model, tuple(states), unreachable)
    return found


def look_at(fleet: Fleet, state: FleetState, looks: Looks, holder: str = "") -> Look:
    """What decides about one model whose clouds were observed; `holder` is the live operation that holds it."""
    try:
        known = read_known(fleet)
    except NotFoundError:
        known = Known(ModelRecord(DesiredState(fleet.model, None)))  # configured, and nothing registered yet
    record, fleet = known.record, without_mlflow(fleet, known)
    desired = record.desired
    entries = fleet.ledger.entries(fleet.model, last=ENTRIES)
    trace = read_trace(entries)
    finishing = None if holder else _finishing(record, trace, state, find_open(fleet.model, entries))
    if finishing is not None:  # the decision stands, whatever MLflow says by now
        desired = replace(desired, champion=finishing.target)
    versions = [version for version in (desired.champion, desired.fallback) if version is not None]
    facts = Facts(
        holder=holder,
        unfinished=trace.killed,
        split=trace.split,
        settling=trace.settling(time.time()),
        known=trace.known,
        altered=_altered(fleet, versions, state, looks),
        least=fleet.least,
        condemned={one.version.digest: one.condemned for one in record.versions if one.condemned},
        good=good_beside(record, desired.champion),
        finishing=finishing,
    )
    return Look(desired, state, trace, facts, known)


def _finishing(record: ModelRecord, trace: Trace, state: FleetState, begun: Begun | None) -> Finishing | None:
    """The rollback that was killed, if that is the newest thing unfinished, with what it leaves when it is made again.

    Raises RefusedError when its target has been condemned since.
    """
    killed = trace.unfinished
    if killed is None or not killed.kind.startswith("rollback."):
        return None
    digest = text(killed.body, "digest")
    target = next((one.version for one in record.versions if one.version.digest == digest), None)
    if target is None:
        return None
    left = choose_way(record, target, state).left
    if begun is not None and begun.target.digest == target.digest:
        left = begun.leaving(left)
    return Finishing(target, text(killed.body, "reason"), left)


def _altered(
    fleet: Fleet, versions: Sequence[Version], state: FleetState, looks: Looks
) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Differences by cloud and slot, asked for where an endpoint was changed since it was found to be as written."""
    jobs: list[Job[tuple[str, ...]]] = []
    asked: list[tuple[CloudState, Version]] = []
    for version in versions:
        images: Mapping[str, str] | None = None
        for cloud in state.clouds:
            key = cloud.cloud, fleet.model, version.digest
            if cloud.slot(version.slot) is None or (cloud.mark and looks.intact.get(key) == cloud.mark):
                continue
            images = sealed_images(fleet, version) if images is None else images
            call = partial(fleet.cloud(cloud.cloud).attest_slot, version, images.get(cloud.cloud, ""))
            jobs.append(Job(cloud.cloud, f"{cloud.cloud}: attest {version.slot}", call, 0))
            asked.append((cloud, version))
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for (cloud, version), outcome in zip(asked, LOOKS.run(jobs), strict=True):
        if outcome.error is not None:
            fleet.say(f"slot {version.slot} could not be compared: {outcome.error.reason}", cloud.cloud)
        elif outcome.value:
            found.setdefault(cloud.cloud, {})[version.slot] = outcome.value
        elif cloud.mark:
            looks.intact[cloud.cloud, fleet.model, version.digest] = cloud.mark
    return found
