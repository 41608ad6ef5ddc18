"""`sources:` of alerts.yaml: who may send alerts, and by what each is known. One class per `kind`.

Secrets are named, not written: `${NAME}` stands for an environment variable (lockstep.agent.written_secrets).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from lockstep.rules.alerts.sources.generic import FIRING, RESOLVED

#: A secret that is shorter can be guessed, and an unset variable with an empty default is none at all.
SHORTEST_SECRET: Final = 16
_FILES: Final = frozenset({"ca_file", "signing_ca_file"})


def _https(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("an https:// address without user and fragment is expected")
    return address


Secret = Annotated[SecretStr, Field(min_length=SHORTEST_SECRET)]
Secrets = Annotated[tuple[Secret, ...], Field(description="Secrets; several while one is being replaced.")]
Https = Annotated[str, AfterValidator(_https)]
Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(description="Words, in any case.")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
Window = Annotated[float, Field(gt=0, le=86400, description="Seconds that a delivery may be old, or early.")]
CaFile = Annotated[str | None, Field(description="PEM file of the authorities that are trusted; the system's else.")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    def placed(self, folder: Path) -> Self:
        """With the paths of files beside the file that names them."""
        found: dict[str, object] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Part):
                found[name] = value.placed(folder)
            elif name in _FILES and value:
                found[name] = str(folder / Path(value).expanduser())
        return self.model_copy(update=found) if found else self


class BasicAuth(_Part):
    """A user and a password, as HTTP's basic authentication sends them."""

    user: Annotated[str, Field(min_length=1, pattern=r"^[^:]+$")]
    password: Secret


class OidcSettings(_Part):
    """Whose ID or access tokens are believed (OpenID Connect, RS256 or ES256), and for whom they must be made."""

    issuers: Annotated[tuple[str, ...], Field(min_length=1, description="Exact values of `iss`.")]
    audiences: Annotated[tuple[str, ...], Field(min_length=1, description="Values of `aud`, one of which is there.")]
    jwks: Annotated[Https, Field(description="Address of the issuer's public keys (`jwks_uri`).")]
    claims: Annotated[
        Mapping[str, tuple[str, ...]],
        Field(min_length=1, description="Claims that must have one of these values, such as email, azp or appid."),
    ]
    algorithms: Annotated[tuple[Literal["RS256", "ES256"], ...], Field(min_length=1)] = ("RS256",)
    leeway: Annotated[float, Field(ge=0, le=300, description="Seconds that clocks may differ.")] = 60.0
    timeout: Annotated[float, Field(gt=0, le=60, description="Seconds that fetching the keys may take.")] = 3.0
    keys_for: Annotated[float, Field(gt=0, description="Seconds that fetched keys are kept.")] = 3600.0
    ca_file: CaFile = None


class SharedAuth(_Part):
    """A token (in a header, or the query where `parameter` names one) or basic authentication."""

    tokens: Secrets = ()
    basic: Annotated[tuple[BasicAuth, ...], Field(description="Users with passwords.")] = ()
    header: Annotated[HeaderName, Field(description="Header of the token; after `Bearer` in Authorization.")] = (
        "Authorization"
    )
    parameter: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]*$", description="Parameter of the query that may hold the token.")
    ] = ""

    def _known(self) -> bool:
        return bool(self.tokens or self.basic)

    @model_validator(mode="after")
    def _something_to_know_it_by(self) -> SharedAuth:
        if not self._known():
            raise ValueError("nothing says by what this source is known: its deliveries would be anyone's")
        return self


class SharedOrOidcAuth(SharedAuth):
    """As above, or a signed token of an identity provider; where both are given, either will do."""

    oidc: OidcSettings | None = None

    def _known(self) -> bool:
        return super()._known() or self.oidc is not None


class AlertmanagerSource(SharedAuth):
    """Prometheus Alertmanager, webhook version 4."""

    kind: Literal["alertmanager"]


class GrafanaSource(_Part):
    """Grafana Alerting: HMAC-SHA256 of the body, with a timestamp before it where Grafana is told to send one."""

    kind: Literal["grafana"]
    secrets: Annotated[Secrets, Field(min_length=1)]
    header: HeaderName = "X-Grafana-Alerting-Signature"
    timestamp_header: Annotated[
        HeaderName | None, Field(description="As in Grafana's contact point; null where none is configured there.")
    ] = "X-Grafana-Alerting-Timestamp"
    window: Window = 300.0


class SnsSource(_Part):
    """CloudWatch alarms over SNS: RSA signatures, by a certificate of the pinned host, of the pinned topics."""

    kind: Literal["sns"]
    topics: Annotated[tuple[str, ...], Field(min_length=1, description="ARNs of the topics that are believed.")]
    host: Annotated[
        str | None,
        Field(
            pattern=r"^[a-z0-9.-]+(:[0-9]{1,5})?$",
            description="Host, and port, of certificates and confirmations; that of the topics' region when left out.",
        ),
    ] = None
    signer: Annotated[str, Field(description="Name that the certificate is made out to.")] = "sns.amazonaws.com"
    ca_file: CaFile = None
    signing_ca_file: Annotated[
        str | None, Field(description="PEM file of the authorities that the signing certificate must lead to.")
    ] = None
    versions: Annotated[tuple[Literal["1", "2"], ...], Field(min_length=1, description="Signature versions.")] = (
        "1",
        "2",
    )
    window: Window = 3900.0
    timeout: Annotated[float, Field(gt=0, le=60, description="Seconds that fetching the certificate may take.")] = 3.0

    @model_validator(mode="after")
    def _one_place(self) -> SnsSource:
        for arn in self.topics:
            if not re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]+", arn):
                raise ValueError(f"{arn!r} is no ARN of a topic")
        if self.host is None and len({arn.split(":")[3] for arn in self.topics}) > 1:
            raise ValueError("topics of several regions: make one source for each")
        return self

    @property
    def pinned_host(self) -> str:
        """Where certificates and confirmations come from."""
        if self.host is not None:
            return self.host
        _, partition, _, region, *_ = self.topics[0].split(":")
        return f"sns.{region}.amazonaws.com" + (".cn" if partition == "aws-cn" else "")


class EventBridgeSource(SharedAuth):
    """EventBridge through an API destination, whose connection sends an API key in a header."""

    kind: Literal["eventbridge"]
    header: HeaderName = "X-Api-Key"
    accounts: Annotated[tuple[str, ...], Field(description="Accounts that are believed; any when left out.")] = ()


class AzureMonitorSource(SharedOrOidcAuth):
    """Azure Monitor's common alert schema: a secure webhook (Entra), or a token in the address."""

    kind: Literal["azure-monitor"]
    parameter: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = "token"


class GoogleMonitoringSource(SharedAuth):
    """Cloud Monitoring's webhook channel: a token in the address, or basic authentication."""

    kind: Literal["google-monitoring"]
    parameter: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = "auth_token"


class GooglePubSubSource(_Part):
    """Cloud Monitoring over a Pub/Sub push subscription with authentication."""

    kind: Literal["google-pubsub"]
    audience: Annotated[str, Field(min_length=1, description="Audience of the subscription; its address by default.")]
    service_accounts: Annotated[tuple[str, ...], Field(min_length=1, description="E-mail addresses of its accounts.")]
    subscriptions: Annotated[
        tuple[str, ...], Field(description="projects/…/subscriptions/… that are believed; any when left out.")
    ] = ()
    issuers: Annotated[tuple[str, ...], Field(min_length=1)] = ("https://accounts.google.com",)
    jwks: Https = "https://www.googleapis.com/oauth2/v3/certs"
    ca_file: CaFile = None
    timeout: Annotated[float, Field(gt=0, le=60)] = 3.0

    @property
    def oidc(self) -> OidcSettings:
        """What the tokens must be."""
        return OidcSettings(
            issuers=self.issuers,
            audiences=(self.audience,),
            jwks=self.jwks,
            claims={"email": self.service_accounts, "email_verified": ("true",)},
            timeout=self.timeout,
            ca_file=self.ca_file,
        )


class DatadogSource(SharedAuth):
    """Datadog's webhooks integration with the payload of docs/alerts.md and a token among its custom headers."""

    kind: Literal["datadog"]


class PagerDutySource(_Part):
    """PagerDuty's webhooks, version 3: HMAC-SHA256 of the body, one for each secret."""

    kind: Literal["pagerduty"]
    secrets: Annotated[Secrets, Field(min_length=1)]
    window: Window = 3600.0


class OpsgenieSource(SharedAuth):
    """Opsgenie's webhook integration with basic authentication or a token among its custom headers."""

    kind: Literal["opsgenie"]


class CloudEventsSource(SharedOrOidcAuth):
    """CloudEvents 1.0 over HTTP: structured, binary or batched, with the handshake of its webhook specification."""

    kind: Literal["cloudevents"]
    parameter: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = "access_token"
    origins: Annotated[
        tuple[str, ...], Field(description="Origins that the handshake allows (WebHook-Request-Origin).")
    ] = ()
    rate: Annotated[int, Field(ge=1, description="Deliveries a minute that the handshake allows.")] = 600
    types: Annotated[tuple[str, ...], Field(description="Types that are alerts; every one when left out.")] = ()
    resolved_types: Annotated[tuple[str, ...], Field(description="Types that say that the trouble is over.")] = ()


class MlflowSource(_Part):
    """MLflow's registry webhooks: HMAC-SHA256 of the delivery's id, its time and the body."""

    kind: Literal["mlflow"]
    secrets: Annotated[Secrets, Field(min_length=1)]
    window: Window = 300.0


class GenericMapping(_Part):
    """Where in the body each part of an alert is: a JSON pointer (`/a/0/b`) or a dotted path (`a.0.b`)."""

    alerts: Annotated[str, Field(description="The array of alerts; the body itself when left out.")] = ""
    id: Annotated[str, Field(min_length=1, description="Names one trouble: the same in its repetitions and its end.")]
    incident: Annotated[str, Field(description="The same while the trouble lasts; the id when left out.")] = ""
    status: Annotated[
        str, Field(description="The word that says whether the trouble is there; always there when left out.")
    ] = ""
    resolved: Annotated[
        Words, Field(description=f"More words that say that it is over; known: {', '.join(RESOLVED)}.")
    ] = ()
    firing: Annotated[
        Words,
        Field(
            description=f"More words that say that it is there; known: {', '.join(FIRING)}. Any other word is taken as "
            "firing, too, and the log says so."
        ),
    ] = ()
    title: Annotated[str, Field(min_length=1)]
    text: str = ""
    severity: str = ""
    at: Annotated[str, Field(description="When it began: RFC 3339, or seconds since 1970.")] = ""
    fields: Annotated[Mapping[str, str], Field(description="Names to route by, and where each is.")] = {}

    @model_validator(mode="after")
    def _one_meaning(self) -> GenericMapping:
        both = {word.lower() for word in self.resolved} & {word.lower() for word in self.firing}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot be both resolved and firing")
        if (self.resolved or self.firing) and not self.status:
            raise ValueError("words of a status need status: where it is")
        return self


class GenericSource(SharedAuth):
    """Any JSON, by a mapping: with a token, basic authentication, or, where secrets are given, HMAC-SHA256 alone."""

    kind: Literal["generic"]
    mapping: GenericMapping
    secrets: Secrets = ()
    signature_header: HeaderName = "X-Signature"
    signature_prefix: Annotated[str, Field(description="What stands before the signature, such as sha256=.")] = ""
    encoding: Literal["hex", "base64"] = "hex"
    timestamp_header: Annotated[
        HeaderName | None, Field(description="Header of a Unix time that is signed as `time.body`.")
    ] = None
    window: Window = 300.0

    def _known(self) -> bool:
        return super()._known() or bool(self.secrets)


SourceSettings = Annotated[
    AlertmanagerSource
    | GrafanaSource
    | SnsSource
    | EventBridgeSource
    | AzureMonitorSource
    | GoogleMonitoringSource
    | GooglePubSubSource
    | DatadogSource
    | PagerDutySource
    | OpsgenieSource
    | CloudEventsSource
    | MlflowSource
    | GenericSource,
    Field(discriminator="kind"),
]
