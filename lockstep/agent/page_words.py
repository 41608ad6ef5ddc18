"""What the page says, made of values: rows of deeds, one sentence about all models, words for an intent's state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lockstep.agent.assembly import Agent
from lockstep.agent.overview import ModelView, Overview, Tone
from lockstep.agent.rendering import ended
from lockstep.rules.alerts.intent import Intent, State
from lockstep.rules.deeds import Deed, Ending
from lockstep.rules.state import DesiredState

#: Seconds after its end in which an intent's page waits for a look that began since.
CATCHES_UP: Final = 60.0
#: What the page says of an intent's state.
SAID: Final[Mapping[State, str]] = {
    State.ACCEPTED: "accepted; it begins in a moment",
    State.CONFIRMING: "looking whether the trouble is there",
    State.RUNNING: "under way on every cloud",
    State.DONE: "done: every cloud was verified",
    State.SPLIT: "SPLIT: some clouds could not follow; reconciling goes on with them",
    State.FAILED: "failed",
    State.NOT_CONFIRMED: "not confirmed: a fresh look found nothing wrong",
    State.HELD: "held: rollouts are stopped",
    State.NOTIFIED: "people were told; nothing was changed",
}


@dataclass(frozen=True)
class Row:
    """A deed for the table of them."""

    model: str
    began: float
    operation: str
    version: str
    reason: str
    actor: str
    ending: Ending
    ended: str
    error: str
    entries: tuple[int, ...]


def view_of(agent: Agent, model: str) -> ModelView:
    """The model as it is known now; raises NotFoundError for one that is not configured."""
    agent.config.model(model)
    found = agent.refresher.overview.models.get(model)
    return found or ModelView(model, 0.0, DesiredState(model, None), problem="it was not looked at yet")


def is_behind(view: ModelView | None, intent: Intent, now: float) -> bool:
    """Whether what is known of the clouds is from before the intent's end, and will be known better in a moment."""
    return view is not None and view.at < intent.ended and now - intent.ended < CATCHES_UP


def rows(view: ModelView) -> list[Row]:
    """The model's newest deeds."""
    return [_row(view.model, deed) for deed in view.deeds]


def newest_rows(overview: Overview) -> list[Row]:
    """Those of all models."""
    found = [row for view in overview.models.values() for row in rows(view)]
    return sorted(found, key=lambda row: -row.began)[:12]


def _row(model: str, deed: Deed) -> Row:
    entries = tuple(number for number in deed.entries if number >= 0)
    return Row(
        model,
        deed.began,
        deed.operation,
        deed.version,
        deed.reason,
        deed.actor,
        deed.ending,
        ended(deed),
        deed.error,
        entries,
    )


def summary(overview: Overview) -> dict[str, object]:
    """One sentence about all models, how bad it is, and a mark that is another one when it says something else."""
    views = [overview.models[name] for name in overview.names if name in overview.models]
    worst = max((view.tone for view in views), key=list(Tone).index, default=Tone.NOTHING)
    named = {tone: [view.model for view in views if view.tone is tone] for tone in Tone}
    waiting = len(overview.names) - len(views)
    parts = [
        f"{tone.value}: {', '.join(named[tone])}" for tone in reversed(Tone) if named[tone] and tone is not Tone.IN_STEP
    ]
    if named[Tone.IN_STEP]:
        count = len(named[Tone.IN_STEP])
        every = count == len(overview.names)
        parts.append("every model is in step" if every else f"{count} in step")
    if waiting:
        parts.append(f"{waiting} not looked at yet")
    if asked := [f"{one.model} {one.version}" for one in overview.approvals]:
        parts.append(f"waiting for an approval: {', '.join(asked)}")
    text = "; ".join(parts) or "no model is configured"
    text = text[0].upper() + text[1:]
    return {"text": text, "tone": worst, "mark": hashlib.sha256(text.encode()).hexdigest()[:12]}
