"""How a block is one of Lockstep's settings, and gives it back."""

from __future__ import annotations

from typing import Final, TypeVar

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, HttpUrl

S = TypeVar("S", bound=BaseModel)

#: Prefect puts keys of its own into a saved block, and a block saved by an older release may have a field too many:
#: neither may keep a rollback from loading it.
BLOCK_CONFIG: Final = ConfigDict(extra="ignore", frozen=False)
DOCUMENTATION: Final = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")


def logo(path: str) -> HttpUrl:
    """A picture that only the browser fetches, from where Prefect keeps its own: its API refuses data: addresses."""
    return HttpUrl(f"https://cdn.sanity.io/images/3ugk85nk/production/{path}.png")


def plain(settings: type[S], block: Block) -> S:
    """The block's values as plain settings, without anything of Prefect's."""
    return settings.model_validate({name: getattr(block, name) for name in settings.model_fields})
