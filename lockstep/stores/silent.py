"""The registry of an MLflow that was found silent: says so at once, instead of waiting for it again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from lockstep.errors import UnreachableError
from lockstep.stores.mlflow_rest import Names
from lockstep.stores.registry import Registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")


class SilentRegistry(Registry):
    """Every call raises UnreachableError with `why`; `registry` is the one that did not answer."""

    def __init__(self, registry: Registry, why: str) -> None:
        super().__init__(registry.tracking_uri, registry.timeout)
        self.why = why

    @cached_property
    def client(self) -> MlflowClient:
        """There is none."""
        self._refuse()

    def named(self, call: Callable[[Names], T]) -> T:
        """See MlflowServer."""
        self._refuse()

    def folder_names(self, uri: str, action: str) -> tuple[tuple[str, bool], ...]:
        """See MlflowServer."""
        self._refuse()

    def download(self, uri: str, scratch: Path, action: str) -> Path:
        """See MlflowServer."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnreachableError(f"MLflow at {self.address} is not asked again: {self.why}")
