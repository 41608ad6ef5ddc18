"""What is told of an operation that is interrupted: what was done by then, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lockstep.errors import Interruption
from lockstep.rules.deeds import mapping
from lockstep.rules.state import Version


@contextmanager
def told_if_interrupted(told: Callable[[], Interruption]) -> Iterator[None]:
    """Raise what `told` says at the moment of an interrupt in the block, in its place."""
    try:
        yield
    except Interruption:
        raise
    except KeyboardInterrupt as interrupt:
        raise told() from interrupt


@dataclass
class RollbackCourse:
    """How far a rollback has got.

    `target` is None before it begins; `overtook` says that it has stopped another operation by then. `verified` are
    seconds by cloud, `reasons` why others are behind.
    """

    model: str
    clouds: tuple[str, ...]
    target: Version | None = None
    left: tuple[Version, ...] = ()
    overtook: bool = False
    verified: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def begin(self, target: Version, left: tuple[Version, ...]) -> None:
        """Its intent is about to be written."""
        self.target, self.left = target, left

    def ended(self, cloud: str, seconds: float, reason: str) -> None:
        """One cloud was verified, or given up for a reason."""
        if reason:
            self.reasons[cloud] = reason
        else:
            self.verified[cloud] = seconds

    def interruption(self) -> Interruption:
        """What an interrupt now leaves."""
        if self.target is None:
            stopped = ", but the operation that was running stops" if self.overtook else ""
            return Interruption(
                f"interrupted before the rollback of {self.model} began: nothing was changed{stopped}",
                hint=f"lockstep status {self.model} shows what serves",
                facts={"target": None, "clouds": {}, "split": {}, "next": f"lockstep status {self.model}"},
            )
        behind = {cloud: self.reasons.get(cloud, "") for cloud in self.clouds if cloud not in self.verified}
        follows = ", ".join(cloud for cloud in self.clouds if cloud in self.verified) or "no cloud"
        missing = "; ".join(f"{cloud}{f' ({why})' if why else ''}" for cloud, why in behind.items())
        told = f"not known to serve it: {missing}" if missing else "what it leaves is not condemned yet"
        return Interruption(
            f"interrupted: the rollback of {self.model} to {self.target} is not finished; "
            f"verified on {follows}; {told}",
            hint=f"lockstep rollback {self.model} goes on with it, and so does lockstep reconcile {self.model}",
            facts={
                "target": self.target.label,
                "digest": self.target.digest,
                "leaves": [version.label for version in self.left],
                "clouds": {cloud: round(seconds, 3) for cloud, seconds in self.verified.items()},
                "split": {cloud: why or "not verified" for cloud, why in behind.items()},
                "next": f"lockstep rollback {self.model}",
            },
        )


@dataclass
class RolloutCourse:
    """How far a rollout has got: `begun`, `promoted`, or `back`, the version that serves everywhere again."""

    version: Version
    begun: bool = False
    promoted: bool = False
    back: Version | None = None

    def interruption(self) -> Interruption:
        """What an interrupt now leaves."""
        model = self.version.model
        following, does = f"lockstep status {model}", "shows what serves"
        if self.back is not None:
            told = f"{self.version} was taken back, {self.back} serves everywhere"
        elif self.promoted:
            told = f"{self.version} is promoted and serves everywhere; what it replaced was not cleared away"
            following, does = f"lockstep reconcile {model}", "does that"
        elif self.begun:
            told = f"the rollout of {self.version} is not finished, and was not taken back"
            following, does = f"lockstep rollback {model}", "takes it back"
        else:
            told = f"the rollout of {self.version} had not begun: nothing was changed"
        serves = self.version if self.promoted else self.back
        return Interruption(
            f"interrupted: {told}",
            hint=f"{following} {does}",
            facts={
                "version": self.version.label,
                "serves": serves.label if serves else None,
                "taken_back": self.back is not None,
                "next": following,
            },
        )


@dataclass
class ReconcileCourse:
    """How far the reconciling of one model has got.

    `begun` says that its intent is about to be written, or is. `moves` are the clouds whose traffic is set, `verified`
    the seconds of those where it was, `reasons` why others are behind. `ended` says that it ended by itself, and `why`
    what is not in step then; `told` is what a rollback that was being finished says of itself.
    """

    model: str
    begun: bool = False
    moves: tuple[str, ...] = ()
    verified: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    why: str = ""
    told: str = ""

    def begin(self, moves: Collection[str]) -> None:
        """Something is about to be changed."""
        self.begun, self.moves, self.ended, self.told = True, tuple(moves), False, ""
        self.verified, self.reasons = {}, {}

    def moved(self, cloud: str, seconds: float, reason: str) -> None:
        """The traffic of one cloud was verified, or given up for a reason."""
        if reason:
            self.reasons[cloud] = reason
        else:
            self.verified[cloud] = seconds

    def leave(self, rollback: Interruption) -> None:
        """A rollback that was being finished was interrupted."""
        verified, split = mapping(rollback.facts, "clouds"), mapping(rollback.facts, "split")
        self.told, self.moves = rollback.problem, (*verified, *split)
        self.verified = {cloud: seconds for cloud, seconds in verified.items() if isinstance(seconds, float)}
        self.reasons = {cloud: str(why) for cloud, why in split.items()}

    def end(self, why: str) -> None:
        """It ended by itself, and is not in step where there is a reason."""
        self.ended, self.why = True, why

    @property
    def in_step(self) -> bool:
        """Whether it ended so."""
        return self.ended and not self.why

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.ended:
            return "not in step" if self.why else "in step"
        return "left open" if self.begun else "not begun"

    @property
    def split(self) -> dict[str, str]:
        """Why clouds are not known to serve the champion alone."""
        return {cloud: self.reasons.get(cloud) or "not verified" for cloud in self.moves if cloud not in self.verified}

    def __str__(self) -> str:
        if self.ended or not self.begun:
            return f"{self.model}: {self.state}{f': {self.why}' if self.why else ''}"
        if self.told:
            return f"{self.model}: left open: {self.told.removeprefix('interrupted: ')}"
        follows = ", ".join(cloud for cloud in self.moves if cloud in self.verified) or "no cloud"
        missing = "; ".join(
            cloud + (f" ({self.reasons[cloud]})" if cloud in self.reasons else "") for cloud in self.split
        )
        told = f"verified on {follows}; not known to follow: {missing}" if missing else "traffic is as it should be"
        return f"{self.model}: left open: {told}"


def reconcile_interruption(courses: Sequence[ReconcileCourse]) -> Interruption:
    """What an interrupt now leaves of reconciling these models."""
    begun = [one for one in courses if one.begun]
    unfinished = [one.model for one in courses if not one.in_step]
    following = " ".join(["lockstep reconcile", *(unfinished or [one.model for one in courses])])
    if not begun:
        told = "interrupted before anything was changed"
    else:
        told = f"interrupted: reconciling is not finished. {'. '.join(map(str, courses))}"
    return Interruption(
        told,
        hint=f"{following} goes on with it, and so does the next one by a schedule",
        facts={
            "models": {
                one.model: {
                    "in_step": one.in_step,
                    "state": one.state,
                    "clouds": {cloud: round(seconds, 3) for cloud, seconds in one.verified.items()},
                    "split": one.split,
                }
                for one in courses
            },
            "next": following,
        },
    )
