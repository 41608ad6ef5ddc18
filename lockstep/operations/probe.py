"""Ask an endpoint for a real prediction and look which version answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from lockstep.clouds.base import Cloud, Row
from lockstep.errors import CloudRejectedError, LockstepError, RetryLaterError
from lockstep.operations.fleet import Fleet
from lockstep.operations.remembering import rows_of
from lockstep.operations.trying import trying
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit

SOON: Final = 2.0  # seconds after a switch in which nothing is strange
LOOK_EVERY: Final = 0.1  # seconds between two looks until then
LOOK_LATER: Final = 1.0
PROBES: Final = 3  # answers in a row that must come from the version that takes everything


def wait_until_serving(
    cloud: Cloud, model: str, split: TrafficSplit, version: Version | None, rows: Sequence[Row], timeout: float
) -> None:
    """Return when the cloud's own record shows `split` and, if `version` takes all traffic, when it really answers.

    Clouds report success before it is true and show old state after it is: so both are asked until they agree.
    Raises RetryLaterError after `timeout` seconds, saying what was last seen.
    """
    began = time.monotonic()
    seen, job = "nothing yet", trying()
    while True:
        problem = ""
        try:
            shown = cloud.verify_traffic(model, split)
            if shown:
                if version is None or not rows or split.weight(version.slot) != 100:
                    return
                strangers = _strangers(cloud, model, version, rows)
                if not strangers:
                    return
                seen = f"{strangers[0]} still answers"
            else:
                seen = "it cannot tell yet" if shown is None else "it shows another split"
        except CloudRejectedError as error:
            seen = f"{error.problem}; if the model does not accept the row, set `probe:` of the model in lockstep.yaml"
            problem = seen
        except LockstepError as error:
            seen, problem = str(error), error.problem
        waited = time.monotonic() - began
        if problem and waited >= SOON:  # before, a cloud may not know yet what it was told
            job.trouble(problem)
        else:
            job.saw(problem or seen)
        over = waited >= timeout
        # The clouds offer nothing to wait on.
        if over or not job.pause(LOOK_EVERY if waited < SOON else LOOK_LATER):
            within = f"within {timeout:.0f} s" if over else "before it was interrupted"
            raise RetryLaterError(
                f"{model}: traffic {split} could not be verified {within}: {seen}",
                cloud=cloud.name,
                hint=f"look at {cloud.console_url(model)} and run `lockstep status {model}`",
            )


def _strangers(cloud: Cloud, model: str, version: Version, rows: Sequence[Row]) -> list[str]:
    answers = [cloud.invoke(model, rows) for _ in range(PROBES)]
    return [
        f"{answer.slot} (digest {answer.digest[:12] or 'unknown'})"
        for answer in answers
        # Where a cloud hides what the container says, its own word for the slot has to do.
        if (answer.digest != version.digest if answer.digest else answer.slot != version.slot)
    ]


def with_probe(fleet: Fleet, version: Version) -> Fleet:
    """The fleet with rows to probe with: those of the configuration, else one made up from the version's signature."""
    if fleet.probe:
        return fleet
    return replace(fleet, probe=rows_of(fleet, version))
