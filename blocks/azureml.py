"""Block of Azure Machine Learning."""

from __future__ import annotations

from typing import Annotated, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl

from blocks.settings import BLOCK_CONFIG, DOCUMENTATION, SchemaOnce, logo, plain
from lockstep.clouds.azureml import AzureML, AzureMLSettings


class AzureMLCloud(AzureMLSettings, SchemaOnce, Block):
    """One Azure Machine Learning workspace where models serve on managed online endpoints.

    Example:
        Ask the cloud what serves:
        ```python
        from blocks import AzureMLCloud

        cloud = AzureMLCloud.load("BLOCK_NAME")
        print(cloud.connect().observe("tumour"))
        ```
    """

    model_config: ClassVar[ConfigDict] = BLOCK_CONFIG

    _block_type_name = "Lockstep Azure ML Cloud"
    _block_type_slug = "lockstep-azureml"
    _logo_url: ClassVar[HttpUrl | None] = logo("54e3fa7e00197a4fbd1d82ed62494cb58d08c96a-250x250")
    _documentation_url: ClassVar[HttpUrl | None] = DOCUMENTATION

    cloud_name: Annotated[
        str, Field(min_length=1, description="What fleets, tables and the ledger call this cloud.")
    ] = "azure"

    def settings(self) -> AzureMLSettings:
        """The same values without Prefect, as lockstep.yaml holds them."""
        return plain(AzureMLSettings, self)

    def connect(self, name: str = "") -> AzureML:
        """The adapter, called `name` or else `cloud_name`. Opens no connection yet."""
        return self.settings().connect(name or self.cloud_name)
