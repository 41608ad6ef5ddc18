"""What should serve, what does, and what is unfinished. Looks only; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.errors import LockstepError
from lockstep.operations.desired import read_known, without_mlflow
from lockstep.operations.fleet import Fleet
from lockstep.operations.hold import find_hold
from lockstep.operations.lease import Holder, holder, live_holder
from lockstep.operations.probe import PROBES, with_probe
from lockstep.operations.reaching import ways
from lockstep.operations.remembering import owed_if_known
from lockstep.rules.capacity import way_back
from lockstep.rules.deeds import named, text
from lockstep.rules.measurement import Answer
from lockstep.rules.state import DesiredState, FleetState, Version
from lockstep.rules.traces import ENTRIES, MOVES, read_trace
from lockstep.rules.traffic import TrafficSplit
from lockstep.rules.trailing import TELLS, Trailing, read_trailing

#: Operations after which every cloud is where it should be, whatever was left half done before.
SETTLES: Final = ("rollback.outcome", "canary_deploy.outcome", "reconcile.outcome")


@dataclass(frozen=True)
class CloudProof:
    """What a cloud's endpoint really answered: (label, digest) of each of a few predictions, or why none came."""

    cloud: str
    answers: tuple[Answer, ...]
    problem: str = ""

    def contradiction(self, allowed: Collection[str]) -> str:
        """Why the answers do not prove that only these digests serve; empty when they do."""
        strangers = sorted({answer.digest for answer in self.answers} - {*allowed, ""})
        if strangers:
            return f"answers come from digest {', '.join(digest[:12] for digest in strangers)}"
        if not all(answer.digest for answer in self.answers) or not self.answers:
            return "answers do not say which digest they come from, so they prove nothing"
        return ""


@dataclass(frozen=True)
class Status:
    """One model now; `keys` and `ledger` say in sentences what is wrong with either, `writer` who changes it now.

    `split` tells of the clouds that are out of step because they could not follow the newest decision. `silent` is why
    MLflow could not be asked, "" when it answered: then `desired` is what was last known, kept here and in the ledger.
    `killed` is an operation that decides what serves, which did not end and which nobody works on, and what can be done
    about it: until then the model is in step for nobody, `reconcile` included.
    """

    desired: DesiredState
    state: FleetState
    proofs: tuple[CloudProof, ...]
    warnings: tuple[str, ...]
    keys: tuple[str, ...] = ()
    ledger: tuple[str, ...] = ()
    writer: Holder | None = None
    split: Mapping[str, Trailing] = field(default_factory=dict)
    silent: str = ""
    killed: str = ""

    @property
    def in_step(self) -> bool:
        """Whether every cloud serves what it should, and nothing that was killed may still change that."""
        return self.desired.champion is not None and not self.out_of_step and not self.killed

    @property
    def out_of_step(self) -> dict[str, str]:
        """Clouds that do not serve what they should, with what they do instead."""
        found = dict(self.state.unreachable)
        desired = replace(self.desired, challenger=None) if self.killed else self.desired
        for cloud in self.state.clouds:
            problem = _difference(desired, cloud.split)
            if problem:
                found[cloud.cloud] = problem
        allowed = {one.digest for one in (desired.champion, desired.challenger) if one is not None}
        for proof in self.proofs:
            problem = proof.problem or proof.contradiction(allowed)
            if problem:
                found.setdefault(proof.cloud, problem)
        return found


def status(fleet: Fleet, *, prove: bool = False) -> Status:
    """Desired and observed state; with `prove`, every endpoint is asked for real answers that name their version.

    While MLflow cannot be asked, what was last known stands for it; raises its error when nothing was known either.
    """
    known = read_known(fleet)
    desired, fleet = known.record.desired, without_mlflow(fleet, known)
    state = fleet.observe()
    killed, writer = _killed(fleet, desired), holder(fleet)
    warnings = [f"unfinished: {text}" for text in _unfinished(fleet, writer, MOVES if killed else ())]
    if killed or (writer is not None and writer.gone):
        writer = None
    warnings += [f"MLflow is still to be told: {debt}" for debt in owed_if_known(fleet)]
    warnings += known.doubts
    warnings += _held(fleet)
    if desired.champion is not None and desired.challenger is None:
        warnings += way_back(state, known.record, fleet.least)
    proofs: tuple[CloudProof, ...] = ()
    if prove and desired.champion is not None:
        proofs = _prove(fleet, desired.champion)
    condition = fleet.ledger.condition()
    found = Status(
        desired,
        state,
        proofs,
        tuple(warnings),
        fleet.keys.problems,
        condition,
        writer,
        silent=known.silent,
        killed=killed,
    )
    return replace(found, split=_trailing(fleet, found))


def _killed(fleet: Fleet, desired: DesiredState) -> str:
    """What was killed, as reconciling finds it, and what can be done; "" for nothing, or while somebody works."""
    champion, challenger = desired.champion, desired.challenger
    if champion is None:
        return ""  # it is told as unfinished: nothing serves that could be out of step
    try:
        trace = read_trace(fleet.ledger.entries(fleet.model, last=ENTRIES))
        if (trace.unfinished is None and challenger is None) or live_holder(fleet):
            return ""
    except LockstepError:  # the ledger's own condition is told
        return ""
    ways = trace.ways_on(fleet.model, champion.label, challenger.label if challenger else "")
    return f"{trace.killed or f'the rollout of {challenger} was killed'}: {ways}"


def _held(fleet: Fleet) -> list[str]:
    try:
        found = find_hold(fleet)
    except LockstepError:  # the ledger's own condition is told
        return []
    release = f"lockstep release {fleet.model} --reason REASON"
    return [] if found is None else [f"no rollout begins: {fleet.model} is {found} ({release})"]


def _trailing(fleet: Fleet, found: Status) -> Mapping[str, Trailing]:
    behind, champion = found.out_of_step, found.desired.champion
    if not behind or champion is None:
        return {}
    try:
        lines = [entry for kind in TELLS for entry in fleet.ledger.entries(fleet.model, kind, last=1)]
    except LockstepError as error:
        fleet.say(f"why clouds are behind is not known: {error.reason}")
        return {}
    told = read_trailing(lines, fleet.settings.reconcile.every)
    now = {cloud.cloud: ways(fleet, cloud, champion) for cloud in found.state.clouds}
    by_hand = f"lockstep reconcile {fleet.model} --wait 300"
    return {
        cloud: replace(one, meanwhile=now.get(cloud, ""), by_hand=by_hand)
        for cloud, one in told.items()
        if cloud in behind
    }


def _prove(fleet: Fleet, champion: Version) -> tuple[CloudProof, ...]:
    try:
        fleet = with_probe(fleet, champion)
    except LockstepError as error:
        return tuple(CloudProof(cloud.name, (), error.reason) for cloud in fleet.clouds)

    def ask(cloud: Cloud) -> tuple[Answer, ...]:
        return tuple(cloud.invoke(fleet.model, fleet.probe) for _ in range(PROBES))

    return tuple(
        CloudProof(outcome.cloud, outcome.value or (), outcome.error.reason if outcome.error else "")
        for outcome in fleet.look_at_each(f"ask {fleet.model}", ask)
    )


def _difference(desired: DesiredState, split: TrafficSplit | None) -> str:
    champion, challenger = desired.champion, desired.challenger
    if champion is None:
        return "" if split is None else f"serves {split}, though no version is champion"
    if split is None:
        return "nothing takes traffic"
    allowed = {champion.slot} | ({challenger.slot} if challenger else set())
    strangers = sorted(slot for slot, _ in split.weights if slot not in allowed)
    return f"serves {split}, not {champion.slot}" if strangers else ""


def _unfinished(fleet: Fleet, writer: Holder | None, told: Collection[str]) -> list[str]:
    """Intents of the newest operations but for those `told` elsewhere that have no outcome: killed, or running afar.

    What a later rollout or rollback brought to a good end is no longer open.
    """
    try:
        entries = fleet.ledger.entries(fleet.model, last=200)
    except LockstepError as error:
        return [f"cannot be told: {error.reason}"]
    closed = {str(entry.body.get("intent")) for entry in entries if entry.kind.endswith(".outcome")}
    settled = {
        str(entry.body.get("intent")) for entry in entries if entry.kind in SETTLES and not entry.body.get("error")
    }
    began = [place for place, entry in enumerate(entries) if entry.event_id.removesuffix("/intent") in settled]
    return [
        f"{named(entry.kind.removesuffix('.intent'), text(entry.body, 'version'))} by {entry.actor}, "
        f"begun {datetime.fromtimestamp(entry.at, UTC):%Y-%m-%d %H:%M:%S} UTC"
        for entry in entries[max(began, default=-1) + 1 :]
        if entry.kind.endswith(".intent")
        and entry.kind.removesuffix(".intent") not in told
        # A step is named by its operation; a rollback decides by itself.
        and ("within" not in entry.body or entry.kind == "rollback.intent")
        and entry.event_id.removesuffix("/intent") not in closed
        and not (writer is not None and writer.runs and entry.body.get("fence") == writer.fence)
    ]
