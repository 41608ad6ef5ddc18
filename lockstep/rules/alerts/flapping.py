"""Which rollbacks count as going back and forth: one that only finishes another is that one still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.rules.alerts.intent import Intent, State


def own_rollbacks(past: Sequence[Intent]) -> tuple[Intent, ...]:
    """The intents, in their order, without those that brought over what a rollback of the same version left SPLIT.

    Such a one changed traffic, and so a cool-down begins with it; but the model went back once, not twice.
    """
    split: set[str] = set()  # how the versions are named whose rollback a cloud could not follow
    finish: set[str] = set()
    for one in sorted((one for one in past if one.moved), key=lambda one: one.began):
        names = {one.version, one.asked.removeprefix("@")} - {""}
        if names & split:
            finish.add(one.id)
        split = split | names if one.state is State.SPLIT else split - names
    return tuple(one for one in past if one.id not in finish)


@dataclass(frozen=True)
class Flapping:
    """A model that goes back and forth: `told` is how often; `problem` why it could not be held for it, "" if it is."""

    model: str
    told: str
    problem: str = ""

    @classmethod
    def of(cls, model: str, count: int, window: float) -> Flapping:
        """So many rollbacks within so many seconds."""
        often = "once" if count == 1 else f"{count} times"
        return cls(model, f"rolled back {often} within {window / 3600:.3g} h")

    @property
    def title(self) -> str:
        """In a few words, after what came of the rollback."""
        return f"{'could not be held' if self.problem else 'held'}: {self.told}"

    def __str__(self) -> str:
        if self.problem:
            return f"{self.told}, and it could not be held: {self.problem}"
        return f"{self.told}: it is held until a person has looked: lockstep release {self.model} --reason REASON"
