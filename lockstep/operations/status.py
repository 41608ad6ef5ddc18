"""What should serve, what does, and what is unfinished. Looks only; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
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
from lockstep.rules.measurement import Answer
from lockstep.rules.opened import Fate, Held, describe, fate, opened
from lockstep.rules.state import DesiredState, FleetState, Version
from lockstep.rules.traces import ENTRIES, MOVES, read_trace
from lockstep.rules.traffic import TrafficSplit
from lockstep.rules.trailing import TELLS, Trailing, read_trailing
from lockstep.stores.processes import lives

LOOK_BACK: Final = 200  # entries in which operations that did not end are looked for


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
    `running` are the operations beside the writer that are under way, such as a replication.
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
    running: tuple[str, ...] = ()

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
    killed = _killed(fleet, desired)
    writer, running, warnings = _going_on(fleet, MOVES if killed else ())
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
        running=running,
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


def _going_on(fleet: Fleet, told: Collection[str]) -> tuple[Holder | None, tuple[str, ...], list[str]]:
    """The writer, what runs beside it, and in warnings what did not end, or may not have; but for what is `told` apart.

    The lease is looked at between two looks at the ledger: what is open in both was so at that time.
    """
    try:
        found = opened(fleet.ledger.entries(fleet.model, last=LOOK_BACK), told)
        writer = holder(fleet)
        lease = Held(writer.fence, writer.runs, writer.gone) if writer else Held()
        fates = {line.event_id: fate(line, lease, lives) for line in found}
        if Fate.UNFINISHED in fates.values():
            still = {line.event_id for line in opened(fleet.ledger.entries(fleet.model, last=LOOK_BACK), told)}
            found = tuple(line for line in found if line.event_id in still)
    except LockstepError as error:
        return holder(fleet), (), [f"unfinished: cannot be told: {error.reason}"]
    running, warnings = [], []
    for line in found:
        one = fates[line.event_id]
        if one is Fate.RUNNING and line.body.get("fence") != lease.fence:  # the writer is told apart
            running.append(describe(line))
        elif one is Fate.UNFINISHED:
            warnings.append(f"unfinished: {describe(line)}")
        elif one is Fate.BEGUN:
            warnings.append(f"begun: {describe(line)}; nothing tells whether it still runs or was killed")
    return writer, tuple(running), warnings
