"""MLflow's aliases as operations change them: never by one that has been overtaken."""

from __future__ import annotations

from lockstep.operations.fencing import check
from lockstep.operations.fleet import Fleet
from lockstep.rules.state import Version


def set_alias(fleet: Fleet, version: Version, alias: str) -> None:
    """Point the alias at the version; raises OvertakenError when another operation writes now."""
    check(fleet.model)
    fleet.registry.set_alias(version, alias)


def delete_alias(fleet: Fleet, alias: str) -> None:
    """Remove the alias, if it is there; raises OvertakenError when another operation writes now."""
    check(fleet.model)
    fleet.registry.delete_alias(fleet.model, alias)
