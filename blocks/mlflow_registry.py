"""Block of the MLflow server that says which versions there are and which should serve."""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, HttpUrl

from blocks.settings import BLOCK_CONFIG, DOCUMENTATION, SchemaOnce, logo, plain
from lockstep.config import MlflowSettings
from lockstep.stores.registry import Registry


class MlflowRegistry(MlflowSettings, SchemaOnce, Block):
    """The MLflow server whose registry is the canonical store of versions and aliases.

    Example:
        Read which version should serve:
        ```python
        from blocks import MlflowRegistry

        registry = MlflowRegistry.load("BLOCK_NAME")
        print(registry.connect().desired("tumour").champion)
        ```
    """

    model_config: ClassVar[ConfigDict] = BLOCK_CONFIG

    _block_type_name = "Lockstep MLflow Registry"
    _block_type_slug = "lockstep-mlflow"
    _logo_url: ClassVar[HttpUrl | None] = logo("14a315b79990200db7341e42553e23650b34bb96-250x250")
    _documentation_url: ClassVar[HttpUrl | None] = DOCUMENTATION

    def settings(self) -> MlflowSettings:
        """The same values without Prefect, as lockstep.yaml holds them."""
        return plain(MlflowSettings, self)

    def connect(self) -> Registry:
        """The registry. Opens no connection yet."""
        return Registry(self.tracking_uri, self.timeout)
