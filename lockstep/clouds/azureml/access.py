"""Credentials and trusted certificates, the same for every client of one workspace."""

from __future__ import annotations

import atexit
import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from lockstep.clouds.azureml.settings import AzureMLSettings

_LOCK: Final = threading.Lock()


class Access:
    """How every client of the workspace identifies itself and whom it trusts."""

    def __init__(self, name: str, settings: AzureMLSettings) -> None:
        self.name: Final = name
        self.settings: Final = settings
        self._lock = threading.Lock()
        self._credential: TokenCredential | None = None

    @property
    def verify(self) -> bool | str:
        """What `connection_verify` (azure-core) and `verify` (requests) take."""
        if self.settings.ca_file is None:
            return True
        with self._readable_ca(), _LOCK:
            return trust_bundle(self.settings.ca_file)

    @property
    def root_certificate(self) -> str | None:
        """What obstore takes to trust in addition."""
        if self.settings.ca_file is None:
            return None
        with self._readable_ca():
            return Path(self.settings.ca_file).read_text()

    @contextlib.contextmanager
    def _readable_ca(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"the CA certificate cannot be read: {error}", cloud=self.name, hint="correct ca_file"
            ) from error

    def transport_options(self) -> dict[str, Any]:
        """Keyword arguments that bound every call of an azure-core client to about twice `call_timeout`."""
        timeout = self.settings.call_timeout
        return {
            "connection_timeout": min(timeout, 5.0),
            "read_timeout": timeout,
            "connection_verify": self.verify,
            "retry_total": 1,
            "retry_backoff_max": 1,
        }

    def credential(self) -> TokenCredential:
        """The service principal if one is configured, else Azure's default chain."""
        with self._lock:
            if self._credential is None:
                self._credential = self._make_credential()
            return self._credential

    def _make_credential(self) -> TokenCredential:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        settings, options = self.settings, self.transport_options()
        if settings.authority is not None:
            # Asking the public cloud whether the authority is genuine would need the public cloud.
            options.update(authority=settings.authority, disable_instance_discovery=True)
        if settings.client_secret is not None and settings.tenant_id and settings.client_id:
            secret = settings.client_secret.get_secret_value()
            return ClientSecretCredential(settings.tenant_id, settings.client_id, secret, **options)
        if settings.client_id is not None:
            options.update(
                managed_identity_client_id=settings.client_id, workload_identity_client_id=settings.client_id
            )
        return DefaultAzureCredential(process_timeout=max(1, round(settings.call_timeout)), **options)


@functools.cache
def trust_bundle(ca_file: str) -> str:
    """Path of a file with the public certificates and those of `ca_file`: the clients replace, we want to add."""
    import certifi

    both = Path(certifi.where()).read_bytes() + b"\n" + Path(ca_file).read_bytes()
    with tempfile.NamedTemporaryFile(prefix="lockstep-ca-", suffix=".pem", delete=False) as bundle:
        bundle.write(both)
    atexit.register(Path(bundle.name).unlink, missing_ok=True)
    return bundle.name
