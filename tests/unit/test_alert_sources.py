"""What each vendor's documented body comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from lockstep.agent.sources import Delivery, ForgedError, Source, SourceSettings, open_source
from lockstep.rules.alerts.alert import Status

VECTORS = Path(__file__).parent.parent / "vectors" / "alerts"
TOKEN = "a-token-of-thirty-two-characters"


def opened(kind: str, **settings: object) -> Source:
    adapter: TypeAdapter[SourceSettings] = TypeAdapter(SourceSettings)
    return open_source("here", adapter.validate_python({"kind": kind, **settings}))


def delivery(body: bytes, headers: dict[str, str] | None = None, query: str = "", at: float = 0.0) -> Delivery:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Delivery.of(raw, body, query.encode(), "192.0.2.1", at)


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def test_alertmanagers_entries_are_alerts_of_their_own() -> None:
    source = opened("alertmanager", tokens=[TOKEN])
    said = source.receive(delivery(vector("alertmanager/firing.json"), {"Authorization": f"Bearer {TOKEN}"}))
    first, second = said.alerts
    assert (first.source, first.status, first.severity) == ("here", Status.FIRING, "critical")
    assert first.title == "tumour answers with errors"
    assert first.fields["model"] == "tumour"
    assert first.fields["cloud"] == "aws"
    assert first.at == pytest.approx(1795162502.145839)
    assert second.status is Status.RESOLVED
    assert first.incident != second.incident


def test_a_wrong_token_is_forged() -> None:
    source = opened("alertmanager", tokens=[TOKEN])
    with pytest.raises(ForgedError, match="wrong"):
        source.receive(delivery(vector("alertmanager/firing.json"), {"Authorization": f"Bearer {TOKEN}x"}))
