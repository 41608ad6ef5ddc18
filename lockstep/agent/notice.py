"""What others are told: one event with a sentence for people and fields for machines."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lockstep.rules.alerts.flapping import Flapping
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.event_names import (
    APPROVAL_WANTED,
    INTENT_ACCEPTED,
    INTENT_ENDED,
    ROLLBACK_COMPLETED,
    ROLLBACK_FAILED,
    ROLLBACK_SPLIT,
)
from lockstep.rules.moments import show_moment
from lockstep.rules.waiting import Waiting


@dataclass(frozen=True)
class Notice:
    """One event. `urgent` says that a person must come; `at` is in Unix seconds; `data` holds plain JSON values."""

    event: str
    title: str
    text: str
    model: str
    at: float
    urgent: bool = False
    data: Mapping[str, object] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def as_json(self) -> str:
        """As the outbox keeps it."""
        return json.dumps(
            {
                **{"event": self.event, "title": self.title, "text": self.text, "model": self.model, "at": self.at},
                **{"urgent": self.urgent, "data": dict(self.data), "id": self.id},
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Notice:
        """What `as_json` wrote."""
        return cls(**json.loads(text))


class Receiver(Protocol):
    """Who is told: people by apprise, a webhook, Prefect."""

    @property
    def name(self) -> str:
        """By which its notices wait in the outbox; the same after a restart, and no secret."""

    def wants(self, notice: Notice) -> bool:
        """Whether it is told of this one."""

    def send(self, notice: Notice) -> None:
        """Tell it; raises LockstepError: RetryLaterError for what may succeed later."""


def of_intent(
    intent: Intent, at: float, fields: Mapping[str, object] | None = None, flapping: Flapping | None = None
) -> Notice:
    """The notice of an intent as it is now; `fields` are what else is known: `target`, `left`, `seconds`, `split`."""
    event, title = _event(intent)
    title += f", and {flapping.title}" if flapping else ""
    asked = intent.asked if len(intent.asked) < 64 else intent.asked[:12]
    what = f"{intent.model} {asked}".strip() or "an alert"
    data: dict[str, object] = {
        **{"intent": intent.id, "model": intent.model, "action": intent.action.value, "state": intent.state.value},
        **{"reason": intent.reason, "actor": intent.actor, "cloud": intent.cloud, "alerts": intent.alerts},
        **{"version": intent.asked, "digest": intent.version, "told": intent.told},
        **(fields or {}),
    }
    text = "\n".join(line for line in (intent.told, f"why: {intent.reason}" if intent.reason else "") if line)
    urgent = intent.urgent and not intent.open  # a person is called once, with what came of it
    return Notice(event, f"{what}: {title}", text, intent.model, at, urgent, data)


def of_question(question: Waiting) -> Notice:
    """The notice of an approval that is wanted; the same id whenever it is made, so that it is told once."""
    until = f"until {show_moment(question.until)}, then nobody's word is a no"
    data: dict[str, object] = {
        **{"question": question.id, "model": question.model, "version": question.version, "digest": question.digest},
        **{"gate": question.gate, "asks": question.asks, "evidence": list(question.told)},
        **{"since": question.since, "until": question.until, "link": question.link, "via": question.via},
    }
    return Notice(
        APPROVAL_WANTED,
        f"{question.model} {question.version}: an approval is wanted ({question.gate})",
        "\n".join([question.asks, *question.told, until, question.where]),
        question.model,
        question.since,
        data=data,
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"lockstep/approval/{question.id}")),
    )


def _event(intent: Intent) -> tuple[str, str]:
    match intent.state:
        case State.DONE if intent.action is not Action.HOLD:
            return ROLLBACK_COMPLETED if intent.moved else INTENT_ENDED, (
                "rolled back" if intent.moved else "nothing was left to roll back"
            )
        case State.SPLIT:
            return ROLLBACK_SPLIT, "SPLIT: not every cloud could follow the rollback"
        case State.FAILED:
            return ROLLBACK_FAILED, "the rollback failed"
        case State.NOT_CONFIRMED:
            return INTENT_ENDED, "an alert was not confirmed, nothing was changed"
        case State.HELD:
            return INTENT_ENDED, "rollouts are held"
        case State.NOTIFIED:
            return INTENT_ENDED, "an alert"
        case _:
            return INTENT_ACCEPTED, f"an alert asks for {intent.action.value}"
