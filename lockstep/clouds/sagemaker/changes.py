"""Changes of an endpoint, begun and followed to their end.

SageMaker takes a failed update back without a word: the endpoint is InService again, on the configuration that it
had before. And a look right after a change may still show the time before it. So a change has ended only when the
endpoint was seen on its way, or is what was asked for, or was modified since.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lockstep.clouds.sagemaker.clients import Clients, polls
from lockstep.clouds.sagemaker.endpoints import FAILED, Endpoint, read_endpoint
from lockstep.clouds.sagemaker.errors import is_missing, is_throttled
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.clouds.sagemaker.traffic import SETTLE
from lockstep.errors import BusyError, RetryLaterError


class Changes:
    """The long-running operations on endpoints of one account and region."""

    def __init__(self, cloud: str, settings: SageMakerSettings, clients: Clients) -> None:
        self._cloud = cloud
        self._settings = settings
        self._clients = clients

    # -- beginning ---------------------------------------------------------------------------------------------

    def create(self, name: str, config: str, model: str) -> None:
        """CreateEndpoint."""
        self._with_config(
            lambda: self._clients.sagemaker.create_endpoint(
                EndpointName=name, EndpointConfigName=config, Tags=[{"Key": "lockstep-model", "Value": model}]
            )
        )

    def update(self, name: str, config: str) -> None:
        """UpdateEndpoint; weights and counts of the variants that stay are kept as they are at that moment."""
        self._with_config(
            lambda: self._clients.sagemaker.update_endpoint(
                EndpointName=name, EndpointConfigName=config, RetainAllVariantProperties=True
            )
        )

    def delete(self, name: str, deadline: float, slot: str) -> None:
        """DeleteEndpoint; returns when it is gone."""
        from botocore.exceptions import ClientError

        try:
            self._clients.sagemaker.delete_endpoint(EndpointName=name)
        except ClientError as error:
            if not is_missing(error):
                raise
        for _ in polls(deadline):
            if self.look(name) is None:
                return
        raise self._late(name, slot, "Deleting")

    # -- following ---------------------------------------------------------------------------------------------

    def idle(
        self,
        name: str,
        is_ours: Callable[[Endpoint], bool],
        deadline: float,
        patience: float,
        slot: str,
        enough: Callable[[Endpoint], bool] | None = None,
    ) -> tuple[Endpoint | None, bool]:
        """The endpoint once no change is running on it, and whether a change that `is_ours` was waited for.

        A change by somebody else is waited for until `patience`, then it is a BusyError. While `enough` says yes
        there is nothing to wait for.
        """
        joined, live = False, None
        for _ in polls(deadline):
            live = self.look(name, live)
            if live is None or not live.busy or (enough is not None and enough(live)):
                return live, joined
            joined = live.status in ("Creating", "Updating", "RollingBack") and (joined or is_ours(live))
            if not joined and time.monotonic() >= patience:
                raise self.busy(name, slot, live)
        raise self._late(name, slot, live.status if live else "")

    def follow(self, name: str, before: Endpoint | None, config: str, deadline: float, slot: str) -> Endpoint:
        """The endpoint after its change: on `config`, or back where it was, or Failed.

        Raises RetryLaterError when there is no sign that the change has begun, or none of its end by `deadline`.
        """
        settled, moved = time.monotonic() + SETTLE, False
        live = before
        for _ in polls(deadline):
            live = self.look(name, live)
            if live is not None:
                moved = moved or live.busy or before is None or live.modified != before.modified
                if not live.busy and (moved or live.config == config or live.status == FAILED):
                    return live
            if not moved and time.monotonic() >= settled:
                break
        raise self._late(name, slot, live.status if live else "")

    def look(self, name: str, last: Endpoint | None = None) -> Endpoint | None:
        """One look; `last` again when the service asks for patience."""
        from botocore.exceptions import ClientError

        try:
            return read_endpoint(self._clients.sagemaker, name)
        except ClientError as error:
            if last is None or not is_throttled(error):
                raise
            return last

    def _with_config(self, change: Callable[[], Any]) -> None:
        """Call; again for a moment while a configuration that was just made is not visible everywhere yet."""
        from botocore.exceptions import ClientError

        last: ClientError | None = None
        for _ in polls(time.monotonic() + self._settings.call_timeout):
            try:
                change()
            except ClientError as error:
                if not (is_missing(error) and "configuration" in str(error)):
                    raise
                last = error
            else:
                return
        if last is not None:
            raise last

    def busy(self, name: str, slot: str, live: Endpoint | None) -> BusyError:
        """The error for a change by somebody else that is still running."""
        doing = f"{live.status} {live.pending}".strip() if live is not None else "being changed"
        return BusyError(
            f"endpoint {name} is {doing} by somebody else; slot {slot} has to wait",
            cloud=self._cloud,
            hint=f"try again when `aws sagemaker describe-endpoint --endpoint-name {name}` says InService",
        )

    def _late(self, name: str, slot: str, status: str) -> RetryLaterError:
        return RetryLaterError(
            f"endpoint {name} is still {status or 'not visible'} and does not show the change for slot {slot}",
            cloud=self._cloud,
            hint=f"asking again joins it; look at `aws sagemaker describe-endpoint --endpoint-name {name}`",
        )
