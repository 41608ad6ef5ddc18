"""A source: verifies the raw bytes of a delivery first, and only then reads what it says.

`open_source` puts a scheme of authenticity and a reader together for each kind; both are elsewhere
(lockstep.agent.authenticity, lockstep.rules.alerts.sources). A `Source` that `waits` may block for as long as fetching
a key takes (its settings' time-out), so call it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lockstep.agent.authenticity.either import Either, Verifier
from lockstep.agent.authenticity.fetching import Fetch, over_tls
from lockstep.agent.authenticity.oidc import OidcToken
from lockstep.agent.authenticity.seen import Seen
from lockstep.agent.authenticity.shared import SharedSecret
from lockstep.agent.authenticity.signed import BodySignature, GrafanaSignature, MlflowSignature, PagerDutySignature
from lockstep.agent.authenticity.sns import SnsMessage
from lockstep.agent.delivery import Before, Delivery, ForgedError, Said
from lockstep.agent.hearing import Hear, cloud_events, document, pagerduty_event, signed_document, sns_message
from lockstep.agent.source_settings import (
    AlertmanagerSource,
    AzureMonitorSource,
    CloudEventsSource,
    DatadogSource,
    EventBridgeSource,
    GenericSource,
    GoogleMonitoringSource,
    GooglePubSubSource,
    GrafanaSource,
    MlflowSource,
    OidcSettings,
    OpsgenieSource,
    PagerDutySource,
    SharedAuth,
    SharedOrOidcAuth,
    SnsSource,
    SourceSettings,
)
from lockstep.rules.alerts.reading import AlertFormatError
from lockstep.rules.alerts.sources import (
    alertmanager,
    azure_monitor,
    cloudevents,
    datadog,
    eventbridge,
    generic,
    google_monitoring,
    google_pubsub,
    grafana,
    mlflow,
    opsgenie,
)

__all__ = [
    "AlertFormatError",
    "Delivery",
    "ForgedError",
    "Said",
    "Source",
    "SourceSettings",
    "open_source",
    "read_unproved",
]

#: Makes a Fetch that trusts the authorities of a PEM file, or the system's.
Fetching = Callable[[str | None], Fetch]


@dataclass(frozen=True)
class Scheme:
    """What makes one kind of source: how it is known, what it says, and how long its deliveries could be replayed."""

    verifier: Verifier
    hear: Hear
    window: float = 0.0
    allowed: Callable[[Mapping[str, str]], Mapping[str, str] | None] = lambda headers: None
    is_confirmation: Callable[[str], bool] = lambda address: False
    fetch: Fetch | None = None
    waits: bool = False  # for keys that are fetched


class Source:
    """One sender of alerts, by the name of its hook. Safe for several threads at once."""

    def __init__(self, name: str, kind: str, scheme: Scheme) -> None:
        self.name = name
        self.kind = kind
        self._scheme = scheme
        #: Whether `receive` may wait for a network: then not on a loop of asyncio.
        self.waits = scheme.waits
        # A delivery may be early by a window and late by one.
        self._seen = Seen(2 * scheme.window)

    def receive(self, delivery: Delivery) -> Said:
        """What the delivery says.

        Raises ForgedError for what is not genuine, AlertFormatError for what is genuine and unreadable, and
        UnreachableError where the keys to tell could not be fetched: the vendor may try again. A delivery that was
        `settled` before comes to nothing new; its sender may not have had our answer, so what it came to is told.
        """
        once = self._scheme.verifier.verify(delivery)
        try:
            said = self._scheme.hear(delivery)
        except AlertFormatError as error:
            hint = error.hint or f"it takes bodies of kind {self.kind}: try one with lockstep alerts test FILE"
            raise AlertFormatError(f"source {self.name}: {error.problem}", hint=hint) from None
        intents = self._seen.find(once) if once else None
        if intents is not None:
            return Said(answer=said.answer, before=Before(intents, len(said.alerts)))
        return replace(said, once=once)

    def settled(self, said: Said, intents: Sequence[str] = ()) -> None:
        """Call it when the alerts are durable: the same delivery, sent again, then comes to the same intents alone."""
        if said.once and self._scheme.window:
            self._seen.add(said.once, intents)

    def handshake(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Headers of the answer to an OPTIONS request that asks whether deliveries are welcome; None if they are not.

        `headers` by lower-case name. Only CloudEvents has such a handshake.
        """
        return self._scheme.allowed(headers) if method.upper() == "OPTIONS" else None

    def confirm(self, url: str, timeout: float) -> None:
        """Fetch `Said.confirm`; raises ForgedError if it is not on the pinned host, UnreachableError without answer."""
        if self._scheme.fetch is None or not self._scheme.is_confirmation(url):
            raise ForgedError(f"source {self.name}: the confirmation's address is not on the pinned host")
        self._scheme.fetch(url, timeout)


def open_source(name: str, settings: SourceSettings, fetching: Fetching = over_tls) -> Source:
    """The source of these settings; opens no connection yet. Raises ConfigError for a file that cannot be read."""
    return Source(name, settings.kind, _scheme(name, settings, fetching))


def read_unproved(name: str, settings: SourceSettings, delivery: Delivery) -> Said:
    """What a delivery would say if it were genuine: for samples that a person tries out, never for what arrives."""
    return _scheme(name, settings, over_tls).hear(delivery)


def _scheme(name: str, settings: SourceSettings, fetching: Fetching) -> Scheme:
    match settings:
        case AlertmanagerSource():
            return Scheme(_shared(name, settings), document(name, alertmanager.read))
        case GrafanaSource(secrets=secrets, window=window):
            stamp = (settings.timestamp_header or "").lower()
            signature = GrafanaSignature(name, secrets, settings.header.lower(), stamp, window)
            return Scheme(signature, document(name, grafana.read), window)
        case SnsSource():
            return _sns(name, settings, fetching(settings.ca_file))
        case EventBridgeSource():
            read = partial(eventbridge.read, accounts=settings.accounts)
            return Scheme(_shared(name, settings), document(name, read))
        case AzureMonitorSource():
            verifier = _shared_or_oidc(name, settings, fetching)
            return Scheme(verifier, document(name, azure_monitor.read), waits=settings.oidc is not None)
        case GoogleMonitoringSource():
            return Scheme(_shared(name, settings), document(name, google_monitoring.read))
        case GooglePubSubSource():
            pushed = partial(google_pubsub.read, subscriptions=settings.subscriptions)
            return Scheme(_oidc(name, settings.oidc, fetching), document(name, pushed), waits=True)
        case DatadogSource():
            return Scheme(_shared(name, settings), document(name, datadog.read))
        case PagerDutySource(secrets=secrets, window=window):
            return Scheme(PagerDutySignature(name, secrets), pagerduty_event(name, window), window)
        case OpsgenieSource():
            return Scheme(_shared(name, settings), document(name, opsgenie.read))
        case CloudEventsSource():
            verifier = _shared_or_oidc(name, settings, fetching)
            allowed = partial(cloudevents.handshake, origins=settings.origins, rate=settings.rate)
            hear = cloud_events(name, settings)
            return Scheme(verifier, hear, allowed=allowed, waits=settings.oidc is not None)
        case MlflowSource(secrets=secrets, window=window):
            return Scheme(MlflowSignature(name, secrets, window), document(name, mlflow.read), window)
        case GenericSource():
            return _generic(name, settings)


def _sns(name: str, settings: SnsSource, fetch: Fetch) -> Scheme:
    verifier = SnsMessage(name, settings, fetch)
    return Scheme(
        verifier,
        sns_message(name, verifier),
        settings.window,
        is_confirmation=verifier.is_confirmation,
        fetch=fetch,
        waits=True,
    )


def _generic(name: str, settings: GenericSource) -> Scheme:
    where = settings.mapping
    mapped = generic.Mapped(
        id=where.id,
        title=where.title,
        alerts=where.alerts,
        incident=where.incident,
        status=where.status,
        resolved=where.resolved,
        firing=where.firing,
        text=where.text,
        severity=where.severity,
        at=where.at,
        fields=where.fields,
    )
    read = partial(generic.read, where=mapped)
    if not settings.secrets:
        return Scheme(_shared(name, settings), document(name, read))
    stamp = (settings.timestamp_header or "").lower()
    signature = BodySignature(
        source=name,
        secrets=settings.secrets,
        header=settings.signature_header.lower(),
        prefix=settings.signature_prefix,
        encoding=settings.encoding,
        timestamp_header=stamp,
        window=settings.window,
    )
    hear = signed_document(name, read, stamp) if stamp else document(name, read)
    return Scheme(signature, hear, settings.window)


def _shared(name: str, settings: SharedAuth) -> SharedSecret:
    basic = [(pair.user, pair.password) for pair in settings.basic]
    return SharedSecret(name, settings.tokens, basic, settings.header.lower(), settings.parameter)


def _oidc(name: str, settings: OidcSettings, fetching: Fetching) -> OidcToken:
    return OidcToken(name, settings, fetching(settings.ca_file))


def _shared_or_oidc(name: str, settings: SharedOrOidcAuth, fetching: Fetching) -> Verifier:
    verifiers: list[Verifier] = []
    if settings.tokens or settings.basic:
        verifiers.append(_shared(name, settings))
    if settings.oidc is not None:
        verifiers.append(_oidc(name, settings.oidc, fetching))
    return Either(verifiers) if len(verifiers) > 1 else verifiers[0]
