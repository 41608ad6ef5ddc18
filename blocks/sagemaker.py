"""Block of Amazon SageMaker."""

from __future__ import annotations

from typing import Annotated, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl

from blocks.settings import BLOCK_CONFIG, DOCUMENTATION, SchemaOnce, logo, plain
from lockstep.clouds.sagemaker import SageMaker, SageMakerSettings


class SageMakerCloud(SageMakerSettings, SchemaOnce, Block):
    """One AWS account and region where models serve on Amazon SageMaker endpoints.

    Example:
        Ask the cloud what serves:
        ```python
        from blocks import SageMakerCloud

        cloud = SageMakerCloud.load("BLOCK_NAME")
        print(cloud.connect().observe("tumour"))
        ```
    """

    model_config: ClassVar[ConfigDict] = BLOCK_CONFIG

    _block_type_name = "Lockstep SageMaker Cloud"
    _block_type_slug = "lockstep-sagemaker"
    _logo_url: ClassVar[HttpUrl | None] = logo("d74b16fe84ce626345adf235a47008fea2869a60-225x225")
    _documentation_url: ClassVar[HttpUrl | None] = DOCUMENTATION

    cloud_name: Annotated[
        str, Field(min_length=1, description="What fleets, tables and the ledger call this cloud.")
    ] = "aws"

    def settings(self) -> SageMakerSettings:
        """The same values without Prefect, as lockstep.yaml holds them."""
        return plain(SageMakerSettings, self)

    def connect(self, name: str = "") -> SageMaker:
        """The adapter, called `name` or else `cloud_name`. Opens no connection yet."""
        return self.settings().connect(name or self.cloud_name)
