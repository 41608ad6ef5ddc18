"""What reconciling goes by, and what it finds: facts about a model, its differences, and the plan that mends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.rules.capacity import Least
from lockstep.rules.plan import Plan
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class Finishing:
    """A rollback that was killed: its decision stands, and is carried out before anything else is mended."""

    target: Version
    reason: str = ""
    left: tuple[Version, ...] = ()

    def explain(self, changes: Sequence[str]) -> tuple[str, ...]:
        """One line a step, around its changes on the clouds."""
        why = self.reason or "no reason given"
        condemned = (f"condemn {version}: rolled back from: {why}" for version in self.left)
        return (f"finish the rollback to {self.target}: {why}", *changes, *condemned)


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside MLflow's aliases and the clouds' answers.

    `holder` is the live operation that holds the model, `unfinished` one that was killed, `split` one that told of
    clouds that did not follow, `settling` why no slot may go now; each a phrase, "" for none. `known` are the splits by
    cloud that Lockstep itself left or asked for, the one that was read back last first. `altered` are differences by
    cloud and slot between what was written and what is there; `condemned` reasons by digest; `good` is the version
    that should be the fallback where the alias names none that can be. `finishing` is the unfinished operation where
    it is a rollback.
    """

    holder: str = ""
    unfinished: str = ""
    split: str = ""
    settling: str = ""
    known: Mapping[str, Sequence[TrafficSplit]] = field(default_factory=dict)
    altered: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    good: Version | None = None
    least: Mapping[str, Least] = field(default_factory=dict)
    condemned: Mapping[str, str] = field(default_factory=dict)
    finishing: Finishing | None = None


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be. `healed` says that the plan mends it; else `hint` is a person's step.

    `by_hand` says that it was changed past Lockstep; `before` and `after` are then what it was and is. `waits` says
    that it is meant to be so for now: the model is in step with it.
    """

    cloud: str
    told: str
    healed: bool = True
    hint: str = ""
    by_hand: bool = False
    before: str = ""
    after: str = ""
    waits: bool = False

    def __str__(self) -> str:
        changed = f" (changed by hand from {self.before} to {self.after})" if self.by_hand and self.before else ""
        where = f"{self.cloud}: " if self.cloud else ""
        return f"{where}{self.told}{changed}" + (f" – {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Reconciliation:
    """One model's plan and differences. `over` is a canary whose rollout was killed, `held` who works on the model.

    `aliases` are those of MLflow that are set, or go (None), once the traffic is where it should be. `expected` says
    why the ledger explains the differences, "" when it does not. With `finishing` all of it is that rollback's.
    """

    model: str
    plan: Plan
    differences: tuple[Difference, ...] = ()
    over: Version | None = None
    aliases: Mapping[str, Version | None] = field(default_factory=dict)
    held: str = ""
    expected: str = ""
    finishing: Finishing | None = None

    @property
    def in_step(self) -> bool:
        """Whether nothing has to be changed or looked at."""
        return not self.work and all(one.waits for one in self.differences) and not self.held

    @property
    def work(self) -> bool:
        """Whether there is something to do."""
        return bool(self.plan.changes or self.aliases)

    def explain(self) -> tuple[str, ...]:
        """One line a step, in the order in which they are taken."""
        if self.finishing is not None:
            return self.finishing.explain(self.plan.explain() if self.plan.changes else ())
        names = tuple(
            f"MLflow: point the alias {alias!r} at {version}" if version else f"MLflow: delete the alias {alias!r}"
            for alias, version in self.aliases.items()
        )
        return (*self.plan.explain(), *names) if self.plan.changes or not names else names

    @property
    def by_hand(self) -> tuple[Difference, ...]:
        """What somebody changed past Lockstep."""
        return tuple(difference for difference in self.differences if difference.by_hand)
