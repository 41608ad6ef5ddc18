"""The alert: an event reaches Prefect, an automation runs the rollback, every cloud is asked until it is true."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import requests

from demo.names import CLOUDS, MODEL
from demo.telling import Story, wait_for

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet

ALERT_TIMEOUT: Final = 120.0
IN_FLIGHT: Final = 0.5  # seconds after which no request is under way that was sent before the switch
PROOFS: Final = 30  # answers of each cloud that are looked at after the rollback


def alert(story: Story, fleet: Fleet) -> None:
    """An alert reaches Prefect as an event; the automation runs the rollback; every cloud is asked until it is true."""
    with story.step("an alert arrives: everything back to v1") as notes:
        v1 = fleet.registry.version(MODEL, story.labels["v1"])
        event = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": "lockstep.alert",
            "resource": {"prefect.resource.id": f"lockstep.model.{MODEL}"},
            "payload": {"model": MODEL, "reason": "alert: complaints about predictions"},
        }
        story.mark("alert")
        sent = time.monotonic()
        requests.post(f"{story.servers.prefect_url}/api/events", json=[event], timeout=10).raise_for_status()
        back = wait_for(lambda: _serves_alone(fleet, v1.slot), ALERT_TIMEOUT)
        story.measured["alert_to_clouds_seconds"] = round(time.monotonic() - sent, 2)
        outcome = _await_entry(fleet, "rollback.outcome")
        story.mark("rolled back")
        seconds = story.measured["alert_to_clouds_seconds"]
        verified = outcome is not None and outcome.get("ending") == "done"
        story.measured["rollback_seconds"] = outcome.get("seconds") if outcome else None
        story.claim("an alert rolled every cloud back to v1 in under 60 seconds", back and verified and seconds < 60)
        notes.append(
            f"[green]v1 everywhere {seconds:.1f} s after the alert[/green], Prefect's start of the run included"
        )


def answers_after(story: Story, fleet: Fleet) -> None:
    """Traffic goes on for a moment: each answer that was asked for after the switch is looked at."""
    v1 = fleet.registry.version(MODEL, story.labels["v1"])
    with story.step("answers after the rollback") as notes:
        since = time.time() + IN_FLIGHT

        def enough() -> bool:
            story.traffic.refresh()
            answered = Counter(request.cloud for request in story.traffic.requests if request.ok and request.at > since)
            return all(answered[cloud] >= PROOFS for cloud in CLOUDS)

        enough_came = wait_for(enough, 60.0)
        late = [request for request in story.traffic.requests if request.at > since]
        strangers = sum(request.digest != v1.digest for request in late if request.ok)
        story.claim("after the rollback every answer comes from v1", enough_came and strangers == 0)
        notes.append(f"{len(late)} answers, {strangers} from another version")


def _serves_alone(fleet: Fleet, slot: str) -> bool:
    observed = fleet.observe()
    return not observed.unreachable and all(
        cloud.split is not None and cloud.split.weight(slot) == 100 for cloud in observed.clouds
    )


def _await_entry(fleet: Fleet, kind: str) -> dict[str, Any] | None:
    found = wait_for(lambda: bool(fleet.ledger.entries(MODEL, kind)), 30.0)
    return dict(fleet.ledger.entries(MODEL, kind)[-1].body) if found else None
