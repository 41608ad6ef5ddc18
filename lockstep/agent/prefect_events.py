"""Events for Prefect's own API by plain HTTP, so that its event feed and automations see what was done without it.

`POST {api}/events` takes a list of events; `id`, `occurred`, `event` and `resource` are required (Prefect 3.8).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import requests

from lockstep.agent.notice import Notice
from lockstep.errors import CloudRejectedError, RetryLaterError, UnreachableError
from lockstep.rules.event_names import APPROVAL_WANTED, resource

TIMEOUT: Final = (2.0, 10.0)  # seconds to connect, and for the answer
URL_VARIABLE: Final = "PREFECT_API_URL"


class PrefectEvents:
    """One Prefect server. What it could not be told while it was down it is told when it is back."""

    name = "prefect"

    def __init__(self, api: str, environment: Mapping[str, str] | None = None) -> None:
        self._url = f"{api.rstrip('/')}/events"
        self._session = requests.Session()
        self._session.headers.update(_authorization(os.environ if environment is None else environment))

    def wants(self, notice: Notice) -> bool:
        """See Receiver. A run that waits for an approval has told Prefect so itself."""
        return notice.event != APPROVAL_WANTED or not notice.data.get("via")

    def send(self, notice: Notice) -> None:
        """See Receiver."""
        try:
            answer = self._session.post(self._url, json=[event_of(notice)], timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            raise UnreachableError(f"Prefect's API does not answer: {type(error).__name__}") from error
        if answer.status_code in (400, 409, 422):
            raise CloudRejectedError(f"Prefect's API answered {answer.status_code}: {answer.text[:200]}")
        if not 200 <= answer.status_code < 300:
            raise RetryLaterError(f"Prefect's API answered {answer.status_code}")


def event_of(notice: Notice) -> Mapping[str, object]:
    """The event as Prefect takes it; one without a model is the agent's own."""
    about = resource(notice.model) if notice.model else {"prefect.resource.id": "lockstep.agent"}
    return {
        "id": notice.id,
        "occurred": datetime.fromtimestamp(notice.at, UTC).isoformat(),
        "event": notice.event,
        "resource": {**about, "lockstep.urgent": str(notice.urgent).lower()},
        "payload": {**notice.data, "title": notice.title, "text": notice.text},
    }


def _authorization(environment: Mapping[str, str]) -> Mapping[str, str]:
    if key := environment.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := environment.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}
