"""How a block is one of Lockstep's settings, and gives it back."""

from __future__ import annotations

import copy
from typing import Any, Final, TypeVar

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, HttpUrl

S = TypeVar("S", bound=BaseModel)

#: Prefect puts keys of its own into a saved block, and a block saved by an older release may have a field too many:
#: neither may keep a rollback from loading it.
BLOCK_CONFIG: Final = ConfigDict(extra="ignore", frozen=False)
DOCUMENTATION: Final = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")


_schemas: dict[tuple[object, ...], dict[str, Any]] = {}


class SchemaOnce:
    """For a block: its JSON schema is made once a process. Prefect asks for it anew for each field that it saves."""

    @classmethod
    def model_json_schema(cls, *given: Any, **named: Any) -> dict[str, Any]:
        """As Block's."""
        key = (cls, given, *sorted(named.items()))
        if key not in _schemas:
            _schemas[key] = super().model_json_schema(*given, **named)  # type: ignore[misc]  # it stands before Block
        return copy.deepcopy(_schemas[key])


def logo(path: str) -> HttpUrl:
    """A picture that only the browser fetches, from where Prefect keeps its own: its API refuses data: addresses."""
    return HttpUrl(f"https://cdn.sanity.io/images/3ugk85nk/production/{path}.png")


def plain(settings: type[S], block: Block) -> S:
    """The block's values as plain settings, without anything of Prefect's."""
    return settings.model_validate({name: getattr(block, name) for name in settings.model_fields})
