"""What the page shows: one frozen value per model, made of what was looked at, and never looked for by a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lockstep.agent.series import Series
from lockstep.operations.fleet import Fleet
from lockstep.operations.status import CloudProof, Status
from lockstep.rules.deeds import Deed
from lockstep.rules.state import CloudState, DesiredState, SlotState, Version
from lockstep.rules.waiting import Waiting


class Tone(StrEnum):
    """How a model is, from the best to the worst; the page's colour and word for it."""

    IN_STEP = "in step"
    CANARY = "canary"
    NOTHING = "nothing serves"
    UNKNOWN = "not known"
    OUT_OF_STEP = "out of step"
    SPLIT = "SPLIT"


class Proved(StrEnum):
    """Whether real answers of an endpoint named the digest that should serve."""

    VERIFIED = "verified"
    REFUTED = "contradicted"
    UNKNOWN = "not verified"


@dataclass(frozen=True)
class SlotView:
    """One slot; `role` is what its version is to the model, "" for none."""

    name: str
    label: str
    digest: str
    weight: int
    ready: bool
    status: str
    capacity: int
    role: str


@dataclass(frozen=True)
class CloudView:
    """One model on one cloud. `problem` is how it is out of step, `trailing` why and when it is tried again.

    `proved_at` is in Unix seconds, 0.0 for never. `warm` says whether the fallback is ready there, None without one.
    """

    name: str
    title: str
    console: str
    endpoint: str = ""
    slots: tuple[SlotView, ...] = ()
    busy: bool = False
    unreachable: str = ""
    problem: str = ""
    trailing: str = ""
    proved: Proved = Proved.UNKNOWN
    proved_at: float = 0.0
    proof: str = ""
    warm: bool | None = None

    @property
    def serving(self) -> tuple[SlotView, ...]:
        """Slots that take traffic, the largest share first."""
        return tuple(sorted((slot for slot in self.slots if slot.weight), key=lambda slot: -slot.weight))


@dataclass(frozen=True)
class WayBack:
    """Where a rollback would go now, as of `at` (0.0: not known); `problem` is why there is none, "" else.

    `leaves` are the versions that would be condemned, the most trusted first. `arrived`: a rollback has just led to the
    target, so that there is nothing to do. `seconds` is of the slowest cloud.
    """

    at: float
    target: Version | None = None
    leaves: tuple[Version, ...] = ()
    why: str = ""
    arrived: bool = False
    plan: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    seconds: float = 0.0
    unreachable: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    hint: str = ""

    @property
    def leaving(self) -> str:
        """Digest of the newest change among what is left, which a rollback that does as planned is to name."""
        return self.leaves[-1].digest if self.leaves else ""

    @property
    def mark(self) -> str:
        """The same for plans that go to the same version and leave the same ones; "" without a target."""
        if self.target is None:
            return ""
        return ":".join(version.digest for version in (self.target, *self.leaves))

    def refusal(self, shown: str) -> str:
        """Why a rollback is not begun for whoever was shown the plan of that mark; "" when it is.

        A plan that is not known holds no rollback up.
        """
        if not self.at:
            return ""
        if self.target is None:
            return f"nothing was begun: {self.problem}"
        if self.arrived:
            return (
                f"nothing was begun: a rollback has just led to version {self.target.label}; "
                "to go further, name the version to go to"
            )
        if self.mark != shown:
            return "nothing was begun: the plan is not the one that you were shown; look at it, and press again"
        return ""


@dataclass(frozen=True)
class ModelView:
    """One model as of `at` (Unix seconds); `problem` is why nothing is known, "" else.

    `approvals` are the questions that wait for a person's word, `running` the operations beside the `writer`.
    """

    model: str
    at: float
    desired: DesiredState
    clouds: tuple[CloudView, ...] = ()
    writer: str = ""
    notes: tuple[str, ...] = ()
    deeds: tuple[Deed, ...] = ()
    series: tuple[Series, ...] = ()
    way: WayBack | None = None
    held: str = ""
    problem: str = ""
    approvals: tuple[Waiting, ...] = ()
    running: tuple[str, ...] = ()

    @property
    def tone(self) -> Tone:
        """How it is, the worst of all that is so."""
        if any(cloud.trailing for cloud in self.clouds):
            return Tone.SPLIT
        if any(cloud.problem and not cloud.unreachable for cloud in self.clouds):
            return Tone.OUT_OF_STEP
        if self.problem or any(cloud.unreachable for cloud in self.clouds):
            return Tone.UNKNOWN
        if self.desired.champion is None:
            return Tone.NOTHING
        return Tone.CANARY if self.trying else Tone.IN_STEP

    @property
    def trying(self) -> int:
        """Per cent of the canary, the most that a cloud gives it; 0 for none."""
        return max((slot.weight for cloud in self.clouds for slot in cloud.slots if slot.role == "canary"), default=0)

    def cloud(self, name: str) -> CloudView | None:
        """What is known of that cloud; None for one that does not serve the model."""
        return next((cloud for cloud in self.clouds if cloud.name == name), None)


@dataclass(frozen=True)
class Overview:
    """All models by name, and the newest deeds of all; a model that was not looked at yet is missing."""

    models: Mapping[str, ModelView] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()

    @property
    def deeds(self) -> tuple[Deed, ...]:
        """The newest deeds of all models, the newest first."""
        found = [deed for view in self.models.values() for deed in view.deeds]
        return tuple(sorted(found, key=lambda deed: -deed.began))[:12]

    @property
    def approvals(self) -> tuple[Waiting, ...]:
        """The questions of all models that wait for a person's word, the oldest first."""
        found = [one for view in self.models.values() for one in view.approvals]
        return tuple(sorted(found, key=lambda one: one.since))

    @property
    def oldest(self) -> float:
        """When the model that was looked at longest ago was looked at; 0.0 while one was not looked at at all."""
        if not self.names:
            return 0.0
        return min((self.models[name].at if name in self.models else 0.0) for name in self.names)

    @property
    def out_of_step(self) -> int:
        """Clouds that do not serve what they should, over all models, as far as is known."""
        return sum(1 for view in self.models.values() for cloud in view.clouds if cloud.problem or cloud.unreachable)


def model_view(
    fleet: Fleet,
    found: Status,
    at: datetime,
    *,
    proved_at: Mapping[str, float],
    deeds: Sequence[Deed] = (),
    series: Sequence[Series] = (),
    way: WayBack | None = None,
) -> ModelView:
    """The model as it was found; `proved_at` is by cloud when the proofs in `found` were made."""
    proofs = {proof.cloud: proof for proof in found.proofs}
    states = {state.cloud: state for state in found.state.clouds}
    notes = ([f"MLflow cannot be asked, shown is what was last known: {found.silent}"] if found.silent else []) + [
        *([f"not in step: {found.killed}"] if found.killed else []),
        *found.warnings,
        *found.keys,
        *found.ledger,
    ]
    behind = found.out_of_step
    clouds = []
    for cloud in fleet.clouds:
        state, trailing = states.get(cloud.name), found.split.get(cloud.name)
        proved, proof = read_proof(proofs.get(cloud.name), found.desired)
        clouds.append(
            CloudView(
                cloud.name,
                cloud.title,
                cloud.console_url(fleet.model),
                endpoint=state.endpoint if state else "",
                slots=_slots(state, found.desired),
                busy=state is not None and state.busy,
                unreachable=found.state.unreachable.get(cloud.name, ""),
                problem=behind.get(cloud.name, ""),
                trailing=trailing.told(at.timestamp()) if trailing else "",
                proved=proved,
                proved_at=proved_at.get(cloud.name, 0.0) if proved is not Proved.UNKNOWN else 0.0,
                proof=proof,
                warm=_warm(state, found.desired),
            )
        )
    return ModelView(
        fleet.model,
        at.timestamp(),
        found.desired,
        tuple(clouds),
        found.writer.told if found.writer else "",
        tuple(notes),
        tuple(deeds),
        tuple(series),
        way,
        running=found.running,
    )


def read_proof(proof: CloudProof | None, desired: DesiredState) -> tuple[Proved, str]:
    """What an endpoint's answers say of what should serve, and why in words; None for one that was not asked."""
    if proof is None:
        return Proved.UNKNOWN, "its endpoint was not asked"
    if proof.problem:
        return Proved.UNKNOWN, proof.problem
    allowed = {one.digest for one in (desired.champion, desired.challenger) if one is not None}
    if contradiction := proof.contradiction(allowed):
        strangers = {answer.digest for answer in proof.answers} - {*allowed, ""}
        return (Proved.REFUTED if strangers else Proved.UNKNOWN), contradiction
    return Proved.VERIFIED, f"{len(proof.answers)} real answers named it"


def _slots(state: CloudState | None, desired: DesiredState) -> tuple[SlotView, ...]:
    slots = state.slots if state else ()
    shown = [_slot(slot, desired) for slot in slots]
    return tuple(sorted(shown, key=lambda slot: (-slot.weight, slot.name)))


def _slot(slot: SlotState, desired: DesiredState) -> SlotView:
    named = (("champion", desired.champion), ("canary", desired.challenger), ("fallback", desired.fallback))
    role, version = next(
        ((role, version) for role, version in named if version and version.slot == slot.name), ("", None)
    )
    label = slot.label or (version.label if version else slot.name)
    return SlotView(slot.name, label, slot.digest, slot.weight, slot.ready, slot.status, slot.capacity, role)


def _warm(state: CloudState | None, desired: DesiredState) -> bool | None:
    if desired.fallback is None or state is None:
        return None
    slot = state.slot(desired.fallback.slot)
    return slot is not None and slot.ready
