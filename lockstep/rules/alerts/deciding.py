"""One incident is one intent, however many alerts tell of it: whether a wish starts one, joins one, or nothing.

- Alerts of one model and version within the incident window join one intent. They may raise what it does, never lower
  it: notify < hold < rollback-if-confirmed < rollback. Who raised it is from then on who asked for it.
- What has ended is over. It answers what asks for no more than came of it; whatever asks for more is an intent of its
  own, with its own actor and reason. A rollback that was carried out answers all of its incident.
- RESOLVED starts nothing.
- After a rollback a cool-down: no alert rolls the model back again before its end; people are called instead.
- So many rollbacks of one model by alerts in the flapping window, and the next wish for one holds the model and calls a
  person. Once a person has released it the counting starts anew.
- A person's wish knows no pause: it only joins what is under way to the same end.
- Once a person has released the model, a hold or a rollback of before answers nothing more: what comes then is new.

No I/O and no clock: what happened before comes as intents, the newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.rules.alerts.flapping import Flapping, own_rollbacks
from lockstep.rules.alerts.intent import BY_ALERT, Action, Intent, State

#: Seconds after which an alert that still comes has something that failed, or found nothing, tried once more.
AGAIN: Final = 60.0


@dataclass(frozen=True)
class Pace:
    """How often a model may be rolled back by alerts; seconds, and a number of rollbacks. See AgentSettings."""

    incident_window: float = 900.0
    cool_down: float = 600.0
    flapping_window: float = 6 * 3600.0
    flapping_rollbacks: int = 2

    @property
    def memory(self) -> float:
        """Seconds for which intents matter."""
        return max(self.incident_window, self.cool_down, self.flapping_window)


@dataclass(frozen=True)
class Wish:
    """What one alert, or a person, asks. `version` is as they named it, "" for whatever serves."""

    model: str
    version: str
    action: Action
    resolved: bool = False
    person: bool = False
    to: str = ""


@dataclass(frozen=True)
class Start:
    """A new intent; `told` says why it does less than was asked, `wished` what flapping made a hold of."""

    action: Action
    urgent: bool = False
    told: str = ""
    wished: Action | None = None


@dataclass(frozen=True)
class Join:
    """It belongs to an intent, whose action is `action` from now on; with `raises` that is done for who asks now."""

    intent: str
    action: Action
    raises: bool = False
    urgent: bool = False
    told: str = ""
    wished: Action | None = None


@dataclass(frozen=True)
class Nothing:
    """Nothing is started; `intent` is the one that it tells of, "" for none."""

    intent: str
    told: str


Decision = Start | Join | Nothing


def decide(wish: Wish, past: Sequence[Intent], pace: Pace, now: float, released: float = 0.0) -> Decision:
    """What a wish comes to; `past` are the model's intents that are open or matter still, the newest first.

    `released` is when a person released the model last, 0.0 for never.
    """
    mine = [one for one in past if one.model == wish.model and _tells_of(wish.version, one)]
    if wish.resolved:
        told = next((one.id for one in mine if one.open or _since(one, now) <= pace.incident_window), "")
        return Nothing(told, "it is over, says its sender; that starts nothing")
    if wish.person:
        return _asked(wish, mine)
    allowed = _allowed(wish, [one for one in past if one.model == wish.model], mine, pace, now, released)
    for one in sorted((one for one in mine if one.open), key=lambda one: -one.action.strength):
        joined = _join(one, allowed)
        if joined is not None:
            return joined
    answered = (one for one in mine if not one.open and _answers(wish, one, allowed, pace, now, released))
    return next((Join(one.id, one.action) for one in answered), allowed)


def same_version(asked: str, intent: Intent) -> bool:
    """Whether what was asked for may be the intent's version: who names none means what serves."""
    if not asked or not (intent.version or intent.asked):
        return True
    text = asked.removeprefix("@")
    return text in (intent.asked.removeprefix("@"), intent.version) or (
        len(text) >= 8 and intent.version.startswith(text)
    )


def overtaken(intent: Intent, past: Sequence[Intent], pace: Pace, now: float) -> str:
    """Why an alert's rollback is not begun any more: one of another version was carried out while it waited. "" if not.

    What was rolled back from the same version is no reason: then nothing is left to do, which the rollback itself sees.
    """
    named = intent.version or intent.asked
    others = [one for one in past if one.model == intent.model and one.id != intent.id and one.moved]
    if not _by_alert(intent) or not any(
        _since(one, now) < pace.cool_down and not same_version(named, one) for one in others
    ):
        return ""
    return f"{intent.model} has just been rolled back: no alert does that again within {pace.cool_down:.0f} s"


def _tells_of(asked: str, one: Intent) -> bool:
    """Whether the wish is about the intent's version; what ended without a change tells nothing of other versions."""
    if one.open or one.moved or (asked and one.version):
        return same_version(asked, one)
    return asked.removeprefix("@") == one.asked.removeprefix("@")


def _since(one: Intent, now: float) -> float:
    """Seconds since something came of it; what lies ahead, after a clock was set back, counts for no longer."""
    return abs(now - max(one.began, one.ended))


def _by_alert(one: Intent) -> bool:
    return one.actor.startswith(BY_ALERT)


def _asked(wish: Wish, mine: Sequence[Intent]) -> Decision:
    for one in mine:
        # What confirms is told to go ahead; what holds or notifies is another matter.
        if one.open and one.to == wish.to and one.action.strength >= Action.ROLLBACK_IF_CONFIRMED.strength:
            if one.state is State.RUNNING:
                return Join(one.id, one.action)
            # An alert's is the person's from now on: it waits for no pause any more.
            return Join(one.id, Action.ROLLBACK, raises=one.action is not Action.ROLLBACK or _by_alert(one))
    return Start(Action.ROLLBACK)


def decide_again(intent: Intent, past: Sequence[Intent], pace: Pace, now: float, released: float) -> Start:
    """What a hold for flapping comes to where it is known by now when a person `released` the model last."""
    assert intent.wished is not None
    others = [one for one in past if one.model == intent.model and one.id != intent.id]
    mine = [one for one in others if _tells_of(intent.asked, one)]
    return _allowed(Wish(intent.model, intent.asked, intent.wished), others, mine, pace, now, released)


def flaps(past: Sequence[Intent], pace: Pace, now: float, released: float) -> tuple[Intent, ...]:
    """The rollbacks of a model that count as going back and forth: alerts', in the window, since it was released."""
    return tuple(
        one
        for one in own_rollbacks(past)
        if one.moved
        and _by_alert(one)
        and _since(one, now) < pace.flapping_window
        and max(one.began, one.ended) > released
    )


def _allowed(
    wish: Wish, past: Sequence[Intent], mine: Sequence[Intent], pace: Pace, now: float, released: float
) -> Start:
    """What may be started now for the wish: flapping and cool-down make less of a rollback."""
    if wish.action.strength < Action.ROLLBACK_IF_CONFIRMED.strength:
        return Start(wish.action)
    under_way = [one for one in past if one.open and one.action.strength >= Action.ROLLBACK_IF_CONFIRMED.strength]
    if any(one in mine for one in under_way):
        return Start(wish.action)  # it joins that one
    counted = flaps(past, pace, now, released)
    if len(counted) >= pace.flapping_rollbacks:
        often = Flapping.of(wish.model, len(counted), pace.flapping_window).told
        told = f"{wish.model} was {often}: it is held, and a person must look"
        return Start(Action.HOLD, urgent=True, told=told, wished=wish.action)
    # What is under way for another version may come to nothing; if it does not, `overtaken` stops this one.
    if any(one.moved and _since(one, now) < pace.cool_down for one in past):
        told = f"{wish.model} has just been rolled back: no alert does that again within {pace.cool_down:.0f} s"
        return Start(Action.NOTIFY, urgent=True, told=told)
    return Start(wish.action)


def _join(one: Intent, allowed: Start) -> Join | None:
    """How a wish joins what is open; None for the other kind of hold, since a release makes something else of one."""
    if one.state is State.RUNNING:  # for who asked for it
        return Join(one.id, one.action)
    if one.action is allowed.action is Action.HOLD and (one.wished is None) != (allowed.wished is None):
        return None
    raises = _strength(allowed) > _strength(one)
    action, wished = (allowed.action, allowed.wished) if raises else (one.action, one.wished)
    return Join(one.id, action, raises=raises, urgent=allowed.urgent, told=allowed.told, wished=wished)


def _strength(asked: Intent | Start) -> tuple[int, int]:
    """What is done, and then what was wished where flapping made a hold of it."""
    return asked.action.strength, asked.wished.strength if asked.wished else -1


def _answers(wish: Wish, one: Intent, allowed: Start, pace: Pace, now: float, released: float) -> bool:
    """Whether an alert asks for no more than what came of an intent that has ended, in the same incident."""
    since = _since(one, now)
    if since > pace.incident_window or ((one.moved or one.state is State.HELD) and one.ended <= released):
        return False
    if one.moved:
        return since < pace.cool_down or bool(wish.version and same_version(wish.version, one))
    if not _by_alert(one):
        return False
    if allowed.urgent and not one.urgent:
        return False
    match allowed.action:
        case Action.NOTIFY:
            return True
        case Action.HOLD:
            return one.state is State.HELD
        case _:  # it failed, or found nothing
            return one.action.strength >= allowed.action.strength and since < AGAIN
