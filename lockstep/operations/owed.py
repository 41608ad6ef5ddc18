"""Tell MLflow what it could not be told when it was decided; see `rules/owed.py`."""

from __future__ import annotations

from typing import Final

from lockstep.errors import DigestMismatchError, NotFoundError
from lockstep.operations.aliases import delete_alias, set_alias
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import note
from lockstep.operations.lease import writing
from lockstep.rules.owed import Debt, OwedAlias, as_body, outstanding

#: Entries that end a debt, and how many of each are read.
DECIDE: Final = ("promote.outcome", "rollback.outcome", "condemn.outcome", "lift.outcome")
LAST: Final = 200


def owed(fleet: Fleet) -> tuple[Debt, ...]:
    """What MLflow is owed of this model, oldest first, by the ledger; one small query when there was never anything."""
    lines = fleet.ledger.entries(fleet.model, "mlflow.", last=LAST)
    if not lines:
        return ()
    lines += tuple(entry for kind in DECIDE for entry in fleet.ledger.entries(fleet.model, kind, last=LAST))
    return outstanding(fleet.model, lines)


def settle(fleet: Fleet) -> tuple[Debt, ...]:
    """Write what MLflow is owed; returns that. Killed half-way it is written again, which changes nothing.

    What never can be written, since the version is gone from MLflow, is noted so and not owed any longer. Raises
    LockstepError when MLflow does not answer, BusyError while another operation changes the model.
    """
    if not owed(fleet):
        return ()
    with writing(fleet, "settle"):
        debts = owed(fleet)
        settled: list[Debt] = []
        impossible: dict[Debt, str] = {}
        try:
            for debt in debts:
                try:
                    write(fleet, debt)
                    settled.append(debt)
                except (NotFoundError, DigestMismatchError) as error:
                    impossible[debt] = error.problem
                    fleet.say(f"MLflow can never be told ({debt}): {error.problem}")
        finally:
            if settled or impossible:
                body = {"settled": [as_body(debt) for debt in settled]}
                body["impossible"] = [{**as_body(debt), "why": why} for debt, why in impossible.items()]
                note(fleet, "mlflow.settled", body)
        fleet.say(f"MLflow was told what it was owed: {'; '.join(map(str, settled)) or 'nothing'}")
    return tuple(settled)


def write(fleet: Fleet, debt: Debt) -> None:
    """Tell MLflow one thing; raises OvertakenError for an alias when another operation writes now."""
    if not isinstance(debt, OwedAlias):
        fleet.registry.tag(debt.version, debt.key, debt.value)
    elif debt.version is None:
        delete_alias(fleet, debt.alias)
    else:
        set_alias(fleet, debt.version, debt.alias)
