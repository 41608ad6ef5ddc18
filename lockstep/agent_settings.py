"""What a person configures of the agent; apart from what reads it, since every command reads the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _proxy(address: str) -> str:
    """An address or a network; everybody is no proxy, since whoever is believed says who they are."""
    if "*" in address or ip_network(address).prefixlen == 0:
        raise ValueError(f"{address!r} is everybody; name the proxy's address or network")
    return address


class NotifySettings(_Part):
    """Where people are told: addresses as apprise knows them (mailto://, slack://, msteams://, pagerduty:// …)."""

    addresses: Annotated[tuple[SecretStr, ...], Field(description="Told of everything.")] = ()
    urgent: Annotated[
        tuple[SecretStr, ...], Field(description="Told as well when a person must come: SPLIT, flapping, a failure.")
    ] = ()
    timeout: Annotated[float, Field(gt=0, description="Seconds that one message may take.")] = 15.0


class WebhookSettings(_Part):
    """One receiver of signed webhooks (Standard Webhooks 1.0)."""

    url: Annotated[str, Field(pattern=r"^https?://", description="Where events are posted to.")]
    secrets: Annotated[
        tuple[SecretStr, ...],
        Field(min_length=1, description="Secrets, `whsec_…`; several while one is replaced by the next."),
    ]
    events: Annotated[
        tuple[str, ...], Field(description="Names of events, with * for any part; all of them when left out.")
    ] = ("*",)
    timeout: Annotated[float, Field(gt=0, description="Seconds that one call may take.")] = 10.0


class TokenSettings(_Part):
    """A person or program that may look, or more; its token stands in an environment variable."""

    role: Annotated[
        Literal["viewer", "operator", "approver"],
        Field(description="viewer sees, operator rolls back as well, approver releases holds as well."),
    ]
    token: Annotated[
        SecretStr, Field(min_length=20, description="Secret, at least 20 characters: `openssl rand -hex 24`.")
    ]


class AgentSettings(_Part):
    """The long-lived process that takes alerts, rolls back by itself and shows what serves."""

    address: Annotated[str, Field(description="Address to listen on; TLS is the proxy's before it.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 for a free one.")] = 8420
    alerts: Annotated[str, Field(min_length=1, description="File with the sources of alerts and the rules.")] = (
        "alerts.yaml"
    )
    inbox: Annotated[
        str | None,
        Field(
            min_length=1,
            description="SQLite file of what was accepted and is still to be told; `inbox.db` in the `state` folder "
            "when left out.",
        ),
    ] = None
    keep_days: Annotated[
        float, Field(gt=0, description="Days that the inbox keeps what is done, and an alert since it came last.")
    ] = 14.0
    incident_window: Annotated[
        float, Field(gt=0, description="Seconds in which alerts of one version are one incident.")
    ] = 900.0
    cool_down: Annotated[
        float, Field(ge=0, description="Seconds after a rollback in which no alert rolls the model back again.")
    ] = 600.0
    flapping_window: Annotated[
        float, Field(gt=0, description="Seconds in which `flapping_rollbacks` of one model hold it and call a person.")
    ] = 6 * 3600.0
    flapping_rollbacks: Annotated[int, Field(ge=1, description="Rollbacks in that time after which none follows.")] = 2
    confirm_window: Annotated[
        float, Field(gt=0, description="Seconds of metrics that the look before `rollback-if-confirmed` covers.")
    ] = 120.0
    confirm_patience: Annotated[
        float, Field(gt=0, description="Seconds that this look may take; what has not answered by then says nothing.")
    ] = 10.0
    notify: NotifySettings = NotifySettings()
    webhooks: Annotated[tuple[WebhookSettings, ...], Field(description="Receivers of signed webhooks.")] = ()
    prefect_api_url: Annotated[
        str | None,
        Field(description="Address of Prefect's API that is told events, with /api; else $PREFECT_API_URL, else none."),
    ] = None
    tokens: Annotated[
        Mapping[str, TokenSettings], Field(description="Who may use the page and the API, by name; nobody without any.")
    ] = {}
    session_hours: Annotated[float, Field(gt=0, description="Hours after which a person must sign in again.")] = 12.0
    proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_proxy)], ...],
        Field(description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed."),
    ] = ()
    metrics_open: Annotated[bool, Field(description="Whether /metrics answers without a token.")] = False
    refresh_every: Annotated[float, Field(gt=0, description="Seconds between two looks at a model for the page.")] = (
        10.0
    )
    prove_every: Annotated[
        float,
        Field(ge=0, description="Seconds after which endpoints are asked anew which version answers; 0 for never."),
    ] = 300.0
    plan_every: Annotated[
        float, Field(gt=0, description="Seconds after which it is found out anew where a rollback would go.")
    ] = 120.0
