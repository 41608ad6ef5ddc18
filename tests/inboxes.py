"""An alert that rolls a model back, and an inbox that takes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.taking import Taking
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.deciding import Pace
from lockstep.rules.alerts.intent import Action
from lockstep.rules.alerts.routing import Route

ALERT: Final = Alert("am", "a", "i", Status.FIRING, "it is slow")
ROUTE: Final = Route("rule", "churn", "8", "", Action.ROLLBACK)


def take(database: GroupCommit, number: int = 1, way: Route = ROUTE, at: float = 1000.0) -> str:
    """What the alert of that number is answered."""
    alert = replace(ALERT, id=f"a{number}")
    return database.write(lambda connection: Taking(Pace()).alert(connection, alert, way, "digest", at)).answer
