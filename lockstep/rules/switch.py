"""The switch of all clouds to one version: which step comes next, decided without I/O.

No joint commit exists over several clouds, so a switch has two phases and SPLIT is an ending of its own:

- ANNOUNCE: the intent is in the ledger before anything is done.
- PREPARE: the target's slot is made ready where it is not; nobody sees that.
- COMMIT: the decision. Of a rollback it comes before any flip and as soon as one cloud could follow; of a promotion
  after the last one.
- FLIP: all traffic of a cloud to the target, read back. A rollback flips every cloud as soon as it is ready and waits
  for no other; a promotion flips when all are ready, and may do so in steps that are watched.
- TAKE BACK: what a promotion changed before one cloud failed. A rollback only goes forward.
- CLOSE: the outcome.

Whoever walks it does each step's work and tells what came of it, in any order: `after` takes an event that does not
belong where the switch is (late, or told twice) as none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from lockstep.errors import RefusedError


class Ending(StrEnum):
    """Where a switch got to."""

    DONE = "done"  # every cloud was read back on the target
    SPLIT = "split"  # some clouds follow, some could not
    NOWHERE = "nowhere"  # no cloud follows
    TAKEN_BACK = "taken back"  # a promotion that could not finish: every cloud is where it was


@dataclass(frozen=True)
class SwitchResult:
    """Seconds until each cloud was verified on the target, and why the others are not there."""

    seconds: Mapping[str, float]
    reasons: Mapping[str, str]

    @property
    def ending(self) -> Ending:
        """DONE when no cloud is missing, NOWHERE when all are."""
        if not self.reasons:
            return Ending.DONE
        return Ending.SPLIT if self.seconds else Ending.NOWHERE

    def explain(self) -> str:
        """One sentence a cloud that did not follow."""
        return "; ".join(f"{cloud}: {reason}" for cloud, reason in sorted(self.reasons.items()))


class Kind(StrEnum):
    """What a switch does when a cloud cannot follow."""

    ROLLBACK = "rollback"  # it only goes forward: the others go all the same
    PROMOTION = "promotion"  # everywhere or nowhere


class Place(StrEnum):
    """Where one cloud stands."""

    COLD = "cold"  # the target has no slot that is ready
    PREPARING = "preparing"
    READY = "ready"  # nothing speaks against giving the target the traffic
    REFUSED = "refused"  # the slot could not be made ready
    FLIPPING = "flipping"
    SERVING = "serving"  # read back: the target takes everything
    LOST = "lost"  # the flip failed, or could not be verified: it may have happened or not
    TAKING_BACK = "taking back"
    BACK = "back"  # read back: it serves what it did before
    STUCK = "stuck"  # could not be taken back


#: Places of a cloud after which a promotion cannot finish any more.
BACKWARD: Final = (Place.REFUSED, Place.LOST, Place.TAKING_BACK, Place.BACK, Place.STUCK)
#: Where a cloud's work under way leads when it went well, and when it did not.
ENDS: Mapping[Place, tuple[Place, Place]] = {
    Place.PREPARING: (Place.READY, Place.REFUSED),
    Place.FLIPPING: (Place.SERVING, Place.LOST),
    Place.TAKING_BACK: (Place.BACK, Place.STUCK),
}


# -- steps: what is to be done next ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Announce:
    """Write the intent, durably."""


@dataclass(frozen=True)
class Prepare:
    """Make the target's slot ready on these clouds."""

    clouds: tuple[str, ...]


@dataclass(frozen=True)
class Commit:
    """Make the target what should serve."""


@dataclass(frozen=True)
class Flip:
    """Give the target all traffic on these clouds, and verify it."""

    clouds: tuple[str, ...]


@dataclass(frozen=True)
class TakeBack:
    """Give these clouds the traffic that they had, and verify it."""

    clouds: tuple[str, ...]


@dataclass(frozen=True)
class Wait:
    """Nothing can be begun until something that is under way on one of these clouds has ended."""

    clouds: tuple[str, ...]


@dataclass(frozen=True)
class Close:
    """Write the outcome: nothing is left to do."""

    ending: Ending


Work = Prepare | Flip | TakeBack
Step = Announce | Commit | Work | Wait | Close


# -- events: what came of them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Announced:
    """The intent is durable."""


@dataclass(frozen=True)
class Committed:
    """The target is what should serve."""


@dataclass(frozen=True)
class GivenUp:
    """It is not to go forward any more: a promotion's decision could not be made, or nobody would walk on.

    What is under way forward counts as failed. A rollback goes on, and what was decided stays.
    """

    reason: str


@dataclass(frozen=True)
class Began:
    """A step's work is under way on its clouds."""

    work: Work


@dataclass(frozen=True)
class Ended:
    """Work that was under way on a cloud (`of`) has ended: well, after `seconds`, or for a `reason` not."""

    cloud: str
    of: Place
    seconds: float = 0.0
    reason: str = ""


Event = Announced | Committed | GivenUp | Began | Ended


@dataclass(frozen=True)
class Switch:
    """Where a switch is. `seconds` and `reasons` are as in SwitchResult; `refusal` is why it was given up."""

    kind: Kind
    places: Mapping[str, Place]
    announced: bool = False
    committed: bool = False
    refusal: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: Kind, clouds: Collection[str], cold: Collection[str] = ()) -> Switch:
        """A switch of `clouds` that has not begun; the target's slot is not ready on the `cold` ones."""
        if not clouds:
            raise RefusedError("there is no cloud to switch", hint="name the clouds of the fleet in lockstep.yaml")
        return cls(kind, {cloud: Place.COLD if cloud in cold else Place.READY for cloud in clouds})

    def at(self, *places: Place) -> tuple[str, ...]:
        """Clouds that stand at one of the places."""
        return tuple(cloud for cloud, place in self.places.items() if place in places)

    @property
    def under_way(self) -> tuple[str, ...]:
        """Clouds on which something is being done."""
        return self.at(*ENDS)

    @property
    def goes_back(self) -> bool:
        """Whether it is a promotion that cannot finish any more."""
        return self.kind is Kind.PROMOTION and (bool(self.refusal) or bool(self.at(*BACKWARD)))

    @property
    def result(self) -> SwitchResult:
        """What is known of each cloud so far."""
        return SwitchResult(dict(self.seconds), dict(self.reasons))


def next_step(switch: Switch) -> Step:
    """What to do now. The same until an event says that it was done or begun."""
    if not switch.announced:
        return Announce()
    step = _backward(switch) if switch.goes_back else _forward(switch)
    if step is not None:
        return step
    if switch.under_way:
        return Wait(switch.under_way)
    return Close(_ending(switch))


def _forward(switch: Switch) -> Step | None:
    cold, ready = switch.at(Place.COLD), switch.at(Place.READY)
    if cold:
        return Prepare(cold)
    if switch.kind is Kind.ROLLBACK:
        if not ready:
            return None
        return Flip(ready) if switch.committed else Commit()
    if len(ready) == len(switch.places):
        return Flip(ready)
    return Commit() if not switch.committed and len(switch.at(Place.SERVING)) == len(switch.places) else None


def _backward(switch: Switch) -> Step | None:
    """Only once nothing moves forward any more, so that no flip lands after the way back."""
    if switch.at(Place.PREPARING, Place.FLIPPING):
        return None
    changed = switch.at(Place.SERVING, Place.LOST)
    return TakeBack(changed) if changed else None


def _ending(switch: Switch) -> Ending:
    if len(switch.at(Place.SERVING)) == len(switch.places) and switch.committed:
        return Ending.DONE
    if switch.kind is Kind.ROLLBACK:
        return Ending.SPLIT if switch.at(Place.SERVING) else Ending.NOWHERE
    if switch.at(Place.STUCK):
        return Ending.SPLIT
    return Ending.TAKEN_BACK if switch.at(Place.BACK) else Ending.NOWHERE


def after(switch: Switch, event: Event) -> Switch:
    """The switch once `event` happened."""
    match event:
        case Announced():
            return replace(switch, announced=True)
        case Committed():
            return replace(switch, committed=switch.committed or next_step(switch) == Commit())
        case GivenUp(reason):
            return _give_up(switch, reason)
        case Began(work):
            return _begin(switch, work) if next_step(switch) == work else switch
        case Ended(cloud, of):
            return _end(switch, event) if of in ENDS and switch.places.get(cloud) is of else switch


def _begin(switch: Switch, work: Work) -> Switch:
    match work:
        case Prepare():
            place = Place.PREPARING
        case Flip():
            place = Place.FLIPPING
        case TakeBack():
            place = Place.TAKING_BACK
    return replace(switch, places={**switch.places, **dict.fromkeys(work.clouds, place)})


def _give_up(switch: Switch, reason: str) -> Switch:
    if switch.kind is Kind.ROLLBACK or switch.committed or switch.goes_back:
        return switch
    forward = switch.at(Place.PREPARING, Place.FLIPPING)
    failed = {cloud: ENDS[switch.places[cloud]][1] for cloud in forward}
    reasons = {**switch.reasons, **dict.fromkeys(forward, reason)}
    return replace(switch, refusal=reason, places={**switch.places, **failed}, reasons=reasons)


def _end(switch: Switch, event: Ended) -> Switch:
    well, badly = ENDS[event.of]
    places = {**switch.places, event.cloud: badly if event.reason else well}
    if event.reason:
        return replace(switch, places=places, reasons={**switch.reasons, event.cloud: event.reason})
    if event.of is Place.FLIPPING:
        return replace(switch, places=places, seconds={**switch.seconds, event.cloud: event.seconds})
    if event.of is Place.TAKING_BACK:
        return replace(switch, places=places, seconds={k: v for k, v in switch.seconds.items() if k != event.cloud})
    return replace(switch, places=places)
