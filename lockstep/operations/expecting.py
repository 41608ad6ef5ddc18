"""How long a rollback would take, cloud by cloud: for a dry run, before it is needed."""

from __future__ import annotations

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.rollback_plan import RollbackPlan
from lockstep.rules.expected import Expected, expect
from lockstep.stores.ledger import Entry


def expect_times(fleet: Fleet, planned: RollbackPlan) -> tuple[Expected, ...]:
    """What to expect of each cloud that answers, in rollout order."""
    lines: list[Entry] = []
    try:
        for kind in ("shift.outcome", "prepare.outcome"):
            lines += fleet.ledger.entries(fleet.model, kind, last=200)
    except LockstepError as error:
        fleet.say(f"how long it took before is not known: {error.reason}")
    cold = {change.cloud for change in planned.plan.prepares}
    return tuple(
        expect(
            cloud.name,
            lines,
            cold=cloud.name in cold,
            flip=cloud.usual_seconds("flip"),
            deploy=cloud.usual_seconds("deploy"),
        )
        for cloud in fleet.clouds
        if cloud.name not in planned.before.unreachable
    )
