"""boto3 clients, each made once and shared by all threads, and the pace of polling."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from lockstep.clouds.sagemaker.settings import SageMakerSettings

ATTEMPTS: Final = 2  # one repetition inside the SDK: a verb on a dead cloud ends within two time-outs
_SHARED: Final[dict[str, Any]] = {}
_SHARED_LOCK: Final = threading.Lock()


class Clients:
    """The AWS services that the adapter asks; nothing is imported or opened before the first use."""

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def sagemaker(self) -> Any:
        """Control plane."""
        return self._client("sagemaker")

    @property
    def runtime(self) -> Any:
        """Predictions."""
        return self._client("sagemaker-runtime")

    @property
    def cloudwatch(self) -> Any:
        """Metrics."""
        return self._client("cloudwatch")

    @property
    def logs(self) -> Any:
        """Containers' logs."""
        return self._client("logs")

    @property
    def s3(self) -> Any:
        """The store, where one object is looked at."""
        return self._client("s3")

    @property
    def sts(self) -> Any:
        """Who is asking."""
        return self._client("sts")

    @property
    def iam(self) -> Any:
        """What whoever asks is allowed."""
        return self._client("iam")

    @property
    def session(self) -> Any:
        """The boto3 session that all clients share."""
        with self._lock:
            return self._session()

    def _session(self) -> Any:
        if "" not in self._made:
            import boto3

            given = self._settings  # an empty field of a form counts as not given
            secret, token = given.secret_access_key, given.session_token
            self._made[""] = boto3.session.Session(
                botocore_session=_botocore_session(),
                region_name=given.region,
                profile_name=given.profile or None,
                aws_access_key_id=given.access_key_id or None,
                aws_secret_access_key=(secret.get_secret_value() or None) if secret else None,
                aws_session_token=(token.get_secret_value() or None) if token else None,
            )
        return self._made[""]

    def _client(self, service: str) -> Any:
        found = self._made.get(service)
        if found is not None:
            return found
        with self._lock:  # a session is not thread-safe while it makes a client; the client is
            if service not in self._made:
                from botocore.config import Config

                timeout = self._settings.call_timeout
                config = Config(
                    connect_timeout=timeout / 2,
                    read_timeout=timeout,
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    tcp_keepalive=True,
                    max_pool_connections=32,
                )
                self._made[service] = self._session().client(
                    service, endpoint_url=self._settings.endpoint_url or None, config=config
                )
            return self._made[service]


def _botocore_session() -> Any:
    """A session of its own with shared service descriptions: reading SageMaker's takes half a second."""
    import botocore.session

    session = botocore.session.get_session()
    with _SHARED_LOCK:
        loader = _SHARED.setdefault("data_loader", session.get_component("data_loader"))
    session.register_component("data_loader", loader)
    return session


def polls(deadline: float) -> Iterator[None]:
    """Yield at once, every 0.1 s for a second and then every second, until `deadline` (`time.monotonic` seconds)."""
    began = time.monotonic()
    while True:
        yield
        now = time.monotonic()
        if now >= deadline:
            return
        time.sleep(min(0.1 if now - began < 1.0 else 1.0, deadline - now))
