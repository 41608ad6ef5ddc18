"""Names of the events that Lockstep sends to Prefect, whoever sends them: a flow, or the agent over plain HTTP.

An event is about a model: its resource is `lockstep.model.<name>`. Automations in prefect.yaml wait for these names, so
a name that was given once stays. Every payload holds `model` and `fleet` (as its Fleet block is called), and as far as
it is known `reason`, `target` and `left` (versions as people name them), `target_digest`, `seconds` (a number) and
`split` (cloud -> why it did not follow). Versions, reasons and clouds are texts for people and are believed in nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Somebody else's word: roll back the model that the payload names. The only name here that Lockstep does not send.
ALERT: Final = "lockstep.alert"

ALERT_RECEIVED: Final = "lockstep.alert.received"
INTENT_ACCEPTED: Final = "lockstep.intent.accepted"
#: It ended without a rollback: people were told, the model is held, or a fresh look found nothing wrong.
INTENT_ENDED: Final = "lockstep.intent.ended"

#: Every cloud serves the target, read back and proved.
ROLLBACK_COMPLETED: Final = "lockstep.rollback.completed"
#: Some clouds could not follow: `split` names them.
ROLLBACK_SPLIT: Final = "lockstep.rollback.split"
#: It was refused, or nothing could be changed.
ROLLBACK_FAILED: Final = "lockstep.rollback.failed"

ROLLOUT_PROMOTED: Final = "lockstep.rollout.promoted"
ROLLOUT_TAKEN_BACK: Final = "lockstep.rollout.taken-back"
#: A rollout waits for a person's word.
APPROVAL_WANTED: Final = "lockstep.approval.wanted"

#: What serves was judged bad.
MONITOR_BREACH: Final = "lockstep.monitor.breach"

ALL: Final = (
    *(ALERT, ALERT_RECEIVED, INTENT_ACCEPTED, INTENT_ENDED, ROLLBACK_COMPLETED, ROLLBACK_SPLIT, ROLLBACK_FAILED),
    *(ROLLOUT_PROMOTED, ROLLOUT_TAKEN_BACK, APPROVAL_WANTED, MONITOR_BREACH),
)


def resource_id(model: str) -> str:
    """Id of the model among Prefect's resources; `lockstep.model.*` fits every model."""
    return f"lockstep.model.{model}"


def resource(model: str) -> Mapping[str, str]:
    """The resource that an event is about, as Prefect takes it."""
    return {"prefect.resource.id": resource_id(model), "prefect.resource.name": model}
