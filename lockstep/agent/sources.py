"""A source: verifies the raw bytes of a delivery first, and only then reads what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from lockstep.agent.authenticity.shared import SharedSecret
from lockstep.agent.delivery import Delivery, ForgedError, Said
from lockstep.agent.source_settings import AlertmanagerSource, SourceSettings
from lockstep.errors import ConfigError
from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.reading import AlertFormatError, parse
from lockstep.rules.alerts.sources import alertmanager

__all__ = ["AlertFormatError", "Delivery", "ForgedError", "Said", "Source", "SourceSettings", "open_source"]


class Verifier(Protocol):
    """One scheme of authenticity."""

    def verify(self, delivery: Delivery) -> str:
        """The delivery's own name where its vendor signs one, else ""; raises ForgedError or UnreachableError."""


class Source:
    """One sender of alerts, by the name of its hook. Safe for several threads at once."""

    def __init__(self, name: str, kind: str, verifier: Verifier, read: Callable[[Delivery], Said]) -> None:
        self.name = name
        self.kind = kind
        self._verifier = verifier
        self._read = read

    def receive(self, delivery: Delivery) -> Said:
        """What the delivery says.

        Raises ForgedError for what is not genuine, AlertFormatError for what is genuine and unreadable, and
        UnreachableError where the keys to tell could not be fetched: the vendor may try again.
        """
        self._verifier.verify(delivery)
        return self._read(delivery)

    def settled(self, said: Said) -> None:
        """Call it when the alerts are durable: the same delivery, sent again, then comes to nothing."""

    def handshake(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Headers of the answer to an OPTIONS request that asks whether deliveries are welcome; None if they are not.

        `headers` by lower-case name. Only CloudEvents has such a handshake.
        """
        return None

    def confirm(self, url: str, timeout: float) -> None:
        """Fetch `Said.confirm`; raises ForgedError if it is not on the pinned host, UnreachableError without answer."""
        raise ForgedError(f"source {self.name}: deliveries of kind {self.kind} ask for no confirmation")


def open_source(name: str, settings: SourceSettings) -> Source:
    """The source of these settings; opens no connection yet."""
    match settings:
        case AlertmanagerSource():
            basic = [(pair.user, pair.password) for pair in settings.basic]
            verifier = SharedSecret(name, settings.tokens, basic, settings.header.lower(), settings.parameter)
            return Source(name, settings.kind, verifier, _document(name, alertmanager.read))
        case _:
            raise ConfigError(f"source {name}: kind {settings.kind} cannot be opened yet")


def _document(name: str, read: Callable[[object, str], tuple[Alert, ...]]) -> Callable[[Delivery], Said]:
    return lambda delivery: Said(alerts=read(parse(delivery.body, f"source {name}: the body"), name))
