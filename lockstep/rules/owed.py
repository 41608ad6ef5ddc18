"""What MLflow could not be told when it was decided, and is still to be told.

- Whoever decides while MLflow does not answer leaves `mlflow.owed` in the ledger before anything follows from it.
- The newest decision wins: a debt about an alias ends with the next move that MLflow was told of, one about a tag with
  the next that sets or lifts it.
- `mlflow.settled` names what was written since, or never can be, since the version is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.rules.amending import pointed, tagged
from lockstep.rules.deeds import Line, in_order, mapping, text, texts
from lockstep.rules.known_good import ENDED
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, ModelRecord, Version
from lockstep.rules.switch import Ending


@dataclass(frozen=True)
class OwedAlias:
    """The alias should point at the version; None: it should not be there."""

    alias: str
    version: Version | None

    def __str__(self) -> str:
        return f"alias {self.alias} -> {self.version or 'nothing'}"


@dataclass(frozen=True)
class OwedTag:
    """The version should carry the tag."""

    version: Version
    key: str
    value: str

    def __str__(self) -> str:
        return f"tag {self.key} of {self.version}"


Debt = OwedAlias | OwedTag


def amended(record: ModelRecord, debts: Sequence[Debt]) -> ModelRecord:
    """What MLflow will say once it was told."""
    for debt in debts:
        if isinstance(debt, OwedAlias):
            record = pointed(record, debt.alias, debt.version)
        else:
            record = tagged(record, debt.version, debt.key, debt.value)
    return record


def as_body(debt: Debt) -> Mapping[str, str]:
    """A debt as the ledger has it."""
    version = debt.version
    named = {} if version is None else {"version": version.label, "digest": version.digest, "run_id": version.run_id}
    if isinstance(debt, OwedAlias):
        return {"alias": debt.alias, **named}
    return {"tag": debt.key, "value": debt.value, **named}


def read_debts(model: str, body: Mapping[str, object], key: str) -> tuple[Debt, ...]:
    """The debts that an entry's body lists under `key`; what is none is passed over."""
    listed = body.get(key)
    found = [_read(model, one) for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return tuple(debt for debt in found if debt is not None)


def outstanding(model: str, lines: Sequence[Line]) -> tuple[Debt, ...]:
    """What MLflow is owed by a model's entries, oldest first."""
    debts: dict[tuple[str, str], tuple[Debt, str]] = {}  # by what it is about, with the operation that owes it
    for line in in_order(lines):
        operation = text(line.body, "within")
        if line.kind == "mlflow.owed":
            for debt in read_debts(model, line.body, "owed"):
                debts.pop(_about(debt), None)
                debts[_about(debt)] = debt, operation
        elif line.kind == "mlflow.settled":
            for debt in (*read_debts(model, line.body, "settled"), *read_debts(model, line.body, "impossible")):
                if debts.get(_about(debt), (None, ""))[0] == debt:
                    del debts[_about(debt)]
        else:
            over = _ended_by(line)
            own = text(line.body, "intent")
            debts = {key: (debt, by) for key, (debt, by) in debts.items() if key not in over or by == own}
    return tuple(debt for debt, _ in debts.values())


def _ended_by(line: Line) -> set[tuple[str, str]]:
    """What an operation that ended has decided anew; what it could not tell MLflow itself it owes itself."""
    body = line.body
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    if line.kind == "promote.outcome" and not text(body, "error"):
        aliases = (CHAMPION, CHALLENGER, FALLBACK)
    elif line.kind == "rollback.outcome" and text(body, "ending") in ENDED:
        aliases = (CHAMPION, CHALLENGER, *([FALLBACK] if text(body, "ending") == Ending.DONE else []))
        tags = tuple(mapping(body, "condemned"))
    elif line.kind == "condemn.outcome" and not text(body, "error"):
        tags = tuple(mapping(body, "condemned"))
    elif line.kind == "lift.outcome" and not text(body, "error"):
        tags = texts(body, "lifted")
    return {("", alias) for alias in aliases} | {(digest, CONDEMNED_TAG) for digest in tags}


def _about(debt: Debt) -> tuple[str, str]:
    return ("", debt.alias) if isinstance(debt, OwedAlias) else (debt.version.digest, debt.key)


def _read(model: str, body: Mapping[str, object]) -> Debt | None:
    label, digest = text(body, "version"), text(body, "digest")
    version = Version(model, label, digest, text(body, "run_id")) if label.isdecimal() and digest else None
    if text(body, "alias"):
        return OwedAlias(text(body, "alias"), version)
    if text(body, "tag") and version is not None:
        return OwedTag(version, text(body, "tag"), text(body, "value"))
    return None
