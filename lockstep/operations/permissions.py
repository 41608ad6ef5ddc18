"""Ask every cloud, all at the same time, whether it allows what will be needed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lockstep.clouds.base import Cloud
from lockstep.config import Config
from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.running import Job, ThreadRunner
from lockstep.rules.permissions import Finding, Permissions, as_json, refusal, told


@dataclass(frozen=True)
class Asked:
    """What one cloud answered; or the error in the place of an answer."""

    cloud: str
    guide: str
    permissions: Permissions | None = None
    error: LockstepError | None = None

    @property
    def lacking(self) -> tuple[Finding, ...]:
        """What is missing and cannot be done without."""
        return self.permissions.lacking if self.permissions is not None else ()

    def told(self) -> tuple[str, ...]:
        """Lines for a person; empty when everything is granted."""
        if self.permissions is not None:
            return told(self.permissions, self.guide)
        reason = self.error.reason if self.error is not None else "it gave no answer"
        return (f"cannot tell what is granted: {reason}",)

    def as_json(self) -> Mapping[str, object]:
        """The same as plain values."""
        if self.permissions is not None:
            return as_json(self.permissions)
        return {"error": self.error.reason if self.error is not None else ""}


def ask_permissions(clouds: Sequence[Cloud], models: Mapping[str, Sequence[str]]) -> Mapping[str, Asked]:
    """Each cloud's answer, by its name; `models` are those that will be worked on there."""
    jobs = [
        Job(cloud.name, f"{cloud.name}: ask for permissions", partial(cloud.permissions, models.get(cloud.name, ())), 0)
        for cloud in clouds
    ]
    guides = {cloud.name: cloud.guide for cloud in clouds}
    return {
        outcome.cloud: Asked(outcome.cloud, guides[outcome.cloud], outcome.value, outcome.error)
        for outcome in ThreadRunner().run(jobs)
    }


def models_by_cloud(config: Config) -> Mapping[str, Sequence[str]]:
    """The configured models that are served on each cloud."""
    found: dict[str, list[str]] = {name: [] for name in config.clouds}
    for model, settings in config.models.items():
        for cloud in config.fleets[settings.fleet].clouds:
            found[cloud].append(model)
    return found


def refuse_lacking(answers: Mapping[str, Asked]) -> None:
    """Raise RefusedError when a permission is missing that cannot be done without; what cannot be told is no reason."""
    problem = refusal({name: one.lacking for name, one in answers.items()})
    if problem:
        raise RefusedError(
            f"{problem}; nothing was saved",
            hint="grant what docs/clouds.md lists; --despite-permissions saves all the same, if others run Lockstep",
        )
