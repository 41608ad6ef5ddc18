"""Events of Lockstep's, sent to Prefect from a flow: automations, notifications and people's flows wait for them."""

from __future__ import annotations

from prefect.events import emit_event

from lockstep.rules.event_names import resource
from tasks.artifacts import kept


def tell(name: str, model: str, fleet: str, **payload: object) -> None:
    """Send the event `name` of lockstep.rules.event_names about a model, related to the flow run; never fails it.

    `fleet` is the name of the Fleet block.
    """
    with kept("event"):
        emit_event(event=name, resource=dict(resource(model)), payload={"model": model, "fleet": fleet, **payload})
