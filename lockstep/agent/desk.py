"""From an authentic alert to the deed, exactly once: what is accepted is durable, and done after any kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lockstep.agent.alert_rules import AlertRules
from lockstep.config import Config
from lockstep.operations.fleet import Fleet
from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.intent import Intent


@dataclass(frozen=True)
class Accepted:
    """What a delivery came to: the intents that its alerts started or joined, how many were new, how many known."""

    intents: tuple[str, ...]
    alerts: int
    duplicates: int


class Desk:
    """Takes alerts, decides, and carries out; `fleets` opens a model's fleet (by default as configured)."""

    def __init__(self, config: Config, rules: AlertRules, *, fleets: Callable[[str], Fleet] | None = None) -> None:
        self.config = config
        self.rules = rules
        self._fleets = fleets

    def accept(self, source: str, alerts: Sequence[Alert], body: bytes, at: float) -> Accepted:
        """Keep the alerts of one authentic delivery, and what they start; durable on return, asks nothing of a network.

        Raises RetryLaterError, with nothing kept, while the inbox cannot be written or is behind: answer 503.
        """
        raise NotImplementedError

    def ask_rollback(self, model: str, to: str | None, reason: str, actor: str, leaving: str = "") -> Intent:
        """A person's rollback: kept as an alert's is, and begun at once, whatever cool-down says.

        `leaving` is the digest that the person saw serving. Raises NotFoundError for a model that is not configured,
        RefusedError for a reason that is none, RetryLaterError as `accept`.
        """
        raise NotImplementedError

    def intents(self, last: int = 50) -> tuple[Intent, ...]:
        """The newest intents, the newest first."""
        raise NotImplementedError

    def intent(self, intent_id: str) -> Intent | None:
        """The intent of that id."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to carry out, with what was accepted before a kill; returns at once."""
        raise NotImplementedError

    def stop(self, timeout: float = 10.0) -> None:
        """Take up nothing more, and wait for what runs; what does not end in time goes on after the next start."""
        raise NotImplementedError
