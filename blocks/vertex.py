"""Block of Google Vertex AI."""

from __future__ import annotations

from typing import Annotated, ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl

from blocks.settings import BLOCK_CONFIG, DOCUMENTATION, SchemaOnce, logo, plain
from lockstep.clouds.vertex import Vertex, VertexSettings


class VertexCloud(VertexSettings, SchemaOnce, Block):
    """One Google Cloud project and region where models serve on Vertex AI endpoints.

    Example:
        Ask the cloud what serves:
        ```python
        from blocks import VertexCloud

        cloud = VertexCloud.load("BLOCK_NAME")
        print(cloud.connect().observe("tumour"))
        ```
    """

    model_config: ClassVar[ConfigDict] = BLOCK_CONFIG

    _block_type_name = "Lockstep Vertex Cloud"
    _block_type_slug = "lockstep-vertex"
    _logo_url: ClassVar[HttpUrl | None] = logo("10424e311932e31c477ac2b9ef3d53cefbaad708-250x250")
    _documentation_url: ClassVar[HttpUrl | None] = DOCUMENTATION

    cloud_name: Annotated[
        str, Field(min_length=1, description="What fleets, tables and the ledger call this cloud.")
    ] = "gcp"

    def settings(self) -> VertexSettings:
        """The same values without Prefect, as lockstep.yaml holds them."""
        return plain(VertexSettings, self)

    def connect(self, name: str = "") -> Vertex:
        """The adapter, called `name` or else `cloud_name`. Opens no connection yet."""
        return self.settings().connect(name or self.cloud_name)
