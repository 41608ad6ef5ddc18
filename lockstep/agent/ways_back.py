"""Where a rollback of a model would go now, for the page and for the button that asks once more."""

from __future__ import annotations

import time

from lockstep.agent.overview import WayBack
from lockstep.errors import LockstepError
from lockstep.operations.expecting import expect_times
from lockstep.operations.fleet import Fleet
from lockstep.operations.rollback_plan import RollbackPlan, plan_rollback
from lockstep.operations.status import Status
from lockstep.rules.target import Why


def plan_way(fleet: Fleet, to: str | None = None) -> WayBack:
    """Where a rollback would go now; changes nothing. Raises nothing that a plan may raise: it is in the answer."""
    try:
        planned = plan_rollback(fleet, to)
    except LockstepError as error:
        return WayBack(time.time(), problem=error.problem, hint=error.hint)
    return _way(fleet, planned)


def decided_by(found: Status) -> object:
    """What a rollback's way depends on: another one is planned when it changes."""
    champion, challenger = found.desired.champion, found.desired.challenger
    trying = [cloud.slot(challenger.slot) for cloud in found.state.clouds] if challenger else []
    tried = any(slot is not None and slot.weight > 0 for slot in trying)
    return (champion and champion.digest, challenger and challenger.digest, tried)


def _way(fleet: Fleet, planned: RollbackPlan) -> WayBack:
    expected = expect_times(fleet, planned)
    return WayBack(
        time.time(),
        planned.way.target,
        planned.way.left,
        planned.way.why.value,
        planned.way.why is Why.ARRIVED,
        planned.plan.explain(),
        tuple(map(str, expected)),
        max((one.seconds for one in expected), default=0.0),
        dict(planned.before.unreachable),
    )
