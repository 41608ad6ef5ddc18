"""Genuine deliveries of each kind of source: the documented bodies, signed as their vendors sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from lockstep.agent.sources import Delivery, Source, SourceSettings, open_source

VECTORS = Path(__file__).parent / "vectors" / "alerts"
TOKEN = "a-token-of-thirty-two-characters"
SECRET = "a-secret-of-more-than-16-characters"
OLD_SECRET = "the-secret-that-is-being-replaced"
#: When deliveries arrive, unless a test says otherwise: 2026-11-20T08:16:41Z.
NOW = 1795162601.0
ADAPTER: TypeAdapter[SourceSettings] = TypeAdapter(SourceSettings)


@dataclass(frozen=True)
class Sent:
    """A delivery as its vendor sends it, and the settings of the source that believes it."""

    settings: Mapping[str, object]
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    at: float = NOW

    def source(self) -> Source:
        return opened(**self.settings)

    def delivery(self) -> Delivery:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        return Delivery.of(raw, self.body, self.query.encode(), "192.0.2.1", self.at)

    def with_header(self, name: str, value: str) -> Sent:
        return replace(self, headers={**self.headers, name: value})

    def without(self, name: str) -> Sent:
        return replace(self, headers={key: value for key, value in self.headers.items() if key != name})


def opened(**settings: object) -> Source:
    return open_source("here", ADAPTER.validate_python(settings))


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def hexadecimal(content: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def base_64(content: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()


def by_token(kind: str, body: bytes, **settings: object) -> Sent:
    return Sent({"kind": kind, "tokens": [TOKEN], **settings}, body, {"Authorization": f"Bearer {TOKEN}"})


def by_grafana(body: bytes, at: float = NOW, secret: str = SECRET) -> Sent:
    time = str(int(at))
    headers = {
        "X-Grafana-Alerting-Signature": hexadecimal(f"{time}:".encode() + body, secret),
        "X-Grafana-Alerting-Timestamp": time,
    }
    return Sent({"kind": "grafana", "secrets": [SECRET, OLD_SECRET]}, body, headers)


def by_pagerduty(body: bytes, secret: str = SECRET) -> Sent:
    headers = {"X-PagerDuty-Signature": f"v1={'0' * 64},v1={hexadecimal(body, secret)}"}
    return Sent({"kind": "pagerduty", "secrets": [SECRET, OLD_SECRET]}, body, headers)


def by_mlflow(body: bytes, at: float = NOW, name: str = "a6b0", secret: str = SECRET) -> Sent:
    time = str(int(at))
    headers = {
        "X-MLflow-Delivery-Id": name,
        "X-MLflow-Timestamp": time,
        "X-MLflow-Signature": f"v1,{base_64(f'{name}.{time}.'.encode() + body, secret)}",
    }
    return Sent({"kind": "mlflow", "secrets": [SECRET, OLD_SECRET]}, body, headers)


def by_generic(body: bytes, at: float = NOW, secret: str = SECRET) -> Sent:
    settings = {
        "kind": "generic",
        "mapping": MAPPING,
        "secrets": [SECRET, OLD_SECRET],
        "signature_prefix": "sha256=",
        "timestamp_header": "X-Time",
    }
    time = str(int(at))
    headers = {"X-Time": time, "X-Signature": "sha256=" + hexadecimal(f"{time}.".encode() + body, secret)}
    return Sent(settings, body, headers)


MAPPING = {
    "alerts": "/alarms",
    "id": "key",
    "incident": "group",
    "status": "state",
    "title": "what",
    "at": "since",
    "fields": {"Model": "about.0.model", "cloud": "/about/1/cloud"},
}

#: One genuine delivery of every kind that needs no keys of others.
GENUINE: Mapping[str, Sent] = {
    "alertmanager": by_token("alertmanager", vector("alertmanager/firing.json")),
    "grafana": by_grafana(vector("grafana/firing.json")),
    "eventbridge": Sent(
        {"kind": "eventbridge", "tokens": [TOKEN], "accounts": ["123456789012"]},
        vector("eventbridge/endpoint-failed.json"),
        {"X-Api-Key": TOKEN},
    ),
    "azure-monitor": replace(
        by_token("azure-monitor", vector("azure-monitor/metric.json")), headers={}, query=f"token={TOKEN}"
    ),
    "google-monitoring": replace(
        by_token("google-monitoring", vector("google-monitoring/open.json")), headers={}, query=f"auth_token={TOKEN}"
    ),
    "datadog": by_token("datadog", vector("datadog/triggered.json")),
    "pagerduty": by_pagerduty(vector("pagerduty/triggered.json")),
    "opsgenie": Sent(
        {"kind": "opsgenie", "basic": [{"user": "opsgenie", "password": SECRET}]},
        vector("opsgenie/create.json"),
        {"Authorization": "Basic " + base64.b64encode(f"opsgenie:{SECRET}".encode()).decode()},
    ),
    "cloudevents": by_token("cloudevents", vector("cloudevents/structured.json")).with_header(
        "Content-Type", "application/cloudevents+json; charset=utf-8"
    ),
    "mlflow": by_mlflow(vector("mlflow/tag-set.json")),
    "generic": by_generic(vector("generic/alarms.json")),
}


def changed(body: bytes, **values: object) -> bytes:
    """The body with other values at dotted paths, `__` for a dot."""
    document = json.loads(body)
    for path, value in values.items():
        *steps, last = path.split("__")
        part = document
        for step in steps:
            part = part[step]
        part[last] = value
    return json.dumps(document).encode()
