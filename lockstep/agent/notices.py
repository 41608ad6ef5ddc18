"""Who is told: people through apprise, other programs by signed webhooks, Prefect by its events."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
from collections.abc import Mapping
from typing import Final

from lockstep.agent.notice import Notice, Receiver
from lockstep.agent.prefect_events import URL_VARIABLE, PrefectEvents
from lockstep.agent.webhooks import Webhook
from lockstep.agent_settings import AgentSettings
from lockstep.errors import ConfigError, LockstepError, RetryLaterError
from lockstep.rules.event_names import ALERT_RECEIVED

TITLE: Final = 200  # characters; some services refuse longer ones
TEXT: Final = 2000


class People:
    """One address that apprise knows; `urgent` ones are told only when a person must come."""

    def __init__(self, address: str, timeout: float, *, urgent: bool) -> None:
        # The address holds a token, so it is told of by its service and a digest of the whole.
        digest = hashlib.sha256(address.encode()).hexdigest()[:8]
        self.name = f"{'on call' if urgent else 'people'} {address.partition(':')[0]} {digest}"
        self._address = address
        self._urgent = urgent
        self._timeout = timeout

    def wants(self, notice: Notice) -> bool:
        """See Receiver. An alert by itself is told with its intent."""
        return notice.event != ALERT_RECEIVED and (notice.urgent or not self._urgent)

    def send(self, notice: Notice) -> None:
        """See Receiver. In a thread that is given up after a while: not every service of apprise has a time-out."""
        answers: queue.SimpleQueue[bool | BaseException] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put(self._notify(notice))
            except BaseException as error:
                answers.put(error)

        threading.Thread(target=call, name=self.name, daemon=True).start()
        try:
            answer = answers.get(timeout=self._timeout)
        except queue.Empty:
            # It may have been delivered all the same: such an attempt counts, or a person is told of it for a day.
            raise RetryLaterError(f"{self.name}: no answer within {self._timeout:g} s") from None
        if isinstance(answer, LockstepError):
            raise answer
        if isinstance(answer, BaseException):
            raise RetryLaterError(f"{self.name}: {type(answer).__name__}") from answer
        if not answer:
            raise RetryLaterError(f"{self.name}: apprise could not deliver it")

    def _notify(self, notice: Notice) -> bool:
        import apprise  # seconds of imports, which no rollback waits for

        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its lines hold addresses, and those hold tokens
        sender = apprise.Apprise()
        if not sender.add(self._address):
            raise ConfigError(f"{self.name}: no address that apprise knows", hint="correct it under agent.notify")
        kind = apprise.NotifyType.FAILURE if notice.urgent else apprise.NotifyType.INFO
        mark = "[a person must look] " if notice.urgent else ""
        text = notice.text[:TEXT] or notice.title
        sent = sender.notify(
            body=text, title=(mark + notice.title)[:TITLE], notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
        return sent is True


def receivers(settings: AgentSettings, environment: Mapping[str, str] | None = None) -> tuple[Receiver, ...]:
    """Everyone who is to be told, as configured; opens no connection."""
    environment = os.environ if environment is None else environment
    found: list[Receiver] = [Webhook(one) for one in settings.webhooks]
    for urgent, addresses in ((False, settings.notify.addresses), (True, settings.notify.urgent)):
        for address in addresses:
            found.append(People(address.get_secret_value(), settings.notify.timeout, urgent=urgent))
    api = settings.prefect_api_url or environment.get(URL_VARIABLE)
    if api:
        found.append(PrefectEvents(api, environment))
    return tuple(found)
