"""What must be true of a model after whatever happened to it, once faults have stopped and it was reconciled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from lockstep.operations.reconcile import reconcile
from lockstep.rules.deeds import mapping, text
from lockstep.rules.state import CONDEMNED_TAG, VERDICT_TAG, Version
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.ledger import Entry
from tests.integration.deployed import READ, Deployed

#: Steps that change clouds, and the key of their intents that names the clouds.
CHANGES: Mapping[str, str] = {"shift": "after", "prepare": "clouds", "retire": "clouds", "resize": "clouds"}
#: Of replicating a version: it registers it in every cloud of the fleet.
REGISTERS = "replicate"
#: Seconds after the end of a process in which a request of it may still arrive.
LATE = 10.0


@dataclass(frozen=True)
class Announced:
    """A step that changes a cloud, from its intent to its outcome (Unix seconds)."""

    cloud: str
    began: float
    ended: float


def on_time(entry: Entry) -> float:
    """The clock was right."""
    return 0.0


def announced(deployed: Deployed, since: float, ahead: Callable[[Entry], float] = on_time) -> Iterator[Announced]:
    """Steps that began since a time (Unix seconds), by the ledger.

    One that was killed lasts until the next operation began, and its last requests arrived. `ahead` is by how much the
    clock of whoever wrote an entry was.
    """
    written = deployed.fleet.ledger.entries(deployed.model)
    entries = [replace(entry, at=entry.at - ahead(entry)) for entry in written]
    entries = [entry for entry in entries if entry.at >= since]
    ended = {text(entry.body, "intent"): entry.at for entry in entries if entry.kind.endswith(".outcome")}
    begins = [entry.at for entry in entries if entry.kind.endswith(".intent") and not text(entry.body, "within")]
    for entry in entries:
        step, _, stage = entry.kind.rpartition(".")
        if stage != "intent":
            continue
        clouds = deployed.clouds if step == REGISTERS else tuple(mapping(entry.body, CHANGES.get(step, "")))
        next_one = min((at for at in begins if at > entry.at), default=math.inf)
        until = ended.get(entry.event_id.removesuffix("/intent"), next_one + LATE)
        until = until if until >= entry.at else math.inf  # the clock was set back in between
        for cloud in clouds:
            yield Announced(cloud, entry.at, until)


def unannounced(deployed: Deployed, since: float, ahead: Callable[[Entry], float] = on_time) -> list[str]:
    """Changes in the clouds' own logs since a time (Unix seconds) that no intent came before.

    Nothing was under way at that time.
    """
    steps = list(announced(deployed, since, ahead))
    found = []
    for call in deployed.control.calls(since=since):
        cloud, operation, at = str(call["cloud"]), str(call["operation"]), float(call["at"])
        if READ.fullmatch(operation) or int(call["status"]) >= 400:
            continue
        if not any(step.cloud == cloud and step.began <= at <= step.ended for step in steps):
            found.append(f"{cloud} {operation} {call['resource']} {call['detail']} at {at:.3f}")
    return found


def check(deployed: Deployed, champion: Version, since: float) -> None:
    """The invariants for a model that should have `champion` everywhere; `since` is when it was in order last."""
    check_serving(deployed, champion)
    assert unannounced(deployed, since) == []


def check_serving(deployed: Deployed, champion: Version) -> None:
    """All of them but that every change was announced."""
    fleet, model = deployed.fleet, deployed.model
    desired = fleet.registry.desired(model)
    assert desired.champion is not None
    assert (desired.champion.digest, desired.challenger) == (champion.digest, None)
    assert deployed.answers() == deployed.everywhere(champion)
    state = fleet.observe()
    for cloud in state.clouds:
        assert cloud.split == TrafficSplit.all_to(champion.slot), cloud
        taking = [slot for slot in cloud.slots if slot.weight]
        assert all(slot.ready for slot in taking), cloud
        if desired.fallback is not None:
            fallback = cloud.slot(desired.fallback.slot)
            assert fallback is not None, f"{cloud.cloud} has no slot of the fallback {desired.fallback}"
            assert fallback.ready, cloud
    tags = fleet.registry.tags(champion)
    assert CONDEMNED_TAG not in tags, tags
    assert tags.get(VERDICT_TAG) != "fail", tags
    (seen,) = reconcile([fleet], dry_run=True)
    assert seen.in_step, (seen.found.explain(), seen.left, seen.error)
    assert seen.found.finishing is None


def size(deployed: Deployed) -> int:
    """Number of the next entry of the ledger."""
    return 1 + max(entry.number for entry in deployed.fleet.ledger.entries(deployed.model, last=1))


def entries_since(deployed: Deployed, number: int, kind: str = "") -> tuple[Entry, ...]:
    """Entries of a kind from that number on, which are no more than the ledger gives at once."""
    return tuple(entry for entry in deployed.fleet.ledger.entries(deployed.model, kind) if entry.number >= number)


def of_kind(entries: tuple[Entry, ...], kind: str) -> list[Entry]:
    """Those of one kind, oldest first."""
    return [entry for entry in entries if entry.kind == kind]
